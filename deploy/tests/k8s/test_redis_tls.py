"""components/redis-tls, for real: a Redis with the manifest's own arguments, registry and locator with its own URL.

Needs Debian's redis-server, as the wheel that the other tests use has no TLS.
"""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.tests.k8s.code import environment_of, own_pods
from deploy.tests.k8s.rendering import BASE, Combination, pod_of, ref, workloads

LIMIT_SECONDS = 20.0
POLL_SECONDS = 0.02
PORT_TRIES = 5
MOUNTED = "/etc/minga/redis"
PORT = "6379"

pytestmark = [
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server: apt-get install redis-server"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl"),
]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a Secret `redis-tls` has: a certificate for `redis`, its key, and the authority's."""
    folder = tmp_path_factory.mktemp("redis-tls")
    made = [
        ("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority "
         "-keyout ca.key -out ca.crt"),
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=redis -keyout tls.key -out tls.csr",
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out tls.crt",
    ]  # fmt: skip
    # `localhost` as well, for here.
    (folder / "names").write_text("subjectAltName=DNS:redis,DNS:localhost\n")
    for command in made:
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=LIMIT_SECONDS
        )
    return folder


@dataclass(frozen=True, slots=True)
class Manifests:
    """What is taken from the rendering: Redis's command, and the URL of each part."""

    command: tuple[str, ...]
    urls: Mapping[str, str]


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    """The base with the component."""
    objects = Combination("base + redis-tls", BASE, ("redis-tls",)).objects()
    redis = next(each for each in workloads(objects) if ref(each) == "statefulset/redis")
    (container,) = pod_of(redis)["containers"]
    urls = {part: environment_of(own).get("MINGA_REDIS_URL", "") for part, _, own in own_pods(objects)}
    return Manifests((*container["command"], *container["args"]), urls)


@pytest.fixture(scope="module")
def port(manifests: Manifests, secret: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that was started as the manifest says, but for where files and ports are here."""
    folder = tmp_path_factory.mktemp("redis")
    for _ in range(PORT_TRIES):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            chosen = free.getsockname()[1]
        arguments = [_here(one, secret, chosen) for one in manifests.command] + ["--bind", "127.0.0.1"]
        with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL) as process:
            try:
                if _serves(process, chosen):
                    yield chosen
                    return
            finally:
                process.terminate()
    pytest.fail("no free port for Redis")


def _here(word: str, secret: Path, port: int) -> str:
    """A word of the manifest, for this machine."""
    return word.replace(MOUNTED, str(secret)).replace("//redis:", "//localhost:").replace(PORT, str(port))


def _serves(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Whether it accepts connections in time; False when it has ended instead, as with a port that was taken."""
    return _until(lambda: _accepts(port) or process.poll() is not None) and process.poll() is None


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _until(condition: Callable[[], object]) -> bool:
    """Whether it holds before the deadline."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _environment(url: str, port_file: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    return clean | {"MINGA_REDIS_URL": url, "MINGA_LISTEN": "127.0.0.1:0", "MINGA_PORT_FILE": str(port_file)}


@contextlib.contextmanager
def running(module: str, url: str, folder: Path) -> Iterator[str]:
    """A process of ours; its address."""
    told = folder / f"{module}.port"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    environment |= {"MINGA_REDIS_URL": url, "MINGA_LISTEN": "127.0.0.1:0", "MINGA_PORT_FILE": str(told)}
    with subprocess.Popen(
        [sys.executable, "-m", module], env=environment, cwd=folder, stdout=subprocess.DEVNULL
    ) as process:
        try:
            assert _until(lambda: told.exists() or process.poll() is not None)
            assert process.poll() is None
            yield told.read_text()
        finally:
            process.terminate()


def registry_ready(address: str) -> bool:
    """As the readiness probe asks."""
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def locator_ready(address: str) -> bool:
    """As the readiness probe asks."""
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


READY: Mapping[str, Callable[[str], bool]] = {"registry": registry_ready, "locator": locator_ready}


@pytest.mark.parametrize("part", READY)
def test_they_are_ready_over_tls(part: str, manifests: Manifests, secret: Path, port: int, tmp_path: Path) -> None:
    """With the URL as it is in the manifest: the authority is the Secret's, and the name is checked."""
    url = _here(manifests.urls[part], secret, port)
    with running(f"minga_{part}", url, tmp_path) as address:
        assert _until(lambda: READY[part](address))


@pytest.mark.parametrize("part", READY)
def test_an_authority_that_did_not_sign_is_not_trusted(
    part: str, manifests: Manifests, secret: Path, port: int, tmp_path: Path
) -> None:
    """The parameter in the URL is what makes the difference. Without it the process says why, and does not start."""
    url, _, _ = _here(manifests.urls[part], secret, port).partition("?")
    done = subprocess.run(
        [sys.executable, "-m", f"minga_{part}"],
        env=_environment(url, tmp_path / "port"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "certificate that is not trusted" in done.stderr


def test_the_plain_port_is_closed(port: int) -> None:
    """Who speaks Redis without TLS is not answered; who speaks TLS is shown the certificate."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as plain:
        plain.sendall(b"PING\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"PONG" not in plain.recv(100)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as tcp,
        context.wrap_socket(tcp) as secured,
    ):
        secured.sendall(b"PING\r\n")
        assert secured.recv(100) == b"+PONG\r\n"


def test_the_probe_of_the_manifest_finds_it(secret: Path, port: int) -> None:
    """redis-cli, with what the component gives it."""
    objects = Combination("base + redis-tls", BASE, ("redis-tls",)).objects()
    redis = next(each for each in workloads(objects) if ref(each) == "statefulset/redis")
    command = pod_of(redis)["containers"][0]["readinessProbe"]["exec"]["command"]
    words = [_here(word, secret, port) for word in command]
    done = subprocess.run(
        [words[0], "-p", str(port), *words[1:]], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "PONG\n")
