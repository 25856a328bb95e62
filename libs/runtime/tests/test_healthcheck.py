"""The health check of images, against real servers."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minga_runtime import healthcheck
from minga_runtime.healthcheck import check
from minga_runtime.server import LIVENESS
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.tls_files import TlsFiles
from tests.support.authority import Authority

from .support import SERVICE, server_of, serving


@pytest.fixture
def http_port() -> Iterator[int]:
    """A server that is alive, and not ready."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/livez" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class says so
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def test_grpc_health_decides() -> None:
    """Each service by its name, all of them without one; an unknown one is not healthy."""
    server = server_of({})
    async with serving(server) as port:
        url = f"grpc://127.0.0.1:{port}"
        assert await asyncio.to_thread(check, url, {}) == f"127.0.0.1:{port} answered NOT_SERVING"
        assert await asyncio.to_thread(check, f"{url}/{LIVENESS}", {}) == ""
        await server.set_serving(True)
        assert await asyncio.to_thread(check, url, {}) == ""
        assert await asyncio.to_thread(check, f"{url}/{SERVICE}", {}) == ""
        assert (await asyncio.to_thread(check, f"{url}/other", {})).startswith(f"127.0.0.1:{port}: NOT_FOUND")


async def test_a_secure_part_is_asked_with_its_own_credentials(tmp_path: Path) -> None:
    """Those of the environment, as the part has them; without them it is not healthy."""
    Authority().issue(tmp_path, "peer", "node-1")
    paths = {"CERT": tmp_path / "tls.crt", "KEY": tmp_path / "tls.key", "CA": tmp_path / "ca.crt"}
    credentials = Credentials(TlsFiles(*paths.values()), frozenset({Role.PEER}))
    async with serving(server_of({}, access=Access(credentials, Callers(credentials.member), {}))) as port:
        url = f"grpc://127.0.0.1:{port}/{LIVENESS}"
        environment = {f"MINGA_TLS_{name}": str(path) for name, path in paths.items()}
        assert await asyncio.to_thread(check, url, environment) == ""
        for path, name in zip(paths.values(), ("cert.pem", "key.pem", "ca.pem"), strict=True):
            path.rename(tmp_path / name)
        assert await asyncio.to_thread(check, url, {"MINGA_CREDENTIALS": str(tmp_path)}) == ""
        assert "UNAVAILABLE" in await asyncio.to_thread(check, url, {})


def test_http_health_is_the_status(http_port: int) -> None:
    """200 is healthy, anything else is reported."""
    url = f"http://127.0.0.1:{http_port}"
    assert check(f"{url}/livez", {}) == ""
    assert check(f"{url}/readyz", {}) == f"127.0.0.1:{http_port}/readyz answered 503"


def test_without_a_host_it_is_the_part_that_listens_here(http_port: int) -> None:
    """A container with another MINGA_LISTEN than its image's is checked there."""
    assert check(f"http://:{http_port}/livez", {}) == ""
    for listen in (f"0.0.0.0:{http_port}", f"127.0.0.1:{http_port}"):
        assert check("http://:1/livez", {"MINGA_LISTEN": listen}) == ""
    # An address that was asked for is never replaced.
    assert check("http://127.0.0.1:1/livez", {"MINGA_LISTEN": f"0.0.0.0:{http_port}"}) != ""


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_refused_connection_is_a_reason_and_not_a_traceback(scheme: str) -> None:
    """On port 1 of the loopback nothing listens."""
    assert check(f"{scheme}://127.0.0.1:1/x", {}).startswith("127.0.0.1:1: ")


def test_the_exit_code_is_for_docker(http_port: int) -> None:
    """0 or 1, and the reason where `docker inspect` shows it."""

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", healthcheck.__name__, *arguments]
        ended = subprocess.run(command, capture_output=True, timeout=30, check=False, text=True)
        assert ended.stderr == ""
        return ended.returncode, ended.stdout

    assert run(f"http://127.0.0.1:{http_port}/livez") == (0, "healthy\n")
    assert run(f"http://127.0.0.1:{http_port}/") == (1, f"127.0.0.1:{http_port}/ answered 503\n")
    assert run() == (1, "usage: python -m minga_runtime.healthcheck URL\n")
