"""Calls over connections whose certificate ends while they stand."""

import time
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import Refusal, UnauthenticatedError
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.tls_files import TlsFiles
from tests.support.authority import DAY, Authority

from ..support import SERVICE, answer, server_of, serving


async def test_a_connection_that_stands_ends_with_its_certificate(tmp_path: Path) -> None:
    """By the clock of who is called; the refusal says so, and is counted."""
    folder = Authority().issue(tmp_path, "peer", "node-1")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    credentials, registry = Credentials(files, frozenset({Role.PEER})), CollectorRegistry()
    ahead = 0.0
    access = Access(
        credentials, Callers(credentials.member), {SERVICE: frozenset({Role.PEER})}, wall=lambda: time.time() + ahead
    )
    refusals = Refusals(registry, "peer", Audit(None, "peer", registry))

    async def echo(request: bytes, context: object) -> bytes:
        return request

    async with (
        serving(server_of({"Answer": echo}, access=access, refusals=refusals)) as port,
        make_channel(f"127.0.0.1:{port}", credentials.current(), "node-1.peer.minga") as channel,
    ):
        assert await answer(channel, b"x") == b"x"
        ahead = DAY.total_seconds() - 3_600
        assert await answer(channel, b"x") == b"x"
        ahead = DAY.total_seconds() + 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer(channel, b"x")
    error = error_from_rpc(caught.value)
    assert isinstance(error, UnauthenticatedError)
    assert str(error) == "the certificate of peer node-1 has expired"
    reason = {"reason": Refusal.CERTIFICATE_EXPIRED.value}
    assert registry.get_sample_value("minga_peer_refused_total", reason) == 1
