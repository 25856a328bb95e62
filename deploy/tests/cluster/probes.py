"""Probes as kubelet runs them: a check every so often from outside the pod, and thresholds.

`Verdicts` is the pure part: outcomes in, changes out. `Prober` runs one container's three probes.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health_pb2

from deploy.tests.cluster.podspec import Check, ContainerSpec, ExecCheck, GrpcCheck, HttpCheck, Probe, TcpCheck

_READ_BYTES = 10 * 1024
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
Exec = Callable[[tuple[str, ...], float], Awaitable[int]]
"""Runs a command in the container within seconds; its exit code."""


class Verdicts:
    """What a row of outcomes of one probe amounts to.

    A verdict changes after `success_threshold` successes or `failure_threshold` failures in a row, and stays until the
    other threshold is reached.
    """

    def __init__(self, probe: Probe, verdict: bool | None) -> None:
        self.verdict = verdict
        """None until there is one."""
        self._probe = probe
        self._row = 0
        self._last: bool | None = None

    def told(self, good: bool) -> bool:
        """Takes an outcome; whether a threshold was reached by it, as it is for each further one like it."""
        self._row = self._row + 1 if good == self._last else 1
        self._last = good
        if self._row < (self._probe.success_threshold if good else self._probe.failure_threshold):
            return False
        self.verdict = good
        return True


@dataclass(slots=True)
class Health:
    """What a container's probes have found so far."""

    started: bool = False
    ready: bool = False
    refusals: int = 0
    """Checks that failed, of any probe: for whoever reads a failed test."""
    last_refusal: str = ""


class Prober:
    """Asks a container's probes until cancelled.

    on_change: readiness has changed. `unhealthy` returns why the container is to be killed.
    """

    def __init__(self, spec: ContainerSpec, ip: str, run: Exec, haste: float, on_change: Callable[[], None]) -> None:
        self.health = Health(started=spec.startup is None)
        self._spec = spec
        self._ip = ip
        self._exec = run
        self._haste = haste
        self._on_change = on_change

    async def unhealthy(self) -> str:
        """Runs the probes; returns, with the reason, once start-up or liveness has failed for good."""
        if self._spec.startup is not None and not await self._started(self._spec.startup):
            return f"start-up probe failed: {self.health.last_refusal}"
        self.health.started = True
        async with asyncio.TaskGroup() as group:
            readiness = group.create_task(self._readiness())
            reason = await self._liveness()
            readiness.cancel()
        return reason

    async def _started(self, probe: Probe) -> bool:
        verdicts = Verdicts(probe, None)
        async for good in self._outcomes(probe):
            if verdicts.told(good):
                return bool(verdicts.verdict)
        raise AssertionError("outcomes never end")

    async def _readiness(self) -> None:
        if self._spec.readiness is None:
            self._tell(True)
            return
        verdicts = Verdicts(self._spec.readiness, False)
        async for good in self._outcomes(self._spec.readiness):
            verdicts.told(good)
            self._tell(bool(verdicts.verdict))

    async def _liveness(self) -> str:
        if self._spec.liveness is None:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")
        verdicts = Verdicts(self._spec.liveness, True)
        async for good in self._outcomes(self._spec.liveness):
            if verdicts.told(good) and not good:
                break
        return f"liveness probe failed: {self.health.last_refusal}"

    async def _outcomes(self, probe: Probe) -> AsyncIterator[bool]:
        """Endless."""
        await asyncio.sleep(probe.initial_delay / self._haste)
        while True:
            started = time.monotonic()
            yield await self._good(probe)
            # From start to start, as a ticker; a check that took longer is followed at once.
            await asyncio.sleep(max(0.0, probe.period / self._haste - (time.monotonic() - started)))

    async def _good(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(probe.timeout):
                problem = await self._problem(probe.check, probe.timeout)
        except TimeoutError:
            problem = f"no answer within {probe.timeout:g} s"
        except (OSError, grpc.aio.AioRpcError, asyncio.IncompleteReadError) as error:
            problem = error.code().name if isinstance(error, grpc.aio.AioRpcError) else f"{error}"
        if problem:
            self.health.refusals += 1
            self.health.last_refusal = f"{probe.check}: {problem}"
        return not problem

    async def _problem(self, check: Check, limit: float) -> str:
        """What is wrong; empty when nothing is."""
        match check:
            case GrpcCheck(port, service):
                return await _grpc_problem(f"{self._ip}:{port}", service)
            case HttpCheck(port, path):
                return await http_problem(self._ip, self._spec.port(port), path)
            case TcpCheck(port):
                _, writer = await asyncio.open_connection(self._ip, self._spec.port(port))
                writer.close()
                return ""
            case ExecCheck(command):
                code = await self._exec(command, limit)
                return f"exit code {code}" if code else ""

    def _tell(self, ready: bool) -> None:
        if ready != self.health.ready:
            self.health.ready = ready
            self._on_change()


async def _grpc_problem(target: str, service: str) -> str:
    # A connection of its own for each check, as kubelet makes.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        check = channel.unary_unary(
            _HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service=service))
    status = answer.status
    return (
        ""
        if status == health_pb2.HealthCheckResponse.SERVING
        else health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    )


async def http_problem(host: str, port: int, path: str) -> str:
    """What is wrong with the answer to a GET; empty for a status from 200 to 399."""
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.closing(writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        status_line = await reader.readline()
        words = status_line.decode("latin-1").split(maxsplit=2)
        # Read to the end, as kubelet does, so that nothing is reset under the server's hands.
        await reader.read(_READ_BYTES)
    if len(words) < 2 or not words[1].isdigit():
        return "no HTTP answer"
    return "" if 200 <= int(words[1]) < 400 else f"status {words[1]}"
