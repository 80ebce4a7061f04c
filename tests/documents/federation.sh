# The guides for operators and for silo IT, together: a federation of four from nothing, with everything in one folder.
# The coordinator's folder is coordinator/, a silo's is its name, the operator's is dana/.

export PYTHONPATH=$CHECKOUT/examples/images_cnn
SILOS="hospital-a hospital-b hospital-c hospital-d"

# --- 1. The authority ---
@ authority

# --- 2. Credentials ---
mkdir coordinator $SILOS
@ request-coordinator
~ coordinator coordinator request.pem => coordinator coordinator coordinator/credentials/request.pem
~ 13ceaa391e4c[...] => $(sha256 coordinator/credentials/request.pem)
@ sign-coordinator
cd hospital-a
@ request-silo
cd ..
~ participant hospital-a request.pem => participant hospital-a hospital-a/credentials/request.pem
~ 3b55939a5a6403d0[...] => $(sha256 hospital-a/credentials/request.pem)
@ sign-silo
for silo in hospital-b hospital-c hospital-d; do
  consilo pki request $silo/credentials
  request=$silo/credentials/request.pem
  consilo pki sign authority participant $silo $request --sha256 "$(sha256 $request)"
done
# Sent back.
cp authority/issued/coordinator/coordinator/* coordinator/credentials/
for silo in $SILOS; do cp authority/issued/participant/$silo/* $silo/credentials/; done
consilo pki issue authority operator dana --out dana/credentials
cd hospital-a
@ fingerprint
cd ..
@ manifest
digest=$(consilo pki manifest authority --json | json digest)

# --- 3. The coordinator ---
cp "$CHECKOUT/deploy/samples/coordinator.minimal.toml" coordinator/coordinator.toml
sed -i "/^\[coordinator\]/a listen = \"127.0.0.1:$P8443\"" coordinator/coordinator.toml
# listens METRICS STATUS: where a daemon answers those who look.
listens() { printf '\n[metrics]\nlisten = "%s"\n\n[status]\nlisten = "%s"\n' "$1" "$2"; }
listens "127.0.0.1:$P9464" "127.0.0.1:$P9466" >> coordinator/coordinator.toml
cp authority/allowlist.toml authority/consortium.json coordinator/
@ coordinator
@ coordinator-health

# --- The silos ---
cd ..
~ 0d24dd2568aef62d697f5ef7f6df671ada0080379e9fd0b84e4b59ba69ab65a5 => $digest
~ allowed_jobs = ["digits*"] => allowed_jobs = ["digits*", "heart*"]
< participant-toml hospital-a/participant.toml
sed -i '/^entry = /a threads = 1' hospital-a/participant.toml
part=0
for silo in $SILOS; do
  cp authority/consortium.json $silo/
  if [ $silo != hospital-a ]; then
    sed "s/hospital-a/$silo/; s/part = 0/part = $part/" hospital-a/participant.toml > $silo/participant.toml
    listens off off >> $silo/participant.toml
  fi
  part=$((part + 1))
done
listens "127.0.0.1:$P9465" "127.0.0.1:$P9467" >> hospital-a/participant.toml
cd hospital-a
sed -i.pinned 's/^digest = ".*"/digest = "'"$(printf '0%.0s' {1..64})"'"/' participant.toml
@ pin
mv participant.toml.pinned participant.toml
@ wrong-proxy
@ doctor
@ participant
@ participant-health
cd ..

# --- 4. A job ---
cp coordinator/credentials/signing.crt dana/coordinator-signing.crt
cd dana
< operator-toml operator.toml
cp "$CHECKOUT/examples/images_cnn/job.toml" .
sed -i '/^#:schema/d' job.toml
consilo task init-model --entry digits_task:DigitsTask --seed 42 initial.safetensors
@ digest
@ submit
cd ..
for silo in hospital-b hospital-c hospital-d; do
  cd $silo
  begin 'consilo participant run'
  cd ..
done
cd dana
await sh -c 'consilo job show digits-1 | grep -q "state .* running"'
@ watch
@ scrape without-output
curl -s "http://127.0.0.1:$P9464/metrics" | grep -c '^consilo_coordinator_rounds_committed_total{purpose="train"} 10.0'

# --- A longer one, which a person looks after ---
sed -e 's/^rounds = .*/rounds = 500/; s/initial.safetensors/second.safetensors/; s/^grace_s.*//' -e '/^quorum/a grace_s = 1' job.toml > long.toml
consilo task init-model --entry digits_task:DigitsTask --seed 43 second.safetensors
stop hospital-d
consilo job submit long.toml --id digits-2
~ digits-1 => digits-2
@ list
@ control
await sh -c 'consilo job show digits-2 | grep -q committed'
@ pause 1
await sh -c 'consilo job show digits-2 | grep -q "state .* paused"'
@ pause 2
consilo job resume digits-2
@ abort 1
@ abort 2 without-output fails
~ digits-1 => digits-1
cd ../hospital-d
begin 'consilo participant run'
cd ../dana

# --- The data scientist's last sections ---
sed -i 's/^seed = .*/seed = 44/; s/^rounds = .*/rounds = 2/; s/initial.safetensors/third.safetensors/' job.toml
consilo task init-model --entry digits_task:DigitsTask --seed 44 third.safetensors
@ submit-and-watch
model=$(consilo model list --json | json -1 digest)
~ 993a5ee3 => ${model:0:8}
@ data-scientist-export
rm digits.safetensors

# --- 8. The audit log ---
@ verify
head=$(consilo audit verify --json | json head)
~ 719f8aeb9f27[...] => $head
@ verify-head
head -n -2 ../coordinator/data/audit.log > cut.log
sed '3s/T/t/' ../coordinator/data/audit.log > changed.log
@ verify-files

# --- 9. Models ---
@ models
stop coordinator
cd ../coordinator
< retention retention.toml
sed 's/= 5/= 2/' retention.toml >> coordinator.toml
begin 'consilo coordinator run --config coordinator.toml' coordinator_ready > /dev/null
cd ../dana
~ ddb6ea => ${model:0:8}
~ 651294 => $old
old=$(consilo model list --json | json 2 digest)
await sh -c "consilo model list | grep -q pruned"
@ promote
cd ../coordinator
@ disk without-output

# --- What only a person can say may go ---
stop coordinator
head -n -2 coordinator.toml > every-version.toml
mv every-version.toml coordinator.toml
cp data/coordinator.db data/coordinator.db.before-v3
touch -d "2 months ago" data/coordinator.db.before-v3
cp "data/models/$model.safetensors" "data/models/$(printf 'f%.0s' {1..64}).safetensors"
@ gc
begin 'consilo coordinator run --config coordinator.toml' coordinator_ready > /dev/null

# --- 11. Back up and restore, while a job runs ---
cd ../dana
sed -e 's/^seed = .*/seed = 45/; s/^rounds = .*/rounds = 500/; s/third.safetensors/fourth.safetensors/' job.toml > study.toml
consilo task init-model --entry digits_task:DigitsTask --seed 45 fourth.safetensors
consilo job submit study.toml --id study-1
rounds_over() { consilo job show study-1 --json | grep -c '"committed"'; }
await sh -c "consilo job show study-1 | grep -q 'committed'"
cd ../coordinator
~ /backups/monday => $HOME/backups/monday
mkdir "$HOME/backups"
@ backup
cd ../dana
before=$(rounds_over)
until (($(rounds_over) > before + 1)); do sleep 0.3; done
stop coordinator
cd ../coordinator
mv data data.lost
@ restore
begin 'consilo coordinator run --config coordinator.toml' coordinator_ready job_ended older_records result_lost
last=$(grep -o 'model:[0-9a-f]\{64\}' "$LOGS/coordinator.log" | tail -1)

# --- When the coordinator was restored: the silos' side ---
cd ../dana
sed -e "s/^seed = .*/seed = 46/; s/^initial = .*/initial = \"$last\"/" study.toml > again.toml
consilo job submit again.toml --id study-2
said hospital-a '"job": "study-2", "round": 1, .*"event": "round_accepted"'
cd ../hospital-a
@ allow answer=y
consilo participant allow study-2 --undo
cd ../dana
consilo job abort study-2
cd ../hospital-a
stop hospital-a
mkdir -p data/states/tumour-1
echo kept > data/states/tumour-1/state
@ silo-gc without-output
test ! -e data/states/tumour-1

# --- A journal that was lost, and programs of an older version ---
cp -r data data.before
rm data/journal.sqlite*
@ journal 1
@ journal 2 answer=y
rm -r data
mv data.before data
newer() { python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute(sys.argv[2])' "$@"; }
newer data/journal.sqlite 'UPDATE meta SET schema_version = schema_version + 1'
@ participant-back
stop coordinator
cd ../coordinator
newer data/coordinator.db 'UPDATE schema_version SET version = version + 1'
@ coordinator-back
