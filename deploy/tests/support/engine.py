"""A Docker Engine for tests: a thin wrapper around the `docker` command.

Whether there is an engine is decided in one place, `find_engine`, which asks deploy/docker/engine.sh. Every call has a
limit. Everything made here carries the label of its `Engine`, and `Engine.close` removes whatever has it, so that a
test that fails, or forgets, leaves nothing.

Networks get subnets of 198.18.0.0/15 (RFC 2544: for tests, never routed): the engine's own choice may be a range that
the machine already reaches something else through.
"""

import contextlib
import functools
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
ENGINE_SCRIPT = REPOSITORY / "deploy/docker/engine.sh"
BUILD_SCRIPT = REPOSITORY / "deploy/docker/build.sh"

LABEL = "dev.minga.test"
"""Label of everything that tests make; its value tells the run."""
CALL_SECONDS = 60.0
"""Limit of one call unless the caller sets another."""
FIND_SECONDS = 420.0
"""From nothing: installing docker.io takes a minute or two on a slow mirror, starting it some seconds."""
BUILD_SECONDS = 900.0
POLL_SECONDS = 0.05
# The first /18 is the engine's own (see engine.sh), the second its pool for `docker network create`.
_SUBNETS = [f"198.19.{third}.0/24" for third in range(256)]


class EngineError(AssertionError):
    """A docker command failed, or took too long. An assertion: in a test it is the test that failed."""


class NoEngineError(Exception):
    """There is no Docker Engine; the message says why."""


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


class Container:
    """A container by its id. Made by `Engine.run` and `Engine.container`."""

    def __init__(self, engine: "Engine", container_id: str) -> None:
        self.engine = engine
        self.id = container_id

    def __repr__(self) -> str:
        return f"<container {self.id[:12]}>"

    def exec(
        self,
        *command: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        check: bool = True,
        limit: float = CALL_SECONDS,
    ) -> Ended:
        """Runs a command in it. check: fail the test when its exit code is not 0."""
        flags = [*(["-i"] if stdin is not None else []), *(["--user", user] if user else []), *_env_flags(env)]
        return self.engine.docker("exec", *flags, self.id, *command, stdin=stdin, check=check, limit=limit)

    def inspect(self) -> dict[str, Any]:
        """What `docker inspect` knows."""
        found: dict[str, Any] = self.engine.docker("inspect", "--type", "container", self.id).json[0]
        return found

    @property
    def state(self) -> dict[str, Any]:
        """`State` of inspect: Status, Running, ExitCode, OOMKilled, Health."""
        state: dict[str, Any] = self.inspect()["State"]
        return state

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return bool(self.state["Running"])

    @property
    def exit_code(self) -> int:
        """Its exit code; 0 while it runs."""
        return int(self.state["ExitCode"])

    @property
    def health(self) -> str:
        """`starting`, `healthy`, `unhealthy`, or `none` for an image without a check."""
        return str(self.state.get("Health", {}).get("Status", "none"))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.inspect()["Name"]).lstrip("/")

    def ip(self, network: "str | Network | None" = None) -> str:
        """Its address in a network; in the only one it has when none is named."""
        networks = self.inspect()["NetworkSettings"]["Networks"]
        chosen = networks[str(network)] if network is not None else next(iter(networks.values()))
        return str(chosen["IPAddress"])

    def port(self, container_port: int) -> int:
        """The machine's port that a published one was given."""
        bindings = self.inspect()["NetworkSettings"]["Ports"][f"{container_port}/tcp"]
        return int(bindings[0]["HostPort"])

    def logs(self, tail: int | None = None) -> str:
        """Standard output and standard error, together."""
        flags = ["--tail", str(tail)] if tail is not None else []
        ended = self.engine.docker("logs", *flags, self.id)
        return ended.out + ended.err

    def stop(self, grace: int = 30) -> float:
        """SIGTERM, and SIGKILL after the grace; the seconds until it had ended."""
        started = time.monotonic()
        self.engine.docker("stop", "--time", str(grace), self.id, limit=grace + CALL_SECONDS)
        return time.monotonic() - started

    def kill(self, signal: str = "KILL") -> None:
        """Sends a signal to its first process."""
        self.engine.docker("kill", "--signal", signal, self.id)

    def start(self) -> None:
        """Starts it again."""
        self.engine.docker("start", self.id)

    def restart(self, grace: int = 30) -> None:
        """Stops it and starts it again."""
        self.engine.docker("restart", "--time", str(grace), self.id, limit=grace + CALL_SECONDS)

    def pause(self) -> None:
        """Freezes its processes until `unpause`."""
        self.engine.docker("pause", self.id)

    def unpause(self) -> None:
        """Goes on after `pause`."""
        self.engine.docker("unpause", self.id)

    def remove(self) -> None:
        """Kills and removes it with its anonymous volumes; no error when it is gone."""
        self.engine.docker("rm", "--force", "--volumes", self.id, check=False)

    def wait(self, limit: float = CALL_SECONDS) -> int:
        """Its exit code, once it has ended."""
        return int(self.engine.docker("wait", self.id, limit=limit).out)

    def wait_healthy(self, limit: float = CALL_SECONDS) -> float:
        """Returns once its health check passes, with the seconds that took; fails when it ends or takes too long."""

        def healthy() -> bool:
            state = self.state
            if not state["Running"] and state["Status"] != "created":
                raise EngineError(f"{self!r} ended with exit code {state['ExitCode']}:\n{self.logs(20)}")
            return state.get("Health", {}).get("Status") == "healthy"

        return self._until(healthy, "healthy", limit)

    def wait_log(self, text: str, limit: float = CALL_SECONDS) -> float:
        """Returns once its log has `text`, with the seconds that took."""
        return self._until(lambda: text in self.logs(), f"log has {text!r}", limit)

    def _until(self, holds: Callable[[], bool], what: str, limit: float) -> float:
        try:
            return eventually(holds, what, limit)
        except EngineError as error:
            raise EngineError(f"{self!r}: {error}\n{self.logs(20)}") from error


@dataclass(frozen=True, slots=True)
class Network:
    """A network of containers, by its name."""

    engine: "Engine"
    name: str
    subnet: str

    def __str__(self) -> str:
        return self.name

    def connect(self, container: Container, aliases: Sequence[str] = ()) -> None:
        """Adds a container, under names that others in the network resolve."""
        flags = [word for alias in aliases for word in ("--alias", alias)]
        self.engine.docker("network", "connect", *flags, self.name, container.id)

    def disconnect(self, container: Container) -> None:
        """Takes a container out, as a pulled cable does."""
        self.engine.docker("network", "disconnect", "--force", self.name, container.id)

    def remove(self) -> None:
        """Removes it; no error when it is gone."""
        self.engine.docker("network", "rm", self.name, check=False)


class Engine:
    """An engine, and all that one run of tests makes on it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.run_id = secrets.token_hex(4)
        self.label = f"{LABEL}={self.run_id}"
        self._environment = {**os.environ, "DOCKER_HOST": host}

    @property
    def environment(self) -> dict[str, str]:
        """The environment for other programs that shall talk to this engine."""
        return dict(self._environment)

    def docker(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, limit: float = CALL_SECONDS
    ) -> Ended:
        """Runs the docker command. Raises EngineError when it takes too long, or fails and `check` is set."""
        try:
            ended = subprocess.run(
                ["docker", *arguments],
                input=stdin if stdin is not None else b"",
                capture_output=True,
                env=self._environment,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"docker {' '.join(arguments)}: not within {limit:g} s") from error
        out, err = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
        if check and ended.returncode != 0:
            raise EngineError(f"docker {' '.join(arguments)}: exit code {ended.returncode}\n{out}{err}")
        return Ended(ended.returncode, out, err)

    def run(
        self,
        image: str,
        *command: str,
        name: str | None = None,
        network: "str | Network | None" = None,
        aliases: Sequence[str] = (),
        ip: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        volumes: Sequence[str] = (),
        publish: Sequence[str] = (),
        entrypoint: str | None = None,
        labels: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        limit: float = CALL_SECONDS,
    ) -> Container:
        """Starts a container in the background.

        tmpfs, volumes, publish: as docker writes them (`/tmp:size=16m`, `data:/srv/minga:ro`, `127.0.0.1::50052`).
        options: any other flags of `docker run`, in front of the image.
        """
        flags = _run_flags(
            name=name,
            network=network,
            aliases=aliases,
            ip=ip,
            env=env,
            user=user,
            read_only=read_only,
            tmpfs=tmpfs,
            volumes=volumes,
            publish=publish,
            entrypoint=entrypoint,
            labels=labels,
        )
        ended = self.docker("run", "--detach", *self._label_flags(), *flags, *options, image, *command, limit=limit)
        return Container(self, ended.out.strip())

    def run_once(
        self,
        image: str,
        *command: str,
        network: "str | Network | None" = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        volumes: Sequence[str] = (),
        entrypoint: str | None = None,
        options: Sequence[str] = (),
        stdin: bytes | None = None,
        check: bool = True,
        limit: float = CALL_SECONDS,
    ) -> Ended:
        """Runs a container to its end and removes it; how it ended."""
        flags = _run_flags(
            network=network,
            env=env,
            user=user,
            read_only=read_only,
            tmpfs=tmpfs,
            volumes=volumes,
            entrypoint=entrypoint,
        )
        if stdin is not None:
            flags.append("--interactive")
        words = ["run", "--rm", *self._label_flags(), *flags, *options, image, *command]
        return self.docker(*words, stdin=stdin, check=check, limit=limit)

    def container(self, name: str) -> Container:
        """One that exists, by name or id."""
        return Container(self, self.docker("inspect", "--type", "container", "--format", "{{.Id}}", name).out.strip())

    def containers(self, *filters: str) -> list[Container]:
        """All that match, running or not; filters as docker writes them (`label=a=b`)."""
        flags = [word for each in filters for word in ("--filter", each)]
        ids = self.docker("ps", "--all", "--quiet", "--no-trunc", *flags).out.split()
        return [Container(self, each) for each in ids]

    def network(self, name: str | None = None, *, subnet: str | None = None, internal: bool = False) -> Network:
        """A new network of its own range. Names are made unique; `name` says what it is for."""
        full_name = f"minga-{name or 'net'}-{self.run_id}-{secrets.token_hex(2)}"
        flags = [*self._label_flags(), *(["--internal"] if internal else [])]
        problem = None
        # Another run of tests may take a range between our look and our request: then the next one is tried.
        for candidate in [subnet] if subnet else self._free_subnets():
            try:
                self.docker("network", "create", *flags, "--subnet", candidate, full_name)
                return Network(self, full_name, candidate)
            except EngineError as error:
                problem = error
        raise EngineError(f"no network could be made: {problem}")

    def volume(self, name: str | None = None) -> str:
        """The name of a new, empty volume."""
        full_name = f"minga-{name or 'volume'}-{self.run_id}-{secrets.token_hex(2)}"
        return self.docker("volume", "create", *self._label_flags(), full_name).out.strip()

    def has_image(self, image: str) -> bool:
        """Whether the engine has it; nothing is pulled."""
        return self.docker("image", "inspect", image, check=False).code == 0

    def inspect_image(self, image: str) -> dict[str, Any]:
        """What `docker image inspect` knows."""
        found: dict[str, Any] = self.docker("image", "inspect", image).json[0]
        return found

    def close(self) -> None:
        """Removes everything with this run's label. What refuses is told, after all was tried."""
        chosen = ["--filter", f"label={self.label}"]
        problems = []
        for listing, removal in (
            (["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"]),
            (["network", "ls", "--quiet"], ["network", "rm"]),
            (["volume", "ls", "--quiet"], ["volume", "rm", "--force"]),
        ):
            ids = self.docker(*listing, *chosen).out.split()
            if ids:
                ended = self.docker(*removal, *ids, check=False, limit=2 * CALL_SECONDS)
                problems += [ended.err] if ended.code else []
        if problems:
            raise EngineError("left behind: " + "; ".join(problems))

    def _label_flags(self) -> list[str]:
        return ["--label", self.label]

    def _free_subnets(self) -> Iterator[str]:
        ids = self.docker("network", "ls", "--quiet").out.split()
        # One that was removed since it was listed is no error.
        known = self.docker("network", "inspect", *ids, check=False).out
        offset = int(self.run_id, 16)
        rotated = (_SUBNETS[(offset + step) % len(_SUBNETS)] for step in range(len(_SUBNETS)))
        return (subnet for subnet in rotated if f'"{subnet}"' not in known)


def eventually(holds: Callable[[], bool], what: str, limit: float = CALL_SECONDS) -> float:
    """Returns once `holds`, with the seconds that took. Raises EngineError after the limit."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > limit:
            raise EngineError(f"not within {limit:g} s: {what}")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


@functools.cache
def find_engine() -> str:
    """The DOCKER_HOST of an engine that answers; asked once a process.

    deploy/docker/engine.sh decides: an engine that is there is used; as root on Debian one is installed and started.
    Raises NoEngineError with the script's last words.
    """
    try:
        ended = subprocess.run([str(ENGINE_SCRIPT)], capture_output=True, timeout=FIND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoEngineError(f"no Docker Engine: {error}") from error
    if ended.returncode != 0:
        words = ended.stderr.decode(errors="replace").strip().splitlines()
        raise NoEngineError(words[-1] if words else f"engine.sh: exit code {ended.returncode}")
    return ended.stdout.decode().strip()


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine; what was made on it is gone after the block. Raises NoEngineError."""
    engine = Engine(find_engine())
    try:
        yield engine
    finally:
        engine.close()


def build_images(engine: Engine) -> None:
    """Builds our images and the Redis for tests, unless they are up to date. Raises EngineError with the output."""
    try:
        ended = subprocess.run(
            [str(BUILD_SCRIPT), "--tests"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=engine.environment,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"images were not built within {BUILD_SECONDS:g} s") from error
    if ended.returncode != 0:
        raise EngineError("images were not built:\n" + ended.stdout.decode(errors="replace")[-4000:])


def _env_flags(env: Mapping[str, str] | None) -> list[str]:
    return [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]


def _run_flags(
    *,
    name: str | None = None,
    network: str | Network | None = None,
    aliases: Sequence[str] = (),
    ip: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    read_only: bool = False,
    tmpfs: Sequence[str] = (),
    volumes: Sequence[str] = (),
    publish: Sequence[str] = (),
    entrypoint: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> list[str]:
    flags = _env_flags(env)
    single = {"--name": name, "--network": network, "--ip": ip, "--user": user, "--entrypoint": entrypoint}
    for flag, value in single.items():
        flags += [flag, str(value)] if value is not None else []
    several = {"--network-alias": aliases, "--tmpfs": tmpfs, "--volume": volumes, "--publish": publish}
    several["--label"] = [f"{key}={value}" for key, value in (labels or {}).items()]
    for flag, values in several.items():
        flags += [word for value in values for word in (flag, value)]
    return [*flags, *(["--read-only"] if read_only else [])]
