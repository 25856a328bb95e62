import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minga_core.errors import InvalidArgumentError, UnavailableError
from minga_runtime.trust import jwks_url
from minga_runtime.trust.jwks_url import download
from tests.support.authority import Authority

KEYS = b'{"keys": []}'


class Handler(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, bytes]]

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "/keys")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an issuer whose CA the system trusts."""
    folder = Authority().issue(tmp_path, "locator", "issuer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_port}"

        def configuration(**changed: str) -> tuple[int, bytes]:
            return 200, json.dumps({"issuer": url, "jwks_uri": f"{url}/keys"} | changed).encode()

        Handler.answers = {
            "/keys": (200, KEYS),
            "/configuration": configuration(),
            "/another": configuration(issuer="https://another.example"),
            "/plain": configuration(jwks_uri="http://localhost/keys"),
            "/moved": (302, b""),
            "/large": (200, b" " * (jwks_url.MAX_DOCUMENT_BYTES + 1)),
            "/list": (200, b"[]"),
            "/text": (200, b"no JSON"),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.crt"))
        monkeypatch.setenv("no_proxy", "localhost")
        yield url
        server.shutdown()
        thread.join()


def test_keys_are_at_a_url_or_where_the_issuers_configuration_says(issuer: str) -> None:
    assert download(f"{issuer}/keys", "") == KEYS
    assert download(f"{issuer}/configuration", issuer) == KEYS


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/another", InvalidArgumentError, "of another issuer"),
        ("/plain", InvalidArgumentError, "not an https:// URL"),
        ("/moved", UnavailableError, "HTTP 302"),
        ("/nowhere", UnavailableError, "HTTP 404"),
        ("/large", UnavailableError, "larger than 262,144 bytes"),
        ("/list", InvalidArgumentError, "not a JSON object"),
        ("/text", InvalidArgumentError, "not a JSON object"),
    ],
)
def test_anything_else_is_an_error(issuer: str, path: str, error: type[Exception], words: str) -> None:
    """Also a redirect: keys come from where the settings say."""
    with pytest.raises(error, match=words):
        download(issuer + path, issuer)


def test_a_server_that_nobody_vouches_for_has_no_keys(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UnavailableError, match="certificate"):
        download(f"{issuer}/keys", "")
