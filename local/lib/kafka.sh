# shellcheck shell=bash
# Kafka: one node that is broker and controller (KRaft).

kafka_start() {
  local data=$STACK_DIR/kafka tmp
  tmp=$(process_fresh_tmp kafka)
  mkdir -p "$data"
  cp "$TEMPLATES/kafka-log4j2.properties" "$data/log4j2.properties"
  render "$TEMPLATES/kafka.properties.in" "$data/server.properties" \
    "PORT=${PORT[kafka]}" "CONTROLLER_PORT=$KAFKA_CONTROLLER_PORT" \
    "PROXIED_PORT=$KAFKA_PROXIED_PORT" "PROXY_PORT=$KAFKA_PROXY_PORT" "DATA=$data/log"
  kafka_format "$data"
  process_start kafka "$(fetch_java)" -Xms256m -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError \
    -XX:-UsePerfData -Djava.awt.headless=true "-Djava.io.tmpdir=$tmp" \
    "-Dlog4j2.configurationFile=$data/log4j2.properties" -cp "$(fetch_jars_dir kafka)/*" \
    kafka.Kafka "$data/server.properties"
}

# kafka_format DIR — formats a data folder once. After an interruption it has no data yet and is formatted again.
kafka_format() {
  local data=$1 cluster_id
  [[ ! -f $data/formatted ]] || return 0
  say "formatting kafka's data directory"
  rm -rf "$data/log"
  # 16 random bytes in URL-safe base64, without a dash, which could be parsed as an option.
  cluster_id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22)
  "$(fetch_java)" -Xmx256m -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    "-Dlog4j2.configurationFile=$data/log4j2.properties" -cp "$(fetch_jars_dir kafka)/*" kafka.tools.StorageTool \
    format --cluster-id "$cluster_id" --config "$data/server.properties" >"$data/format.log" 2>&1 9>&- \
    || die "kafka: formatting failed:"$'\n'"$(cat "$data/format.log")"
  touch "$data/formatted"
}

# kafka_healthy — sends a Metadata request (version 1, no topics) and expects one live broker.
kafka_healthy() {
  local answer
  answer=$(ports_exchange "${PORT[kafka]}" 12 '\0\0\0\016\0\03\0\01\0\0\0\01\377\377\0\0\0\0')
  [[ $answer == ????????0000000100000001 ]]
}
