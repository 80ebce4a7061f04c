# docs/RUNBOOK.md: a federation of four small tasks, looked after by whoever is called. Its coordinator and its silos have
# machines of their own in life, each with its /etc/consilo and /var/lib/consilo; here these are folders.

COORDINATOR=$HOME/coordinator
SILO=$HOME/hospital-a
export CONSILO_OPERATOR_CONFIG=$HOME/dana/operator.toml
export EDITOR=without_hospital_d
cd "$HOME"
ln -s "$HOME/work/authority" authority
cd work

# --- Who is there, from nothing ---
consilo pki init authority --consortium hearts.example
SILOS="hospital-a hospital-b hospital-c hospital-d"
# sign ROLE NAME [OPTION...]: with a request that the authority keeps.
sign() {
  consilo pki request "$HOME/$2/credentials"
  cp "$HOME/$2/credentials/request.pem" "$2.pem"
  consilo pki sign authority "$@" "$2.pem" --sha256 "$(sha256 "$2.pem")" --out "$HOME/$2/credentials"
}
sign coordinator coordinator --dns localhost
for silo in $SILOS; do sign participant "$silo"; done
consilo pki issue authority operator dana --out "$HOME/dana/credentials"
digest=$(consilo pki manifest authority --json | json digest)

# --- Their folders ---
credentials='[tls]
certificate = "credentials/tls.crt"
key = "credentials/tls.key"
ca = "credentials/ca.crt"
'
signing='[signing]
certificate = "credentials/signing.crt"
key = "credentials/signing.key"
'
cp authority/allowlist.toml authority/consortium.json "$COORDINATOR"
cat > "$COORDINATOR/coordinator.toml" <<END_OF_FILE
[coordinator]
id = "coordinator"
listen = "127.0.0.1:$P8443"
data_dir = "$HOME/var/coordinator"
$credentials
$signing
[access]
allowlist = "allowlist.toml"
[consortium]
manifest = "consortium.json"
[metrics]
listen = "127.0.0.1:$P9464"
[status]
listen = "127.0.0.1:$P9466"
END_OF_FILE
mkdir -p "$HOME/var"
seed=0
for silo in $SILOS; do
  seed=$((seed + 1))
  metrics=off status=off
  if [ $silo = hospital-a ]; then metrics=127.0.0.1:$P9465 status=127.0.0.1:$P9467; fi
  cp authority/consortium.json "$HOME/$silo"
  python3 "$CHECKOUT/examples/tabular_script/make_rows.py" $seed 100 > "$HOME/$silo/patients.csv"
  cat > "$HOME/$silo/participant.toml" <<END_OF_FILE
[participant]
id = "$silo"
coordinators = ["localhost:$P8443"]
data_dir = "data"
$credentials
$signing
[consortium]
manifest = "consortium.json"
digest = "$digest"
[tasks.heart]
entry = "heart_task:HeartTask"
threads = 1
options = { csv = "$HOME/$silo/patients.csv" }
[policy]
allowed_jobs = ["heart*"]
[metrics]
listen = "$metrics"
[status]
listen = "$status"
END_OF_FILE
done
export PYTHONPATH=$CHECKOUT/examples/tabular_script
cp "$HOME/coordinator/credentials/signing.crt" "$HOME/dana/coordinator-signing.crt"
cat > "$HOME/dana/operator.toml" <<END_OF_FILE
[operator]
coordinator = "localhost:$P8443"
coordinator_certificate = "coordinator-signing.crt"
$credentials
END_OF_FILE
# job NAME SEED: a long one, of which each round is short.
job() {
  consilo task init-model --entry heart_task:HeartTask --option csv="$SILO/patients.csv" --seed "$2" "$HOME/dana/$1.safetensors"
  cat > "$HOME/dana/$1.toml" <<END_OF_FILE
name = "$1"
task = "heart"
members = ["hospital-a", "hospital-b", "hospital-c", "hospital-d"]
rounds = 10000
seed = $2
initial = "$1.safetensors"
metrics = ["loss", "accuracy"]
[round]
grace_s = 1
aborted_rounds_allowed = 1000
[training]
epochs = 1
learning_rate = 0.01
END_OF_FILE
}
job heart-1 1
job heart-2 2
without_hospital_d() {
  python3 - "$1" <<'END_OF_PYTHON'
import sys
from pathlib import Path

path = Path(sys.argv[1])
entries = path.read_text(encoding="utf-8").split("\n[[allowed]]")
path.write_text("\n[[allowed]]".join(entry for entry in entries if "hospital-d" not in entry), encoding="utf-8")
END_OF_PYTHON
}

~ tail -n 2000 LOG => tail -n 2000 $LOGS/coordinator.log
~ tail -n 5000 LOG => tail -n 5000 $LOGS/coordinator.log
~  LOG | tail =>  $LOGS/coordinator.log | tail
~ /var/lib/consilo => $HOME/var
~ /backups => $HOME/backups

# --- Start ---
~ /etc/consilo => $COORDINATOR
@ start
~ /etc/consilo => $SILO
@ start-silo
for silo in hospital-b hospital-c hospital-d; do
  cd "$HOME/$silo"
  begin 'consilo participant run'
done
for silo in hospital-b hospital-c; do said $silo session_open; done
consilo job submit "$HOME/dana/heart-1.toml" --id heart-1
committed() { consilo job show heart-1 --json | grep -c '"committed"'; }
await committed

# --- Look first, while all is well ---
cd "$HOME/work"
~ /etc/consilo => $COORDINATOR
@ look
@ look-jobs
@ log
@ not-ready
@ down
@ control
@ left-out
@ not-finite
@ audit
head=$(consilo audit verify --json | json head)
~ 719f8aeb9f27[...] => $head
@ verify
@ disk

# --- A silo that is lost, and looked for ---
stop hospital-d KILL
gone() { curl -s "http://127.0.0.1:$P9464/metrics" | grep -c 'participant_connected{participant="hospital-d"} 0.0'; }
await gone
waits() { curl -s "http://127.0.0.1:$P9464/metrics" | grep -c 'round_phase{job="heart-1",phase="recruiting"} 1.0'; }
await waits
@ stuck
@ lost
~ /etc/consilo => $SILO
@ doctor
@ silo-down
@ session-lost
@ silo-expiry
~  LOG | tail =>  $LOGS/hospital-a.log | tail
@ alarm
@ leaving
~  LOG | tail =>  $LOGS/coordinator.log | tail
cd "$HOME/hospital-d"
begin 'consilo participant run' session_open > /dev/null

# --- Hold a job, and one that waits ---
consilo job submit "$HOME/dana/heart-2.toml" --id heart-2
@ queued
@ pause
consilo job pause heart-1

# --- Back up, restore ---
consilo job abort heart-2
consilo job resume heart-1
mkdir "$HOME/backups"
~ /etc/consilo => $COORDINATOR
@ backup
newer=$(consilo job show heart-1 --json | grep -c '"committed"')
until (($(consilo job show heart-1 --json | grep -c '"committed"') > newer)); do sleep 0.3; done
~  PID =>  $(< $LOGS/coordinator.pid)
@ stop
wait "$(< "$LOGS/coordinator.pid")" || true
@ restore
begin 'consilo coordinator run --config coordinator.toml' older_records result_lost > /dev/null
@ lost-records

# --- Rotate ---
cd "$HOME/work"
~ 3b55939a5a6403d0[...] => $(sha256 hospital-a.pem)
~ 13ceaa391e4c[...] => $(sha256 coordinator.pem)
@ renew
cp renewed/hospital-a/* "$SILO/credentials/"
cp renewed/coordinator/* "$COORDINATOR/credentials/"
cp renewed/dana/* "$HOME/dana/credentials/"
cp authority/allowlist.toml "$HOME/allowlist.toml"
@ take-over
said hospital-a signing_identity
stop hospital-a
cd "$SILO"
begin 'consilo participant run' session_open > /dev/null
await consilo job list
~ /etc/consilo => $COORDINATOR
@ revoke 1-4
said coordinator participant_revoked
said coordinator session_refused
@ revoke 5-
@ strangers
cd "$SILO"
@ new-keys
cd "$HOME/work"
request=$SILO/new-credentials/request.pem
consilo pki sign authority participant hospital-a "$request" --sha256 "$(sha256 "$request")" --out "$SILO/new-credentials"
@ new-manifest

# --- What needs a daemon that is stopped ---
stop hospital-a
~ /etc/consilo => $SILO
@ silo-gc
stop coordinator
~ /etc/consilo => $COORDINATOR
@ gc
@ upgrade
cd "$COORDINATOR"
echo broken > allowlist.toml
@ check-broken
