"""Write shared/pb/v1 from protos/, or say what is stale (`--check`).

`make protos` runs it. Generated code is committed, so that installing Consilo needs no compiler.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("shared/pb/v1")


def generate(into: Path) -> None:
    sources = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos" / PACKAGE).glob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{well_known}",
        f"--python_out={into}",
        f"--pyi_out={into}",
        f"--grpc_python_out={into}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed; see its message above")


def check() -> int:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in (Path(folder) / PACKAGE).iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*")}
    stale = sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))
    if stale:
        print(f"generated code is stale ({', '.join(stale)}): run `make protos` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        raise SystemExit(check())
    generate(ROOT)
