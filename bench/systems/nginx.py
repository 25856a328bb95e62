"""One nginx on the seed, one curl on each other host: what people do who do not share. Verifies nothing."""

from pathlib import Path

from bench.authority import BenchAuthority
from bench.content import place
from bench.netns import LabError
from bench.process import until
from bench.product import Role
from bench.systems.lone_server import LoneServer

PORT = 8080
READY_SECONDS = 20.0
CONNECTION_BYTES_PER_SECOND = 8_000_000
"""Of the one that limits each connection."""
CONFIGURATION = """
daemon off;
user root;
worker_processes 2;               # one a core of the machine that this was written on
worker_rlimit_nofile 4096;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; multi_accept on; }}
http {{
  access_log off;
  sendfile on;                    # from the page cache to the socket, no copy in between
  sendfile_max_chunk 2m;          # so that one fast client does not keep a worker to itself
  tcp_nopush on;                  # headers and the file's start in full packets
  tcp_nodelay on;
  open_file_cache max=100;
  keepalive_requests 10000;
  server {{ listen {address}:{port} {listen} reuseport backlog=1024; root {root}; {directives} }}
}}
"""


class Nginx(LoneServer):
    """The plain server."""

    name = "nginx"
    scheme = "http"
    listen = ""
    port = PORT
    commands = ("nginx", "curl")

    async def start(self) -> None:
        seed = self.arena.seeds[0]
        folder = self.arena.folder(seed)
        root = folder / "www"
        root.mkdir()
        place(self.arena.content, root)
        address = self.lab.hosts[seed].address
        path = folder / "nginx.conf"
        names = {"folder": folder, "address": address, "port": PORT, "root": root, "listen": self.listen}
        path.write_text(CONFIGURATION.format(**names, directives=self._directives()))
        self._url = f"{self.scheme}://{address}:{PORT}/{self.arena.content.name}"
        process = self.spawn(seed, ["nginx", "-p", str(folder), "-c", str(path), "-e", "stderr"])
        await until(self.answers, READY_SECONDS, "nginx answers", process)

    async def fetch(self, host: str) -> None:
        target = self.result(host)
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-q", "-sS", "--fail", "-w", "\n%{time_starttransfer}", *self._curl_flags()]
        curl = self.spawn(host, ["curl", *flags, "-o", str(target), self._url], log=f"curl-{host}")
        if code := await curl.wait():
            raise LabError(f"curl on {host} ended with code {code}: {curl.tail()}")
        self.first_bytes[host] = float(curl.tail().split()[-1])

    def _directives(self) -> str:
        """Further directives of the server."""
        return ""

    def _curl_flags(self) -> list[str]:
        return []


class LimitedNginx(Nginx):
    """One that limits each connection, as many stores do."""

    name = "nginx-limited"

    def _directives(self) -> str:
        return f"limit_rate {CONNECTION_BYTES_PER_SECOND};"


class SecureNginx(Nginx):
    """The same over HTTPS, with nginx's own choice of everything; clients have no certificates."""

    name = "nginx-tls"
    scheme = "https"
    listen = "ssl"

    async def start(self) -> None:
        authority = BenchAuthority(self.arena.directory.parent / "authority")
        self._credentials = authority.credentials("server")
        await authority.start()
        try:
            await authority.admit(Role.REGISTRY, ["server"], [self.lab.hosts[self.arena.seeds[0]].address])
        finally:
            await authority.stop()
        await super().start()

    def _directives(self) -> str:
        return f"ssl_certificate {self._file('cert.pem')}; ssl_certificate_key {self._file('key.pem')};"

    def _curl_flags(self) -> list[str]:
        return ["--cacert", str(self._file("ca.pem"))]

    def _file(self, name: str) -> Path:
        return self._credentials / name
