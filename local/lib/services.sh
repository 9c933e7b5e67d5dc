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
  services_secret person.secret
  services_secret admin.token
  services_admin_tokens
  render "$TEMPLATES/service.toml.in" "$STACK_DIR/$name.toml" \
    "SERVICE=$service" "PORT=${PORT[$name]}" "BROKERS=$(layout_brokers)" "REPLICAS=$STACK_BROKERS" "CASSANDRA_PORT=${PORT[cassandra]}" \
    "REDIS_PORT=${PORT[redis]}" "STATE=$STACK_DIR"
  process_start "$name" "$STACK_BIN_DIR/$service" --config "$STACK_DIR/$name.toml"
}

service_healthy() {
  ports_http_ok "${PORT[$1]}" /readyz
}

# services_secret NAME — the secret for hashing person ids, or an administrator's token: created once and kept with the
# data.
services_secret() {
  local file=$STACK_DIR/$1
  [[ ! -s $file ]] || return 0
  (
    umask 077
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' | write_file "$file"
  )
}

# The digest of the administrator's token, which is what the services know of it.
services_admin_tokens() {
  local file=$STACK_DIR/admin.tokens
  [[ ! -s $file ]] || return 0
  printf 'admin admin sha256:%s\n' "$(sha256sum <"$STACK_DIR/admin.token" | cut -d ' ' -f 1)" | write_file "$file"
}
