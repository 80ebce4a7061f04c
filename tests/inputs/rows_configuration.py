"""Configurations that cannot be used: of both daemons, and of an operator."""

from __future__ import annotations

from tests.inputs.place import Row, a_folder, adding, removing, replacing, writing

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"
OPERATOR_LISTS = "job list"

ROWS = [
    Row(
        name="no configuration: coordinator",
        spoil=removing("coordinator.toml"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: expected a configuration file, it cannot be read (No such file or "
            "directory): check its path, and that this user may read it"
        ),
    ),
    Row(
        name="no configuration: participant",
        spoil=removing("participant.toml"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: expected a configuration file, it cannot be read (No such file or "
            "directory): check its path, and that this user may read it"
        ),
    ),
    Row(
        name="no configuration: operator",
        spoil=removing("operator.toml"),
        command=OPERATOR_LISTS,
        says=(
            "operator.toml: expected an operator's configuration (coordinator and credentials), found"
            " none: give --config, set CONSILO_OPERATOR_CONFIG, or run this in the folder of "
            "operator.toml"
        ),
    ),
    Row(
        name="a folder as configuration: coordinator",
        spoil=a_folder("coordinator.toml"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: expected a configuration file, it cannot be read (Is a directory): "
            "check its path, and that this user may read it"
        ),
    ),
    Row(
        name="a folder as configuration: participant",
        spoil=a_folder("participant.toml"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: expected a configuration file, it cannot be read (Is a directory): "
            "check its path, and that this user may read it"
        ),
    ),
    Row(
        name="a folder as configuration: operator",
        spoil=a_folder("operator.toml"),
        command=OPERATOR_LISTS,
        says=(
            "operator.toml: expected a configuration file, it cannot be read (Is a directory): check "
            "its path, and that this user may read it"
        ),
    ),
    Row(
        name="a configuration that is not TOML",
        spoil=writing("coordinator.toml", "[coordinator\nid = 1\n"),
        command=COORDINATOR_RUNS,
        says=("coordinator.toml: not TOML: Expected ']' at the end of a table declaration (at line 1, column 13)"),
    ),
    Row(
        name="a configuration that is not UTF-8",
        spoil=writing("participant.toml", b'[participant]\nid = "h\xf4pital"\n'),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: not TOML: expected UTF-8, line 2 has a byte 0xf4 that is none: save it as UTF-8"),
    ),
    Row(
        name="a configuration with a byte order mark",
        spoil=writing("participant.toml", "\ufeff[participant]\n"),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: not TOML: it begins with a byte order mark: save it as UTF-8 without one"),
    ),
    Row(
        name="an empty configuration",
        spoil=writing("participant.toml", ""),
        command=PARTICIPANT_RUNS,
        says="participant.toml: participant: it is missing, and has no default; and 2 more",
    ),
    Row(
        name="a configuration that is too large",
        spoil=writing("participant.toml", b"#" * (1 << 21)),
        command=PARTICIPANT_RUNS,
        says="participant.toml: expected a configuration of at most 1048576 bytes, got more",
    ),
    Row(
        name="a table twice",
        spoil=adding("participant.toml", "[policy]\nallow_plain = true\n"),
        command=PARTICIPANT_RUNS,
        says="participant.toml: not TOML: Cannot declare ('policy',) twice (at line 19, column 8)",
    ),
    Row(
        name="an unknown table: coordinator",
        spoil=adding("coordinator.toml", '[acces]\nallowlist = "allowlist.toml"\n'),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: acces: unknown key; expected one of access, consortium, coordinator, "
            "log, metrics, retention, signing, status, tls"
        ),
    ),
    Row(
        name="an unknown table: participant",
        spoil=adding("participant.toml", "[polcy]\nallow_plain = true\n"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: polcy: unknown key; expected one of consortium, log, metrics, "
            "participant, policy, signing, status, tasks, tls, training"
        ),
    ),
    Row(
        name="an unknown key: coordinator",
        spoil=replacing("coordinator.toml", "data_dir", "data_folder"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: coordinator.data_folder: unknown key; expected one of data_dir, id, listen; and 1 more"
        ),
    ),
    Row(
        name="an unknown key: participant",
        spoil=replacing("participant.toml", "minimum_members", "minimum_member"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: policy.minimum_member: unknown key; expected one of "
            "allow_no_collusion, allow_plain, allow_two_party, allowed_jobs, allowed_repeats, "
            "approved_jobs, max_deadline_s, minimum_colluding, minimum_members, minimum_survivors, "
            "share_progress"
        ),
    ),
    Row(
        name="an unknown key: operator",
        spoil=replacing("operator.toml", "coordinator =", "cordinator ="),
        command=OPERATOR_LISTS,
        says=(
            "operator.toml: operator.cordinator: unknown key; expected one of coordinator, "
            "coordinator_certificate; and 1 more"
        ),
    ),
    Row(
        name="an unknown key of a task",
        spoil=adding("participant.toml", '[tasks.heart]\nentry = "heart:Heart"\noption = 3\n'),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: tasks.heart.option: unknown key; expected one of entry, options, threads"),
    ),
    Row(
        name="an unknown key in a variable",
        command=PARTICIPANT_RUNS,
        says=(
            "environment variable CONSILO_POLICY__MINIMUM_MEMBER: no such key; in [policy] expected "
            "allow_no_collusion, allow_plain, allow_two_party, allowed_jobs, allowed_repeats, "
            "approved_jobs, max_deadline_s, minimum_colluding, minimum_members, minimum_survivors, "
            "share_progress"
        ),
        environment={"CONSILO_POLICY__MINIMUM_MEMBER": "4"},
    ),
    Row(
        name="an unknown table in a variable",
        command=PARTICIPANT_RUNS,
        says=(
            "environment variable CONSILO_POLCY__MINIMUM_MEMBERS: no such table; expected one of "
            "consortium, log, metrics, participant, policy, signing, status, tasks, tls, training"
        ),
        environment={"CONSILO_POLCY__MINIMUM_MEMBERS": "4"},
    ),
    Row(
        name="a variable for what is set in the file alone",
        command=PARTICIPANT_RUNS,
        says=("environment variable CONSILO_TASKS__HEART: [tasks] cannot be set by variables: set it in the file"),
        environment={"CONSILO_TASKS__HEART": "heart:Heart"},
    ),
    Row(
        name="an unknown key in a variable of an operator",
        command=OPERATOR_LISTS,
        says=(
            "environment variable CONSILO_OPERATOR__COORDINATORS: no such key; in [operator] expected"
            " coordinator, coordinator_certificate"
        ),
        environment={"CONSILO_OPERATOR__COORDINATORS": "localhost:8443"},
    ),
    Row(
        name="a variable of the wrong type",
        command=PARTICIPANT_RUNS,
        says=(
            "environment variable CONSILO_POLICY__MINIMUM_MEMBERS: policy.minimum_members: expected a"
            " whole number, got 'three'"
        ),
        environment={"CONSILO_POLICY__MINIMUM_MEMBERS": "three"},
    ),
    Row(
        name="text for a number",
        spoil=replacing("participant.toml", "minimum_members = 3", 'minimum_members = "3"'),
        command=PARTICIPANT_RUNS,
        says="participant.toml: policy.minimum_members: expected a whole number, got '3'",
    ),
    Row(
        name="a number for text",
        spoil=replacing("participant.toml", 'data_dir = "hospital-a-data"', "data_dir = 3"),
        command=PARTICIPANT_RUNS,
        says="participant.toml: participant.data_dir: expected text, got 3",
    ),
    Row(
        name="a date",
        spoil=replacing("participant.toml", "minimum_members = 3", "minimum_members = 2026-01-01"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: policy.minimum_members: expected text, a number, true or false, got "
            "the date 2026-01-01: write it in quotes"
        ),
    ),
    Row(
        name="text for a list",
        spoil=replacing("participant.toml", '["127.0.0.1:1"]', '"127.0.0.1:1"'),
        command=PARTICIPANT_RUNS,
        says="participant.toml: participant.coordinators: expected a list, got '127.0.0.1:1'",
    ),
    Row(
        name="text for a table",
        spoil=writing("participant.toml", 'participant = "hospital-a"\n'),
        command=PARTICIPANT_RUNS,
        says="participant.toml: participant: expected a table, got 'hospital-a'; and 2 more",
    ),
    Row(
        name="a number for true or false",
        spoil=replacing("participant.toml", "minimum_members = 3", "allow_plain = 1"),
        command=PARTICIPANT_RUNS,
        says="participant.toml: policy.allow_plain: expected true or false, got 1",
    ),
    Row(
        name="NaN",
        spoil=replacing("participant.toml", "minimum_members = 3", "max_deadline_s = nan"),
        command=PARTICIPANT_RUNS,
        says="participant.toml: policy.max_deadline_s: expected a finite number, got nan",
    ),
    Row(
        name="a value below its range: participant",
        spoil=replacing("participant.toml", "minimum_members = 3", "minimum_members = 0"),
        command=PARTICIPANT_RUNS,
        says="participant.toml: policy.minimum_members: expected at least 1, got 0",
    ),
    Row(
        name="a value below its range: coordinator",
        spoil=adding("coordinator.toml", "[retention]\nkeep_versions = -1\n"),
        command=COORDINATOR_RUNS,
        says="coordinator.toml: retention.keep_versions: expected at least 0, got -1",
    ),
    Row(
        name="a value above its range",
        spoil=replacing("participant.toml", "minimum_members = 3", "minimum_members = 99999999999999999999"),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: policy.minimum_members: expected at most 1000, got 99999999999999999999"),
    ),
    Row(
        name="a value that is none of those to choose from",
        spoil=adding("coordinator.toml", '[log]\nlevel = "verbose"\n'),
        command=COORDINATOR_RUNS,
        says=("coordinator.toml: log.level: expected 'debug', 'info', 'warning' or 'error', got 'verbose'"),
    ),
    Row(
        name="a key that is missing",
        spoil=replacing("participant.toml", 'id = "hospital-a"\n', ""),
        command=PARTICIPANT_RUNS,
        says="participant.toml: participant.id: it is missing, and has no default",
    ),
    Row(
        name="a table that is missing",
        spoil=replacing("coordinator.toml", '[access]\nallowlist = "pki/allowlist.toml"\n', ""),
        command=COORDINATOR_RUNS,
        says="coordinator.toml: access: it is missing, and has no default",
    ),
    Row(
        name="a name that is none",
        spoil=replacing("participant.toml", 'id = "hospital-a"', 'id = "Hospital A"'),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: participant.id: a participant id has 1 to 63 characters a-z, 0-9 and "
            "'-', none of them '-' at an end; got 'Hospital A'"
        ),
    ),
    Row(
        name="an address with a scheme",
        spoil=replacing("participant.toml", "127.0.0.1:1", "https://127.0.0.1:1"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: participant.coordinators.0: expected host:port such as ... or "
            "[::1]:8443, got 'https://127.0.0.1:1'"
        ),
    ),
    Row(
        name="an address without a port",
        spoil=replacing("coordinator.toml", "127.0.0.1:0", "localhost"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: coordinator.listen.0: expected host:port such as 127.0.0.1:8443 or "
            "[::1]:8443, got 'localhost'"
        ),
    ),
    Row(
        name="a port that does not exist",
        spoil=replacing("coordinator.toml", "127.0.0.1:0", "localhost:84430"),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.toml: coordinator.listen.0: expected host:port such as 127.0.0.1:8443 or [::1]:8443, "
            "got 'localhost:84430'"
        ),
    ),
    Row(
        name="port 0 to dial",
        spoil=replacing("participant.toml", "127.0.0.1:1", "127.0.0.1:0"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: participant.coordinators.0: expected host:port with the port on which "
            "the coordinator listens, got '127.0.0.1:0'"
        ),
    ),
    Row(
        name="an operator's address without a port",
        spoil=replacing("operator.toml", '\ncoordinator = "localhost:', '\ncoordinator = "localhost" # '),
        command=OPERATOR_LISTS,
        says=(
            "operator.toml: operator.coordinator: expected host:port such as 127.0.0.1:8443 or "
            "[::1]:8443, got 'localhost'"
        ),
    ),
    Row(
        name="an address with a scheme, on the command line",
        command="job list --coordinator https://localhost:8443",
        says=(
            "Invalid value for '--coordinator': expected host:port such as 127.0.0.1:8443 or [::1]:8443, got "
            "'https://localhost:8443'"
        ),
        code=2,
    ),
    Row(
        name="nowhere to listen",
        spoil=replacing("coordinator.toml", '["127.0.0.1:0"]', "[]"),
        command=COORDINATOR_RUNS,
        says="coordinator.toml: coordinator.listen: expected at least 1 in the list, got []",
    ),
    Row(
        name="a pin that is no digest",
        spoil=replacing("participant.toml", 'digest = "', 'digest = "00 '),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: consortium.digest: expected 64 lower-case hexadecimal digits, got '00 ...'"),
    ),
    Row(
        name="a task's package with a name of ours",
        spoil=adding("participant.toml", '[tasks.heart]\nentry = "shared.heart:Heart"\n'),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: tasks.heart.entry: a package named 'shared' is part of Consilo, and a "
            "silo's own of that name would never be found: rename it"
        ),
    ),
    Row(
        name="a task's file in place of its class",
        spoil=adding("participant.toml", '[tasks.heart]\nentry = "heart.py"\n'),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: tasks.heart.entry: expected the task's class as package.module:ClassName, got 'heart.py'"
        ),
    ),
    Row(
        name="an empty path",
        spoil=replacing("participant.toml", "hospital-a/tls.crt", ""),
        command=PARTICIPANT_RUNS,
        says="participant.toml: tls.certificate: expected the path of a file or a folder, got ''",
    ),
    Row(
        name="a path with a NUL in it",
        spoil=replacing("participant.toml", "hospital-a-data", r"data\u0000"),
        command=PARTICIPANT_RUNS,
        says=("participant.toml: participant.data_dir: expected the path of a file or a folder, got 'data\\x00'"),
    ),
    Row(
        name="the home of a user whom nobody knows",
        spoil=replacing("participant.toml", "hospital-a/tls.crt", "~nobody-here/tls.crt"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.toml: tls.certificate: expected a path, or ~ for the home folder of this "
            "user, got '~nobody-here/tls.crt'"
        ),
    ),
]
