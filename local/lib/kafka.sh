# shellcheck shell=bash
# Kafka: one node or three, each of which is broker and controller (KRaft).

# kafka_controller_port NAME — prints the port of the controller, one above the broker's.
kafka_controller_port() {
  local broker=${PORT[$1]}
  echo $((broker + 1))
}

# kafka_start NAME — starts one node; only the first has a listener for clients behind a test's proxy.
kafka_start() {
  local name=$1 data=$STACK_DIR/$1 tmp node voters='' number=0 listeners advertised
  tmp=$(process_fresh_tmp "$name")
  mkdir -p "$data"
  cp "$TEMPLATES/kafka-log4j2.properties" "$data/log4j2.properties"
  for node in "${KAFKA_NODES[@]}"; do
    number=$((number + 1))
    voters+=",$number@127.0.0.1:$(kafka_controller_port "$node")"
    [[ $node != "$name" ]] || local node_id=$number
  done
  listeners="PLAINTEXT://127.0.0.1:${PORT[$name]},CONTROLLER://127.0.0.1:$(kafka_controller_port "$name")"
  advertised="PLAINTEXT://127.0.0.1:${PORT[$name]}"
  if [[ $name == kafka ]]; then
    listeners+=",PROXIED://127.0.0.1:$KAFKA_PROXIED_PORT"
    advertised+=",PROXIED://127.0.0.1:$KAFKA_PROXY_PORT"
  fi
  render "$TEMPLATES/kafka.properties.in" "$data/server.properties" "NODE_ID=$node_id" "VOTERS=${voters#,}" \
    "LISTENERS=$listeners" "ADVERTISED=$advertised" "DATA=$data/log" \
    "REPLICAS=$STACK_BROKERS" "IN_SYNC=$((STACK_BROKERS / 2 + 1))"
  kafka_format "$data"
  process_start "$name" "$(fetch_java)" -Xms256m -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError \
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
  # The nodes of a cluster are formatted with the same id.
  if [[ ! -s $STACK_DIR/kafka-cluster-id ]]; then
    # 16 random bytes in URL-safe base64, without a dash, which could be parsed as an option.
    head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22 | write_file "$STACK_DIR/kafka-cluster-id"
  fi
  cluster_id=$(<"$STACK_DIR/kafka-cluster-id")
  "$(fetch_java)" -Xmx256m -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    "-Dlog4j2.configurationFile=$data/log4j2.properties" -cp "$(fetch_jars_dir kafka)/*" kafka.tools.StorageTool \
    format --cluster-id "$cluster_id" --config "$data/server.properties" >"$data/format.log" 2>&1 9>&- \
    || die "kafka: formatting failed:"$'\n'"$(cat "$data/format.log")"
  touch "$data/formatted"
}

# kafka_healthy NAME — sends a Metadata request (version 1, no topics) and expects a live broker.
kafka_healthy() {
  local answer
  answer=$(ports_exchange "${PORT[$1]}" 12 '\0\0\0\016\0\03\0\01\0\0\0\01\377\377\0\0\0\0')
  [[ $answer == ????????000000010000000[1-3] ]]
}
