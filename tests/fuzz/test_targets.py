"""Every decoder of what comes from outside is fuzzed, and the kept inputs do what they must."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz.engine import CORPUS, Target, check, check_memory, corpus_of, inputs, read_corpus
from tests.fuzz.targets import all_targets

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "coordinator", "participant", "consilo")
TARGETS = all_targets()
LIGHT = [name for name, target in TARGETS.items() if not target.heavy]
SEED = 20261129
SHORT = 200  # inputs of each target in the default run
LONG = 20_000

# A function with such a name, and with such an argument, reads what somebody else wrote.
NAMED = re.compile(r"(decode|parse|peek|read|load|open|verify)(_.*)?")
RAW = re.compile(r"\b(bytes|str|memoryview|Path|Envelope|JournalEntry|ByteReader)\b")
# A function that calls one of these does so itself, whatever it is called.
READERS = {
    "loads",
    "ParseFromString",
    "model_validate_json",
    "validate_json",
    "validate_python",
    "load_pem_x509_certificate",
    "load_pem_x509_certificates",
    "load_der_x509_certificate",
    "load_pem_private_key",
    "load_pem_x509_csr",
}

# What looks like a decoder and is in no target, and why.
EXEMPT = {
    "consilo.demo.federation.comparison": "what the demo's own processes wrote",
    "consilo.demo.moment.parse": "an argument that the demo gives to its own process",
    "consilo.demo.task.read_rows": "the demo's own data",
    "consilo.pki.load": "the authority's own folder; its certificates are read by read_authorities",
    "consilo.pki_manifest._key_of": "the authority's own folder, and verify_signing_certificate reads what is there",
    "coordinator.audit.accept": "an entry that this process made",
    "coordinator.audit._time_of": "an entry that this process, or one before it, made and checked at its start",
    "coordinator.audit.entry": "an entry that this process is making",
    "coordinator.client.cli_audit.verify": "a command; read_entries reads the log",
    "coordinator.planning.after": "a summary that this coordinator wrote, in the transaction of its round",
    "coordinator.replies.open_upload_commit": "open_sealed, and checks of what came of it",
    "coordinator.rpc.operations.read_audit": "an RPC; decode_read_audit reads the request",
    "coordinator.startup.open_records": "a folder, whose parts have targets",
    "coordinator.storage.database.read": "a verb of the store",
    "coordinator.storage.faults.read": "a fault that a test asks for",
    "coordinator.storage.filecalls.open": "a system call",
    "coordinator.storage.interface.open_round": "writes",
    "coordinator.storage.memory.open_round": "writes",
    "coordinator.storage.memory.open_to": "writes",
    "coordinator.storage.sql.open_round": "writes",
    "participant.journal_file.read": "a verb of the journal",
    "participant.journal_schema._from_1": "rows of an older journal of this silo, inside a transaction that undoes it",
    "participant.rpc.opening.open_session": "an exchange; decode_coordinator_message and peek_welcome read it",
    "participant.tasks.accelerators.ask_accelerators": "what a process of our own printed",
    "participant.tasks.cli._pairs": "what a person types; text is an answer too",
    "participant.tasks.interface.load_state_dict": "of the silo's own task",
    "participant.tasks.state_dict.load_global": "a model whose header read_index took, checked against the task's own",
    "participant.tasks.task_log.open_log": "writes",
    "shared.build.requirement": "what pip noted of this installation",
    "shared.expiry.own_ends": "our own certificates, as in `beginnings`",
    "shared.expiry.beginnings": "the silo's own certificates, each read by check_credentials in the row before",
    "shared.identity.verify": "a signature, which is any bytes: test_identity",
    "shared.merkle.verify_path": "hashes of a fixed length: test_merkle",
    "shared.secagg.sealing.open_share": "an authenticated ciphertext of a fixed length: test_sealing",
    "shared.wire.sealed.open_sealed": "a signature, then the decoder of its kind, which has a target",
    "shared.wire.sealed.verify": "a signature",
}


def decoders() -> Iterator[str]:
    """`module.function` of everything that reads the outside."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "pb" in path.parts:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _reads(node):
                    yield f"{module}.{node.name}"


def _reads(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    written = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation is not None]
    if NAMED.fullmatch(function.name) and any(map(RAW.search, written)):
        return True
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
    }
    return bool(called & READERS)


def test_every_decoder_is_fuzzed_or_says_why_not() -> None:
    found = set(decoders())
    covered = {name for target in TARGETS.values() for name in target.covers}
    assert found - covered - EXEMPT.keys() == set(), "without a target in tests/fuzz/targets.py, and without a reason"
    assert EXEMPT.keys() - found == set(), "an exemption of what is no decoder any more"
    assert covered - found == set(), "a target that says it covers what is no decoder any more"
    assert EXEMPT.keys() & covered == set()


def test_every_target_has_valid_inputs_and_no_file_is_left_over() -> None:
    assert {path.stem for path in CORPUS.glob("*.valid")} == TARGETS.keys()
    assert {path.stem for path in CORPUS.glob("*.found")} <= TARGETS.keys()


@pytest.mark.parametrize("name", LIGHT)
def test_valid_inputs_are_taken(name: str) -> None:
    valid = read_corpus(CORPUS / f"{name}.valid")
    assert valid
    assert all(check(name, TARGETS[name], data) for data in valid)


@pytest.mark.parametrize("name", LIGHT)
def test_damaged_inputs_are_a_value_or_the_documented_error(name: str) -> None:
    _run(name, TARGETS[name], SEED, SHORT)


@pytest.mark.parametrize("name", LIGHT)
def test_no_input_makes_a_decoder_hold_much(name: str) -> None:
    for data in [*corpus_of(name), *islice(inputs(corpus_of(name), SEED), 20)]:
        check_memory(name, TARGETS[name], data)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_inputs_for_longer(name: str, seed: int) -> None:
    check(name, TARGETS[name], corpus_of(name)[0])  # with PyTorch loaded, where it is needed
    _run(name, TARGETS[name], seed, LONG)


def test_a_seed_names_its_inputs() -> None:
    corpus = corpus_of("participant_message")
    assert list(islice(inputs(corpus, 3), 300)) == list(islice(inputs(corpus, 3), 300))
    assert list(islice(inputs(corpus, 3), 300)) != list(islice(inputs(corpus, 4), 300))


def _run(name: str, target: Target, seed: int, count: int) -> None:
    for data in islice(inputs(corpus_of(name), seed), count):
        check(name, target, data)
