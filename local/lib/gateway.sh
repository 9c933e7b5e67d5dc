# shellcheck shell=bash
# The gateway: Debian's nginx with a configuration and folders of its own, apart from the system's service.

gateway_start() {
  local data=$STACK_DIR/gateway user=''
  mkdir -p "$data"/{body,proxy,tmp}
  # Started by root, nginx would give its workers to a user who may not read the state directory.
  ((EUID != 0)) || user="user $(id -un) $(id -gn);"
  render "$TEMPLATES/nginx.conf.in" "$data/nginx.conf" "DATA=$data" "USER=$user" "PORT=${PORT[gateway]}" \
    "INGEST_ONE=${PORT[ingest-1]}" "INGEST_TWO=${PORT[ingest-2]}" "API_ONE=${PORT[api-1]}" "API_TWO=${PORT[api-2]}"
  process_start gateway "$(fetch_nginx)" -p "$data" -c "$data/nginx.conf" -e stderr
}

gateway_healthy() {
  ports_http_ok "${PORT[gateway]}" /.gateway/livez
}
