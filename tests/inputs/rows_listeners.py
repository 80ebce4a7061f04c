"""Listeners that may not listen as they are told to, and daemons that cannot be asked how they are."""

from __future__ import annotations

from tests.inputs.place import Place, Row, Spoil, mode, removing, replacing, several

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"
TLS = 'certificate = "other-pki/ca.crt"\nkey = "other-pki/ca.key"\nclients_ca = "other-pki/ca.crt"'
OFF = '[metrics]\nlisten = "off"'


def metrics(listen: str, more: str = "", *, of: str = "coordinator") -> Spoil:
    return replacing(f"{of}.toml", OFF, f'[metrics]\nlisten = "{listen}"\n{more}')


def status(listen: str, *, of: str) -> Spoil:
    return replacing(f"{of}.toml", OFF, f'{OFF}\n[status]\nlisten = "{listen}"')


def older_certificate(place: Place) -> None:
    """As 0.1.0 issued it: for being dialled alone. The allow-list is not asked before the coordinator is."""
    place.issue_for_being_dialled("coordinator")


def _plain(listen: str) -> str:
    return (
        f"metrics: listen: {listen} is not a loopback address, so other machines would read the metrics by plain HTTP: "
        "set certificate, key and clients_ca (mutual TLS), or internal_network = true if only your Prometheus reaches "
        "that network, or listen on 127.0.0.1"
    )


def _beyond_loopback(listen: str) -> str:
    return (
        f'status: listen: expected a loopback address such as 127.0.0.1:9466, or "off", got {listen}: from another '
        "machine look at it by way of `ssh -L`"
    )


ROWS = [
    Row(
        name="plain metrics on every address: coordinator",
        spoil=metrics("0.0.0.0:9464"),
        command=COORDINATOR_RUNS,
        says=f"coordinator.toml: {_plain('0.0.0.0:9464')}",
    ),
    Row(
        name="plain metrics on every address: participant",
        spoil=metrics("[::]:9465", of="participant"),
        command=PARTICIPANT_RUNS,
        says=f"participant.toml: {_plain('[::]:9465')}",
    ),
    Row(
        name="metrics with a part of what TLS needs",
        spoil=metrics("0.0.0.0:9464", 'certificate = "metrics/tls.crt"'),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: metrics: expected all of certificate, key and clients_ca, or none of them; not given: "
            "key and clients_ca"
        ),
    ),
    Row(
        name="metrics by TLS on an internal network",
        spoil=metrics("0.0.0.0:9464", f"internal_network = true\n{TLS}"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: metrics: internal_network = true means plain HTTP, and certificate, key and clients_ca "
            "mean TLS: take one of the two out"
        ),
    ),
    Row(
        name="an internal network on loopback",
        spoil=metrics("127.0.0.1:9465", "internal_network = true", of="participant"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: metrics: internal_network = true has no meaning where only this machine can connect "
            "(127.0.0.1:9465): take it out, so that it does not stand there when the address is changed"
        ),
    ),
    Row(
        name="a certificate for metrics that is not there",
        spoil=several(metrics("127.0.0.1:0", TLS), removing("other-pki/ca.crt")),
        command=COORDINATOR_RUNS,
        says=(
            "metrics.certificate: /srv/consilo/other-pki/ca.crt cannot be read (No such file or directory): check the "
            "path and who runs this process"
        ),
    ),
    Row(
        name="another certificate's key for metrics",
        spoil=several(metrics("127.0.0.1:0", TLS.replace("other-pki/ca.key", "pki/ca.key"), of="participant")),
        command=PARTICIPANT_RUNS,
        says=(
            "metrics.key: /srv/consilo/pki/ca.key is not the key of /srv/consilo/other-pki/ca.crt: they were made apart"
        ),
    ),
    Row(
        name="a key for metrics that others can read",
        spoil=several(metrics("127.0.0.1:0", TLS, of="participant"), mode("other-pki/ca.key", 0o644)),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/other-pki/ca.key: expected a key that only its owner can read, got mode 0644: chmod 600 "
            "/srv/consilo/other-pki/ca.key"
        ),
    ),
    Row(
        name="the consortium's authority for collectors",
        spoil=metrics("127.0.0.1:0", TLS.replace('clients_ca = "other-pki', 'clients_ca = "pki')),
        command=COORDINATOR_RUNS,
        says=(
            "metrics.clients_ca: /srv/consilo/pki/ca.crt is the consortium's authority, so every member could collect "
            "these metrics: make an authority of your own for whoever collects"
        ),
    ),
    Row(
        name="a status page for other machines: coordinator",
        spoil=status("0.0.0.0:9466", of="coordinator"),
        command=COORDINATOR_RUNS,
        says=f"coordinator.toml: {_beyond_loopback('0.0.0.0:9466')}",
    ),
    Row(
        name="a status page for other machines: participant",
        spoil=status("hospital-a.example:9467", of="participant"),
        command=PARTICIPANT_RUNS,
        says=f"participant.toml: {_beyond_loopback('hospital-a.example:9467')}",
    ),
    Row(
        name="a coordinator that does not run is asked",
        spoil=replacing("coordinator.toml", '"127.0.0.1:0"', '"127.0.0.1:1"'),
        command="coordinator health",
        says="nothing listens on 127.0.0.1:1: the coordinator is not running, or is starting",
    ),
    Row(
        name="a coordinator on any port is asked",
        command="coordinator health",
        says=("coordinator.listen is 127.0.0.1:0, a port that each start chooses anew: name one to ask there"),
    ),
    Row(
        name="a coordinator with an older certificate is asked",
        spoil=several(replacing("coordinator.toml", '"127.0.0.1:0"', '"127.0.0.1:1"'), older_certificate),
        command="coordinator health",
        says=(
            "/srv/consilo/coordinator/tls.crt is for being dialled alone, as older versions issued it, and the "
            "coordinator dials itself to ask how it is: renew it (`consilo pki sign ... --dns NAME`), and take the new "
            "allow-list"
        ),
    ),
    Row(
        name="a participant without a status page is asked",
        spoil=status("off", of="participant"),
        command="participant health",
        says='status.listen is "off", and the daemon is asked there: name a loopback address',
    ),
    Row(
        name="a participant that does not run is asked",
        spoil=status("127.0.0.1:1", of="participant"),
        command="participant health",
        says=(
            "nothing listens on 127.0.0.1:1: the daemon is not running, is starting, or found that port taken when it "
            "started (its log says `status_unavailable` then)"
        ),
    ),
]
