"""What README.txt of a demo's folder says: how to run its daemons by hand, what to try, how to renew certificates.

It is read in the federation's own folder, so its paths are relative to that. What it says to type must work as it
stands: tests take commands out of it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from consilo.pki_request import REQUEST_FILE
from shared.job import DEFAULT_MIN_SURVIVORS


def readme(hospitals: Sequence[str], *, coordinator_hosts: Sequence[str]) -> str:
    """The text, for a federation of these hospitals whose coordinator is certified under these names."""
    path = shlex.quote(str(Path(sys.executable).parent))
    participants = "\n".join(
        f"    consilo participant run --config hospitals/{name}/participant.toml" for name in hospitals
    )
    return f"""\
A federation of {len(hospitals)} hospitals on this machine, made by `consilo demo`.

Start it by hand, each daemon in a terminal of its own, all of them in this folder:

    export PATH={path}:"$PATH"
    consilo coordinator run --config consortium/coordinator/coordinator.toml
{participants}

Then, in one more terminal, as the operator:

    export CONSILO_OPERATOR_CONFIG=consortium/operator/operator.toml
    consilo job submit consortium/operator/job.toml --watch
    consilo job list
    consilo model list
    consilo model export DIGEST exported.safetensors
    consilo audit verify

{_trials(hospitals)}
What is where:

    consortium/authority       the authority, and the manifest of who the members are; in life on a machine that runs
                               nothing else, of somebody who runs no coordinator
    consortium/coordinator     the coordinator: models, database and audit log in data/
    consortium/operator        who submits jobs: the job file, the initial model
    hospitals/*                one silo each: its rows, its credentials, its configuration
    comparison                 what no federation has: common test rows, everybody's rows in one file
    logs                       what the daemons said while the demo ran

{_renewal(hospitals[0], coordinator_hosts)}"""


def _renewal(name: str, coordinator_hosts: Sequence[str]) -> str:
    credentials = f"hospitals/{name}/credentials"
    hosts = " ".join(f"--dns {host}" for host in coordinator_hosts)
    return f"""\
The TLS certificates are valid for 30 days, the signing certificates for a year. Signing a member's old request again
makes new ones for the same keys, here for {name}:

    consilo pki sign consortium/authority participant {name} {credentials}/{REQUEST_FILE} \\
        --sha256 "$(sha256sum < {credentials}/{REQUEST_FILE} | cut -c-64)" --out {credentials}

(In life the silo reads out the SHA-256, over another channel.) The coordinator's is signed in the same way, as
`coordinator coordinator` and with {hosts}. Then give the coordinator the new allow-list and
restart whose certificates are new:

    cp consortium/authority/allowlist.toml consortium/coordinator/allowlist.new
    mv consortium/coordinator/allowlist.new consortium/coordinator/allowlist.toml

Never use `consilo pki issue` for a coordinator that has an audit log: it makes a new signing key, and a log is
verified with one key.
"""


def _trials(hospitals: Sequence[str]) -> str:
    hospital = hospitals[-1]
    lines = [
        "Try what a federation must stand:\n",
        "* End a hospital with Ctrl-C in the middle of a job, and start it again.",
        f"* Take {hospital} off consortium/coordinator/allowlist.toml while a job runs.",
        "* Change one byte of the log and verify it:",
        "    consilo audit verify --log consortium/coordinator/data/audit.log \\",
        "        --certificate consortium/coordinator/credentials/signing.crt",
    ]
    if len(hospitals) > DEFAULT_MIN_SURVIVORS:
        quorum = len(hospitals) - 1
        lines += [
            f"* Set quorum = {quorum} in consortium/operator/job.toml and leave {hospital} out. Make another initial",
            "  model for that, with another --seed in `consilo task init-model`: the hospitals helped to open a",
            "  total over all of them on the first one, and help with none over fewer (docs/masking.md).",
        ]
    return "\n".join(lines) + "\n"
