"""One table from the error tree to gRPC's status codes, by name, and back.

The leaf's name travels beside the status in the trailing metadata key `consilo-error`, because several leaves share a
code. A peer's name for an error is only trusted as far as this table goes.
"""

from __future__ import annotations

from shared import errors

ERROR_METADATA_KEY = "consilo-error"

STATUS: dict[type[errors.FederationError], str] = {
    errors.WireError: "INVALID_ARGUMENT",
    errors.PhaseError: "FAILED_PRECONDITION",
    errors.IdentityError: "PERMISSION_DENIED",
    errors.ConflictError: "ALREADY_EXISTS",
    errors.LateError: "FAILED_PRECONDITION",
    errors.UnknownError: "NOT_FOUND",
    errors.RefusedError: "FAILED_PRECONDITION",
    errors.RoundAborted: "ABORTED",
    errors.ConsentRefused: "PERMISSION_DENIED",
    errors.PrivacyBudgetExhausted: "RESOURCE_EXHAUSTED",
    errors.ConfigError: "INVALID_ARGUMENT",
    errors.ModelError: "INVALID_ARGUMENT",
    errors.TaskError: "INVALID_ARGUMENT",
    errors.AuditError: "DATA_LOSS",
    errors.UnreachableError: "UNAVAILABLE",
    errors.StorageError: "UNAVAILABLE",
    errors.DurabilityUnknown: "UNAVAILABLE",
}

_PLAIN_LEAVES: dict[str, type[errors.FederationError]] = {
    leaf.__name__: leaf for leaf in STATUS if leaf not in {errors.RoundAborted, errors.ConsentRefused}
}


def status_of(error: errors.FederationError) -> str:
    """The name of the gRPC status for an error."""
    return STATUS[type(error)]


def error_named(name: str, message: str) -> errors.FederationError | None:
    """The error that a peer named, if it is one that can be rebuilt from a message alone."""
    leaf = _PLAIN_LEAVES.get(name)
    return leaf(message) if leaf else None
