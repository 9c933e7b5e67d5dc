# shellcheck shell=bash
# The services: ingest, processor, api. Each has its own configuration, $STACK_DIR/<name>.toml.

# services_require_binaries NAME... — fails if a binary is not built.
services_require_binaries() {
  local name binary
  for name in "$@"; do
    binary=$STACK_BIN_DIR/${name%-*}
    [[ -x $binary ]] || die "$binary is missing; run: make build"
  done
}

service_start() {
  local name=$1 service=${1%-*}
  services_person_secret
  render "$TEMPLATES/service.toml.in" "$STACK_DIR/$name.toml" \
    "SERVICE=$service" "PORT=${PORT[$name]}" "BROKERS=$(layout_brokers)" "REPLICAS=$STACK_BROKERS" "CASSANDRA_PORT=${PORT[cassandra]}" \
    "REDIS_PORT=${PORT[redis]}" "STATE=$STACK_DIR"
  process_start "$name" "$STACK_BIN_DIR/$service" --config "$STACK_DIR/$name.toml"
}

service_healthy() {
  ports_http_ok "${PORT[$1]}" /readyz
}

# The secret for hashing person ids: created once and kept with the data.
services_person_secret() {
  local file=$STACK_DIR/person.secret
  [[ ! -s $file ]] || return 0
  (
    umask 077
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' | write_file "$file"
  )
}
