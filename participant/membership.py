"""Whether this silo and its coordinator are in the manifest that it pinned: looked at before anything is dialled."""

from __future__ import annotations

from participant.settings import ParticipantSettings
from shared.consortium import Consortium
from shared.errors import ConfigError
from shared.tls import CheckedSigning


def check_consortium(settings: ParticipantSettings, signing: CheckedSigning) -> Consortium | None:
    """The pinned manifest of [consortium]; None when nothing is pinned. Raises ConfigError.

    Whichever coordinator then answers, its signing key is held against the manifest when it says who it is
    (`Consortium.require`).
    """
    table = settings.consortium
    if table is None:
        return None
    source = str(table.manifest)
    consortium = Consortium.load(table.manifest, pinned=table.pinned)
    consortium.require_own(signing.certificate.identity, signing.certificate.verifying_key, source=source)
    if not consortium.coordinator_keys:
        raise ConfigError(
            f"{source}: expected a member with the role coordinator, got none: this silo could believe nobody's "
            "results. Have an officer make a manifest with the coordinator in it (`consilo pki manifest`)"
        )
    return consortium
