# shellcheck shell=bash
# Starts and stops the processes of one state directory, and no others.
#
# A pid file holds "PID START BOOT": process id, its start in clock ticks since boot, and the boot id. All three
# together identify one process for ever; a recycled pid does not match. Each process leads its own session, so that
# children it leaves behind (nginx's workers) are found by the session.

# process_read PID — sets PROCESS_STATE, PROCESS_SESSION and PROCESS_START; fails if there is no such process.
process_read() {
  local line
  { line=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  local -a fields
  # The name, in parentheses, may contain anything: count fields after it.
  read -r -a fields <<<"${line##*) }"
  PROCESS_STATE=${fields[0]} PROCESS_SESSION=${fields[3]} PROCESS_START=${fields[19]}
}

process_boot() {
  cat /proc/sys/kernel/random/boot_id
}

process_identity() {
  process_read "$1" && echo "$1 $PROCESS_START $(process_boot)"
}

process_pid_file() {
  echo "$STACK_DIR/pids/$1"
}

# process_pid NAME — prints the pid of NAME if it runs; fails otherwise. A zombie does not run.
process_pid() {
  local recorded pid
  recorded=$(cat "$(process_pid_file "$1")" 2>/dev/null) || return 1
  pid=${recorded%% *}
  [[ $pid =~ ^[1-9][0-9]*$ && $recorded == "$(process_identity "$pid")" ]] || return 1
  process_read "$pid" && [[ $PROCESS_STATE != [ZX] ]] || return 1
  echo "$pid"
}

process_runs() {
  process_pid "$1" >/dev/null
}

# process_left_behind NAME — prints the pids in the session of NAME's dead leader. While one of them exists, the kernel
# does not reuse the session's number; the working directory is a second check.
process_left_behind() {
  local recorded session stat pid
  recorded=$(cat "$(process_pid_file "$1")" 2>/dev/null) || return 0
  [[ ${recorded##* } == "$(process_boot)" ]] || return 0
  session=${recorded%% *}
  for stat in /proc/[0-9]*/stat; do
    pid=${stat#/proc/} pid=${pid%/stat}
    if process_read "$pid" && [[ $PROCESS_SESSION == "$session" && $PROCESS_STATE != [ZX] ]] \
      && [[ $(readlink "/proc/$pid/cwd") == "$STACK_DIR" ]]; then
      echo "$pid"
    fi
  done
}

# process_sweep NAME — kills what a dead NAME left behind and removes its pid file.
process_sweep() {
  local name=$1 pid
  for pid in $(process_left_behind "$name"); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait_until 5 process_none_left_behind "$name" || die "processes left behind by $name do not exit"
  rm -f "$(process_pid_file "$name")"
}

process_none_left_behind() {
  [[ -z $(process_left_behind "$1") ]]
}

process_log() {
  echo "$STACK_DIR/logs/$1.log"
}

# process_start NAME COMMAND... — starts COMMAND in the background. The process writes its own pid file before exec, so
# it never runs unrecorded. The log of the previous run is kept as .1.
process_start() {
  local name=$1 log
  shift
  log=$(process_log "$name")
  [[ ! -f $log ]] || mv -f "$log" "$log.1"
  (
    self=$BASHPID
    process_close_descriptors
    cd "$STACK_DIR" || exit
    ulimit -S -n "$(ulimit -H -n)"
    process_identity "$self" | write_file "$(process_pid_file "$name")"
    exec setsid "$@"
  ) </dev/null >"$log" 2>&1 &
  wait_until 5 process_recorded "$name" "$!" || die "$name: could not be started"
}

# process_fresh_tmp NAME — creates an empty folder for temporary files; a killed JVM leaves unpacked libraries behind.
process_fresh_tmp() {
  local tmp=$STACK_DIR/tmp/$1
  rm -rf "$tmp"
  mkdir -p "$tmp"
  echo "$tmp"
}

process_recorded() {
  [[ $(cat "$(process_pid_file "$1")" 2>/dev/null) == "$2 "* ]]
}

# Closes inherited descriptors: a server must not keep its caller's pipe or lock open.
process_close_descriptors() {
  local path descriptor
  for path in "/proc/$BASHPID/fd"/*; do
    descriptor=${path##*/}
    if ((descriptor > 2)); then
      exec {descriptor}>&-
    fi
  done
}

# process_stop NAME SECONDS — sends SIGTERM, waits, then sends SIGKILL.
process_stop() {
  local name=$1 seconds=$2 pid
  if pid=$(process_pid "$name"); then
    say "stopping $name (pid $pid)"
    kill -TERM "$pid" 2>/dev/null || true
    # A suspended process receives SIGTERM only once it continues.
    kill -CONT "$pid" 2>/dev/null || true
    if ! wait_until "$seconds" process_gone "$name"; then
      say "$name did not exit within $seconds s: killing it"
      # It may exit at this moment; then the pid is no longer its own.
      if pid=$(process_pid "$name"); then kill -KILL "$pid" 2>/dev/null || true; fi
      wait_until 10 process_gone "$name" || die "$name (pid $pid) does not exit"
    fi
  fi
  process_sweep "$name"
}

process_gone() {
  ! process_runs "$1"
}

# process_tail NAME — prints the end of its log, for an error message.
process_tail() {
  local log
  log=$(process_log "$1")
  printf -- '--- last lines of %s\n' "$log" >&2
  tail -n 25 "$log" >&2 || true
}
