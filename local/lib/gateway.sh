# shellcheck shell=bash
# The gateway: Debian's nginx with a configuration and folders of its own, apart from the system's service.

gateway_start() {
  local data=$STACK_DIR/gateway
  gateway_configure "$data" "${PORT[gateway]}" "${PORT[ingest-1]}" "${PORT[ingest-2]}" "${PORT[api-1]}" "${PORT[api-2]}"
  process_start gateway "$(fetch_nginx)" -p "$data" -c "$data/nginx.conf" -e stderr
}

# gateway_configure DIR PORT INGEST INGEST API API — its folders, and DIR/nginx.conf: the ports of all five.
gateway_configure() {
  local data=$1 user=''
  mkdir -p "$data"/{body,proxy,tmp}
  # Started by root, nginx would give its workers to a user who may not read the folder.
  ((EUID != 0)) || user="user $(id -un) $(id -gn);"
  render "$TEMPLATES/nginx.conf.in" "$data/nginx.conf" "DATA=$data" "USER=$user" "PORT=$2" \
    "INGEST_ONE=$3" "INGEST_TWO=$4" "API_ONE=$5" "API_TWO=$6"
}

gateway_healthy() {
  ports_http_ok "${PORT[gateway]}" /.gateway/livez
}
