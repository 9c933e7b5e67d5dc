# shellcheck shell=bash
# Redis: a cache; a restart empties it.

redis_start() {
  mkdir -p "$STACK_DIR/redis"
  render "$TEMPLATES/redis.conf.in" "$STACK_DIR/redis/redis.conf" \
    "PORT=${PORT[redis]}" "DATA=$STACK_DIR/redis"
  process_start redis "$(command -v redis-server)" "$STACK_DIR/redis/redis.conf"
}

redis_healthy() {
  [[ $(ports_exchange "${PORT[redis]}" 5 'PING\r\n') == 2b504f4e47 ]]
}
