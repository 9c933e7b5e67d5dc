# shellcheck shell=bash
# Cassandra: the CQL server on one machine. Production uses ScyllaDB; the services support both.

cassandra_start() {
  local data=$STACK_DIR/cassandra tmp
  tmp=$(process_fresh_tmp cassandra)
  mkdir -p "$data"
  cp "$TEMPLATES/cassandra-logback.xml" "$data/logback.xml"
  render "$TEMPLATES/cassandra.yaml.in" "$data/cassandra.yaml" \
    "PORT=${PORT[cassandra]}" "STORAGE_PORT=$CASSANDRA_STORAGE_PORT" "DATA=$data"
  local -a options
  mapfile -t options < <(grep '^-' "$TEMPLATES/cassandra-jvm17.options" | tr -s ' ' '\n')
  process_start cassandra "$(fetch_java)" "${options[@]}" \
    "-Djava.io.tmpdir=$tmp" "-Djna.tmpdir=$tmp" \
    "-Dcassandra.config=file://${data// /%20}/cassandra.yaml" "-Dcassandra.storagedir=$data" \
    "-Dlogback.configurationFile=$data/logback.xml" -cp "$(fetch_jars_dir cassandra)/*" \
    org.apache.cassandra.service.CassandraDaemon
}

# cassandra_healthy — sends an OPTIONS frame (CQL protocol version 4) and expects SUPPORTED.
cassandra_healthy() {
  local answer
  answer=$(ports_exchange "${PORT[cassandra]}" 5 '\04\0\0\0\05\0\0\0\0')
  [[ $answer == 8400000006 ]]
}
