"""Values of every message of the session and of the bulk transfer, and what writes and reads each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from shared.control import AS_SUBMITTED, ControlChange, JobControl, Pause
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber, TaskName
from shared.pb.v1 import operations_pb2 as pb_operations
from shared.pb.v1 import session_pb2 as pb_session
from shared.pb.v1 import transfer_pb2 as pb_transfer
from shared.protocol import messages
from shared.protocol.messages import Envelope
from shared.protocol.phases import Phase
from shared.reasons import (
    SAID_BY_PARTICIPANT,
    AbortReason,
    AttemptAbortReason,
    ConsentRule,
    JobState,
    Purpose,
    RefusalReason,
)
from shared.secagg.keys import PUBLIC_KEY_BYTES
from shared.secagg.sealing import CIPHERTEXT_BYTES, SealedShare
from shared.secagg.sharing import SHARE_BYTES
from shared.update import RANGE_EXPONENT_MAX, RANGE_NONE, Encoding, UpdateHeader
from shared.wire import attempts as wire_attempts
from shared.wire import exchanges, operations, sealed, session, steering, transfer

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
counters = st.integers(1, 2**31 - 1)
digests = st.binary(min_size=32, max_size=32).map(Digest)
nonces = st.binary(min_size=32, max_size=32)
blobs = st.binary(max_size=100)
uint32s = st.integers(0, 2**32 - 1)
uint64s = st.integers(0, 2**64 - 1)
durations = st.floats(0, 1e6, exclude_min=True)
members = st.lists(labels.map(ParticipantId), max_size=5).map(tuple)
keys = st.builds(RoundKey, labels.map(JobId), counters.map(RoundNumber))
attempts = st.builds(AttemptKey, keys, counters.map(AttemptNumber))
envelopes = st.builds(Envelope, blobs, st.binary(min_size=64, max_size=64), st.integers(0, 1000))
purposes = st.sampled_from(Purpose)
positions = st.integers(1, 1000)


def exactly(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


few_envelopes = st.lists(envelopes, max_size=3).map(tuple)
sealed_shares = st.builds(
    SealedShare,
    holder=positions,
    ciphertext=exactly(CIPHERTEXT_BYTES),
    self_commitment=digests,
    mask_commitment=digests,
)
delivered_shares = st.builds(
    messages.DeliveredShare,
    dealer=positions,
    share=sealed_shares,
    path=st.lists(exactly(exchanges.HASH_BYTES), max_size=exchanges.PATH_MAX).map(tuple),
)
answers = st.builds(messages.AttemptAnswer, attempts, st.sampled_from(messages.AnswerKind), envelopes) | st.builds(
    messages.AttemptAnswer,
    attempts,
    st.just(messages.AnswerKind.SHARE_KEYS),
    envelopes,
    st.lists(sealed_shares, max_size=3).map(tuple),
)
rosters = st.builds(messages.KeyRoster, attempts, few_envelopes)
deliveries = st.builds(
    messages.ShareDelivery, attempts, few_envelopes, st.lists(delivered_shares, max_size=2).map(tuple)
)
survivor_lists = st.builds(messages.SurvivorList, attempts, few_envelopes)
bundles = st.builds(messages.ConsistencyBundle, attempts, few_envelopes)

hellos = st.builds(
    messages.Hello,
    versions=st.lists(uint32s, max_size=4).map(tuple),
    capabilities=st.lists(texts, max_size=4).map(tuple),
    tasks=st.lists(labels.map(TaskName), max_size=4).map(tuple),
    nonce=nonces,
    signing_certificate=blobs,
    software=texts,
    open_rounds=st.lists(keys, max_size=4).map(tuple),
    heads=few_envelopes,
)
participant_messages = st.one_of(
    hellos,
    st.just(messages.Heartbeat()),
    st.builds(messages.Consent, keys, digests),
    st.builds(messages.Decline, keys, digests, st.sampled_from(ConsentRule)),
    st.builds(messages.Progress, keys, digests, st.integers(0, 100)),
    st.builds(messages.Ready, keys, digests, st.booleans()),
    st.builds(messages.Withdraw, keys, digests, st.sampled_from(sorted(SAID_BY_PARTICIPANT))),
    answers,
)
plain_coordinator_messages = st.one_of(
    st.builds(messages.Refused, st.sampled_from(RefusalReason), texts),
    st.just(messages.Heartbeat()),
    rosters,
    deliveries,
    survivor_lists,
    bundles,
)
welcomes = st.builds(
    messages.Welcome,
    version=uint32s,
    session=texts,
    nonce=nonces,
    software=texts,
    participant=labels.map(ParticipantId),
    capabilities=st.lists(texts, max_size=4).map(tuple),
    heartbeat_s=durations,
    silence_s=durations,
    signing_certificate=blobs,
)
changed_s = st.none() | durations
quorums = st.none() | uint32s
controls = st.just(AS_SUBMITTED) | st.builds(JobControl, st.integers(1, 2**32 - 1), changed_s, quorums)
round_plans = st.builds(
    messages.RoundPlan,
    key=keys,
    purpose=purposes,
    jobspec=blobs,
    model=digests,
    model_bytes=uint64s,
    previous_result=blobs,
    deadline_s=durations,
    control=controls,
)
attempt_starts = st.builds(
    messages.AttemptStart,
    version=uint32s,
    suite=uint32s,
    key=attempts,
    purpose=purposes,
    plan=digests,
    jobspec=digests,
    consortium=st.just(b"") | nonces,
    model=digests,
    previous_result=digests,
    members=members,
    max_colluding=uint32s,
    layout=digests,
    encoding=st.sampled_from(Encoding),
    exchange_deadline_s=durations,
    upload_deadline_s=durations,
)
checkpoints = st.builds(messages.Checkpoint, st.sampled_from(messages.CheckpointKind), uint64s, digests)
adverts = st.builds(
    messages.AdvertiseKeys,
    attempt=digests,
    index=positions,
    mask_key=exactly(PUBLIC_KEY_BYTES),
    share_key=exactly(PUBLIC_KEY_BYTES),
    nonce=nonces,
    checkpoint=st.none() | checkpoints,
)
dealings = st.builds(
    messages.ShareKeys,
    attempt=digests,
    roster=digests,
    index=positions,
    self_commitment=digests,
    shares_root=digests,
)
upload_commits = st.builds(
    messages.UploadCommit,
    attempt=digests,
    transcript=digests,
    index=positions,
    header=blobs,
    update=digests,
    chunks=st.integers(0, sealed.CHUNKS_MAX),
)
consistency_signatures = st.builds(messages.ConsistencySignature, attempt=digests, survivors=digests, index=positions)
attempt_aborts = st.builds(
    messages.AttemptAbort, attempt=digests, index=positions, reason=st.sampled_from(AttemptAbortReason)
)


@st.composite
def _openings(draw: st.DrawFn) -> messages.UnmaskShares:
    """Shares of distinct members, each of one kind."""
    dealers = sorted(draw(st.sets(positions, max_size=5)))
    opened = [(dealer, draw(exactly(SHARE_BYTES)), draw(st.booleans())) for dealer in dealers]
    return messages.UnmaskShares(
        attempt=draw(digests),
        survivors=draw(digests),
        index=draw(positions),
        self_shares=tuple((dealer, share) for dealer, share, survived in opened if survived),
        mask_shares=tuple((dealer, share) for dealer, share, survived in opened if not survived),
    )


openings = _openings()
round_results = st.builds(
    messages.RoundResult,
    key=keys,
    purpose=purposes,
    attempt=digests,
    transcript=digests,
    survivors=st.sets(positions, max_size=5).map(lambda found: tuple(sorted(found))),
    weight_total=st.floats(allow_nan=False, allow_infinity=False),
    top_cells=st.lists(st.integers(RANGE_NONE, RANGE_EXPONENT_MAX), max_size=5).map(tuple),
    aggregate=digests,
    next_model=digests,
)
round_aborts = st.builds(messages.RoundAborted, keys, digests, st.sampled_from(AbortReason))
headers = st.builds(
    UpdateHeader,
    encoding=st.just(Encoding.PLAIN),
    weight=st.floats(0, 2.0**40, exclude_min=True),
    contributors=st.just(1),
) | st.builds(
    UpdateHeader,
    encoding=st.sampled_from([encoding for encoding in Encoding if encoding.masked]),
    weight=st.none(),
    contributors=st.just(1),
)
sealed_values = st.one_of(
    welcomes,
    round_plans,
    attempt_starts,
    adverts,
    dealings,
    upload_commits,
    consistency_signatures,
    openings,
    attempt_aborts,
    round_results,
    round_aborts,
)

job_statuses = st.builds(
    operations.JobStatus,
    job=labels.map(JobId),
    spec=blobs,
    state=st.sampled_from(JobState),
    reason=texts,
    submitted_by=texts,
    submitted_at=texts,
    control=controls,
    pause=st.none() | st.builds(Pause, texts, texts, texts),
)
steered = st.builds(steering.Steered, job_statuses, st.booleans())
round_statuses = st.builds(
    operations.RoundStatus, key=keys, purpose=purposes, outcome=texts.map(lambda text: text[:32]), summary=blobs
)
live_members = st.builds(
    operations.LiveMember,
    participant=labels.map(ParticipantId),
    phase=st.sampled_from(Phase),
    connected=st.booleans(),
    percent=st.none() | st.integers(0, 100),
)
live_rounds = st.builds(
    operations.LiveRound,
    key=keys,
    purpose=purposes,
    phase=texts.map(lambda text: text[:32]),
    members=st.lists(live_members, max_size=3).map(tuple),
    control_revision=uint32s,
)
job_details = st.builds(
    operations.JobDetail,
    job=job_statuses,
    rounds=st.lists(round_statuses, max_size=3).map(tuple),
    live=st.none() | live_rounds,
)
model_statuses = st.builds(operations.ModelStatus, digests, blobs)


@dataclass(frozen=True, slots=True)
class Codec:
    """A pair of functions, the values that they carry, and the protobuf message between."""

    values: st.SearchStrategy[Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    message: type[Message]


def _frames(values: st.SearchStrategy[Any]) -> Codec:
    """One kind of what the coordinator says unsigned, by itself: so it is damaged as often as any other."""
    return Codec(
        values, session.encode_coordinator_message, session.decode_coordinator_message, pb_session.SessionResponse
    )


SESSION: dict[str, Codec] = {
    "attempt answer": Codec(
        answers, session.encode_participant_message, session.decode_participant_message, pb_session.SessionRequest
    ),
    "key roster": _frames(rosters),
    "share delivery": _frames(deliveries),
    "survivor list": _frames(survivor_lists),
    "consistency bundle": _frames(bundles),
    "participant message": Codec(
        participant_messages,
        session.encode_participant_message,
        session.decode_participant_message,
        pb_session.SessionRequest,
    ),
    "coordinator message": Codec(
        plain_coordinator_messages,
        session.encode_coordinator_message,
        session.decode_coordinator_message,
        pb_session.SessionResponse,
    ),
    "envelope": Codec(envelopes, sealed.encode_envelope, sealed.decode_envelope, pb_session.SignedEnvelope),
    "welcome": Codec(welcomes, sealed.encode_welcome, sealed.decode_welcome, pb_session.Welcome),
    "round plan": Codec(round_plans, sealed.encode_round_plan, sealed.decode_round_plan, pb_session.RoundPlan),
    "attempt start": Codec(
        attempt_starts, sealed.encode_attempt_start, sealed.decode_attempt_start, pb_session.AttemptStart
    ),
    "upload commit": Codec(
        upload_commits, sealed.encode_upload_commit, sealed.decode_upload_commit, pb_session.UploadCommit
    ),
    "advertise keys": Codec(
        adverts, wire_attempts.encode_advertise_keys, wire_attempts.decode_advertise_keys, pb_session.AdvertiseKeys
    ),
    "share keys": Codec(
        dealings, wire_attempts.encode_share_keys, wire_attempts.decode_share_keys, pb_session.ShareKeys
    ),
    "consistency signature": Codec(
        consistency_signatures,
        wire_attempts.encode_consistency_signature,
        wire_attempts.decode_consistency_signature,
        pb_session.ConsistencySignature,
    ),
    "unmask shares": Codec(
        openings, wire_attempts.encode_unmask_shares, wire_attempts.decode_unmask_shares, pb_session.UnmaskShares
    ),
    "attempt abort": Codec(
        attempt_aborts,
        wire_attempts.encode_attempt_abort,
        wire_attempts.decode_attempt_abort,
        pb_session.AttemptAbort,
    ),
    "round result": Codec(
        round_results, sealed.encode_round_result, sealed.decode_round_result, pb_session.RoundResult
    ),
    "round aborted": Codec(
        round_aborts, sealed.encode_round_aborted, sealed.decode_round_aborted, pb_session.RoundAborted
    ),
    "update header": Codec(headers, sealed.encode_update_header, sealed.decode_update_header, pb_session.UpdateHeader),
}

TRANSFER: dict[str, Codec] = {
    "upload opening": Codec(
        st.builds(transfer.UploadOpen, attempts, uint64s),
        transfer.encode_upload_open,
        transfer.decode_upload_frame,
        pb_transfer.UploadUpdateRequest,
    ),
    "upload chunk": Codec(
        blobs.map(memoryview), transfer.encode_data, transfer.decode_upload_frame, pb_transfer.UploadUpdateRequest
    ),
    "model chunk": Codec(
        blobs.map(memoryview), transfer.encode_data, transfer.decode_fetch_frame, pb_transfer.FetchModelResponse
    ),
    "fetch": Codec(
        st.builds(transfer.FetchModel, digests, uint64s),
        transfer.encode_fetch_model,
        transfer.decode_fetch_model,
        pb_transfer.FetchModelRequest,
    ),
    "status request": Codec(
        attempts,
        transfer.encode_upload_status_request,
        transfer.decode_upload_status_request,
        pb_transfer.UploadStatusRequest,
    ),
    "status": Codec(
        st.builds(transfer.UploadStatus, uint64s, st.booleans()),
        transfer.encode_upload_status,
        transfer.decode_upload_status,
        pb_transfer.UploadStatusResponse,
    ),
    "commit request": Codec(
        st.builds(transfer.CommitRequest, attempts, envelopes),
        transfer.encode_commit_request,
        transfer.decode_commit_request,
        pb_transfer.UploadCommitRequest,
    ),
    "commit response": Codec(
        digests, transfer.encode_commit_response, transfer.decode_commit_response, pb_transfer.UploadCommitResponse
    ),
}

OPERATIONS: dict[str, Codec] = {
    "submit": Codec(
        st.builds(operations.SubmitJob, labels.map(JobId), blobs),
        operations.encode_submit_job,
        operations.decode_submit_job,
        pb_operations.SubmitJobRequest,
    ),
    "submitted": Codec(
        job_statuses,
        operations.encode_submit_job_response,
        operations.decode_submit_job_response,
        pb_operations.SubmitJobResponse,
    ),
    "jobs": Codec(
        st.lists(job_statuses, max_size=3).map(tuple),
        operations.encode_list_jobs_response,
        operations.decode_list_jobs_response,
        pb_operations.ListJobsResponse,
    ),
    "get": Codec(labels.map(JobId), operations.encode_get_job, operations.decode_get_job, pb_operations.GetJobRequest),
    "got": Codec(
        job_details,
        operations.encode_get_job_response,
        operations.decode_get_job_response,
        pb_operations.GetJobResponse,
    ),
    "watch": Codec(
        labels.map(JobId), operations.encode_watch_job, operations.decode_watch_job, pb_operations.WatchJobRequest
    ),
    "watched": Codec(
        job_details,
        operations.encode_watch_job_response,
        operations.decode_watch_job_response,
        pb_operations.WatchJobResponse,
    ),
    "abort": Codec(
        st.builds(operations.AbortJob, labels.map(JobId), texts),
        operations.encode_abort_job,
        operations.decode_abort_job,
        pb_operations.AbortJobRequest,
    ),
    "aborted": Codec(
        job_statuses,
        operations.encode_abort_job_response,
        operations.decode_abort_job_response,
        pb_operations.AbortJobResponse,
    ),
    "pause": Codec(
        st.builds(steering.PauseJob, labels.map(JobId), texts),
        steering.encode_pause_job,
        steering.decode_pause_job,
        pb_operations.PauseJobRequest,
    ),
    "paused": Codec(
        steered,
        steering.encode_pause_job_response,
        steering.decode_pause_job_response,
        pb_operations.PauseJobResponse,
    ),
    "resume": Codec(
        labels.map(JobId), steering.encode_resume_job, steering.decode_resume_job, pb_operations.ResumeJobRequest
    ),
    "resumed": Codec(
        steered,
        steering.encode_resume_job_response,
        steering.decode_resume_job_response,
        pb_operations.ResumeJobResponse,
    ),
    "control": Codec(
        st.builds(steering.ControlJob, labels.map(JobId), st.builds(ControlChange, st.booleans(), changed_s, quorums)),
        steering.encode_control_job,
        steering.decode_control_job,
        pb_operations.ControlJobRequest,
    ),
    "controlled": Codec(
        steered,
        steering.encode_control_job_response,
        steering.decode_control_job_response,
        pb_operations.ControlJobResponse,
    ),
    "put": Codec(
        st.builds(operations.PutModelOpen, digests, st.integers(1, operations.MODEL_MAX_BYTES)),
        operations.encode_put_model_open,
        operations.decode_put_model_frame,
        pb_operations.PutModelRequest,
    ),
    "stored": Codec(
        st.booleans(),
        lambda stored: operations.encode_put_model_response(stored=stored),
        operations.decode_put_model_response,
        pb_operations.PutModelResponse,
    ),
    "models": Codec(
        st.lists(model_statuses, max_size=3).map(tuple),
        operations.encode_list_models_response,
        operations.decode_list_models_response,
        pb_operations.ListModelsResponse,
    ),
    "promote": Codec(
        st.builds(operations.PromoteModel, digests, st.booleans()),
        operations.encode_promote_model,
        operations.decode_promote_model,
        pb_operations.PromoteModelRequest,
    ),
    "promoted": Codec(
        st.booleans(),
        lambda changed: operations.encode_promote_model_response(changed=changed),
        operations.decode_promote_model_response,
        pb_operations.PromoteModelResponse,
    ),
    "export": Codec(
        st.builds(operations.ExportModel, digests, uint64s),
        operations.encode_export_model,
        operations.decode_export_model,
        pb_operations.ExportModelRequest,
    ),
    "read audit": Codec(
        st.integers(0, operations.AUDIT_START_MAX),
        operations.encode_read_audit,
        operations.decode_read_audit,
        pb_operations.ReadAuditRequest,
    ),
}

CODECS: dict[str, Codec] = {**SESSION, **TRANSFER, **OPERATIONS}
