#!/bin/sh
# `redis-server ARGUMENTS`, `ARGUMENTS` alone, or any other command; in a container, others may connect.
set -eu
case ${1:-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "${1:-}" = redis-server ]; then
  shift
  # A configuration file must stay the first argument; it then decides.
  case ${1:-} in
    *.conf) exec redis-server "$@" ;;
  esac
  exec redis-server --protected-mode no "$@"
fi
exec "$@"
