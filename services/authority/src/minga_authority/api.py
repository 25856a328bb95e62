"""The authority's API: which request asks for what.

| request | of whom | answer |
| --- | --- | --- |
| POST /v1/join `{token, csr, name}` | the bearer of a token | a membership |
| POST /v1/renew `{csr}` | a member, by its certificate | a membership |
| GET /v1/trust | anybody | CAs, keys of grants, who is revoked |
| GET /v1/grant-keys | anybody | the keys of grants alone, a JWKS |
| GET /v1/revoked | anybody | who is revoked, one a line |
| GET /livez, /readyz | anybody | `ok` |
"""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from minga_authority.authority import Authority
from minga_authority.problems import HttpError, answer, text_answer
from minga_core.errors import InvalidArgumentError, Refusal, UnauthenticatedError
from minga_runtime.trust.members import names_at
from minga_runtime.trust.origin import Origin


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read in whole."""

    method: str
    path: str
    body: bytes
    connection: ssl.SSLObject | None
    origin: Origin

    def texts(self, *names: str) -> list[str]:
        """Fields of the body, which is a JSON object; empty for one that is not there. Raises HttpError."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise HttpError(422, "invalid_argument", "the body is no JSON object") from error
        if not isinstance(found, dict):
            raise HttpError(422, "invalid_argument", "the body is no JSON object")
        texts = [found.get(name, "") for name in names]
        if not all(isinstance(text, str) for text in texts):
            raise InvalidArgumentError(f"{', '.join(names)}: texts are needed")
        return texts


def respond(authority: Authority, request: Request) -> bytes:
    """The answer, as bytes of a connection. Blocks on the disk. Raises MingaError, HttpError."""
    routes = ROUTES.get(request.path)
    if routes is None:
        raise HttpError(404, "no_such_route", "there is nothing at this path")
    route = routes.get(request.method)
    if route is None:
        raise HttpError(405, "method_not_allowed", f"{request.method} is not for this path")
    return route(authority, request)


def _join(authority: Authority, request: Request) -> bytes:
    token, csr, name = request.texts("token", "csr", "name")
    return answer(authority.join(token, csr, name, request.origin))


def _renew(authority: Authority, request: Request) -> bytes:
    connection = request.connection
    der = None if connection is None else connection.getpeercert(binary_form=True)
    if connection is None or der is None:
        raise UnauthenticatedError(
            "a certificate of this network is needed, and one that has not ended", refusal=Refusal.NO_CERTIFICATE
        )
    (csr,) = request.texts("csr")
    key = x509.load_der_x509_certificate(der).public_key()
    uris = names_at(connection, "URI")
    if len(uris) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise UnauthenticatedError("that is no member's certificate", refusal=Refusal.NO_CERTIFICATE)
    return answer(authority.renew(uris[0], key, csr, request.origin))


def _trust(authority: Authority, request: Request) -> bytes:
    return answer(authority.trust())


def _grant_keys(authority: Authority, request: Request) -> bytes:
    return text_answer(authority.trust()["grant_keys"], "application/jwk-set+json")


def _revoked(authority: Authority, request: Request) -> bytes:
    return text_answer("".join(f"{line}\n" for line in authority.trust()["revoked"]))


def _alive(authority: Authority, request: Request) -> bytes:
    return text_answer("ok\n")


def _ready(authority: Authority, request: Request) -> bytes:
    authority.trust()
    return _alive(authority, request)


Route = Callable[[Authority, Request], bytes]
ROUTES: dict[str, dict[str, Route]] = {
    "/v1/join": {"POST": _join},
    "/v1/renew": {"POST": _renew},
    "/v1/trust": {"GET": _trust},
    "/v1/grant-keys": {"GET": _grant_keys},
    "/v1/revoked": {"GET": _revoked},
    "/livez": {"GET": _alive},
    "/readyz": {"GET": _ready},
}
