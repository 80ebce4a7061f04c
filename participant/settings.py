"""`participant.toml` as the participant reads it. `deploy/samples/participant.full.toml` shows every key.

The file belongs to the silo. What is in [policy] is this silo's own word, which no job and no coordinator can change.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema

from shared.config import Dialled, ListenerAddress, LocalPath, LogTable, SigningTable, TlsTable
from shared.ids import Digest, JobId, parse_job_id
from shared.job import DEADLINE_MAX_S, DEFAULT_MIN_SURVIVORS, MEMBERS_MAX, Member, Table, Task, text_like
from shared.listeners import MetricsTable, StatusTable, status_table

DEFAULT_METRICS = "127.0.0.1:9465"
DEFAULT_STATUS = "127.0.0.1:9467"
DEFAULT_MINIMUM_MEMBERS = 3  # of two, each can compute the other's part from the total
DEFAULT_MAX_DEADLINE_S = 24 * 3600.0
THREADS_MAX = 1024
REPEATS_MAX = 1000  # a person writes each of them
APPROVED_MAX = 1000  # the same

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _colluding(value: object) -> object:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MEMBERS_MAX):
        raise ValueError(f'expected "auto" or a number from 0 to {MEMBERS_MAX}, got {value!r}')
    return value


Colluding = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_colluding),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": MEMBERS_MAX}]}),
]
Job = Annotated[JobId, AfterValidator(parse_job_id)]


def _digest(text: str) -> str:
    Digest.parse(text)
    return text


def _entry(text: str) -> str:
    if not _ENTRY.fullmatch(text):
        raise ValueError(f"expected the task's class as package.module:ClassName, got {text[:200]!r}")
    package = text.partition(":")[0].partition(".")[0]
    if package in {"shared", "coordinator", "participant"}:
        raise ValueError(
            f"a package named {package!r} is part of Consilo, and a silo's own of that name would never be found: "
            "rename it"
        )
    return text


Entry = Annotated[str, AfterValidator(_entry), text_like(_ENTRY)]
DigestHex = Annotated[str, AfterValidator(_digest), text_like(_DIGEST)]


class ParticipantTable(Table):
    """[participant]: who this is and whom it dials."""

    id: Member = Field(description="This participant's name, as in its certificates.")
    coordinators: tuple[Dialled, ...] = Field(
        min_length=1, max_length=8, description="host:port of the coordinator; more are tried in order."
    )
    data_dir: LocalPath = Field(description="The folder of the journal, fetched models and updates on their way out.")


class TaskTable(Table):
    """[tasks.<name>]: code that the silo installed and is willing to run."""

    entry: Entry = Field(description="The task's class, as package.module:ClassName.")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Handed to the class as it is: paths to data, for one."
    )
    threads: int = Field(
        default=0, ge=0, le=THREADS_MAX, description="CPU threads of PyTorch; 0 leaves the choice to PyTorch."
    )


class TrainingTable(Table):
    """[training]: on what hardware tasks run."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where models are put. `auto` takes cuda, then mps, then cpu, and says which."
    )


class PolicyTable(Table):
    """[policy]: what this silo takes part in. Asked before any data is read."""

    minimum_members: int = Field(
        default=DEFAULT_MINIMUM_MEMBERS,
        ge=1,
        le=MEMBERS_MAX,
        description="Members that a job must have at least, this silo among them.",
    )
    allow_plain: bool = Field(
        default=False, description="Take part in jobs without masking, where the coordinator sees this silo's update."
    )
    minimum_survivors: int = Field(
        default=DEFAULT_MIN_SURVIVORS,
        ge=2,
        le=MEMBERS_MAX,
        description="Updates that a masked total must be over at least.",
    )
    minimum_colluding: Colluding = Field(
        default="auto",
        description="Colluding members that a masked job must withstand at least; `auto`: the default for its members.",
    )
    allow_two_party: bool = Field(
        default=False,
        description="Take part in masked jobs of two members, of which each learns the other's update from the total.",
    )
    allow_no_collusion: bool = Field(
        default=False,
        description="Take part in masked jobs where one member could help the coordinator to another's update, "
        "unless minimum_colluding is a number above 0.",
    )
    allowed_repeats: tuple[Job, ...] = Field(
        default=(),
        max_length=REPEATS_MAX,
        description="Ids of jobs that may total other members' updates to a model that was totalled before.",
    )
    allowed_jobs: tuple[Annotated[str, Field(pattern=r"^[a-z0-9*?-]{1,63}$")], ...] = Field(
        default=("*",), description="Names of jobs, with * and ? for parts of a name; anything else is declined."
    )
    approved_jobs: tuple[DigestHex, ...] = Field(
        default=(),
        max_length=APPROVED_MAX,
        description="Digests of the specifications of jobs that are accepted, each for one job; none: any.",
    )
    max_deadline_s: float = Field(
        default=DEFAULT_MAX_DEADLINE_S,
        gt=0,
        le=DEADLINE_MAX_S,
        allow_inf_nan=False,
        description="The longest training deadline that is accepted, in seconds.",
    )
    share_progress: bool = Field(
        default=True, description="Tell the coordinator how far training is, as a percentage and nothing else."
    )

    @property
    def approved(self) -> tuple[Digest, ...]:
        return tuple(map(Digest.parse, self.approved_jobs))


class ConsortiumTable(Table):
    """[consortium]: whose signing keys this silo believes. Without it every masked job is declined."""

    manifest: LocalPath = Field(description="The consortium's manifest, as `consilo pki manifest` wrote it.")
    digest: DigestHex = Field(description="Its digest, as an officer of the consortium said it (64 hex digits).")

    @property
    def pinned(self) -> Digest:
        return Digest.parse(self.digest)


class OwnMetricsTable(MetricsTable):
    """[metrics]: what a silo's task measured on the silo's own data is served only where the silo says so."""

    listen: ListenerAddress = Field(default=DEFAULT_METRICS, description='host:port where /metrics answers, or "off".')
    local_metrics: bool = Field(
        default=False,
        description="Serve this silo's own loss and other metrics of a job, to whoever can reach `listen`: on "
        "loopback, every account of this machine.",
    )


class ParticipantSettings(Table):
    """The whole file."""

    participant: ParticipantTable = Field(description="Who this is and whom it dials.")
    tls: TlsTable = Field(description="Credentials for connections.")
    signing: SigningTable = Field(description="Credentials for messages.")
    consortium: ConsortiumTable | None = Field(
        default=None, description="Whose signing keys are believed; masked jobs need it."
    )
    tasks: dict[Task, TaskTable] = Field(default_factory=dict, description="What this silo is willing to run.")
    training: TrainingTable = Field(default=TrainingTable(), description="On what hardware.")
    policy: PolicyTable = Field(default=PolicyTable(), description="What this silo takes part in.")
    metrics: OwnMetricsTable = Field(default=OwnMetricsTable(), description="Where Prometheus collects.")
    status: StatusTable = status_table(DEFAULT_STATUS)
    log: LogTable = Field(default=LogTable(), description="Lines on standard error.")

    @property
    def status_wanted(self) -> bool:
        """Whether the file names the status page: then a start without it is an error."""
        return "status" in self.model_fields_set
