# What every script may use. A daemon's name is that of its folder.
# (No `grep -q` behind a pipe: it ends at the first match, and whoever still writes into the pipe fails.)
LOGS=$HOME/logs
mkdir -p "$LOGS"

# begin COMMAND EVENT...: a daemon in the background, until its log has these events; then what it said.
begin() {
  local command=$1 name log from event
  shift
  name=$(basename "$PWD") log=$LOGS/$(basename "$PWD").log
  touch "$log"
  from=$(($(stat -c %s "$log") + 1))
  eval "exec $command" >> "$log" 2>&1 < /dev/null &
  echo $! > "$LOGS/$name.pid"
  for event in "$@"; do
    until [[ $(tail -c "+$from" "$log" | grep -c "\"event\": \"$event\"") != 0 ]]; do
      if ! kill -0 "$(< "$LOGS/$name.pid")" 2> /dev/null; then
        cat "$log"
        return 1
      fi
      sleep 0.2
    done
  done
  tail -c "+$from" "$log"
}

# stop NAME [SIGNAL]: until it has ended.
stop() {
  kill "-${2:-TERM}" "$(< "$LOGS/$1.pid")"
  wait "$(< "$LOGS/$1.pid")" || true
}

# await COMMAND...: until it succeeds.
await() {
  until "$@" > /dev/null 2>&1; do sleep 0.3; done
}

# said NAME TEXT: until a daemon's log has a text.
said() {
  await grep -q -- "$2" "$LOGS/$1.log"
}

# sha256 FILE: as sha256sum prints it.
sha256() {
  sha256sum "$1" | cut -c1-64
}

# json KEY...: of JSON on standard input; numbers are places in a list.
json() {
  python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value[int(key) if isinstance(value, list) else key]
print(value)' "$@"
}
