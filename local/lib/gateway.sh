# shellcheck shell=bash
# The gateway: Debian's nginx with its own configuration and folders, separate from the system's service.

gateway_start() {
  local data=$STACK_DIR/gateway
  gateway_configure "$data" "${PORT[gateway]}" "${PORT[ingest-1]}" "${PORT[ingest-2]}" "${PORT[api-1]}" "${PORT[api-2]}"
  process_start gateway "$(fetch_nginx)" -p "$data" -c "$data/nginx.conf" -e stderr
}

# gateway_configure DIR PORT INGEST INGEST API API — creates its folders and DIR/nginx.conf; all but DIR are ports.
gateway_configure() {
  local data=$1 user=''
  mkdir -p "$data"/{body,proxy,tmp,cache}
  # As root, nginx would run its workers as a user without access to the folder.
  ((EUID != 0)) || user="user $(id -un) $(id -gn);"
  render "$TEMPLATES/nginx.conf.in" "$data/nginx.conf" "DATA=$data" "USER=$user" "PORT=$2" \
    "INGEST_ONE=$3" "INGEST_TWO=$4" "API_ONE=$5" "API_TWO=$6"
}

gateway_healthy() {
  ports_http_ok "${PORT[gateway]}" /.gateway/livez
}
