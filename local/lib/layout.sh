# shellcheck shell=bash
# The layout: the state directory, its files, and the port of each process.

REPO_DIR=$(cd "$LOCAL_DIR/.." && pwd -P)
# shellcheck disable=SC2034 # read by the files that start processes
TEMPLATES=$LOCAL_DIR/config
SERVICES=(ingest-1 ingest-2 processor-1 processor-2 processor-3 api-1 api-2)

# Main port of each process; Kafka's other ports and CASSANDRA_STORAGE_PORT are separate.
declare -A PORT

# layout_load — resolves STACK_DIR, STACK_BIN_DIR, the ports and the brokers. A state directory records its ports and
# its number of brokers, so `down`, `status` and `env` need only STACK_DIR.
layout_load() {
  STACK_DIR=$(realpath -m -- "${STACK_DIR:-$REPO_DIR/.stack}")
  STACK_BIN_DIR=$(realpath -m -- "${STACK_BIN_DIR:-$REPO_DIR/target/release}")
  case $STACK_DIR in
    *[\"\\@\&\|]* | *$'\n'*) die "STACK_DIR must not contain quotes, backslashes, '@', '&', '|' or newlines" ;;
  esac
  local remembered_port_base=19000 remembered_http_base=8000
  if [[ -f $STACK_DIR/ports ]]; then
    read -r remembered_port_base remembered_http_base <"$STACK_DIR/ports" || true
  fi
  STACK_PORT_BASE=${STACK_PORT_BASE:-$remembered_port_base}
  STACK_HTTP_BASE=${STACK_HTTP_BASE:-$remembered_http_base}
  layout_check_base STACK_PORT_BASE 100
  layout_check_base STACK_HTTP_BASE 24
  layout_assign_brokers
  layout_assign_ports
}

# One broker, or three with STACK_BROKERS=3; data that exist keep theirs. Sets KAFKA_NODES, SERVERS and ALL.
layout_assign_brokers() {
  WANTED_BROKERS=${STACK_BROKERS:-}
  STACK_BROKERS=${STACK_BROKERS:-1}
  if [[ -d $STACK_DIR/kafka ]]; then
    STACK_BROKERS=$(cat "$STACK_DIR/brokers" 2>/dev/null || echo 1)
  fi
  case $STACK_BROKERS in
    1) KAFKA_NODES=(kafka) ;;
    3) KAFKA_NODES=(kafka kafka-2 kafka-3) ;;
    *) die "STACK_BROKERS=$STACK_BROKERS must be 1 or 3" ;;
  esac
  SERVERS=("${KAFKA_NODES[@]}" cassandra redis prometheus)
  # shellcheck disable=SC2034 # read by the commands
  ALL=("${SERVERS[@]}" "${SERVICES[@]}" gateway)
}

# layout_brokers — prints the addresses of the brokers, comma-separated.
layout_brokers() {
  local name addresses=
  for name in "${KAFKA_NODES[@]}"; do
    addresses+=",127.0.0.1:${PORT[$name]}"
  done
  echo "${addresses#,}"
}

layout_check_base() {
  local name=$1 span=$2
  if [[ ! ${!name} =~ ^[1-9][0-9]{2,4}$ ]] || ((${!name} + span > 65535)); then
    die "$name=${!name} is not a usable port base"
  fi
}

layout_assign_ports() {
  PORT=(
    [kafka]=$((STACK_PORT_BASE + 92)) [kafka-2]=$((STACK_PORT_BASE + 82)) [kafka-3]=$((STACK_PORT_BASE + 62))
    [cassandra]=$((STACK_PORT_BASE + 42))
    [redis]=$((STACK_PORT_BASE + 79)) [prometheus]=$((STACK_PORT_BASE + 90))
    [gateway]=$STACK_HTTP_BASE
    [ingest-1]=$((STACK_HTTP_BASE + 1)) [ingest-2]=$((STACK_HTTP_BASE + 11))
    [api-1]=$((STACK_HTTP_BASE + 2)) [api-2]=$((STACK_HTTP_BASE + 12))
    [processor-1]=$((STACK_HTTP_BASE + 3)) [processor-2]=$((STACK_HTTP_BASE + 13))
    [processor-3]=$((STACK_HTTP_BASE + 23))
  )
  KAFKA_PROXIED_PORT=$((STACK_PORT_BASE + 94))
  # Reserved for a test's proxy.
  # shellcheck disable=SC2034 # read by kafka.sh
  KAFKA_PROXY_PORT=$((STACK_PORT_BASE + 95))
  CASSANDRA_STORAGE_PORT=$((STACK_PORT_BASE + 70))
}

# layout_prepare — creates the state directory.
layout_prepare() {
  mkdir -p "$STACK_DIR"/{pids,logs}
  chmod 700 "$STACK_DIR"
}

# Data keep the number of brokers with which they were created.
layout_require_same_brokers() {
  if [[ -n $WANTED_BROKERS && $WANTED_BROKERS != "$STACK_BROKERS" ]]; then
    die "$STACK_DIR has data of $STACK_BROKERS broker(s); run local/down --wipe before choosing $WANTED_BROKERS"
  fi
}

# Running processes keep their ports: the port bases can only change while everything is down.
layout_require_same_ports() {
  local remembered name
  remembered=$(cat "$STACK_DIR/ports" 2>/dev/null) || return 0
  [[ $remembered != "$STACK_PORT_BASE $STACK_HTTP_BASE" ]] || return 0
  for name in "${ALL[@]}"; do
    if process_runs "$name"; then
      die "$name runs in $STACK_DIR with the port bases $remembered; run local/down before choosing others"
    fi
  done
}

layout_remember_ports() {
  echo "$STACK_PORT_BASE $STACK_HTTP_BASE" | write_file "$STACK_DIR/ports"
  echo "$STACK_BROKERS" | write_file "$STACK_DIR/brokers"
}

# layout_ports NAME — prints every port that NAME listens on.
layout_ports() {
  echo "${PORT[$1]}"
  case $1 in
    kafka) echo "$(kafka_controller_port "$1")" "$KAFKA_PROXIED_PORT" ;;
    kafka-*) kafka_controller_port "$1" ;;
    cassandra) echo "$CASSANDRA_STORAGE_PORT" ;;
  esac
}

# layout_lock — allows one `up` or `down` at a time in a state directory; the kernel releases it with the process.
# process_start closes descriptor 9 in every server, so no server holds the lock.
layout_lock() {
  exec 9>"$STACK_DIR/lock"
  if ! flock -n 9; then
    say "waiting for another local/up or local/down in $STACK_DIR"
    flock -w 180 9 || die "another local/up or local/down in $STACK_DIR does not finish"
  fi
}
