# Debian's redis-server for tests where no image registry answers. Behaves as the official image does in what
# Compose, manifests and tests use: arguments are redis-server's, any user may run it, /data is its folder.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server redis-tools >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 999 -g 999 /data
COPY deploy/docker/redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
USER 999:999
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
