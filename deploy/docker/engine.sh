#!/usr/bin/env bash
# Finds a Docker Engine, or makes one: prints the DOCKER_HOST to use on standard output, everything else on standard
# error. Fails with one line when there is none and none can be made.
#
#   engine.sh         the engine that DOCKER_HOST names or that runs already; as root on Debian, otherwise, docker.io is
#                     installed and dockerd started, detached, with its log in a file
#   engine.sh stop    ends the dockerd that this script started; any other is left alone
#
# Idempotent: the second call finds what the first one started. ENGINE_DIR is where the started one keeps everything.
set -euo pipefail

ENGINE_DIR=${ENGINE_DIR:-/var/lib/minga-engine}
SOCKET=$ENGINE_DIR/docker.sock
PID_FILE=$ENGINE_DIR/dockerd.pid
LOG=$ENGINE_DIR/dockerd.log
POLICY=/usr/sbin/policy-rc.d
START_SECONDS=60
LOCK_SECONDS=300
STOP_SECONDS=30

say() { echo "engine: $*" >&2; }
fail() { say "$*"; exit 1; }
answers() { command -v docker >/dev/null && DOCKER_HOST=$1 timeout 10 docker version >/dev/null 2>&1; }

# Whether the process in the pid file is a dockerd that runs: the number may have gone to another process since, and one
# that was killed may not have been waited for yet (then it has a name, but no program any more).
started_here() {
  [[ -s $PID_FILE ]] && [[ $(readlink "/proc/$(cat "$PID_FILE")/exe" 2>/dev/null) == */dockerd ]]
}

find_one() {
  if [[ -n ${DOCKER_HOST:-} ]]; then
    answers "$DOCKER_HOST" || fail "DOCKER_HOST is $DOCKER_HOST, but no Docker Engine answers there"
    echo "$DOCKER_HOST"
    return
  fi
  local context
  # What plain `docker` would use: the current context, else the socket of the system.
  context=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true)
  for host in "$context" unix:///var/run/docker.sock "unix://$SOCKET"; do
    if [[ -n $host ]] && answers "$host"; then
      echo "$host"
      return
    fi
  done
  return 1
}

install_one() {
  command -v apt-get >/dev/null || fail "no Docker Engine answers, and there is no apt-get to install one with"
  say "installing docker.io from Debian ..."
  # Without an init system of this machine's, the package would start a dockerd without an owner, with its own networks.
  if [[ ! -d /run/systemd/system && ! -e $POLICY ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod +x "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
  fi
  # iptables: dockerd needs it, and without recommended packages it may be missing. docker-cli: a package of its own
  # from Debian 13 on.
  local packages=(docker.io iptables)
  apt-get update -qq >&2 </dev/null || fail "apt-get update failed"
  if [[ -n $(apt-cache search --names-only '^docker-cli$') ]]; then packages+=(docker-cli); fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 </dev/null ||
    fail "apt-get could not install ${packages[*]}"
}

start_one() {
  local started=
  if ! started_here; then
    say "starting dockerd; its log is $LOG"
    # Of processes that were killed: dockerd takes their numbers for living ones until their parent has waited for them.
    rm -f "$PID_FILE" "$ENGINE_DIR/exec/containerd/containerd.pid"
    # Detached from this shell's session, streams and lock: a reader of our output must not wait. 198.18.0.0/15 is
    # reserved for tests (RFC 2544), so that no container hides a machine which this one has to reach.
    setsid dockerd --host "unix://$SOCKET" --pidfile "$PID_FILE" --data-root "$ENGINE_DIR/data" \
      --exec-root "$ENGINE_DIR/exec" --bip 198.18.0.1/24 \
      --default-address-pool base=198.18.64.0/18,size=24 </dev/null >>"$LOG" 2>&1 9>&- &
    disown
    started=$!
  fi
  local deadline=$((SECONDS + START_SECONDS))
  until answers "unix://$SOCKET"; do
    if ((SECONDS >= deadline)) || { [[ -n $started ]] && ! kill -0 "$started" 2>/dev/null; }; then
      tail -n 5 "$LOG" >&2 || true
      fail "dockerd did not start; see $LOG"
    fi
    sleep 0.2
  done
  echo "unix://$SOCKET"
}

stop_one() {
  if ! started_here; then
    say "none was started here"
    return
  fi
  local pid deadline=$((SECONDS + STOP_SECONDS))
  pid=$(cat "$PID_FILE")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do
    ((SECONDS < deadline)) || fail "dockerd ($pid) did not end within $STOP_SECONDS s; see $LOG"
    sleep 0.2
  done
  say "stopped; images and volumes are kept in $ENGINE_DIR"
}

case ${1:-start} in
  start)
    if find_one; then exit; fi
    [[ $(id -u) == 0 ]] || fail "no Docker Engine answers, and only root can install one: start Docker, or set DOCKER_HOST"
    mkdir -p "$ENGINE_DIR"
    # Two callers at once must not start two.
    exec 9>"$ENGINE_DIR/lock"
    flock -w "$LOCK_SECONDS" 9 || fail "another engine.sh has been at work for $LOCK_SECONDS s"
    if find_one; then exit; fi
    if ! command -v dockerd >/dev/null; then install_one; fi
    find_one || start_one
    ;;
  stop) stop_one ;;
  *) fail "usage: engine.sh [start|stop]" ;;
esac
