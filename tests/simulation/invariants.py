"""What must hold after every operation (house.md section 10).

The checks read the records and files themselves, not through the verbs, so that they neither use up a planned fault nor
believe a component that lies. Each has a name, by which a planted bug is convicted:

* `sum-over-survivors`: a committed model is its parent plus the mean of exactly the survivors' one-hot updates;
* `survivors`: who is in a result took part, and whose update was acknowledged is in the result or named as out;
* `lineage`: a committed train round has one model, its parent the last one; an aborted round has none;
* `finished-stays`: a finished round never changes, and none is missing;
* `steering`: no round is planned while a job is paused or to be paused, and a plan has the control of its moment;
* `audit`: the log verifies from genesis, and every head ever seen is still in it;
* `acknowledged-durable`: an acknowledged update is on disk, whole, until its round is over;
* `refused-changes-nothing`: what is refused leaves everything as it was;
* `honest-refused`: nothing that an honest side says is taken for a breach of the rules;
* `honest-total`: no total of honest updates is refused, and none that enough silos opened stays shut;
* `ends`: when the world is quiet everything is over, at both sides, and nothing is left behind.

What masking adds is in `masked_invariants`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from coordinator.audit import verify_lines
from coordinator.checkpoints import TrainedModel, parse_description
from coordinator.round.effects import AttemptBegun, Contributed, MemberOut
from coordinator.round.journal import decode_plan, decode_record
from coordinator.round.phases import Contribution
from coordinator.storage.interface import COMMITTED, RoundRecord
from shared.errors import AuditError
from shared.ids import Digest, ParticipantId, RoundKey
from shared.protocol.messages import AttemptStart, RoundResult, attempt_digest
from shared.reasons import JobState, Purpose
from shared.update import StatisticsLayout, UpdateLayout, update_digest
from shared.wire.sealed import decode_envelope, encode_update_header, reopen
from tests.simulation.coordinator_process import Host
from tests.simulation.evidence import Evidence
from tests.simulation.masked_invariants import no_attempt_after_a_bundle, openings_stay, round_ended
from tests.simulation.settings import JOB, hold
from tests.simulation.silo import Silo
from tests.simulation.work import hot_cell
from tests.support.rounds import COORDINATOR_KEY, METRICS, model_values


def check(host: Host, seen: Evidence, silos: Iterable[Silo] = ()) -> None:
    """Everything that must hold at any moment."""
    _audit(host, seen)
    _rounds(host, seen)
    _steering(host, seen)
    _contributions(host, seen)
    openings_stay(seen, silos)


def _audit(host: Host, seen: Evidence) -> None:
    lines = [entry.line + b"\n" for entry in host.store._records.audit]
    if lines == seen.lines:
        return
    hold(lines[: len(seen.lines)] == seen.lines, "audit", "entries that were durable are gone or changed")
    try:
        verified = verify_lines(lines, verifying_key=COORDINATOR_KEY.verifying_key)
    except AuditError as error:
        hold(False, "audit", str(error))
    else:
        hold(verified.size == len(lines), "audit", "not all entries were verified")
    seen.lines = lines


def _rounds(host: Host, seen: Evidence) -> None:
    records = host.store._records
    rounds = [records.rounds[key] for key in sorted(records.rounds)]
    hold([record.key.number for record in rounds] == list(range(1, len(rounds) + 1)), "finished-stays", "a round lacks")
    hold(all(record.outcome for record in rounds[:-1]), "finished-stays", "two rounds are open")
    for key, known in seen.finished.items():
        hold(records.rounds.get(key) == known, "finished-stays", f"finished round {key} is not what it was")
    for record in rounds:
        if record.outcome and record.key not in seen.finished:
            seen.finished[record.key] = record
            if host.spec.masking.masked:
                round_ended(host, seen, record)
            if record.outcome == COMMITTED:
                _committed(host, seen, record)
    hold(len(records.models) == seen.models, "lineage", f"{len(records.models)} models for {seen.models - 1} rounds")


def _steering(host: Host, seen: Evidence) -> None:
    records = host.store._records
    job, planned = records.jobs[JOB], len(records.rounds)
    if seen.paused_at is not None and job.pause == seen.paused_at[0]:
        hold(planned == seen.paused_at[1], "steering", f"round {planned} was planned although the job was paused")
    else:
        seen.paused_at = None if job.pause is None else (job.pause, planned)
    for key in sorted(records.rounds)[seen.planned :]:
        plan = decode_plan(records.journals[key][0]).value
        hold(plan.control in seen.controls | {job.control}, "steering", f"the plan of {key} has {plan.control}")
        hold(plan.deadline_s == plan.control.deadline_of(host.spec), "steering", f"{key} has {plan.deadline_s} s")
        hold(not plan.control.complaint(host.spec), "steering", plan.control.complaint(host.spec))
    hold(
        job.state is not JobState.PAUSED or all(record.outcome for record in records.rounds.values()),
        "steering",
        "a round of a paused job is open",
    )
    seen.planned, seen.controls = planned, {job.control}


def _committed(host: Host, seen: Evidence, record: RoundRecord) -> None:
    spec = host.spec
    result = reopen(RoundResult, decode_envelope(record.result)).value
    parent = seen.model or spec.initial_model
    plan = decode_plan(host.store._records.journals[record.key][0]).value
    hold(plan.model == parent, "lineage", f"round {record.key} started from {plan.model}, the last model is {parent}")
    survivors = [spec.members[index - 1] for index in result.survivors]
    hold(result.weight_total == len(survivors), "sum-over-survivors", f"weight {result.weight_total} of {survivors}")
    _took_part(host, seen, record, survivors, result.attempt)
    bits = float(sum(2**index for index in result.survivors))
    summary = json.loads(record.summary)
    half = "train" if record.purpose is Purpose.TRAIN else "evaluate"
    hold(
        summary["metrics"][f"{half}.loss"] * len(survivors) == bits,
        "sum-over-survivors",
        f"the losses of round {record.key} add up to another set than {survivors}",
    )
    if record.purpose is Purpose.EVALUATE:
        hold(result.next_model == parent, "lineage", "a round of purpose evaluate made a model")
        return
    _model(host, seen, record, result, parent)


def _took_part(
    host: Host, seen: Evidence, record: RoundRecord, survivors: list[ParticipantId], attempt: Digest
) -> None:
    journal = [decode_record(entry) for entry in host.store._records.journals[record.key][1:]]
    begun = [entry.start for entry in journal if isinstance(entry, AttemptBegun)]
    keys = [start.value.key for start in begun if attempt_digest(start) == attempt]
    hold(len(keys) == 1, "survivors", f"the result of {record.key} is of an attempt that never began")
    out = {entry.participant for entry in journal if isinstance(entry, MemberOut)}
    for member in survivors:
        hold(
            (member, keys[0]) in seen.commitments,
            "survivors",
            f"{member} is in the result of {keys[0]} and sent nothing",
        )
    acknowledged = {member for member, key in seen.acknowledgements if key == keys[0]}
    hold(
        acknowledged - out <= set(survivors),
        "survivors",
        f"{sorted(acknowledged - out - set(survivors))} were acknowledged in {keys[0]} and are not in its result",
    )
    named = {*survivors, *json.loads(record.summary)["dropped"]}
    hold(named == set(host.spec.members), "survivors", "a member is neither in the result nor named as missing")


def _model(host: Host, seen: Evidence, record: RoundRecord, result: RoundResult, parent: Digest) -> None:
    files, shape = host.blobs._models, host.shape
    hold(result.next_model in files, "lineage", f"the model of committed round {record.key} has no file")
    hold(Digest.of(files[result.next_model]) == result.next_model, "lineage", "a model's file has other bytes")
    old, new = model_values(files[parent]), model_values(files[result.next_model])
    mean = np.zeros(shape.elements)
    for index in result.survivors:
        value = seen.values[host.spec.members[index - 1], record.key]
        mean[hot_cell(shape, index, record.key.number)] = value / len(result.survivors)
    counted = np.round((new - old) * len(result.survivors), 3)
    hold(
        bool(np.array_equal(new, old + mean)),
        "sum-over-survivors",
        f"round {record.key} with survivors {result.survivors} counted {counted.tolist()}",
    )
    known = host.store._records.models.get(result.next_model)
    hold(known is not None, "lineage", f"the model of committed round {record.key} is not recorded")
    assert known is not None
    description = parse_description(known.manifest)
    trained = isinstance(description, TrainedModel) and description.parent == parent and description.key == record.key
    hold(trained, "lineage", f"the model of {record.key} is described as {description}")
    seen.model = result.next_model
    seen.models += 1


def _contributions(host: Host, seen: Evidence) -> None:
    """What the journal of the open round counts on is durable, whole."""
    records = host.store._records
    journaled = sum(map(len, records.journals.values()))
    life = journaled + 1_000_000 * host.crashes
    if life == seen.journaled:
        return
    seen.journaled = life
    no_attempt_after_a_bundle(host)
    for key, record in records.rounds.items():
        if not record.outcome:
            for member, attempt, kept in _contributed(host, key):
                found = _durable_update(host, record, attempt, member, kept)
                hold(
                    found == kept.update, "acknowledged-durable", f"the update of {member} in {attempt} is not on disk"
                )


def _contributed(host: Host, key: RoundKey) -> list[tuple[ParticipantId, AttemptStart, Contribution]]:
    found: dict[ParticipantId, tuple[ParticipantId, AttemptStart, Contribution]] = {}
    attempt: AttemptStart | None = None
    for entry in map(decode_record, host.store._records.journals[key][1:]):
        if isinstance(entry, AttemptBegun):
            attempt, found = entry.start.value, {}
        elif isinstance(entry, Contributed):
            assert attempt is not None
            found[entry.participant] = (entry.participant, attempt, entry.contribution)
        elif isinstance(entry, MemberOut):
            found.pop(entry.participant, None)
    return list(found.values())


def _durable_update(
    host: Host, record: RoundRecord, attempt: AttemptStart, member: ParticipantId, kept: Contribution
) -> Digest | None:
    file = host.blobs._spools.get((attempt.key, member))
    if file is None or file.durable is None:
        return None
    trains = record.purpose is Purpose.TRAIN
    layout = UpdateLayout.of_round(
        encoding=attempt.encoding,
        parameters=host.shape.elements if trains else 0,
        tensors=1 if trains else 0,
        statistics=StatisticsLayout(METRICS),
    )
    chunks = [file.durable[start:end] for start, end in layout.chunk_ranges()]
    digests = [Digest(hashlib.sha256(chunk).digest()) for chunk in chunks]
    return update_digest(encode_update_header(kept.header), digests)
