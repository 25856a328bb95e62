"""`python -m minga_runtime.healthcheck URL`: check the health of a part; the HEALTHCHECK of the images.

URL: `grpc://host:port[/service]` for the standard health service, or `http://host:port/path`, which must answer 200.
Without a host, as in `grpc://:50051`, it is the part in this container: at the address of MINGA_LISTEN, else at that
port of the loopback. Exit code 0: healthy; 1: not, with the reason in one line (Docker defines only these two).

In a secure network (MINGA_TLS_CERT, MINGA_CREDENTIALS) both are asked over TLS, with the part's own credentials.

It runs every few seconds beside the part, so it imports gRPC only for gRPC.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from minga_core.errors import InvalidArgumentError, SettingsError
from minga_runtime.listening import split_listen
from minga_runtime.trust.credentials_folder import settings_of

if TYPE_CHECKING:
    from minga_runtime.trust.credentials import Loaded

LIMIT_SECONDS = 4.0
"""Below the 5 s after which Docker kills the check, so that the reason is printed."""
_ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def main() -> int:
    """Check the URL on the command line. Returns the exit code."""
    if len(sys.argv) != 2:
        sys.stdout.write("usage: python -m minga_runtime.healthcheck URL\n")
        return 1
    problem = check(sys.argv[1], os.environ)
    sys.stdout.write(f"{problem or 'healthy'}\n")
    return 1 if problem else 0


def check(url: str, environment: Mapping[str, str]) -> str:
    """Check one part. Returns why it is not healthy, or an empty string. Takes LIMIT_SECONDS at most."""
    parts = urlsplit(url)
    if parts.scheme not in _CHECKS or not parts.netloc:
        return f"{url!r} is not a grpc:// or http:// URL"
    try:
        host, port = _target(parts, environment)
    except InvalidArgumentError as error:
        return str(error)
    try:
        loaded = _credentials(environment)
    except SettingsError as error:
        return str(error)
    return _CHECKS[parts.scheme](f"[{host}]:{port}" if ":" in host else f"{host}:{port}", parts.path, loaded)


def _credentials(environment: Mapping[str, str]) -> "Loaded | None":
    """Those of the part, which is asked as one that has them; None in an open network. Raises SettingsError."""
    folder = environment.get("MINGA_CREDENTIALS")
    beside = settings_of(Path(folder).expanduser()) if folder else {}
    names = ("tls_cert", "tls_key", "tls_ca")
    certificate, key, ca = (environment.get(f"MINGA_{name.upper()}") or beside.get(name) for name in names)
    if not (certificate and key and ca):
        return None
    from minga_runtime.trust.credentials import Credentials
    from minga_runtime.trust.members import Role
    from minga_runtime.trust.tls_files import TlsFiles

    return Credentials(TlsFiles(Path(certificate), Path(key), Path(ca)), frozenset(Role)).current()


def _target(parts: SplitResult, environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port. Raises InvalidArgumentError when there are none."""
    if not parts.netloc.startswith(":"):
        return split_listen(parts.netloc)
    host, port = split_listen(environment.get("MINGA_LISTEN") or f"127.0.0.1{parts.netloc}")
    return _ANY_HOSTS.get(host, host), port


def _check_http(address: str, path: str, loaded: "Loaded | None") -> str:
    import http.client

    connection = http.client.HTTPConnection(address, timeout=LIMIT_SECONDS)
    if loaded is not None:
        connection = http.client.HTTPSConnection(address, timeout=LIMIT_SECONDS, context=loaded.peers)
    try:
        connection.request("GET", path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{address}{path} answered {status}"


def _check_grpc(address: str, path: str, loaded: "Loaded | None") -> str:
    import asyncio

    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from minga_runtime.channels import make_channel

    async def ask() -> str:
        async with make_channel(address, loaded, next(iter(loaded.hosts), "") if loaded else "") as channel:
            request = health_pb2.HealthCheckRequest(service=path.strip("/"))
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(request, timeout=LIMIT_SECONDS)  # type: ignore[attr-defined]
            name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"{address} answered {name}"

    try:
        return asyncio.run(ask())
    except grpc.aio.AioRpcError as error:
        return f"{address}: {error.code().name}: {error.details()}"


_CHECKS = {"grpc": _check_grpc, "http": _check_http}


if __name__ == "__main__":
    sys.exit(main())
