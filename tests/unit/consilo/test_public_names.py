from __future__ import annotations

import subprocess
import sys

import pytest

import consilo
from participant.tasks import interface


def test_importing_consilo_and_the_interface_needs_no_torch_and_no_house() -> None:
    script = (
        "import sys, consilo\n"
        "assert not any(name.split('.')[0] in ('torch', 'participant', 'coordinator') for name in sys.modules)\n"
        "from consilo import EvaluateResult, Round, Task, TrainResult, __version__\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names_are_those_of_the_interface() -> None:
    assert consilo.Task is interface.Task
    assert consilo.Round is interface.Round
    assert consilo.TrainResult is interface.TrainResult
    assert consilo.EvaluateResult is interface.EvaluateResult
    assert consilo.__version__[0].isdigit()
    assert dir(consilo) == sorted(consilo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        _ = consilo.Tusk
