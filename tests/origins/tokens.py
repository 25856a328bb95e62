"""A server of tokens, as Docker's registries have one (distribution's token specification): for anybody what is public,
and the rest for one user."""

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from minga_peer.gateway.server import door
from minga_runtime.sockets import listen_tcp

SERVICE, ISSUER = "registry.test", "tests"
PUBLIC = "public/"
"""Repositories that begin so are for everybody."""
LIFE_SECONDS = 300


@dataclass
class TokenServer:
    """A running one. user: who may have all. refuses: others get 401 for what is not public, in place of a token that
    is good for nothing; registries differ in that."""

    url: str
    user: tuple[str, str]
    refuses: bool = False
    asked: list[Headers] = field(default_factory=list)
    """Those of requests for tokens."""

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        self._certificate = made.sign(self._key, SHA256())

    @property
    def certificate(self) -> bytes:
        """By which registries know its tokens."""
        return self._certificate.public_bytes(Encoding.PEM)

    def token(self, access: list[dict[str, object]]) -> str:
        """One for that access."""
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "", "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + LIFE_SECONDS}
        chain = [base64.b64encode(self._certificate.public_bytes(Encoding.DER)).decode()]
        payload = claims | {"jti": secrets.token_hex(8), "access": access}
        return jwt.encode(payload, self._key, "ES256", headers={"x5c": chain})

    def authorize(self, request: httpx.Request) -> httpx.Request:
        """Let a request push to its repository."""
        repository = "/".join(request.url.path.split("/")[2:4])
        access = {"type": "repository", "name": repository, "actions": ["pull", "push"]}
        request.headers["Authorization"] = f"Bearer {self.token([access])}"
        return request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        headers, query = Headers(scope=scope), parse_qs(scope["query_string"].decode())
        if scope["method"] != "GET":
            return Response(None, 405)
        self.asked.append(headers)
        known = headers.get("authorization") == _basic(self.user)
        access = []
        for wanted in query.get("scope", []):
            kind, name, actions = wanted.split(":")
            if known or (name.startswith(PUBLIC) and actions == "pull"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        if not access and self.refuses:
            return Response(json.dumps({"errors": [{"code": "UNAUTHORIZED"}]}), 401, media_type="application/json")
        return JSONResponse({"token": self.token(access), "expires_in": LIFE_SECONDS})


def _basic(user: tuple[str, str]) -> str:
    return f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"


@asynccontextmanager
async def token_server(user: tuple[str, str]) -> AsyncIterator[TokenServer]:
    """One that runs."""
    listener = listen_tcp("127.0.0.1:0")
    server = TokenServer(f"http://127.0.0.1:{listener.getsockname()[1]}", user)
    async with door(server, listener, timedelta(seconds=1)):
        yield server
