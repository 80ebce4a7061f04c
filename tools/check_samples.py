"""Every sample that a reader may copy is one that Consilo reads: deploy/samples/*.toml and examples/*/job.toml."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel

from coordinator.client.job_file import load_job_file
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config
from shared.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

# A sample's file name begins with whose configuration it is.
MODELS: dict[str, type[BaseModel]] = {
    "coordinator": CoordinatorSettings,
    "operator": OperatorSettings,
    "participant": ParticipantSettings,
}


def main() -> int:
    complaints = []
    samples = sorted((ROOT / "deploy").rglob("*.toml"))
    configurations = [path for path in samples if not path.name.startswith("job.")]
    jobs = sorted({*samples} - {*configurations}) + sorted((ROOT / "examples").rglob("job.toml"))
    for read, paths in ((read_configuration, configurations), (read_job, jobs)):
        for path in paths:
            try:
                read(path)
            except ConfigError as error:
                complaints.append(str(error))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not configurations or not jobs:
        print("no samples found: were they moved?", file=sys.stderr)
        return 1
    return 1 if complaints else 0


def read_configuration(path: Path) -> None:
    whose = path.name.partition(".")[0]
    if whose not in MODELS:
        raise ConfigError(f"{path}: a sample's name begins with one of {', '.join(MODELS)}")
    load_config(path, MODELS[whose], environment={})


def read_job(path: Path) -> None:
    """A job names its initial model by file; any bytes stand for it here."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(path, folder))
        (Path(folder) / "initial.safetensors").write_bytes(b"model")
        load_job_file(copy)


if __name__ == "__main__":
    raise SystemExit(main())
