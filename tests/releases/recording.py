"""A federation of real daemons that is listened to: what it says while it does everything that the wire is for.

Four silos, one coordinator and one operator, each behind a relay of its own (`tests.support.wiretap`). What they do
stands in `Sessions`, one method for each file of frames; a message or a method that none of them reaches fails
`test_recordings`. Models are tiny, every key is made for the occasion, and no private key is kept.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from consilo.demo.moment import Blow, Moment
from coordinator.client.operations import Operations
from coordinator.client.rpc import OperationsChannel
from participant.tasks.state_dict import write_model
from shared.control import ControlChange
from shared.ids import JobId
from shared.protocol.messages import CAPABILITIES, Hello
from shared.tls import channel_credentials
from shared.wire.session import encode_participant_message
from tests.releases.frames import Recorded
from tests.releases.meaning import FETCH, SESSION, UPLOAD, decode, meaning
from tests.releases.tasks.recorded_task import Small
from tests.support.federation import Federation, job_spec
from tests.support.wiretap import Break, Heard, Wiretap, held_port

TASKS = Path(__file__).parent / "tasks"
MEMBERS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
VICTIM = MEMBERS[-1]
KILLED = "killed"  # the victim's data folder as its end left it
PLAIN = {"mode": "plain"}
OPERATOR = "operator/operator"
LONG_S = 7200.0  # to train; longer than the silos' policy lets it be
DEADLINE_S = 600.0  # of a job under control
QUORUM = 3
UNKNOWN_VERSION = 99


def peer_of(member: str) -> str:
    return f"participant/{member}"


class Listened(Federation):
    """Everybody speaks through the wiretap."""

    def __init__(self, folder: Path, tap: Wiretap) -> None:
        self._held = {peer: held_port() for peer in [*map(peer_of, MEMBERS), OPERATOR]}
        self._ports = {peer: int(held.getsockname()[1]) for peer, held in self._held.items()}
        self._tap = tap
        super().__init__(
            folder,
            entry="recorded_task:RecordedTask",
            options={member: {"name": member, "step": 0.5 + number} for number, member in enumerate(MEMBERS)},
            python_path=TASKS,
            policy={"max_deadline_s": LONG_S / 2},
            links={member: f"localhost:{self._ports[peer_of(member)]}" for member in MEMBERS},
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        tls = {peer_of(member): self.consortium.participant(member).tls for member in MEMBERS}
        with self._tap.relay(
            target=self.address,
            ports=self._ports,
            peers={**tls, OPERATOR: self.consortium.operator().tls},
            coordinator=self.consortium.coordinator().tls,
        ):
            for held in self._held.values():
                held.close()
            yield

    @contextmanager
    def operations(self) -> Iterator[Operations]:
        address = f"localhost:{self._ports[OPERATOR]}"
        with OperationsChannel(address=address, tls=self.consortium.operator().tls) as channel:
            yield Operations(channel)

    def say_hello(self, member: str, hello: Hello) -> None:
        """A session of somebody else's making, until it is ended."""
        credentials = channel_credentials(self.consortium.participant(member).tls)
        with grpc.secure_channel(f"localhost:{self._ports[peer_of(member)]}", credentials) as channel:
            session: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(SESSION)
            for _ in session(iter([encode_participant_message(hello)])):
                pass


class Sessions:
    """What is recorded, in this order."""

    def __init__(self, federation: Listened, initial: Path) -> None:
        self._federation = federation
        self._initial = initial

    def masked_rounds(self) -> None:
        """A round of everybody, in which a model and an update go on where they were cut off; one in which a silo ends
        when its keys are shared and its update is not sent, comes back, and the others open the total; and the closing
        evaluation.
        """
        federation = self._federation
        federation.start_coordinator()
        victim = federation.start_doomed(VICTIM, Moment(2, "Uploading", Blow.KILL))
        federation.start_participants(MEMBERS[:-1])
        job = self._submit("masked", rounds=2)
        victim.wait_until_killed()
        shutil.copytree(federation.folder / VICTIM / "data", federation.folder / KILLED)
        federation.start_participant(VICTIM)
        federation.finish(job)

    def plain_round(self) -> None:
        """One in which a silo's task crashes, for which the others wait, and the closing evaluation."""
        training = {"crash": {VICTIM: [1]}}
        job = self._submit("plain", rounds=1, masking=PLAIN, quorum=3, grace_s=60.0, training=training)
        self._federation.finish(job)

    def refusals(self) -> None:
        """A version that nobody has is refused; so is a plan, by every silo, and then the operator ends its job."""
        federation = self._federation
        certificate = federation.consortium.participant(VICTIM).signing_certificate_der
        stranger = Hello((UNKNOWN_VERSION,), CAPABILITIES, (), secrets.token_bytes(32), certificate, "another", ())
        federation.say_hello(VICTIM, stranger)
        job = self._submit("declined", rounds=1, deadline_s=LONG_S)
        for _ in self._until(job, lambda detail: bool(detail.rounds)):
            pass
        with federation.operations() as operations:
            operations.abort_job(job, "the silos declined")

    def operations(self) -> None:
        """What operators ask beside jobs."""
        federation = self._federation
        with federation.operations() as operations:
            operations.jobs()
            operations.job(JobId("masked-1"))
            newest = operations.models()[-1].model
            operations.promote_model(newest, promoted=True)
            for _ in operations.audit_lines():
                pass
        federation.model(str(newest))

    def open_round(self) -> None:
        """A round that trains, while it is looked at; then the operator ends it, which lets a job begin that was paused
        and controlled while it waited. After that one another begins and stays open.
        """
        federation = self._federation
        training = {"seconds": 60.0}
        ended = self._submit("ended", rounds=1, training=training)
        for _ in self._until(ended, self._all_train):
            pass
        steered = self._submit("steered", rounds=1, masking=PLAIN)
        with federation.operations() as operations:
            operations.job(ended)
            operations.pause_job(steered, "not before the others are done")
            operations.job(steered)
            operations.control_job(steered, ControlChange(deadline_s=LONG_S))
            operations.control_job(steered, ControlChange(reset=True, deadline_s=DEADLINE_S, quorum=QUORUM))
            operations.resume_job(steered)
            operations.abort_job(ended, "enough was seen")
        federation.finish(steered)
        opened = self._submit("open", rounds=1, training={**training, "again": True})
        for _ in self._until(opened, self._all_train):
            pass

    @staticmethod
    def _all_train(detail: Any) -> bool:
        return detail.live is not None and all(member.percent == 50 for member in detail.live.members)

    def _until(self, job: JobId, reached: Any) -> Iterator[None]:
        for detail in self._federation.watch(job):
            if reached(detail):
                return
            yield

    def _submit(self, name: str, **changes: Any) -> JobId:
        spec = job_spec(MEMBERS, self._initial, **{"min_survivors": 3, **changes})
        return self._federation.submit(f"{name}-1", spec, self._initial)


def chapters_of(sessions: Sessions) -> Mapping[str, Any]:
    """By the names of their files."""
    return {
        "1-masked": sessions.masked_rounds,
        "2-plain": sessions.plain_round,
        "3-refused": sessions.refusals,
        "4-operations": sessions.operations,
        "5-open": sessions.open_round,
    }


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[Listened, Mapping[str, Sequence[Recorded]]]]:
    """All of it, and the federation: its coordinator was killed while a round was open, its silos go on training."""
    tap = Wiretap(
        breaks=[
            Break(FETCH, from_coordinator=True, after_frames=1),
            Break(UPLOAD, from_coordinator=False, after_frames=2),
        ]
    )
    initial = folder / "initial.safetensors"
    write_model(Small(), initial)
    frames: dict[str, Sequence[Recorded]] = {}
    with Listened(folder, tap) as federation:
        with federation.listening():
            begin = 0
            for name, chapter in chapters_of(Sessions(federation, initial)).items():
                chapter()
                end = len(tap.heard)
                frames[name] = [_recorded(heard) for heard in tap.heard[begin:end]]
                begin = end
            federation.kill("coordinator")
            for member in MEMBERS:
                federation.kill(member)
        yield federation, frames


def _recorded(heard: Heard) -> Recorded:
    said = meaning(decode(heard.method, heard.frame, from_coordinator=heard.from_coordinator))
    return Recorded(
        call=heard.call,
        peer=heard.peer,
        method=heard.method,
        from_coordinator=heard.from_coordinator,
        frame=heard.frame,
        value=json.loads(json.dumps(said)),
    )
