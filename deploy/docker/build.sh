#!/usr/bin/env bash
# Builds minga/authority, minga/registry, minga/locator and minga/peer, tagged with their version and `dev`, for
# `make images`.
#
#   build.sh            the four images
#   build.sh --tests    and minga-test/redis:7, which the tests start
#
# BASE_IMAGE           another base than the one that base.Dockerfile names: Python 3.11 or newer on Debian
# BUILD_PIP_CERT       certificates, by their path in the base image, that pip trusts while building
# BUILD_PIP_INDEX_URL  an index in front of PyPI
# DOCKER_HOST          the engine; see engine.sh
#
# Images whose inputs have not changed are left alone: each carries a digest of what it was made of as a label.
set -euo pipefail
cd "$(dirname "$0")/../.."

SERVICES=(authority registry locator peer)
INPUTS=dev.minga.inputs
PULL_SECONDS=300
REDIS_IMAGE=redis:7
TEST_REDIS_IMAGE=minga-test/redis:7

say() { echo "images: $*" >&2; }
fail() { say "$*"; exit 1; }
exists() { docker image inspect "$1" >/dev/null 2>&1; }
label() { docker image inspect --format "{{index .Config.Labels \"$INPUTS\"}}" "$1" 2>/dev/null || true; }
image_id() { docker image inspect --format '{{.Id}}' "$1"; }

# available IMAGE: whether the engine has it or can get it. What it says when it cannot is kept for the error.
pull_problem=
available() {
  if exists "$1"; then return; fi
  say "pulling $1 ..."
  pull_problem=$(timeout "$PULL_SECONDS" docker pull --quiet "$1" 2>&1 >/dev/null) && return
  pull_problem=${pull_problem:-not within $PULL_SECONDS s}
  return 1
}

# can_debootstrap: root on Debian.
can_debootstrap() { [[ $(id -u) == 0 && -e /etc/debian_version ]]; }

# Sets base_image. Debian's packages are the way out where no registry answers; a base that is named is used.
choose_base() {
  local default
  default=$(sed -n 's/^ARG BASE_IMAGE=//p' deploy/docker/base.Dockerfile)
  base_image=${BASE_IMAGE:-$default}
  from_debian=
  if available "$base_image"; then return; fi
  if [[ -n ${BASE_IMAGE:-} ]] || ! can_debootstrap; then
    fail "cannot pull the base, $base_image (BASE_IMAGE names another one): ${pull_problem##*$'\n'}"
  fi
  say "!!! NO IMAGE REGISTRY ANSWERS: the base is made of Debian's packages instead of $default !!!"
  base_image=$(deploy/docker/debian_base.sh)
  from_debian=yes
}

# digest PATH...: of the names and contents of all files below.
digest() {
  find "$@" -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum | cut -c1-16
}

# revision PATH...: the commit that last touched these, marked when files differ from it.
revision() {
  local found
  found=$(git log -1 --format=%H -- "$@" 2>/dev/null) || true
  if [[ -n $(git status --porcelain -- "$@" 2>/dev/null) ]]; then found=$found-modified; fi
  echo "${found:-unknown}"
}

# build IMAGE INPUTS ARGUMENTS...: unless it is there and of these inputs. The output is shown when it fails.
build() {
  local image=$1 inputs=$2 log started=$SECONDS
  shift 2
  if [[ $(label "$image") == "$inputs" ]]; then return; fi
  log=$(mktemp)
  if ! docker build --label "$INPUTS=$inputs" --tag "$image" "$@" . >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "$image was not built: the lines above say why"
  fi
  rm -f "$log"
  say "$image built in $((SECONDS - started)) s"
}

build_base() {
  local inputs
  inputs=$(digest deploy/docker/{base.Dockerfile,install.sh} requirements.lock)-$(image_id "$base_image" | cut -c8-19)
  local arguments=(--file deploy/docker/base.Dockerfile --build-arg "BASE_IMAGE=$base_image")
  build minga/base-build:dev "$inputs" "${arguments[@]}" --target build \
    --build-arg "PIP_CERT=${BUILD_PIP_CERT:-}" --build-arg "PIP_INDEX_URL=${BUILD_PIP_INDEX_URL:-}"
  build minga/base:dev "$inputs" "${arguments[@]}" --target runtime
}

build_service() {
  local service=$1 version inputs paths
  paths=(deploy/docker/{base.Dockerfile,install.sh} protos/{pyproject.toml,src} {libs/*,cli}/{pyproject.toml,src}
    services/"$service"/{Dockerfile,pyproject.toml,requirements.lock,src})
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "services/$service/pyproject.toml")
  inputs=$(digest "${paths[@]}")-$(image_id minga/base-build:dev | cut -c8-15)$(image_id minga/base:dev | cut -c8-15)
  build "minga/$service:dev" "$inputs" --file "services/$service/Dockerfile" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$(revision "${paths[@]}")"
  docker tag "minga/$service:dev" "minga/$service:$version"
}

test_redis() {
  if [[ -n $from_debian ]]; then
    deploy/docker/debian_base.sh redis >/dev/null
  elif available "$REDIS_IMAGE"; then
    docker tag "$REDIS_IMAGE" "$TEST_REDIS_IMAGE"
  else
    fail "cannot pull $REDIS_IMAGE: ${pull_problem##*$'\n'}"
  fi
}

DOCKER_HOST=$(deploy/docker/engine.sh)
# The builder that is the engine itself: one in a container of its own could not see the images that it builds on.
export DOCKER_HOST BUILDX_BUILDER=default
# Two builds at once would do the same work twice.
exec 9>"${TMPDIR:-/tmp}/minga-images-$(id -u).lock"
flock 9

choose_base
build_base
for service in "${SERVICES[@]}"; do build_service "$service"; done
if [[ ${1:-} == --tests ]]; then test_redis; fi
docker images --filter reference='minga/*:dev' --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep -v base
