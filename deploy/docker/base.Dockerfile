# What the three images share. Two stages, both used by services/*/Dockerfile: `build` has the tools that make a virtual
# environment, `runtime` is what an image starts from. deploy/docker/build.sh builds both and then the images.
#
# Pinned to a patch release. For a digest instead: make images BASE_IMAGE=python@sha256:...
ARG BASE_IMAGE=python:3.13.16-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Where a proxy of the house signs for everyone: path, in the base image, of the certificates that pip shall trust.
ARG PIP_CERT=
# An index of the house in front of PyPI; the hashes in the locks hold whatever it serves.
ARG PIP_INDEX_URL=
# strip: wheels bring symbols that only a debugger reads (uvloop's are 12 MB of 13.6).
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils >/dev/null \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY deploy/docker/install.sh /usr/local/bin/install-minga
COPY requirements.lock tools.lock
RUN install-minga tools tools.lock

FROM ${BASE_IMAGE} AS runtime
# Numeric, so that Kubernetes can tell that it is not root; no shell, no home that could be written.
RUN echo 'minga:x:10001:10001::/nonexistent:/usr/sbin/nologin' >>/etc/passwd \
 && echo 'minga:x:10001:' >>/etc/group
ENV PATH=/opt/minga/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    LANG=C.UTF-8
# Not a folder that others can put files into: modules would be read from there.
WORKDIR /
USER 10001:10001
