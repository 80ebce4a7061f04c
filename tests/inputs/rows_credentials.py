"""Files of credentials that cannot be used: the same mistakes in both daemons and with an operator."""

from __future__ import annotations

from shared.identity import Role
from tests.inputs.place import (
    Row,
    copying,
    encrypting,
    issuing,
    mode,
    removing,
)

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"
OPERATOR_LISTS = "job list"


ROWS = [
    Row(
        name="no certificate: participant",
        spoil=removing("hospital-a/tls.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="no key: participant",
        spoil=removing("hospital-a/tls.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.key cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="no CA: participant",
        spoil=removing("hospital-a/ca.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/ca.crt cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="a key that others can read: participant",
        spoil=mode("hospital-a/tls.key", 0o644),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.key: expected a key that only its owner can read, got mode "
            "0644: chmod 600 /srv/consilo/hospital-a/tls.key"
        ),
    ),
    Row(
        name="a key of another certificate: participant",
        spoil=copying("hospital-b/tls.key", "hospital-a/tls.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.key is not the key of /srv/consilo/hospital-a/tls.crt: take "
            "both from the same `consilo pki issue`"
        ),
    ),
    Row(
        name="an encrypted key: participant",
        spoil=encrypting("hospital-a/tls.key"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.key: expected a private key without a passphrase, which "
            "nobody types when a daemon starts, got an encrypted one: `openssl pkey -in "
            "/srv/consilo/hospital-a/tls.key -out NEW` writes it without"
        ),
    ),
    Row(
        name="the CA of another consortium: participant",
        spoil=copying("other-pki/ca.crt", "hospital-a/ca.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: expected a certificate issued by 'CN=Consilo "
            "authority,O=lungs.example', got one by 'CN=Consilo authority,O=hearts.example': take the"
            " certificate and ca.crt from the same consortium"
        ),
    ),
    Row(
        name="no certificate: coordinator",
        spoil=removing("coordinator/tls.crt"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.crt cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="no key: coordinator",
        spoil=removing("coordinator/tls.key"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.key cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="no CA: coordinator",
        spoil=removing("coordinator/ca.crt"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/ca.crt cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="a key that others can read: coordinator",
        spoil=mode("coordinator/tls.key", 0o644),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.key: expected a key that only its owner can read, got mode "
            "0644: chmod 600 /srv/consilo/coordinator/tls.key"
        ),
    ),
    Row(
        name="a key of another certificate: coordinator",
        spoil=copying("hospital-b/tls.key", "coordinator/tls.key"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.key is not the key of /srv/consilo/coordinator/tls.crt: "
            "take both from the same `consilo pki issue`"
        ),
    ),
    Row(
        name="an encrypted key: coordinator",
        spoil=encrypting("coordinator/tls.key"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.key: expected a private key without a passphrase, which "
            "nobody types when a daemon starts, got an encrypted one: `openssl pkey -in "
            "/srv/consilo/coordinator/tls.key -out NEW` writes it without"
        ),
    ),
    Row(
        name="the CA of another consortium: coordinator",
        spoil=copying("other-pki/ca.crt", "coordinator/ca.crt"),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.crt: expected a certificate issued by 'CN=Consilo "
            "authority,O=lungs.example', got one by 'CN=Consilo authority,O=hearts.example': take the"
            " certificate and ca.crt from the same consortium"
        ),
    ),
    Row(
        name="no certificate: operator",
        spoil=removing("operator/tls.crt"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.crt cannot be read (No such file or directory): check the path"
            " and who runs this process"
        ),
    ),
    Row(
        name="no key: operator",
        spoil=removing("operator/tls.key"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.key cannot be read (No such file or directory): check the path"
            " and who runs this process"
        ),
    ),
    Row(
        name="no CA: operator",
        spoil=removing("operator/ca.crt"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/ca.crt cannot be read (No such file or directory): check the path "
            "and who runs this process"
        ),
    ),
    Row(
        name="a key that others can read: operator",
        spoil=mode("operator/tls.key", 0o644),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.key: expected a key that only its owner can read, got mode "
            "0644: chmod 600 /srv/consilo/operator/tls.key"
        ),
    ),
    Row(
        name="a key of another certificate: operator",
        spoil=copying("hospital-b/tls.key", "operator/tls.key"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.key is not the key of /srv/consilo/operator/tls.crt: take both"
            " from the same `consilo pki issue`"
        ),
    ),
    Row(
        name="an encrypted key: operator",
        spoil=encrypting("operator/tls.key"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.key: expected a private key without a passphrase, which nobody"
            " types when a daemon starts, got an encrypted one: `openssl pkey -in "
            "/srv/consilo/operator/tls.key -out NEW` writes it without"
        ),
    ),
    Row(
        name="the CA of another consortium: operator",
        spoil=copying("other-pki/ca.crt", "operator/ca.crt"),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.crt: expected a certificate issued by 'CN=Consilo "
            "authority,O=lungs.example', got one by 'CN=Consilo authority,O=hearts.example': take the"
            " certificate and ca.crt from the same consortium"
        ),
    ),
    Row(
        name="an expired certificate, or a clock that is ahead: participant",
        spoil=issuing(Role.PARTICIPANT, "hospital-a", into="hospital-a", days_from_now=-31),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a/tls.crt: the certificate expired at ..., now is ...: issue a new"
            " one, or check the clock"
        ),
    ),
    Row(
        name="a certificate of tomorrow, or a clock that is behind: participant",
        spoil=issuing(Role.PARTICIPANT, "hospital-a", into="hospital-a", days_from_now=2),
        command=PARTICIPANT_RUNS,
        says=("/srv/consilo/hospital-a/tls.crt: the certificate is valid from ..., now is ...: check the clock"),
    ),
    Row(
        name="an expired certificate, or a clock that is ahead: coordinator",
        spoil=issuing(Role.COORDINATOR, "coordinator", into="coordinator", days_from_now=-31),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator/tls.crt: the certificate expired at ..., now is ...: issue a "
            "new one, or check the clock"
        ),
    ),
    Row(
        name="a certificate of tomorrow, or a clock that is behind: coordinator",
        spoil=issuing(Role.COORDINATOR, "coordinator", into="coordinator", days_from_now=2),
        command=COORDINATOR_RUNS,
        says=("/srv/consilo/coordinator/tls.crt: the certificate is valid from ..., now is ...: check the clock"),
    ),
    Row(
        name="an expired certificate, or a clock that is ahead: operator",
        spoil=issuing(Role.OPERATOR, "operator", into="operator", days_from_now=-31),
        command=OPERATOR_LISTS,
        says=(
            "/srv/consilo/operator/tls.crt: the certificate expired at ..., now is ...: issue a new "
            "one, or check the clock"
        ),
    ),
    Row(
        name="a certificate of tomorrow, or a clock that is behind: operator",
        spoil=issuing(Role.OPERATOR, "operator", into="operator", days_from_now=2),
        command=OPERATOR_LISTS,
        says=("/srv/consilo/operator/tls.crt: the certificate is valid from ..., now is ...: check the clock"),
    ),
]
