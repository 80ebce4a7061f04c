"""What a data scientist imports: `from consilo import EvaluateResult, Round, Task, TrainResult`.

Names are looked up when they are used: `import consilo` costs nothing and needs neither torch nor a participant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from participant.tasks.interface import EvaluateResult, Round, Task, TrainResult

    __version__: str

__all__ = ["EvaluateResult", "Round", "Task", "TrainResult", "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("consilo")
    if name in __all__:
        from participant.tasks import interface

        return getattr(interface, name)
    raise AttributeError(f"module 'consilo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
