# shellcheck shell=bash
# The stack as a whole: which processes should run, the order of starting and stopping, and health.

# How long a process may take to become healthy, and to exit, in seconds.
STACK_START_SECONDS=${STACK_START_SECONDS:-90}
STACK_STOP_SECONDS=30

stack_start_one() {
  say "starting $1 on port ${PORT[$1]}"
  case $1 in
    ingest-* | processor-* | api-*) service_start "$1" ;;
    kafka*) kafka_start "$1" ;;
    *) "${1}_start" ;;
  esac
}

stack_healthy() {
  case $1 in
    ingest-* | processor-* | api-*) service_healthy "$1" ;;
    kafka*) kafka_healthy "$1" ;;
    *) "${1}_healthy" ;;
  esac
}

# stack_down_among NAME... — prints those that do not run, one per line.
stack_down_among() {
  local name
  for name in "$@"; do
    process_runs "$name" || echo "$name"
  done
}

stack_settled() {
  stack_healthy "$1" || ! process_runs "$1"
}

# stack_await NAME... — waits until each is healthy; fails if one exits or takes too long.
stack_await() {
  local name
  for name in "$@"; do
    wait_until "$STACK_START_SECONDS" stack_settled "$name" || true
    if stack_healthy "$name"; then
      say "$name is up"
      continue
    fi
    process_tail "$name"
    if process_runs "$name"; then
      die "$name (port ${PORT[$name]}) runs but is not healthy after $STACK_START_SECONDS s"
    fi
    die "$name (port ${PORT[$name]}) exited while starting"
  done
}

# stack_prepare NAME... — removes what dead processes left behind and checks that the needed ports are free.
stack_prepare() {
  local name
  local -a down
  mapfile -t down < <(stack_down_among "$@")
  for name in "${down[@]}"; do
    process_sweep "$name"
  done
  ports_require_free "${down[@]}"
  layout_remember_ports
  stack_want "$@"
}

# stack_up NAME... — starts those that are down: the servers in parallel, then the services, then the gateway.
stack_up() {
  local down
  down=$(stack_down_among "$@" | tr '\n' ' ')
  # Cassandra takes longest; Kafka's first start formats its folder.
  stack_start_among "$down" cassandra redis prometheus "${KAFKA_NODES[@]}"
  stack_await_among "$*" "${SERVERS[@]}"
  [[ " $* " != *" gateway "* ]] || prometheus_scrape_services
  stack_start_among "$down" "${SERVICES[@]}"
  stack_await_among "$*" "${SERVICES[@]}"
  stack_start_among "$down" gateway
  stack_await_among "$*" gateway
}

# stack_start_among "NAMES" ORDER... — starts those of ORDER that are in NAMES, in that order.
stack_start_among() {
  local names=" $1 " name
  shift
  for name in "$@"; do
    [[ $names != *" $name "* ]] || stack_start_one "$name"
  done
}

stack_await_among() {
  local names=" $1 " name
  shift
  for name in "$@"; do
    [[ $names != *" $name "* ]] || stack_await "$name"
  done
}

# stack_down — stops the gateway, then the services, then the servers; each group in parallel.
stack_down() {
  stack_stop_together gateway
  stack_stop_together "${SERVICES[@]}"
  stack_stop_together "${SERVERS[@]}"
  rm -f "$STACK_DIR/wanted"
}

stack_stop_together() {
  local name job failed=0
  local -a jobs=()
  for name in "$@"; do
    process_stop "$name" "$STACK_STOP_SECONDS" &
    jobs+=("$!")
  done
  for job in "${jobs[@]}"; do
    wait "$job" || failed=1
  done
  ((failed == 0)) || die "some processes did not exit"
}

# stack_want NAME... — records that these should run too.
stack_want() {
  { printf '%s\n' "$@"; stack_wanted; } | sort -u | write_file "$STACK_DIR/wanted"
}

stack_wanted() {
  cat "$STACK_DIR/wanted" 2>/dev/null || true
}
