"""What `consilo pki` does not do."""

from __future__ import annotations

from hashlib import sha256

from consilo.pki_request import make_request
from tests.inputs.place import Place, Row, a_folder, copying, encrypting, mode, removing, several, writing


def a_request(place: Place) -> None:
    make_request(place.path("request"))


ROWS = [
    Row(
        name="an authority that is there already",
        command="pki init pki --consortium hearts.example",
        says=(
            "pki/ca.crt exists: a new authority would make every certificate of the old one "
            "worthless. Choose another folder"
        ),
    ),
    Row(
        name="a consortium's name that is none",
        command="pki init new-pki --consortium 'Hearts Example'",
        says=(
            "a consortium has a name like a DNS name (a-z, 0-9, '-' and '.', at most 255 characters),"
            " got 'Hearts Example'"
        ),
    ),
    Row(
        name="an authority for no days",
        command="pki init new-pki --consortium hearts.example --days 0",
        says="Invalid value for '--days': 0 is not in the range 1<=x<=7300.",
        code=2,
    ),
    Row(
        name="a file as authority's folder",
        command="pki init job.toml --consortium hearts.example",
        says="Invalid value for 'DIR': Directory 'job.toml' is a file.",
        code=2,
    ),
    Row(
        name="no authority there",
        command="pki issue nowhere participant hospital-d",
        says=("nowhere/ca.crt cannot be read (No such file or directory): is this a folder of `consilo pki init`?"),
    ),
    Row(
        name="a member's folder as authority",
        command="pki issue hospital-a participant hospital-d",
        says=("hospital-a/ca.key cannot be read (No such file or directory): is this a folder of `consilo pki init`?"),
    ),
    Row(
        name="a member's name that is none",
        command="pki issue pki participant Hospital_D",
        says=("a name has 1 to 63 characters a-z, 0-9 and '-', none of them '-' at an end; got 'Hospital_D'"),
    ),
    Row(
        name="a role that is none",
        command="pki issue pki hospital hospital-d",
        says=(
            "Invalid value for '{participant|coordinator|operator}': 'hospital' is not one of "
            "'participant', 'coordinator', 'operator'."
        ),
        code=2,
    ),
    Row(
        name="a coordinator whom nobody can dial",
        command="pki issue pki coordinator main",
        says="a coordinator needs the names under which it is dialled: give --dns at least once",
    ),
    Row(
        name="a participant to dial",
        command="pki issue pki participant hospital-d --dns localhost",
        says="nobody dials a participant: leave --dns out",
    ),
    Row(
        name="a host name with scheme and port",
        command="pki issue pki coordinator main --dns https://a.example:8443",
        says=(
            "expected a DNS name or an IP address under which the coordinator is dialled, without a "
            "scheme or a port, got 'https://a.example:8443'"
        ),
    ),
    Row(
        name="an empty host name",
        command="pki issue pki coordinator main --dns ''",
        says=(
            "expected a DNS name or an IP address under which the coordinator is dialled, without a "
            "scheme or a port, got ''"
        ),
    ),
    Row(
        name="a certificate for no days",
        command="pki issue pki participant hospital-d --days 0",
        says="a TLS certificate is valid for 1 to 3650 days, got 0",
    ),
    Row(
        name="another authority's key",
        spoil=copying("other-pki/ca.key", "pki/ca.key"),
        command="pki issue pki participant hospital-d",
        says="pki/ca.key is not the key of pki/ca.crt",
    ),
    Row(
        name="an authority's key that is encrypted",
        spoil=encrypting("pki/ca.key"),
        command="pki issue pki participant hospital-d",
        says=(
            "pki/ca.key: expected a private key without a passphrase, which nobody types when a "
            "daemon starts, got an encrypted one: `openssl pkey -in pki/ca.key -out NEW` writes it "
            "without"
        ),
    ),
    Row(
        name="an authority whose allow-list is damaged",
        spoil=writing("pki/allowlist.toml", "damaged"),
        command="pki issue pki participant hospital-d",
        says=("pki/allowlist.toml: not TOML: Expected '=' after a key in a key/value pair (at end of document)"),
    ),
    Row(
        name="an authority with the allow-list of others",
        spoil=copying("other-pki/allowlist.toml", "pki/allowlist.toml"),
        command="pki issue pki participant hospital-d",
        says=(
            "pki/allowlist.toml: expected the allow-list of hearts.example, got that of "
            "lungs.example: put back the one that was written here"
        ),
    ),
    Row(
        name="an authority's folder whose lock cannot be had",
        spoil=several(removing("pki/.lock"), a_folder("pki/.lock")),
        command="pki issue pki participant hospital-d",
        says="pki/.lock cannot be written (Is a directory): only one who writes there may issue",
        leaves=("pki/issued*", "pki/signing/*"),
    ),
    Row(
        name="a request where keys are",
        command="pki request hospital-a",
        says="hospital-a/tls.key exists and may be in use: make the request in a new folder",
    ),
    Row(
        name="no request there",
        command=f"pki sign pki participant hospital-d request.pem --sha256 {64 * '0'}",
        says="request.pem cannot be read (No such file or directory)",
    ),
    Row(
        name="another request than the silo made",
        spoil=a_request,
        command=f"pki sign pki participant hospital-d request/request.pem --sha256 {64 * '0'}",
        says=(
            "request/request.pem: expected SHA-256 "
            "0000000000000000000000000000000000000000000000000000000000000000, got ...: this is not "
            "what the silo made"
        ),
    ),
    Row(
        name="a request's digest that is none",
        spoil=a_request,
        command="pki sign pki participant hospital-d request/request.pem --sha256 12ab",
        says="Invalid value for --sha256: expected 64 lower-case hexadecimal digits, got '12ab'",
        code=2,
    ),
    Row(
        name="a file that is no request",
        spoil=writing("request.pem", ""),
        command=f"pki sign pki participant hospital-d request.pem --sha256 {sha256(b'').hexdigest()}",
        says="request.pem: expected two requests, for TLS and for signing, got 0",
    ),
    Row(
        name="no members for a manifest",
        command="pki manifest other-pki",
        says=(
            "other-pki/allowlist.toml: expected participants and a coordinator, got none: `consilo "
            "pki issue` or `consilo pki sign` admits them"
        ),
        leaves=("other-pki/officer.key",),
    ),
    Row(
        name="a member's certificate that is lost",
        spoil=removing("pki/signing/participant/hospital-b.crt"),
        command="pki manifest pki",
        says=(
            "pki/signing/participant/hospital-b.crt: expected the signing certificate of participant "
            "hospital-b, it cannot be read (No such file or directory): copy its signing.crt there, "
            "or sign its request again"
        ),
    ),
    Row(
        name="a member's certificate in another's place",
        spoil=copying("pki/signing/participant/hospital-a.crt", "pki/signing/participant/hospital-b.crt"),
        command="pki manifest pki",
        says=(
            "pki/signing/participant/hospital-b.crt: expected the signing certificate ... of "
            "participant hospital-b, as on the allow-list, got ... of participant hospital-a: copy "
            "the right signing.crt there"
        ),
    ),
    Row(
        name="an officer's key that others can read",
        spoil=mode("pki/officer.key", 0o644),
        command="pki manifest pki",
        says=("pki/officer.key: expected a key that only its owner can read, got mode 0644: chmod 600 pki/officer.key"),
    ),
    Row(
        name="a manifest into a folder that is not there",
        command="pki manifest pki --out nowhere/consortium.json",
        says="nowhere/consortium.json cannot be written (No such file or directory)",
    ),
]
