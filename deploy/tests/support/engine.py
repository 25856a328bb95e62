"""A Docker Engine for tests: a thin wrapper around the `docker` command, in its own words.

Every call has a limit. Everything made here carries the label of its `Engine`, and `Engine.close` removes whatever has
it, so that a test that fails leaves nothing.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CALL_SECONDS = 60.0
"""Limit of one call unless the caller sets another."""
POLL_SECONDS = 0.05
_SUBNETS = [f"198.19.{third}.0/24" for third in range(256)]
"""Of 198.18.0.0/15 (RFC 2544: for tests, never routed): the engine's own choice may be a range that the machine already
reaches something else through. The other half is the engine's, see engine.sh."""


class EngineError(AssertionError):
    """A docker command failed, or took too long. An assertion: in a test it is the test that failed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `out` and `err` are text."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """`out` as JSON."""
        return json.loads(self.out)


def run_command(
    words: list[str],
    *,
    env: dict[str, str] | None = None,
    stdin: bytes = b"",
    check: bool = True,
    limit: float = CALL_SECONDS,
) -> Ended:
    """Run a program to its end. Raises EngineError when it takes longer than `limit`, or fails and `check` is set."""
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, env=env, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(words)}: not within {limit:g} s") from error
    ended = Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and ended.code:
        raise EngineError(f"{' '.join(words)}: exit code {ended.code}\n{ended.out}{ended.err}")
    return ended


@dataclass(frozen=True, slots=True)
class Container:
    """A container by its id."""

    engine: "Engine"
    id: str

    def exec(self, *command: str, stdin: bytes = b"", check: bool = True, limit: float = CALL_SECONDS) -> Ended:
        """Run a command in it."""
        flags = ["-i"] if stdin else []
        return self.engine.docker("exec", *flags, self.id, *command, stdin=stdin, check=check, limit=limit)

    def inspect(self) -> dict[str, Any]:
        """What `docker inspect` prints."""
        found: dict[str, Any] = self.engine.docker("inspect", "--type", "container", self.id).json[0]
        return found

    @property
    def state(self) -> dict[str, Any]:
        """`State` of inspect: Running, ExitCode, Health."""
        state: dict[str, Any] = self.inspect()["State"]
        return state

    @property
    def ip(self) -> str:
        """Its address in its first network."""
        return str(next(iter(self.inspect()["NetworkSettings"]["Networks"].values()))["IPAddress"])

    def logs(self, tail: int = 10_000) -> str:
        """Standard output and standard error, together."""
        ended = self.engine.docker("logs", "--tail", str(tail), self.id)
        return ended.out + ended.err

    def stop(self, grace: float = 30) -> float:
        """SIGTERM, and SIGKILL after the grace; the seconds until it had ended."""
        started = time.monotonic()
        self.engine.docker("stop", "--time", f"{grace:.0f}", self.id, limit=grace + CALL_SECONDS)
        return time.monotonic() - started

    def remove(self) -> None:
        """Kill and remove it with its anonymous volumes; no error when it is gone."""
        self.engine.docker("rm", "--force", "--volumes", self.id, check=False)

    def wait_healthy(self) -> None:
        """Return once its health check passes."""
        eventually(lambda: self.state["Health"]["Status"] == "healthy", f"{self.id[:12]} is healthy", log=self.logs)

    def wait_log(self, text: str) -> None:
        """Return once its log has `text`."""
        eventually(lambda: text in self.logs(), f"{self.id[:12]} logs {text!r}", log=self.logs)


class Engine:
    """An engine, and all that one run of tests makes on it."""

    def __init__(self, host: str) -> None:
        self.run_id = secrets.token_hex(4)
        self.label = f"dev.minga.test={self.run_id}"
        self.environment = {**os.environ, "DOCKER_HOST": host}

    def docker(self, *words: str, stdin: bytes = b"", check: bool = True, limit: float = CALL_SECONDS) -> Ended:
        """Run the docker command."""
        return run_command(["docker", *words], env=self.environment, stdin=stdin, check=check, limit=limit)

    def run(self, *words: str) -> Container:
        """Start a container in the background. words: flags, image, command, as `docker run` takes them."""
        return Container(self, self.docker("run", "--detach", "--label", self.label, *words).out.strip())

    def run_once(self, *words: str, stdin: bytes = b"", check: bool = True) -> Ended:
        """Run a container to its end and remove it."""
        return self.docker("run", "--rm", "-i", "--label", self.label, *words, stdin=stdin, check=check)

    def network(self, purpose: str) -> str:
        """The name of a new network with an address range of its own."""
        name = f"minga-{purpose}-{self.run_id}"
        # Another run may have the range already: then the next one is tried.
        start = int(self.run_id, 16)
        for step in range(len(_SUBNETS)):
            subnet = _SUBNETS[(start + step) % len(_SUBNETS)]
            made = self.docker("network", "create", "--label", self.label, "--subnet", subnet, name, check=False)
            if made.code == 0:
                return name
        raise EngineError(f"no network could be made: {made.err}")

    def volume(self, purpose: str) -> str:
        """The name of a volume, made empty the first time."""
        name = f"minga-{purpose}-{self.run_id}"
        return self.docker("volume", "create", "--label", self.label, name).out.strip()

    def close(self) -> None:
        """Remove everything with this run's label."""
        for kind, removal in (("container", ["--force", "--volumes"]), ("network", []), ("volume", ["--force"])):
            everything = ["--all"] if kind == "container" else []
            found = self.docker(kind, "ls", *everything, "--quiet", "--filter", f"label={self.label}").out.split()
            if found:
                self.docker(kind, "rm", *removal, *found, limit=2 * CALL_SECONDS)


def eventually(
    holds: Callable[[], object], what: str, limit: float = CALL_SECONDS, log: Callable[[], str] = lambda: ""
) -> float:
    """Return once `holds`, with the seconds that took. Raises EngineError with `log` after `limit` seconds."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > limit:
            raise EngineError(f"not within {limit:g} s: {what}\n{log()[-4000:]}")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started
