# shellcheck shell=bash
# Shared by all other files: messages, templates, waiting for a condition.

say() {
  printf 'local: %s\n' "$*" >&2
}

die() {
  printf 'local: error: %s\n' "$*" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# write_file FILE — writes standard input to FILE atomically.
write_file() {
  local file=$1
  cat >"$file.new"
  mv -f "$file.new" "$file"
}

# render TEMPLATE OUT KEY=VALUE... — replaces every @KEY@ of TEMPLATE; all must be given.
render() {
  local template=$1 out=$2 text pair key value
  shift 2
  text=$(<"$template")
  for pair in "$@"; do
    key=${pair%%=*} value=${pair#*=}
    text=${text//"@$key@"/"$value"}
  done
  if [[ $text =~ @[A-Z_]+@ ]]; then
    die "$template: no value for ${BASH_REMATCH[0]}"
  fi
  printf '%s\n' "$text" | write_file "$out"
}

# wait_until SECONDS COMMAND... — polls until COMMAND succeeds; fails after SECONDS.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
