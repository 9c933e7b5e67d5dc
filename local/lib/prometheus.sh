# shellcheck shell=bash
# Prometheus: scrapes itself and, once started, the services; evaluates the production alerts.

prometheus_start() {
  local data=$STACK_DIR/prometheus
  mkdir -p "$data/targets"
  render "$TEMPLATES/prometheus.yml.in" "$data/prometheus.yml" \
    "PORT=${PORT[prometheus]}" "DATA=$data" "RULES=$REPO_DIR/prometheus/alerts.yml"
  process_start prometheus "$(command -v prometheus)" "--config.file=$data/prometheus.yml" \
    "--storage.tsdb.path=$data/data" --storage.tsdb.retention.time=2d --storage.tsdb.retention.size=512MB \
    "--web.listen-address=127.0.0.1:${PORT[prometheus]}" --log.level=warn
}

prometheus_healthy() {
  ports_http_ok "${PORT[prometheus]}" /-/ready
}

# prometheus_scrape_services — writes the services as targets; Prometheus watches this folder.
prometheus_scrape_services() {
  local name separator='['
  mkdir -p "$STACK_DIR/prometheus/targets"
  {
    for name in "${SERVICES[@]}"; do
      printf '%s{"targets": ["127.0.0.1:%s"], "labels": {"job": "%s", "process": "%s"}}' \
        "$separator" "${PORT[$name]}" "${name%-*}" "$name"
      separator=$',\n '
    done
    echo ']'
  } | write_file "$STACK_DIR/prometheus/targets/services.json"
}
