"""The error tree: everything that can go wrong by somebody else's doing.

A mistake of our own callers (a method called in the wrong order) is a `RuntimeError`: a bug, not a member of this tree.
`shared.wire.status` maps every leaf to a gRPC status code; a test walks the tree and fails on a leaf without one.
Messages say what was expected, what came and what to do. A message sent to a peer never names another peer's data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.reasons import AbortReason, ConsentRule


class FederationError(Exception):
    """The root. Raise a leaf."""


class PeerError(FederationError):
    """The other side broke the rules. The connection's identity is who is blamed for it."""


class WireError(PeerError):
    """Bytes that are no message of this protocol, or a message with a field missing, malformed or over its limit."""


class PhaseError(PeerError):
    """A message that is not allowed in the phase that this conversation is in. It changed nothing."""


class IdentityError(PeerError):
    """The peer is not who it must be: certificate, role, allow-list or signature."""


class ConflictError(PeerError):
    """A known id with different content: same job id, other specification; same upload, other bytes."""


class LateError(PeerError):
    """A message about a round or an attempt that is over. Not an attack: slow networks do this."""


class UnknownError(PeerError):
    """The thing asked for does not exist here, or not for this caller."""


class RefusedError(PeerError):
    """The coordinator will not open a session with this participant (no common version, for one)."""


class RoundAborted(FederationError):  # noqa: N818 - an outcome, not a fault
    """A round ended without a result."""

    def __init__(self, reason: AbortReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConsentRefused(FederationError):  # noqa: N818 - an outcome, not a fault
    """The silo said no, by a rule that it names."""

    def __init__(self, rule: ConsentRule, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class PrivacyBudgetExhausted(FederationError):  # noqa: N818 - an outcome, not a fault
    """What is left of the silo's privacy budget does not cover this round."""


class ConfigError(FederationError):
    """A configuration file, environment variable or job file that cannot be used: key path, expected, got."""


class ModelError(FederationError):
    """A model or tensor file that Consilo cannot carry: names the tensor, says what is accepted."""


class TaskError(FederationError):
    """A task that cannot be imported, or that broke its contract. The traceback stays in the silo."""


class AuditError(FederationError):
    """An audit log that does not verify, and where."""


class UnreachableError(FederationError):
    """The peer cannot be reached now; the message names the likely cause. Safe to retry."""


class StorageError(FederationError):
    """A read or write failed and changed nothing. Safe to retry."""


class DurabilityUnknown(FederationError):  # noqa: N818 - names the state, as the handler must act on it
    """A write failed and nobody knows whether it is on disk: end the process, let recovery find out."""
