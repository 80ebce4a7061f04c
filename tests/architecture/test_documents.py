"""What the documents promise a reader: links that lead somewhere, and configurations that parse."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from coordinator.client.job_file import JobFile
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "protos/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

# Which file a block of TOML is, by a table or key that only that file has.
KINDS: dict[str, type[BaseModel]] = {
    "participant": ParticipantSettings,
    "coordinator": CoordinatorSettings,
    "operator": OperatorSettings,
    "rounds": JobFile,
}


def anchors_of(document: Path) -> set[str]:
    """The anchors that a hosting site makes of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of_toml() -> list[tuple[str, type[BaseModel], str]]:
    """(document, what it is, text) of every block that is a whole file."""
    found = []
    for document in DOCUMENTS:
        for text in re.findall(r"^```toml\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            keys = tomllib.loads(text).keys()
            found += [(document.name, model, text) for key, model in KINDS.items() if key in keys]
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize(
    ("model", "text"),
    [(model, text) for _, model, text in blocks_of_toml()],
    ids=[f"{name}-{model.__name__}" for name, model, _ in blocks_of_toml()],
)
def test_configurations_in_documents_parse(model: type[BaseModel], text: str, tmp_path: Path) -> None:
    path = tmp_path / "from-document.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path, model, environment={})


def test_the_blocks_were_found() -> None:
    assert {model for _, model, _ in blocks_of_toml()} >= {ParticipantSettings, OperatorSettings, JobFile}
