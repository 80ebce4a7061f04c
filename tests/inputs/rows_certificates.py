"""Certificates of the wrong kind, time, name or consortium. All of it is found before anything is dialled."""

from __future__ import annotations

from consilo.pki import Authority, create_authority
from shared.clock import SystemClock
from shared.identity import Role
from tests.inputs.place import (
    Place,
    Row,
    Spoil,
    a_folder,
    copying,
    encrypting,
    issuing,
    mode,
    removing,
    replacing,
    several,
    writing,
)
from tests.support.credentials import CONSORTIUM

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"
OPERATOR_LISTS = "job list"


def signing_of(days_from_now: int) -> Spoil:
    """A participant's signing certificate of another time; its TLS certificate stays."""
    return several(
        issuing(Role.PARTICIPANT, "hospital-a", into="other-time", days_from_now=days_from_now),
        copying("other-time/signing.crt", "hospital-a/signing.crt"),
        copying("other-time/signing.key", "hospital-a/signing.key"),
    )


def of_another_consortium(place: Place) -> None:
    other = Authority.load(place.path("other-pki"))
    other.issue(Role.PARTICIPANT, "hospital-a", out=place.path("hospital-a"), now=SystemClock().now())


def a_second_authority(place: Place) -> None:
    create_authority(place.path("new-pki"), consortium=CONSORTIUM, now=SystemClock().now())
    place.copy("new-pki/ca.crt", "hospital-a/ca.crt")


ROWS = [
    Row(
        name="no signing certificate",
        spoil=removing("hospital-a/signing.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.crt cannot be read (No such file or directory): check "
            "the path and who runs this process"
        ),
    ),
    Row(
        name="no signing key",
        spoil=removing("hospital-a/signing.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.key cannot be read (No such file or directory): check "
            "the path and who runs this process"
        ),
    ),
    Row(
        name="a folder as certificate",
        spoil=a_folder("hospital-a/tls.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt cannot be read (Is a directory): check the path and who runs this process"
        ),
    ),
    Row(
        name="an empty certificate",
        spoil=writing("hospital-a/tls.crt", ""),
        command=PARTICIPANT_RUNS,
        says="/srv/consilo/hospital-a/tls.crt: expected a certificate in PEM form, got something else",
    ),
    Row(
        name="a CA that is none",
        spoil=writing("hospital-a/ca.crt", ""),
        command=PARTICIPANT_RUNS,
        says=("/srv/consilo/hospital-a/ca.crt: expected the authority's certificate in PEM form, got something else"),
    ),
    Row(
        name="a leaf as CA",
        spoil=copying("hospital-a/tls.crt", "hospital-a/ca.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/ca.crt: expected an authority's certificate, got that of "
            "'CN=hospital-a,O=hearts.example', which may not issue others: is this a leaf "
            "certificate?"
        ),
    ),
    Row(
        name="a key as certificate",
        spoil=copying("hospital-a/tls.key", "hospital-a/tls.crt"),
        command=PARTICIPANT_RUNS,
        says="/srv/consilo/hospital-a/tls.crt: expected a certificate in PEM form, got something else",
    ),
    Row(
        name="a certificate as key",
        spoil=copying("hospital-a/tls.crt", "hospital-a/tls.key"),
        command=PARTICIPANT_RUNS,
        says="/srv/consilo/hospital-a/tls.key: expected a private key in PEM form, got something else",
    ),
    Row(
        name="a signing key that others can read",
        spoil=mode("hospital-a/signing.key", 0o640),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.key: expected a key that only its owner can read, got "
            "mode 0640: chmod 600 /srv/consilo/hospital-a/signing.key"
        ),
    ),
    Row(
        name="a signing key of another certificate",
        spoil=copying("hospital-b/signing.key", "hospital-a/signing.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.key is not the key of "
            "/srv/consilo/hospital-a/signing.crt: take both from the same `consilo pki issue`"
        ),
    ),
    Row(
        name="an encrypted signing key",
        spoil=encrypting("hospital-a/signing.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.key: expected a private key without a passphrase, which "
            "nobody types when a daemon starts, got an encrypted one: `openssl pkey -in "
            "/srv/consilo/hospital-a/signing.key -out NEW` writes it without"
        ),
    ),
    Row(
        name="the signing certificate and key for TLS",
        spoil=several(
            copying("hospital-a/signing.key", "hospital-a/tls.key"),
            copying("hospital-a/signing.crt", "hospital-a/tls.crt"),
        ),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: expected a P-256, P-384 or RSA key, which gRPC can use "
            "for TLS, got another kind: is this the signing certificate?"
        ),
    ),
    Row(
        name="the TLS key for signing",
        spoil=copying("hospital-a/tls.key", "hospital-a/signing.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.key: expected an Ed25519 signing key, got another kind: "
            "is this the TLS key? `consilo pki issue` writes both"
        ),
    ),
    Row(
        name="the TLS certificate for signing",
        spoil=copying("hospital-a/tls.crt", "hospital-a/signing.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.crt: expected a certificate for signing Consilo "
            "messages, got one for dialling (TLS client)"
        ),
    ),
    Row(
        name="an expired signing certificate",
        spoil=signing_of(-400),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/signing.crt: the certificate expired at ..., now is ...: issue a"
            " new one, or check the clock"
        ),
    ),
    Row(
        name="a signing certificate of tomorrow",
        spoil=signing_of(2),
        command=PARTICIPANT_RUNS,
        says=("/srv/consilo/hospital-a/signing.crt: the certificate is valid from ..., now is ...: check the clock"),
    ),
    Row(
        name="an operator's certificate: participant",
        spoil=replacing("participant.toml", '"hospital-a/', '"operator/'),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/operator/tls.crt: expected a certificate with the role participant, got "
            "that of operator operator"
        ),
    ),
    Row(
        name="the coordinator's certificate: participant",
        spoil=replacing("participant.toml", '"hospital-a/', '"coordinator/'),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.crt: expected a certificate with the role participant, got "
            "that of coordinator coordinator"
        ),
    ),
    Row(
        name="a participant's certificate: coordinator",
        spoil=replacing("coordinator.toml", '"coordinator/', '"hospital-a/'),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: expected a certificate with the role coordinator, got "
            "that of participant hospital-a"
        ),
    ),
    Row(
        name="a participant's certificate: operator",
        spoil=replacing("operator.toml", '"operator/', '"hospital-a/'),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: expected a certificate with the role operator, got that"
            " of participant hospital-a"
        ),
    ),
    Row(
        name="the coordinator's certificate: operator",
        spoil=replacing("operator.toml", '"operator/', '"coordinator/'),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/coordinator/tls.crt: expected a certificate with the role operator, got "
            "that of coordinator coordinator"
        ),
    ),
    Row(
        name="a certificate of another participant",
        spoil=replacing("participant.toml", '"hospital-a/', '"hospital-b/'),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.id is 'hospital-a', but /srv/consilo/hospital-b/tls.crt is the certificate "
            "of participant hospital-b: change one of the two"
        ),
    ),
    Row(
        name="a signing certificate of another participant",
        spoil=replacing("participant.toml", '"hospital-a/signing', '"hospital-b/signing'),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-b/signing.crt: expected "
            "spiffe://hearts.example/participant/hospital-a, as in the TLS certificate, got "
            "spiffe://hearts.example/participant/hospital-b"
        ),
    ),
    Row(
        name="credentials of another consortium",
        spoil=of_another_consortium,
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/pki/consortium.json: expected the manifest of lungs.example, as in the "
            "certificates, got that of hearts.example: take the one of your own consortium"
        ),
    ),
    Row(
        name="a CA of the same name made anew",
        spoil=a_second_authority,
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: expected a certificate issued by the authority "
            "'CN=Consilo authority,O=hearts.example' at hand, got one by another authority of that "
            "name: take ca.crt from where the certificate came from"
        ),
    ),
]
