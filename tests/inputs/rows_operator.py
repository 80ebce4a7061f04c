"""What an operator asks of a coordinator that runs, or does not."""

from __future__ import annotations

from consilo.pki import Authority
from shared.clock import SystemClock
from shared.identity import Role
from tests.inputs.place import KNOWN_JOB, Place, Row, adding, issuing, replacing, several

SUBMIT = "job submit job.toml"
PLAIN = adding("job.toml", '[masking]\nmode = "plain"\n')
# Known when a coordinator runs.
KNOWN_MODEL, AMBIGUOUS, OTHER_ADDRESS = "{known_model}", "{ambiguous}", "{other_address}"


def an_operator_of_others(place: Place) -> None:
    other = Authority.load(place.path("other-pki"))
    other.issue(Role.OPERATOR, "operator", out=place.path("operator"), now=SystemClock().now())


ROWS = [
    Row(
        name="a model that the coordinator does not have",
        spoil=replacing("job.toml", "initial.safetensors", f"model:{64 * '0'}"),
        command=SUBMIT,
        says="there is no model 0000000000000000000000000000000000000000000000000000000000000000",
    ),
    Row(
        name="a member whom the manifest does not have",
        spoil=replacing("job.toml", '"hospital-c"', '"hospital-z"'),
        command=f"{SUBMIT} --id masked-stranger",
        says=(
            "job masked-stranger waits: not in the consortium's manifest: hospital-z (`consilo pki "
            "manifest` makes one of everybody who is on the allow-list; every silo pins it, and this "
            "coordinator reads it when it starts); not on the allow-list: hospital-z"
        ),
        code=0,
    ),
    Row(
        name="a member whom the allow-list does not have",
        spoil=several(replacing("job.toml", '"hospital-c"', '"hospital-z"'), PLAIN),
        command=f"{SUBMIT} --id plain-stranger",
        says=(
            "job plain-stranger waits: 0 of quorum 3; not connected: hospital-a, hospital-b, "
            "hospital-z; not on the allow-list: hospital-z"
        ),
        code=0,
    ),
    Row(
        name="members who are not connected",
        command=f"{SUBMIT} --id waiting",
        says="job waiting waits: 0 of quorum 3; not connected: hospital-a, hospital-b, hospital-c",
        code=0,
    ),
    Row(
        name="a known id for another job",
        spoil=several(replacing("job.toml", "rounds = 2", "rounds = 3")),
        command=f"{SUBMIT} --id {KNOWN_JOB}",
        says="job known exists with another specification: choose another id",
    ),
    Row(name="a job that nobody knows", command="job show heart-1", says="there is no job heart-1"),
    Row(name="watching a job that nobody knows", command="job watch heart-1", says="there is no job heart-1"),
    Row(name="aborting a job that nobody knows", command="job abort heart-1", says="there is no job heart-1"),
    Row(
        name="a job's id that cannot be",
        command="job show Heart_1",
        says=(
            "Invalid value for 'JOB': a job id has 1 to 63 characters a-z, 0-9 and '-', none of them "
            "'-' at an end; got 'Heart_1'"
        ),
        code=2,
    ),
    Row(
        name="a model that nobody knows",
        command="model show 00000000",
        says="the coordinator has no model 00000000: `consilo model list` shows what it has",
    ),
    Row(
        name="a digest that is too short",
        command="model show 00",
        says="expected a model's digest, or at least its first 4 digits, got '00'",
    ),
    Row(
        name="a digest that is none",
        command="model promote HEART",
        says="expected a model's digest, or at least its first 4 digits, got 'HEART'",
    ),
    Row(
        name="a digest that several begin with",
        command=f"model show {AMBIGUOUS}",
        says="2 models begin with ...: give more digits",
    ),
    Row(
        name="exporting a model that nobody knows",
        command="model export 00000000 out.safetensors",
        says="the coordinator has no model 00000000: `consilo model list` shows what it has",
    ),
    Row(
        name="exporting over a file",
        command="model export 00000000 job.toml",
        says="job.toml: expected a file that is not there yet: choose another name, or give --force",
    ),
    Row(
        name="exporting into a folder that is not there",
        command=f"model export {KNOWN_MODEL} nowhere/out.safetensors",
        says="nowhere/out.safetensors cannot be written (No such file or directory)",
    ),
    Row(
        name="verifying without the coordinator's certificate",
        spoil=replacing("operator.toml", 'coordinator_certificate = "coordinator/signing.crt"\n', ""),
        command="audit verify",
        says=(
            "which coordinator signed the log? Give its signing certificate with --certificate, or as"
            " operator.coordinator_certificate in operator.toml"
        ),
        code=2,
    ),
    Row(
        name="verifying with a participant's certificate, asked",
        spoil=replacing("operator.toml", "coordinator/signing.crt", "hospital-a/signing.crt"),
        command="audit verify",
        says=(
            "/srv/consilo/hospital-a/signing.crt: expected the coordinator's certificate, got that of"
            " participant hospital-a"
        ),
    ),
    Row(
        name="a coordinator that is not there",
        command="job list --coordinator 127.0.0.1:1",
        says=(
            "no connection to the coordinator at 127.0.0.1:1: nothing listens there: is the "
            "coordinator running, and the port right? (...)"
        ),
    ),
    Row(
        name="a coordinator's name that nobody knows",
        command="job list --coordinator coordinator.invalid:8443",
        says=(
            "no connection to the coordinator at coordinator.invalid:8443: the host name does not "
            "resolve: is it written right? (...)"
        ),
    ),
    Row(
        name="a coordinator under a name that its certificate does not have",
        command=f"job list --coordinator {OTHER_ADDRESS}",
        says=(
            "no connection to the coordinator at ...: its certificate is for another host name than "
            "the one dialled (...)"
        ),
    ),
    Row(
        name="an operator who is not on the allow-list",
        spoil=issuing(Role.OPERATOR, "stranger", into="operator"),
        command="job list",
        says="operator stranger is not on the coordinator's allow-list",
    ),
    Row(
        name="an operator's certificate that was renewed elsewhere",
        spoil=issuing(Role.OPERATOR, "operator", into="operator"),
        command="job list",
        says=(
            "the TLS certificate of operator operator (SHA-256 ...) is not the one on the "
            "coordinator's allow-list: an old certificate, or the allow-list was not updated"
        ),
    ),
    Row(
        name="an operator of another consortium",
        spoil=an_operator_of_others,
        command="job list",
        says=(
            "no connection to the coordinator at ...: its certificate is not of the CA in [tls] ca: another "
            "coordinator answers, or something on the way (a proxy, a firewall) opens TLS and has to let this "
            "connection through unopened (...)"
        ),
    ),
]
