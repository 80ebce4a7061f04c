"""Who may call what, and the one wall that every call passes.

Theory of operation. `MATRIX` names the roles for each method; what is not in it nobody may call, and the server does
not start when a method of the wire is missing from it. For each call `Wall.admit` proves the caller (TLS 1.3, one
SPIFFE id), looks up the role, then the allow-list as it is now. Only then does a handler see a byte.

The wall is also where errors become statuses. The errors of a peer's own making carry their text; what is our own
trouble (storage, configuration, a bug) is told in one fixed sentence, because its text names our files and perhaps
other peers. Everything refused is counted and logged against the identity of the connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import grpc
import structlog
from grpc import aio

from shared.errors import (
    DurabilityUnknown,
    FederationError,
    IdentityError,
    LateError,
    ModelError,
    PeerError,
    UnreachableError,
)
from shared.identity import AllowedEntry, AllowlistFile, Identity, Role
from shared.ids import ParticipantId
from shared.log import log_context
from shared.tls import Caller, caller_of
from shared.wire.status import ERROR_METADATA_KEY, status_of

_PARTICIPANTS = frozenset({Role.PARTICIPANT})
_OPERATORS = frozenset({Role.OPERATOR})
_ANYBODY = frozenset(Role)  # the coordinator itself as well, which may ask how it is and nothing else

MATRIX: dict[str, frozenset[Role]] = {
    "/consilo.v1.SessionService/Session": _PARTICIPANTS,
    "/consilo.v1.TransferService/FetchModel": _PARTICIPANTS,
    "/consilo.v1.TransferService/UploadUpdate": _PARTICIPANTS,
    "/consilo.v1.TransferService/UploadStatus": _PARTICIPANTS,
    "/consilo.v1.TransferService/UploadCommit": _PARTICIPANTS,
    "/consilo.v1.OperationsService/SubmitJob": _OPERATORS,
    "/consilo.v1.OperationsService/ListJobs": _OPERATORS,
    "/consilo.v1.OperationsService/GetJob": _OPERATORS,
    "/consilo.v1.OperationsService/WatchJob": _OPERATORS,
    "/consilo.v1.OperationsService/AbortJob": _OPERATORS,
    "/consilo.v1.OperationsService/PauseJob": _OPERATORS,
    "/consilo.v1.OperationsService/ResumeJob": _OPERATORS,
    "/consilo.v1.OperationsService/ControlJob": _OPERATORS,
    "/consilo.v1.OperationsService/PutModel": _OPERATORS,
    "/consilo.v1.OperationsService/ListModels": _OPERATORS,
    "/consilo.v1.OperationsService/PromoteModel": _OPERATORS,
    "/consilo.v1.OperationsService/ExportModel": _OPERATORS,
    "/consilo.v1.OperationsService/ReadAudit": _OPERATORS,
    "/grpc.health.v1.Health/Check": _ANYBODY,
    "/grpc.health.v1.Health/Watch": _ANYBODY,
}

OWN_TROUBLE = "the coordinator has trouble of its own now (its log says which): try again later"
UNPROVEN = "unproven"  # stands in the log for whoever has no identity; all of them share one budget of lines
BUG = "the coordinator met an error of its own; its log has the details"

CALLS_MAX = 32  # open at once for one identity: a session, four transfers and a few short calls; or a screen of watches

Context = aio.ServicerContext[bytes, bytes]
_log = structlog.get_logger(__name__)


class RefusalCounter(Protocol):
    """Counts what was refused."""

    def refused(self, method: str, error: str) -> None:
        """`method` is a method of the wire, `error` the name of an error or refusal: both closed lists."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in."""

    method: str
    identity: Identity
    entry: AllowedEntry
    _caller: Caller
    _allowlist: AllowlistFile

    @property
    def participant(self) -> ParticipantId:
        """The caller's name; only where MATRIX lets in nobody but participants."""
        return ParticipantId(self.identity.name)

    def recheck(self) -> None:
        """For long calls: raises IdentityError once the caller is no longer let in with these certificates."""
        entry = self._allowlist.check(self.identity, self._caller.tls_fingerprint)
        if entry.signing_fingerprint != self.entry.signing_fingerprint:
            raise IdentityError(f"{self.identity} has another signing certificate on the allow-list now: come again")

    @property
    def removed(self) -> bool:
        """Whether the caller was taken off the allow-list, and not merely given other certificates."""
        return self._allowlist.lacks(self.identity)


class TooMuch(Exception):  # noqa: N818 - a limit, said by the wall as RESOURCE_EXHAUSTED
    """A caller has as many calls of this kind open as it may have."""


BULK = frozenset(
    {
        "/consilo.v1.TransferService/FetchModel",
        "/consilo.v1.TransferService/UploadUpdate",
        "/consilo.v1.OperationsService/PutModel",
        "/consilo.v1.OperationsService/ExportModel",
    }
)


class Wall:
    """Lets calls in, and turns errors into statuses."""

    def __init__(
        self,
        *,
        allowlist: AllowlistFile,
        counter: RefusalCounter,
        on_unknown: Callable[[DurabilityUnknown], None],
    ) -> None:
        self._allowlist = allowlist
        self._counter = counter
        self._on_unknown = on_unknown
        self._bulk: set[asyncio.Task[object]] = set()
        self._open: Counter[Identity] = Counter()
        self._cutting = False

    def cut_transfers(self) -> None:
        """End all bulk streams, which may take hours, with an error that says to try again. This server ends."""
        self._cutting = True
        for task in self._bulk:
            task.cancel()

    @asynccontextmanager
    async def admit(self, method: str, context: Context) -> AsyncIterator[Call]:
        """The body runs only for a caller that may; whatever it raises ends the call with the right status."""
        try:
            caller = caller_of(context.auth_context())
        except IdentityError as error:
            _log.warning("caller_refused", peer=UNPROVEN, method=method, address=context.peer(), reason=str(error))
            await self._abort(method, context, error)
            raise  # never reached: `_abort` raises
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler runs in one
        if method in BULK:
            self._bulk.add(task)
        with log_context(peer=caller.identity.uri, method=method):
            try:
                call = self._let_in(method, caller)
                with self._one_of_some(call.identity):
                    yield call
            except asyncio.CancelledError:
                if not (self._cutting and method in BULK):
                    raise
                task.uncancel()  # ours: gRPC would log its own with a traceback
                await self._abort(method, context, UnreachableError("the coordinator is shutting down"))
            except aio.AbortError:
                raise
            except FederationError as error:
                self._say(error)
                await self._abort(method, context, error)
            except TooMuch as limit:
                self._counter.refused(method, TooMuch.__name__)
                _log.warning("call_refused", error=TooMuch.__name__, reason=str(limit))
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(limit))
            except aio.BaseError as error:
                # The library's own: the peer is gone, there is nobody to answer.
                _log.info("call_lost", reason=type(error).__name__)
                raise
            except Exception:  # noqa: BLE001 - the stream boundary: nothing of a bug's text leaves this process
                _log.exception("internal_error")
                self._counter.refused(method, "InternalError")
                await context.abort(grpc.StatusCode.INTERNAL, BUG)
            finally:
                self._bulk.discard(task)

    @contextmanager
    def _one_of_some(self, identity: Identity) -> Iterator[None]:
        """Whoever was let in has a place, on however many connections it comes; a stranger has none to take."""
        if self._open[identity] >= CALLS_MAX:
            raise TooMuch(f"{CALLS_MAX} calls of this identity are open already: end one of them first")
        self._open[identity] += 1
        try:
            yield
        finally:
            self._open[identity] -= 1
            if not self._open[identity]:
                del self._open[identity]

    def _let_in(self, method: str, caller: Caller) -> Call:
        roles = MATRIX.get(method, frozenset())
        if caller.identity.role not in roles:
            expected = " or ".join(sorted(roles)) or "nobody"
            raise IdentityError(f"{method} is for role {expected}, and {caller.identity} called it")
        entry = self._allowlist.check(caller.identity, caller.tls_fingerprint)
        return Call(method, caller.identity, entry, caller, self._allowlist)

    def _say(self, error: FederationError) -> None:
        match error:
            case DurabilityUnknown():
                self._on_unknown(error)
            case LateError():
                _log.info("call_refused", error=type(error).__name__, reason=str(error))
            case PeerError() | ModelError() | UnreachableError():
                _log.warning("call_refused", error=type(error).__name__, reason=str(error))
            case _:
                _log.error("own_trouble", error=type(error).__name__, reason=str(error))

    async def _abort(self, method: str, context: Context, error: FederationError) -> None:
        name = type(error).__name__
        self._counter.refused(method, name)
        theirs = isinstance(error, PeerError | ModelError)
        await context.abort(
            grpc.StatusCode[status_of(error) if theirs else "UNAVAILABLE"],
            str(error) if theirs else OWN_TROUBLE,
            trailing_metadata=((ERROR_METADATA_KEY, name),),
        )
