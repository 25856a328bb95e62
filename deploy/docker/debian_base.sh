#!/usr/bin/env bash
# The base image made of Debian's packages, for machines from which no image registry can be reached: prints its name.
# As root on Debian, where debootstrap works. The machine's own certificates go in, so that pip trusts in there what
# this machine trusts. Quick when the image is there already.
#
#   debian_base.sh          minga-test/python:bookworm, passed as BASE_IMAGE
#   debian_base.sh redis    minga-test/redis:7, Debian's redis-server on it, for tests
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=bookworm
PYTHON_IMAGE=minga-test/python:$SUITE
REDIS_IMAGE=minga-test/redis:7
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
INPUTS=dev.minga.inputs

say() { echo "debian_base: $*" >&2; }
fail() { say "$*"; exit 1; }
label() { docker image inspect --format "{{index .Config.Labels \"$INPUTS\"}}" "$1" 2>/dev/null || true; }

make_python() {
  local inputs root=
  inputs=$(cat deploy/docker/debian_base.sh "$CERTIFICATES" | sha256sum | cut -c1-16)
  if [[ $(label $PYTHON_IMAGE) == "$inputs" ]]; then return; fi
  [[ $(id -u) == 0 ]] || fail "only root can run debootstrap"
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "neither debootstrap nor apt-get is here"
    say "installing debootstrap ..."
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      debootstrap; } >&2 </dev/null || fail "apt-get could not install debootstrap"
  fi
  say "making $PYTHON_IMAGE with debootstrap, a minute or so ..."
  root=$(mktemp -d /var/tmp/minga-debootstrap.XXXXXX)
  # shellcheck disable=SC2064 # the folder as it is called now
  trap "rm -rf --one-file-system '$root'" EXIT
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$root" "$MIRROR" \
    >"$root.log" 2>&1 </dev/null || { tail -n 5 "$root.log" >&2; fail "debootstrap failed; see $root.log"; }
  rm -f "$root.log"
  cp "$CERTIFICATES" "$root$CERTIFICATES"
  # Official images have none of these either.
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/{doc,man,info,locale}/*
  tar --create --numeric-owner --directory "$root" . |
    docker import --change "LABEL $INPUTS=$inputs" --change 'CMD ["python3"]' - $PYTHON_IMAGE >/dev/null
}

make_redis() {
  local inputs
  inputs=$({ cat deploy/docker/redis*; docker image inspect --format '{{.Id}}' $PYTHON_IMAGE; } | sha256sum | cut -c1-16)
  if [[ $(label $REDIS_IMAGE) == "$inputs" ]]; then return; fi
  say "building $REDIS_IMAGE"
  docker build --quiet --file deploy/docker/redis.Dockerfile --build-arg BASE_IMAGE=$PYTHON_IMAGE \
    --label "$INPUTS=$inputs" --tag $REDIS_IMAGE . >/dev/null
}

make_python
case ${1:-python} in
  python) echo $PYTHON_IMAGE ;;
  redis) make_redis && echo $REDIS_IMAGE ;;
  *) fail "usage: debian_base.sh [redis]" ;;
esac
