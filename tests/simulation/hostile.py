"""Words that break the rules, made for the moment at which they are said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice

from coordinator.round.phases import Aborted, Committed, Uploading
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import (
    Consent,
    Decline,
    Progress,
    Ready,
    RoundReply,
    UploadCommit,
    Withdraw,
    attempt_digest,
    plan_digest,
)
from shared.protocol.phases import TABLE, Kind, Role
from shared.reasons import ConsentRule, DropReason
from shared.update import Encoding, UpdateHeader
from shared.wire.sealed import encode_update_header, seal
from shared.wire.session import encode_participant_message
from shared.wire.transfer import CommitRequest, encode_commit_request, encode_upload_status_request
from tests.simulation.coordinator_process import Host
from tests.simulation.hostile_masked import hostile_answers
from tests.simulation.settings import JOB
from tests.simulation.silo import Silo
from tests.simulation.wire import Link
from tests.support.rounds import STRANGER, key_of


@dataclass(frozen=True, slots=True)
class HostileWord:
    """Something that must be refused. `say` raises the refusal."""

    name: str
    say: Callable[[], object]


def hostile_word(host: Host, silo: Silo, choice: int) -> HostileWord | None:
    """One of the words that are wrong now."""
    words = [*_always(host, silo), *_in_a_round(host, silo), *_in_an_attempt(host, silo)]
    driver = host.up().driver
    if driver is not None and driver.frame.spec.masking.masked:
        answers = [word for name, said in hostile_answers(driver.state, silo) for word in _said(host, silo, name, said)]
        words += answers
    return words[choice % len(words)] if words else None


def _said(host: Host, silo: Silo, name: str, message: RoundReply) -> list[HostileWord]:
    """On the silo's own session, if it has one."""
    process = host.up()
    link = process.links.get(silo.name)
    if link is None or link.broken:
        return []
    frame = encode_participant_message(message)
    return [HostileWord(name, lambda: host.hear(link, frame))]


def _always(host: Host, silo: Silo) -> list[HostileWord]:
    nothing = Digest.of(b"no plan")
    link = Link(silo.name, "session-0")
    stranger = Link(STRANGER, "session-0")
    unknown = AttemptKey(RoundKey(JOB, RoundNumber(999)), AttemptNumber(1))
    return [
        HostileWord("bytes that are no message", lambda: host.hear(link, b"\xff\x00\xff")),
        HostileWord("a stream of nothing", lambda: host.hear(stranger, b"")),
        HostileWord(
            "an upload to a round that never was",
            lambda: host.upload_status(silo.name, encode_upload_status_request(unknown)),
        ),
        *_said(host, silo, "a job that never was", Consent(RoundKey(JobId("other-1"), RoundNumber(1)), nothing)),
        *_said(host, silo, "a round that never was", Consent(unknown.round, nothing)),
    ]


def _in_a_round(host: Host, silo: Silo) -> list[HostileWord]:
    driver = host.up().driver
    if driver is None or isinstance(driver.state, Committed | Aborted):
        return []
    key, plan = driver.frame.key, plan_digest(driver.frame.plan)
    words = _said(host, silo, "another plan", Ready(key, Digest.of(b"another plan"), fits=True))
    phase = driver.state.conversations[silo.name].phase
    messages: dict[Kind, RoundReply] = {
        Kind.CONSENT: Consent(key, plan),
        Kind.DECLINE: Decline(key, plan, ConsentRule.JOB_NOT_ALLOWED),
        Kind.PROGRESS: Progress(key, plan, 50),
        Kind.READY: Ready(key, plan, fits=True),
        Kind.WITHDRAW: Withdraw(key, plan, DropReason.DISK),
    }
    for kind, message in messages.items():
        if (Role.PARTICIPANT, phase, kind) not in TABLE:
            words += _said(host, silo, f"{kind} in phase {phase}", message)
    return words


def _in_an_attempt(host: Host, silo: Silo) -> list[HostileWord]:
    driver = host.up().driver
    if driver is None or not isinstance(driver.state, Uploading):
        return []
    encoding = driver.state.attempt.value.encoding
    key, start = driver.state.key, driver.state.attempt
    later = replace(key, attempt=AttemptNumber(key.attempt + 1))
    index = driver.frame.index_of(silo.name)
    other = next(islice(cycle(driver.frame.spec.members), index, None))
    header = encode_update_header(UpdateHeader(encoding, None if encoding.masked else 1.0, 1))
    upload = silo.work.uploads.get(key.round)
    if upload is None:
        return []
    commit = UploadCommit(
        attempt=attempt_digest(start),
        transcript=driver.state.transcript,
        index=index,
        header=header,
        update=Digest.of(b"?"),
        chunks=upload.layout.chunks,
    )

    def sends(name: str, value: UploadCommit, signer: str, position: int, wanted: AttemptKey = key) -> HostileWord:
        envelope = seal(value, signer=key_of(signer), index=position).envelope
        request = encode_commit_request(CommitRequest(wanted, envelope))
        return HostileWord(name, lambda: host.upload_commit(silo.name, request))

    return [
        sends("an update that never came", commit, silo.name, index),
        sends("somebody else's signature", commit, other, index),
        sends("somebody else's place", replace(commit, index=driver.frame.index_of(other)), silo.name, index),
        sends("an attempt that never was", commit, silo.name, index, later),
        sends("a weight of its own", replace(commit, header=_heavy()), silo.name, index),
    ]


def _heavy() -> bytes:
    return encode_update_header(UpdateHeader(Encoding.PLAIN, 1000.0, 1))
