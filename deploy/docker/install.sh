#!/bin/sh
# Fills /opt/minga, a virtual environment without pip, inside the `build` stage (see base.Dockerfile).
#
#   install-minga tools LOCK           what building packages takes, from the lock with its hashes
#   install-minga dependencies LOCK    the locked packages of one image, into /opt/minga
#   install-minga packages FOLDER...   our own packages, into /out/opt/minga: a layer of their own, since they change
#                                      with every commit and the dependencies hardly ever
set -eu

TOOLS=/opt/tools
VENV=/opt/minga
BUILD_BACKEND='hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers'

# Empty means not given; pip would take it for a path.
[ -n "${PIP_CERT:-}" ] || unset PIP_CERT
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

pip() { "$TOOLS/bin/python" -m pip "$@"; }

# Nothing can be compiled at run time: the root is read-only. Without a check of the source, which never changes.
compile() { "$VENV/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1"; }

case $1 in
  tools)
    python3 -m venv "$TOOLS"
    # The build backend alone, of the lock of everything that developing needs.
    awk "/^[a-z]/ { wanted = /^($BUILD_BACKEND)==/ } wanted" "$2" >/tmp/backend.lock
    pip install -qq --require-hashes --no-compile -r /tmp/backend.lock
    python3 -m venv --without-pip "$VENV"
    ;;
  dependencies)
    pip --python "$VENV/bin/python" install -qq --require-hashes --no-deps --no-compile --only-binary :all: -r "$2"
    # What no process reads: sources and headers of extensions, type stubs, and the symbols that debuggers want.
    find "$VENV/lib" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.proto' \
      -o -name '*.c' -o -name '*.h' \) -delete
    find "$VENV/lib" -name '*.so' -exec strip --strip-unneeded {} +
    compile "$VENV/lib"
    ;;
  packages)
    shift
    # `./`, and no index: pip takes a folder's bare name for a package of PyPI, which has one called `protos`.
    for folder; do shift; set -- "$@" "./$folder"; done
    pip wheel -qq --no-index --no-deps --no-build-isolation --wheel-dir /tmp/wheels "$@"
    pip --python "$VENV/bin/python" install -qq --no-deps --no-index --no-compile --root /out /tmp/wheels/*.whl
    find /out -name '*.pyi' -delete
    compile "/out$VENV/lib"
    ;;
  *)
    echo "install-minga: what is $1?" >&2
    exit 2
    ;;
esac
