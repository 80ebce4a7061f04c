"""The walls of the house: who may import whom, and how large a module may grow.

The rules are tables. `complaints` reads one module against all of them, from its syntax tree, so that lazy imports,
imports for types only and `importlib.import_module("...")` count like any other. Each rule has a planted violation
below that it has to catch: a rule that nothing can break would be no rule.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("consilo", "coordinator", "participant", "shared")

_ROOMS = ("schema", "migrations", "database", "sql", "copying", "beside")
SQL_ROOMS = tuple(f"coordinator.storage.{room}" for room in _ROOMS)

# What only some modules may import. A pattern also means what is below it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "coordinator": ("coordinator", "consilo"),
    "participant": ("participant", "consilo"),
    "consilo": ("consilo",),  # and users' tasks, tests, examples and benchmarks, which are not ours
    "shared.pb": ("shared.pb", "shared.wire", "*.rpc"),
    "grpc": ("*.rpc", "shared.tls", "shared.pb"),
    "grpc_health": ("*.rpc",),
    "torch": ("participant.tasks", "consilo.demo.task", "consilo.demo.baselines"),  # the demo's are a user's code
    "prometheus_client": ("*.metrics", "*.app", "shared.exposition"),
    # Some rooms know SQL: the tables, how an older file gets them, the one connection, the verbs over it, copies of the
    # file, and reading it beside its owner.
    "sqlalchemy": SQL_ROOMS,
    "sqlite3": ("participant.journal", "participant.journal_file", "participant.journal_schema", *SQL_ROOMS),
    # Keys are derived in one module, and agreed on in another: what a reviewer has to read is all there is.
    "cryptography.hazmat.primitives.kdf": ("shared.secagg.transcript",),
    "cryptography.hazmat.primitives.asymmetric.x25519": ("shared.secagg.keys",),
    "cryptography.hazmat.primitives.ciphers": ("shared.secagg.masking", "shared.secagg.sealing"),
    "pickle": (),
    "cloudpickle": (),
    "marshal": (),
    "shelve": (),
    "multiprocessing": (),
    "torch.load": (),  # it unpickles
}

# The pure core is told the time, the randomness and the outcome of every effect; it reaches for nothing.
PURE = (
    "coordinator.round.answers",
    "coordinator.round.attempts",
    "coordinator.round.effects",
    "coordinator.round.ending",
    "coordinator.round.exchanges",
    "coordinator.round.frame",
    "coordinator.round.gathering",
    "coordinator.round.journal",
    "coordinator.round.machine",
    "coordinator.round.members",
    "coordinator.round.phases",
    "coordinator.round.repeats",
    "coordinator.round.restore",
    "coordinator.round.timers",
    "coordinator.round.transition",
    "coordinator.readiness",
    "coordinator.retention",
    "coordinator.scheduler",
    "coordinator.cohort",
    "coordinator.aggregation",
    "participant.round.attempts",
    "participant.round.checks",
    "participant.round.effects",
    "participant.round.ending",
    "participant.round.exchanges",
    "participant.round.machine",
    "participant.round.masking",
    "participant.round.phases",
    "participant.round.transition",
    "participant.consent",
    "participant.protect",
    "participant.spooled",
    "shared.merkle",
    "shared.secagg",
)
# Rooms beside the machines that perform what these ask for. Whatever else lies in a `round` package is pure.
ACTING = (
    "coordinator.round.driver",
    "coordinator.round.recording",
    "coordinator.round.surroundings",
    "participant.round.driver",
    "participant.round.records",
    "participant.round.surroundings",
)
OUTSIDE = (
    "asyncio", "concurrent", "grpc", "logging", "os", "random", "secrets", "socket", "structlog", "subprocess",
    "threading", "time",
)  # fmt: skip
# Of our own packages, the pure core sees itself, values, and the contract of storage; everything else is an adapter.
PURE_SEES = (*PURE, "coordinator.storage.interface", "shared")
# Of masking, an outside reader reads these and nothing else: what they see beside the standard library.
SEES_NOTHING_BUT: dict[str, tuple[str, ...]] = {
    "shared.secagg": (
        "numpy", "cryptography", "shared.errors", "shared.hashing", "shared.ids", "shared.merkle", "shared.secagg",
        "shared.secret", "shared.update",
    ),
    "shared.merkle": ("shared.ids",),
}  # fmt: skip
SHARED_ADAPTERS = (
    "shared.clock", "shared.config", "shared.durable", "shared.entropy", "shared.http_server", "shared.http_tls",
    "shared.log", "shared.terminal", "shared.tls",
)  # fmt: skip

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
LONG_LINES = 300  # time to think of a wall
MOST_LINES = 500


@dataclass(frozen=True, slots=True)
class Module:
    """One file: its dotted name, its number of lines, and (line, what is imported or read from a module)."""

    name: str
    lines: int
    imports: tuple[tuple[int, str], ...]
    relative: tuple[int, ...]


def parse(name: str, source: str) -> Module:
    tree = ast.parse(source)
    imports = sorted(found for node in ast.walk(tree) for found in _imports(node))
    relative = sorted(node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level)
    return Module(name, source.count("\n"), tuple(imports), tuple(relative))


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import(names=names):
            yield from ((node.lineno, alias.name) for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            yield node.lineno, "torch.load"
        case _:
            pass


def complaints(module: Module) -> Iterator[str]:
    """Everything about one module that breaks a rule, as `module:line: what`."""
    for line, imported in module.imports:
        for target, allowed in ONLY_IN.items():
            if _below(imported, (target,)) and not _below(module.name, allowed):
                yield f"{module.name}:{line}: {target} only in {', '.join(allowed) or 'nothing'}"
        if _below(module.name, PURE) and not _pure_may_see(imported):
            yield f"{module.name}:{line}: the pure core does not import {imported}"
        for room, seen in SEES_NOTHING_BUT.items():
            standard = imported.partition(".")[0] in sys.stdlib_module_names
            if _below(module.name, (room,)) and not standard and not _below(imported, seen):
                yield f"{module.name}:{line}: {room} sees nothing but {', '.join(seen)}, not {imported}"
    yield from (f"{module.name}:{line}: a relative import" for line in module.relative)
    if module.lines > MOST_LINES:
        yield f"{module.name}: {module.lines} lines, more than {MOST_LINES}"
    if VAGUE_NAMES & set(module.name.split(".")):
        yield f"{module.name}: the name says nothing"


def _pure_may_see(imported: str) -> bool:
    if _below(imported, PACKAGES):
        return _below(imported, PURE_SEES) and not _below(imported, SHARED_ADAPTERS)
    return not _below(imported, OUTSIDE)


def _below(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def house() -> dict[str, Module]:
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = parse(name, path.read_text("utf-8"))
    return {name: module for name, module in modules.items() if not _below(name, ("shared.pb",))}


def cycle(modules: dict[str, Module]) -> list[str] | None:
    """Modules that import each other in a ring, if there are such."""
    graph = {
        name: {_owner(imported, modules) for _, imported in modules[name].imports} - {"", name} for name in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return None


def _owner(imported: str, modules: dict[str, Module]) -> str:
    """The module that a dotted name is, or is in; empty for a third party's."""
    while imported and imported not in modules:
        imported = imported.rpartition(".")[0]
    return imported


def test_every_module_keeps_the_rules() -> None:
    assert [line for module in house().values() for line in complaints(module)] == []


def test_no_ring_of_imports() -> None:
    assert cycle(house()) is None


@pytest.mark.filterwarnings("default:modules of more than:UserWarning")
def test_long_modules_are_named() -> None:
    long = [f"{module.name} ({module.lines})" for module in house().values() if module.lines > LONG_LINES]
    if long:
        warnings.warn(f"modules of more than {LONG_LINES} lines: {', '.join(long)}", stacklevel=1)


def test_every_named_room_exists() -> None:
    """A rule about a module that was renamed would hold nothing. What the demo and the metrics add may still come."""
    names = set(house())
    allowed = {room for rooms in ONLY_IN.values() for room in rooms if "*" not in room and room != "shared.pb"}
    seen = {room for rooms in SEES_NOTHING_BUT.values() for room in rooms if room.startswith("shared")}
    named = {*PURE, *ACTING, *SHARED_ADAPTERS, *SEES_NOTHING_BUT, *allowed, *seen, "coordinator.storage.interface"}
    assert named <= names


def test_every_room_of_a_round_is_pure_or_acts() -> None:
    """A new module beside a machine has to say which of the two it is."""
    rooms = {name for name in house() if _below(name, ("coordinator.round.*", "participant.round.*"))}
    assert rooms == {room for room in (*PURE, *ACTING) if ".round." in room}


PLANTED = {
    "shared imports a house": ("shared.job", "import coordinator.round.machine", "coordinator only in"),
    "a house imports the other": ("coordinator.app", "from participant import consent", "participant only in"),
    "the other way": ("participant.work", "def f():\n    from coordinator.cohort import x", "coordinator only in"),
    "a house imports consilo": ("participant.tasks.runner", "from consilo import Task", "consilo only in"),
    "generated code outside the wire": (
        "coordinator.registry",
        "from shared.pb.v1 import session_pb2",
        "shared.pb only in",
    ),
    "gRPC outside rpc": ("participant.work", "import grpc.aio", "grpc only in"),
    "gRPC beside rpc": ("coordinator.rpcs", "import grpc", "grpc only in"),
    "gRPC's health messages": (
        "coordinator.health",
        "from grpc_health.v1 import health_pb2",
        "grpc_health only in *.rpc",
    ),
    "torch in shared": ("shared.tensors", "import torch", "torch only in"),
    "torch in the coordinator": ("coordinator.aggregation.fold", "from torch import nn", "torch only in"),
    "torch elsewhere in the participant": ("participant.protect", "import torch.nn", "torch only in"),
    "torch for types only": (
        "shared.casts",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "torch only in",
    ),
    "torch by name": ("coordinator.app", "import importlib\nimportlib.import_module('torch')", "torch only in"),
    "metrics outside metrics": ("coordinator.conductor", "import prometheus_client", "prometheus_client only in"),
    "SQLAlchemy outside storage": ("coordinator.audit", "import sqlalchemy as sa", "sqlalchemy only in"),
    "SQLite in what it keeps": ("participant.journal_records", "import sqlite3", "sqlite3 only in"),
    "SQLite outside storage": ("participant.spool", "import sqlite3", "sqlite3 only in"),
    "pickle": ("participant.tasks.framing", "import pickle", "pickle only in nothing"),
    "marshal": ("participant.tasks.framing", "from marshal import loads", "marshal only in nothing"),
    "shelve": ("participant.journal", "import shelve", "shelve only in nothing"),
    "multiprocessing": ("participant.tasks.spawn", "from multiprocessing import Process", "multiprocessing only in"),
    "torch.load": ("participant.tasks.state_dict", "import torch\ntorch.load('x')", "torch.load only in nothing"),
    "torch.load by name": ("participant.tasks.state_dict", "from torch import load", "torch.load only in nothing"),
    **{
        f"the pure core imports {name}": (
            "coordinator.round.machine",
            f"def f():\n    import {name}",
            f"the pure core does not import {name}",
        )
        for name in OUTSIDE
    },
    "the pure core and storage": ("coordinator.cohort", "from coordinator.storage import sql", "the pure core"),
    "the pure core and its driver": ("participant.round.machine", "import participant.round.driver", "the pure core"),
    "the pure core and the clock": ("participant.consent", "from shared.clock import SystemClock", "the pure core"),
    "a machine's part and its driver": (
        "participant.round.masking",
        "from participant.round.driver import Driver",
        "the pure core",
    ),
    "an exchange and what records it": (
        "coordinator.round.exchanges",
        "from coordinator.round import recording",
        "the pure core",
    ),
    "masking and the clock": ("shared.secagg.keys", "import time", "the pure core does not import time"),
    "masking and chance": ("shared.secagg.sharing", "from secrets import token_bytes", "the pure core does not import"),
    "masking and where randomness comes from": ("shared.secagg.keys", "from shared.entropy import x", "the pure core"),
    "masking and the job": ("shared.secagg.threshold", "from shared.job import JobSpec", "shared.secagg sees nothing"),
    "masking and messages": (
        "shared.secagg.sealing",
        "from shared.protocol.messages import ShareKeys",
        "shared.secagg sees nothing but",
    ),
    "masking and another library": (
        "shared.secagg.fixed_point",
        "import scipy.stats",
        "shared.secagg sees nothing but",
    ),
    "the tree and masking": ("shared.merkle", "from shared.secagg import sealing", "shared.merkle sees nothing but"),
    "the tree and a library": ("shared.merkle", "import numpy", "shared.merkle sees nothing but"),
    "a key derived elsewhere": (
        "shared.secagg.masking",
        "from cryptography.hazmat.primitives.kdf.hkdf import HKDF",
        "cryptography.hazmat.primitives.kdf only in shared.secagg.transcript",
    ),
    "a key agreed elsewhere": (
        "participant.round.masking",
        "from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey",
        "x25519 only in shared.secagg.keys",
    ),
    "a cipher elsewhere": (
        "participant.protect",
        "from cryptography.hazmat.primitives.ciphers import Cipher",
        "ciphers only in shared.secagg.masking, shared.secagg.sealing",
    ),
    "a relative import": ("shared.job", "from . import ids", "a relative import"),
    "a relative import from above": ("shared.wire.session", "from ..ids import Digest", "a relative import"),
    "too long": ("shared.job", "x = 1\n" * (MOST_LINES + 1), "501 lines, more than 500"),
    "a vague module": ("shared.utils", "", "the name says nothing"),
    "a vague package": ("coordinator.common.names", "", "the name says nothing"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_violation_is_caught(what: str) -> None:
    name, source, complaint = PLANTED[what]
    assert complaint in "\n".join(complaints(parse(name, source)))


def test_a_planted_ring_is_caught() -> None:
    sources = {
        "shared.a": "from shared import b",
        "shared.b": "def f():\n    from shared.c import thing",
        "shared.c": "import shared.a",
        "shared": "",
    }
    ring = cycle({name: parse(name, source) for name, source in sources.items()})
    assert ring is not None
    assert set(ring) == {"shared.a", "shared.b", "shared.c"}


ALLOWED = {
    "the wire reads generated code": ("shared.wire.session", "from shared.pb.v1 import session_pb2 as pb"),
    "an rpc module dials": ("coordinator.client.rpc", "import grpc\nfrom shared.pb.v1 import session_pb2_grpc"),
    "an rpc package serves": ("coordinator.rpc.server", "from grpc import aio"),
    "a task uses torch": ("participant.tasks.state_dict", "import torch"),
    "the demo starts both houses": ("consilo.demo.federation", "import coordinator.app, participant.app"),
    "masking multiplies and encrypts": (
        "shared.secagg.masking",
        "import numpy as np\nfrom cryptography.hazmat.primitives.ciphers import Cipher\nfrom shared import merkle",
    ),
    "a machine's parts see each other": (
        "participant.round.machine",
        "from participant.round.masking import roster_came\nfrom shared.secagg.keys import AttemptSecrets",
    ),
    "the pure core reads values": (
        "coordinator.round.machine",
        "import numpy, hashlib, json\nfrom shared.ids import x",
    ),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_allowed_is_not_caught(what: str) -> None:
    assert list(complaints(parse(*ALLOWED[what]))) == []
