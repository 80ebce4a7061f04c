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
printf '\n[metrics]\nlisten = "127.0.0.1:%s"\n' "$P9464" >> coordinator/coordinator.toml
cp authority/allowlist.toml authority/consortium.json coordinator/
@ coordinator

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
    printf '\n[metrics]\nlisten = "off"\n' >> $silo/participant.toml
  fi
  part=$((part + 1))
done
printf '\n[metrics]\nlisten = "127.0.0.1:%s"\n' "$P9465" >> hospital-a/participant.toml
cd hospital-a
sed -i.pinned 's/^digest = ".*"/digest = "'"$(printf '0%.0s' {1..64})"'"/' participant.toml
@ pin
mv participant.toml.pinned participant.toml
@ wrong-proxy
@ doctor
@ participant
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
@ abort
~ digits-1 => digits-1
cd ../hospital-d
begin 'consilo participant run'
cd ../dana

# --- The data scientist's last sections ---
mkdir ../study
cp job.toml ../dana/first.toml
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
@ disk
@ backup
