"""The commands of docs/guide-containers.md, as the guide has them: one coordinator and one silo, each in a folder.

Each block names its step here in its mark; the tests go on from each other, in their order. Names of images and of the
project are this test's own; `sudo` is a container whose user is root; `docker compose` is docker-compose 1.29, which is
told that nobody sits at a terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import ROOT, Container, awaited, docker
from tests.documents.compare import require_shown
from tests.documents.marks import RunElsewhere, blocks_of
from tests.documents.shell import Shell, free_port
from tests.support.credentials import Consortium

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

BASE = "python:3.11-slim-bookworm"
PROJECT = "consilo-guide-test"
PROGRAM = Path(sys.executable).parent / "consilo"
GUIDE = ROOT / "docs" / "guide-containers.md"
HERE = "tests/containers/test_guide.py"
IN_PLACE = {
    "consilo-coordinator:": f"{PROJECT}-coordinator:",
    "consilo-participant:": f"{PROJECT}-participant:",
    '"--extra-index-url INDEX"': '"$PIP_ARGS"',
    " .\n": f" {ROOT}\n",
    "-f Dockerfile.": f"-f {ROOT}/Dockerfile.",
    "git rev-parse": f"git -C {ROOT} rev-parse",
    "PROJECT_data": f"{PROJECT}_data",
    "/srv/heart": "$PWD/rows",
    "docker exec CONTAINER": "docker exec $(docker-compose ps --quiet coordinator)",
    "docker compose run": "docker-compose run -T",
    "docker compose exec": "docker-compose exec -T",
    "docker compose": "docker-compose",
}
SUDO = f"""
sudo() {{ docker run --rm --pull never --network none --volume "$PWD:$PWD" --workdir "$PWD" {BASE} "$@"; }}
"""
# With the keys that were made in the image: signed, and given back to user 10001 by the guide's next commands.
SIGN = f"""
sudo chown -R {os.getuid()}:{os.getgid()} credentials
request=credentials/request.pem
{PROGRAM} pki sign "$AUTHORITY" participant hospital-b $request --out credentials \\
  --sha256 "$(sha256sum $request | cut -c1-64)"
{PROGRAM} pki manifest "$AUTHORITY" > /dev/null
mkdir config tasks rows
cp "$AUTHORITY/consortium.json" config
cp "$EXAMPLE"/heart_*.py tasks
python3 "$EXAMPLE/make_rows.py" 1 100 > rows/patients.csv
"""
TASK = """[tasks.heart]
entry = "heart_task:HeartTask"
options = { csv = "/srv/data/patients.csv" }
"""


class Reader:
    """Somebody who types what the guide shows."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell = shell
        self.folder = folder
        self._blocks = {
            block.mark.text: block
            for block in blocks_of(GUIDE)
            if isinstance(block.mark, RunElsewhere) and block.mark.path == HERE
        }

    def types(self, step: str, *, fails: bool = False) -> str:
        """What the commands of a block say; all of them end well, or none does."""
        told = ""
        for command in self._blocks[step].commands():
            typed = f"{command.typed}\n"
            for old, new in IN_PLACE.items():
                typed = typed.replace(old, new)
            code, said = self.shell.run_one(typed)
            assert (code != 0) is fails, f"{command.typed}\n{said}"
            require_shown(command.shown, said)
            told += said
        return told

    def container(self, service: str) -> Container:
        code, said = self.shell.run_one(f"docker-compose ps --quiet {service}")
        assert code == 0, said
        return Container(said.strip())

    def await_health(self, service: str) -> None:
        awaited(f"{service} is healthy", lambda: self.container(service).health == "healthy", limit_s=300)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader(tmp_path_factory.mktemp("operator"), "coordinator", PROJECT)


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader(tmp_path_factory.mktemp("silo"), "participant", f"{PROJECT}-silo")


def reader(home: Path, side: str, name: str) -> Iterator[Reader]:
    """At a shell in a folder that has the compose file of that side and nothing else."""
    folder = home / "folder"
    folder.mkdir()
    (folder / "docker-compose.yml").write_bytes((ROOT / f"deploy/compose/{side}/docker-compose.yml").read_bytes())
    more = {name: value for name, value in os.environ.items() if name.startswith(("DOCKER_", "PIP_"))}
    environment = {"PIP_ARGS": "", "PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "COLUMNS": "138"}
    example = {"EXAMPLE": str(ROOT / "examples" / "tabular_script")}
    project = {"COMPOSE_PROJECT_NAME": name, "CONSILO_LISTEN": f"127.0.0.1:{free_port()}"}
    with Shell(folder, {**environment, **example, **project, **more}) as shell:
        shell.run(SUDO)
        try:
            yield Reader(shell, folder)
        finally:
            # Whoever runs this need not be able to remove what user 10001 owns.
            shell.run_one(f"docker-compose down --volumes; sudo chown -R {os.getuid()}:{os.getgid()} .")


def test_images_are_built_and_say_what_is_inside(operator: Reader) -> None:
    operator.types("build")


def test_a_coordinator_of_ones_own(operator: Reader, consortium: Consortium) -> None:
    folder = operator.folder / "config"
    consortium.participant("hospital-a")
    shutil.copytree(consortium.coordinator().folder, folder / "credentials")
    (folder / "consortium.json").write_bytes(consortium.manifest().path.read_bytes())
    (folder / "allowlist.toml").write_bytes(consortium.allowlist.read_bytes())
    text = (ROOT / "deploy/samples/coordinator.minimal.toml").read_text(encoding="utf-8")
    configured = text.replace('data_dir = "data"', 'data_dir = "/var/lib/consilo"\nlisten = "0.0.0.0:8443"')
    (folder / "coordinator.toml").write_text(configured, encoding="utf-8")
    operator.types("own-coordinator")
    operator.await_health("coordinator")
    assert "live, not ready" in operator.types("own-health", fails=True)
    operator.types("labels")


def test_it_is_backed_up_restored_and_upgraded(operator: Reader) -> None:
    operator.types("back-up")
    operator.types("restore")
    operator.await_health("coordinator")
    docker("tag", f"{PROJECT}-coordinator:0.2.0", f"{PROJECT}-coordinator:0.3.0")
    operator.types("upgrade")
    operator.await_health("coordinator")
    assert operator.container("coordinator").inspect()["Config"]["Image"] == f"{PROJECT}-coordinator:0.3.0"


def test_an_image_is_carried_over(operator: Reader) -> None:
    operator.types("save")
    assert f"{PROJECT}-coordinator:0.2.0" in operator.types("load")


def test_a_silo_of_ones_own(silo: Reader, consortium: Consortium) -> None:
    authority = consortium.folder / "authority"
    silo.shell.run("mkdir credentials; sudo chown 10001:10001 credentials\n")
    silo.types("own-keys")
    silo.shell.run(f"AUTHORITY={authority}\n{SIGN}")
    text = (ROOT / "deploy/samples/participant.minimal.toml").read_text(encoding="utf-8").partition("[tasks.heart]")[0]
    manifest = consortium.manifest()
    pinned = text.replace("0" * 64, str(manifest.consortium.digest)).replace('"hospital-a"', '"hospital-b"')
    (silo.folder / "config" / "participant.toml").write_text(
        pinned.replace('data_dir = "data"', 'data_dir = "/var/lib/consilo"') + TASK, encoding="utf-8"
    )
    silo.types("own-silo")
    silo.await_health("participant")
