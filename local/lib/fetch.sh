# shellcheck shell=bash
# Installs what is missing: Debian packages with apt, jars with Maven. Fast when nothing is missing.

CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/tax-budget-allocator
JAVA_PACKAGE=openjdk-17-jre-headless
POLICY_FILE=/usr/sbin/policy-rc.d
POLICY_MARK='# written by local/up of the tax budget allocator, only while it installs packages'

# fetch_for NAME... — installs everything that these processes need.
fetch_for() {
  local names=" $* "
  local -a packages=()
  have curl || packages+=(curl)
  [[ $names != *" redis "* ]] || have redis-server || packages+=(redis-server)
  [[ $names != *" prometheus "* ]] || have prometheus || packages+=(prometheus)
  [[ $names != *" gateway "* ]] || [[ -n $(fetch_nginx) ]] || packages+=(nginx)
  if [[ $names == *" kafka "* || $names == *" cassandra "* ]]; then
    [[ -n $(fetch_java) ]] || packages+=("$JAVA_PACKAGE")
    [[ -d $(fetch_jars_dir kafka) && -d $(fetch_jars_dir cassandra) ]] || have mvn || packages+=(maven)
  fi
  ((${#packages[@]} == 0)) || fetch_packages "${packages[@]}"
  [[ $names != *" cassandra "* ]] || fetch_jars cassandra
  [[ $names != *" kafka "* ]] || fetch_jars kafka
}

# fetch_nginx — prints its path; Debian installs it in /usr/sbin, which may not be in PATH.
fetch_nginx() {
  PATH=$PATH:/usr/sbin:/sbin command -v nginx || true
}

# fetch_java — prints the path of a Java 17, or nothing.
fetch_java() {
  local java
  for java in "${JAVA_HOME:-/nonexistent}/bin/java" /usr/lib/jvm/*17*/bin/java /usr/lib/jvm/*/bin/java \
    /opt/*/bin/java "$HOME"/.sdkman/candidates/java/17*/bin/java "$(command -v java || true)"; do
    if [[ -x $java ]] && fetch_is_java_17 "$java"; then
      echo "$java"
      return
    fi
  done
}

# Only the version that the JVM reports counts, not the names of folders and links.
fetch_is_java_17() {
  local version
  version=$("$1" -XshowSettings:properties -version 2>&1 | awk '$1 == "java.specification.version" { print $3 }')
  [[ $version == 17 ]]
}

# fetch_java_hint PACKAGE... — prints how to get Java 17 where apt has no package of it (Debian 13).
fetch_java_hint() {
  [[ " $* " == *" $JAVA_PACKAGE "* ]] || return 0
  printf '\n%s\n%s' "Kafka and Cassandra need Java 17. Where apt has no $JAVA_PACKAGE (Debian 13), any other Java 17 will do:" \
    "install temurin-17-jre as https://adoptium.net/installation/linux says, or unpack one and set JAVA_HOME to its folder."
}

fetch_packages() {
  local install="apt-get install -y --no-install-recommends $*"
  have apt-get || die "missing: $*; install them by your system's package manager$(fetch_java_hint "$@")"
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || die "missing: $*; run: sudo sh -c 'apt-get update && $install'$(fetch_java_hint "$@")"
    sudo -n "$LOCAL_DIR/install" "$@"
    hash -r
    return
  fi
  say "installing $* (apt)"
  mkdir -p "$CACHE_DIR"
  (
    flock 8
    trap fetch_allow_services EXIT
    trap 'exit 130' INT TERM
    fetch_deny_services || exit 1
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o DPkg::Lock::Timeout=300 update \
      && apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
  ) 8>"$CACHE_DIR/apt.lock" >"$CACHE_DIR/apt.log" 2>&1 9>&- \
    || die "apt failed:"$'\n'"$(tail -n 15 "$CACHE_DIR/apt.log")$(fetch_java_hint "$@")"
  hash -r
}

# Debian starts a service when its package is installed; policy-rc.d prevents that meanwhile.
fetch_deny_services() {
  fetch_allow_services
  [[ ! -e $POLICY_FILE ]] || mv "$POLICY_FILE" "$POLICY_FILE.saved-by-local-up"
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY_FILE"
  chmod 755 "$POLICY_FILE"
}

# Restores the previous policy, also after a killed run.
fetch_allow_services() {
  if grep -qsF "$POLICY_MARK" "$POLICY_FILE"; then
    rm -f "$POLICY_FILE"
  fi
  if [[ -e $POLICY_FILE.saved-by-local-up ]]; then
    mv "$POLICY_FILE.saved-by-local-up" "$POLICY_FILE"
  fi
}

# fetch_jars_dir SERVER — the folder of its jars; named by the pom's hash, so a changed pom is a new download.
fetch_jars_dir() {
  local hash
  hash=$(sha256sum <"$LOCAL_DIR/maven/$1.pom.xml")
  echo "$CACHE_DIR/$1-${hash:0:16}"
}

# fetch_jars SERVER — downloads into a temporary folder and renames it, so a folder with the final name is complete.
fetch_jars() {
  local server=$1 dir log
  dir=$(fetch_jars_dir "$server")
  [[ ! -d $dir ]] || return 0
  mkdir -p "$CACHE_DIR"
  log=$CACHE_DIR/$server.log
  (
    flock 8
    [[ ! -d $dir ]] || exit 0
    say "downloading $server's jars (Maven, about a minute)"
    rm -rf "$dir.part"
    # `set -e` has no effect here: rename only after a successful download.
    JAVA_HOME=$(fetch_java_home) mvn --batch-mode --no-transfer-progress -Dstyle.color=never \
      --file "$LOCAL_DIR/maven/$server.pom.xml" \
      dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir.part" >"$log" 2>&1 \
      && mv "$dir.part" "$dir"
  ) 8>"$CACHE_DIR/$server.lock" 9>&- || die "downloading $server's jars failed:"$'\n'"$(tail -n 15 "$log")"
}

fetch_java_home() {
  local java
  java=$(fetch_java)
  echo "${java%/bin/java}"
}
