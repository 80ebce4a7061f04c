"""Manifests and allow-lists that cannot be used."""

from __future__ import annotations

from consilo.pki import Authority
from consilo.pki_manifest import write_manifest
from shared.clock import SystemClock
from shared.identity import Role
from tests.inputs.place import (
    Place,
    Row,
    a_folder,
    adding,
    copying,
    issuing,
    removing,
    replacing,
    writing,
)

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"


def the_manifest_of_others(place: Place) -> None:
    other, now = Authority.load(place.path("other-pki")), SystemClock().now()
    other.issue(Role.PARTICIPANT, "hospital-a", out=place.path("other-hospital"), now=now)
    write_manifest(other, out=place.path("pki/consortium.json"), now=now)


ROWS = [
    Row(
        name="no manifest: participant",
        spoil=removing("pki/consortium.json"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected the consortium's manifest, it cannot be read "
            "(No such file or directory): `consilo pki manifest` writes it"
        ),
    ),
    Row(
        name="no manifest: coordinator",
        spoil=removing("pki/consortium.json"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected the consortium's manifest, it cannot be read "
            "(No such file or directory): `consilo pki manifest` writes it"
        ),
    ),
    Row(
        name="a manifest that is none",
        spoil=writing("pki/consortium.json", "manifest"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected a consortium's manifest of version 1, as "
            "`consilo pki manifest` writes it: Invalid JSON: expected value at line 1 column 1"
        ),
    ),
    Row(
        name="a manifest that an editor saved",
        spoil=adding("pki/consortium.json", "\n"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected a manifest in canonical form (sorted keys, no"
            " white space, no line end), got other bytes of the same meaning: was it edited or "
            "re-formatted? Take the file as `consilo pki manifest` wrote it"
        ),
    ),
    Row(
        name="a manifest that was changed",
        spoil=replacing("pki/consortium.json", "hospital-c", "hospital-d"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: the signature of officer ... is not over this "
            "manifest: it was changed after it was signed. Take the file as the officers signed it"
        ),
    ),
    Row(
        name="a manifest of another consortium",
        spoil=the_manifest_of_others,
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected the manifest of hearts.example, as in the "
            "certificates, got that of lungs.example: take the one of your own consortium"
        ),
    ),
    Row(
        name="another manifest than is pinned",
        spoil=replacing("participant.toml", 'digest = "', f'digest = "{64 * "0"}" # '),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected the manifest with digest "
            "0000000000000000000000000000000000000000000000000000000000000000, as pinned, got ...: "
            "ask an officer of the consortium for the digest over a second channel (by telephone), "
            "and change the pin only to what they say"
        ),
    ),
    Row(
        name="a signing key that the manifest does not have: participant",
        spoil=issuing(Role.PARTICIPANT, "hospital-a", into="hospital-a"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected signing key ... of participant hospital-a, as"
            " in the consortium's manifest, got .... Have an officer make a manifest with this "
            "signing key (`consilo pki manifest`), which every silo then has to pin, or take the "
            "listed key back into use"
        ),
    ),
    Row(
        name="a signing key that the manifest does not have: coordinator",
        spoil=issuing(Role.COORDINATOR, "coordinator", into="coordinator"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected signing key ... of coordinator coordinator, "
            "as in the consortium's manifest, got .... Have an officer make a manifest with this "
            "signing key (`consilo pki manifest`), which every silo then has to pin, or take the "
            "listed key back into use"
        ),
    ),
    Row(
        name="no allow-list",
        spoil=removing("pki/allowlist.toml"),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: the allow-list cannot be read (No "
            "such file or directory): `consilo pki` writes it in the authority's folder; copy it from"
            " there"
        ),
    ),
    Row(
        name="a folder as allow-list",
        spoil=a_folder("pki/allowlist.toml"),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: the allow-list cannot be read (Is a "
            "directory): `consilo pki` writes it in the authority's folder; copy it from there"
        ),
    ),
    Row(
        name="an allow-list that is not TOML",
        spoil=writing("pki/allowlist.toml", "hospital-a"),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: not TOML: Expected '=' after a key in"
            " a key/value pair (at end of document)"
        ),
    ),
    Row(
        name="an empty allow-list",
        spoil=writing("pki/allowlist.toml", ""),
        command=COORDINATOR_RUNS,
        says="access.allowlist: /srv/consilo/pki/allowlist.toml: the key 'consortium' is missing",
    ),
    Row(
        name="an allow-list with a role that is none",
        spoil=replacing("pki/allowlist.toml", 'role = "operator"', 'role = "admin"'),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: [[allowed]] number 2: role: expected "
            "one of participant, coordinator, operator, got 'admin'"
        ),
    ),
    Row(
        name="an allow-list with a digest that is none",
        spoil=replacing("pki/allowlist.toml", 'tls_sha256 = "', 'tls_sha256 = "sha256:'),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: [[allowed]] number 1: expected 64 "
            "lower-case hexadecimal digits, got 'sha256:...'"
        ),
    ),
    Row(
        name="an allow-list with an unknown key",
        spoil=replacing("pki/allowlist.toml", "tls_sha256", "tls"),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: [[allowed]] number 1: unknown key "
            "'tls'; expected id, role, signing_sha256, tls_sha256"
        ),
    ),
    Row(
        name="an allow-list with a key too few",
        spoil=replacing("pki/allowlist.toml", 'id = "hospital-b"\n', ""),
        command=COORDINATOR_RUNS,
        says=("access.allowlist: /srv/consilo/pki/allowlist.toml: [[allowed]] number 4: the key 'id' is missing"),
    ),
    Row(
        name="an allow-list with one member twice",
        spoil=replacing("pki/allowlist.toml", 'id = "hospital-b"', 'id = "hospital-a"'),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: participant hospital-a stands there "
            "twice; remove the entry that is old"
        ),
    ),
    Row(
        name="an allow-list of another consortium",
        spoil=copying("other-pki/allowlist.toml", "pki/allowlist.toml"),
        command=COORDINATOR_RUNS,
        says=(
            "access.allowlist: /srv/consilo/pki/allowlist.toml: expected the allow-list of "
            "hearts.example, as in the certificates, got that of lungs.example: nobody of "
            "hearts.example would be let in"
        ),
    ),
]
