# shellcheck shell=bash
# Finds the process that listens on a loopback port, from /proc, without other tools.

# ports_inodes PORT — prints sockets listening on PORT that would collide with 127.0.0.1.
ports_inodes() {
  local hex
  printf -v hex '%04X' "$1"
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$hex" '
    $4 == "0A" && split($2, address, ":") == 2 && address[2] == port \
      && address[1] ~ /^(0+|0100007F|0000000000000000FFFF00000100007F)$/ { print $10 }'
}

# ports_owner PORT — prints "name (pid N)", if this user may see it.
ports_owner() {
  local inode fd pid
  for inode in $(ports_inodes "$1"); do
    fd=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2>/dev/null || true)
    [[ -n $fd ]] || continue
    pid=${fd#/proc/} pid=${pid%%/*}
    echo "$(cat "/proc/$pid/comm" 2>/dev/null) (pid $pid)"
    return
  done
  echo "a process of another user"
}

# ports_require_free NAME... — fails if a port of these processes is taken, and names all that are.
ports_require_free() {
  local name port taken=0
  for name in "$@"; do
    for port in $(layout_ports "$name"); do
      if [[ -n $(ports_inodes "$port") ]]; then
        say "port $port, needed by $name, is taken by $(ports_owner "$port")"
        taken=1
      fi
    done
  done
  ((taken == 0)) || die "nothing was started; free the ports, or choose others with STACK_PORT_BASE and STACK_HTTP_BASE"
}

# ports_exchange PORT BYTES REQUEST — sends REQUEST (printf escapes) and prints the first BYTES of the response in hex.
ports_exchange() (
  exec 2>/dev/null
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  # shellcheck disable=SC2059 # the request is a constant with escapes
  printf "$3" >&3 || exit 1
  timeout 2 head -c "$2" <&3 | od -An -v -tx1 | tr -d ' \n'
)

# ports_http_ok PORT PATH — succeeds if GET returns 2xx.
ports_http_ok() {
  curl --fail --silent --output /dev/null --noproxy '*' --max-time 2 "http://127.0.0.1:$1$2"
}
