"""Credentials for files of origins: from the places that each store's own programs read, and as narrow as they go."""

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.awsrequest
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from minga import origin_credentials
from minga.origin_credentials import OriginRequest
from minga.origin_requests import request_for
from minga.origin_urls import parse_origin
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, SettingsError
from tests.support.signatures import is_signed

ENDPOINT = "http://127.0.0.1:9"
KEYS = {"AKIDEXAMPLE": "the secret", "AKIDOTHER": "another"}


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server; its port."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without credentials of any kind."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "HF_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture(name="keys")
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["AKIDEXAMPLE"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ENDPOINT)


def accepted(request: OriginRequest, method: str = "GET", range_: str = "bytes=5-9") -> bool:
    """Whether a store admits it."""
    url = urlsplit(request.url)
    headers = {"host": url.netloc, "range": range_} | {name.lower(): value for name, value in request.headers.items()}
    return is_signed(method, f"{url.path}?{url.query}", headers, KEYS)


@pytest.mark.parametrize("key", ["a/b.csv", "a b+c&d=e%20é#1?x=y~'(!)*", "/a//b", "x" * 900])
def test_a_request_for_s3_is_signed_for_that_object_and_any_range(keys: None, key: str) -> None:
    """1. By the environment's credentials, at its endpoint. 2. For reading alone, and nothing else of the bucket."""
    request = request_for(f"s3://data/{key}", {})
    assert request.url.startswith(f"{ENDPOINT}/data/")
    assert accepted(request)
    assert accepted(request, range_="bytes=0-")
    assert not accepted(request, "PUT")
    assert not accepted(OriginRequest(request.url.replace("/data/", "/datb/")))
    assert KEYS["AKIDEXAMPLE"] not in repr(request)
    assert "env" in request.credentials


def test_a_version_of_an_object_is_signed_with_it(keys: None) -> None:
    request = request_for("s3://data/a.csv?versionId=3/L4kq+=", {})
    assert parse_qs(urlsplit(request.url).query)["versionId"] == ["3/L4kq+="]
    assert accepted(request)
    assert not accepted(OriginRequest(request.url.replace("3%2FL4", "4%2FL4")))


def test_without_credentials_a_request_for_s3_is_anonymous(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    """Also where there are some, when told so; at AWS itself it is the URL that all know it by."""
    assert request_for("s3://data/a b", {"anon": True}).url == f"{ENDPOINT}/data/a%20b"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    request = request_for("s3://data/a b?versionId=1", {})
    assert (request.url, request.credentials) == ("https://data.s3.amazonaws.com/a%20b?versionId=1", "")


def test_credentials_of_s3_come_from_profiles_and_options_too(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[lab]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {KEYS['AKIDEXAMPLE']}\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        f"[profile lab]\nregion = eu-west-1\nservices = local\n[services local]\ns3 =\n  endpoint_url = {ENDPOINT}\n"
    )
    request = request_for("s3://data/a", {"profile": "lab"})
    assert accepted(request)
    assert "eu-west-1" in request.url
    given = {"key": "AKIDOTHER", "secret": KEYS["AKIDOTHER"], "client_kwargs": {"endpoint_url": ENDPOINT}}
    assert accepted(request_for("s3://data/a", given))
    with pytest.raises(SettingsError, match="nowhere"):
        request_for("s3://data/a", {"profile": "nowhere"})
    for wrong in ({"requester_pays": True}, {"client_kwargs": {"verify": False}}):
        with pytest.raises(InvalidArgumentError, match="no such option"):
            request_for("s3://data/a", wrong)


class Tokens(BaseHTTPRequestHandler):
    """A container's own credentials."""

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "AccessKeyId": "AKIDEXAMPLE",
                "SecretAccessKey": KEYS["AKIDEXAMPLE"],
                "Token": "of the/session+",
                "Expiration": "2999-01-01T00:00:00Z",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def test_credentials_of_a_role_go_with_their_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container, an instance or a web identity has them."""
    with serving(Tokens) as port:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/")
        monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
        request = request_for("s3://data/a", {})
    assert parse_qs(urlsplit(request.url).query)["X-Amz-Security-Token"] == ["of the/session+"]
    assert accepted(request)
    assert not accepted(OriginRequest(request.url.replace("session", "sessiom")))
    assert request.credentials == "the AWS credentials of container-role"


def answer_of(status: int, headers: dict[str, str]) -> Any:
    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            return iter(())

    return botocore.awsrequest.AWSResponse("https://x", status, headers, Raw())


@pytest.mark.parametrize("status", [301, 403])
def test_a_bucket_is_asked_in_its_own_region(monkeypatch: pytest.MonkeyPatch, keys: None, status: int) -> None:
    """Whatever this user's is: S3 says it also to who may not see the bucket."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    hosts: list[str] = []

    def send(_: Any, request: Any) -> Any:
        host = urlsplit(request.url).hostname or ""
        hosts.append(host)
        return answer_of(status if "eu-west-3" not in host else 403, {"x-amz-bucket-region": "eu-west-3"})

    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", send)
    for name, host in (
        ("s3://data/a", "data.s3.eu-west-3.amazonaws.com"),
        ("s3://da.ta/a", "s3.eu-west-3.amazonaws.com"),
    ):
        request = request_for(name, {})
        assert urlsplit(request.url).hostname == host
        assert accepted(request)
    assert hosts

    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", lambda *_: answer_of(404, {}))
    with pytest.raises(FileNotFoundInDirectoryError, match="no bucket gone"):
        request_for("s3://gone/a", {})


def _sign(results: Any) -> None:
    results.put(accepted(request_for("s3://data/a", {})))


def test_a_forked_child_signs_whatever_its_parent_does(keys: None) -> None:
    """Another thread of the parent may be looking for credentials just then."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_sign, args=(results,))
    with origin_credentials._keeping:
        child.start()
    try:
        assert results.get(timeout=30)
    finally:
        child.kill()
        child.join()
        results.close()


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://data/a", "botocore.exceptions", "s3"), ("gs://data/a", "google.auth", "gs")],
)
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as raised:
        request_for(url, {})
    assert f"minga[{extra}]" in str(raised.value.hint)


@pytest.fixture(name="google")
def _google(tmp_path: Path) -> Iterator[Path]:
    """A file of credentials whose tokens are made by a server of this test."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert b"assertion=" in self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"access_token": "short-lived", "expires_in": 3600, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = tmp_path / "account.json"
    account = {"type": "service_account", "client_email": "a@b.example", "private_key": pem, "private_key_id": "1"}
    with serving(Handler) as port:
        path.write_text(json.dumps(account | {"token_uri": f"http://127.0.0.1:{port}/token"}))
        yield path


def test_a_request_for_google_has_a_token_for_reading(monkeypatch: pytest.MonkeyPatch, google: Path) -> None:
    """From GOOGLE_APPLICATION_CREDENTIALS or an option; the key itself goes nowhere."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(google))
    request = request_for("gs://data/a b", {})
    assert request.url == "https://storage.googleapis.com/data/a%20b"
    assert request.headers["Authorization"] == "Bearer short-lived"
    assert "Authorization" not in request_for("gs://data/a", {"token": "anon"}).headers
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    assert request_for("gs://data/a", {"token": str(google)}).headers["Authorization"] == "Bearer short-lived"
    assert request_for("gs://data/a", {}).url == "http://localhost:4443/data/a"
    assert "Authorization" not in request_for("gs://data/a", {}).headers
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(SettingsError, match="nowhere"):
        request_for("gs://data/a", {})


def test_without_credentials_a_request_for_google_is_anonymous() -> None:
    assert "Authorization" not in request_for("gs://data/a", {}).headers


def test_the_token_of_the_hub_is_where_its_clients_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert request_for("hf://org/model/x", {}) == OriginRequest("hf://org/model/x")
    (tmp_path / "cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "cache" / "huggingface" / "token").write_text("of-login\n")
    assert request_for("hf://org/model/x", {}).headers == {"Authorization": "Bearer of-login"}
    monkeypatch.setenv("HF_TOKEN", "of-environment")
    assert request_for("hf://org/model/x", {}).headers == {"Authorization": "Bearer of-environment"}
    assert request_for("hf://org/model/x", {"token": "mine"}).headers == {"Authorization": "Bearer mine"}


@pytest.mark.parametrize(
    ("text", "url", "digest", "last"),
    [
        ("https://a/b%20c#sha256=AB", "https://a/b%20c", "sha256:ab", "b c"),
        ("s3://data/a#b", "s3://data/a#b", "", "a#b"),
        ("s3://data/x/a#b#sha256=AB", "s3://data/x/a#b", "sha256:ab", "a#b"),
        ("s3://data/x/a?versionId=7", "s3://data/x/a?versionId=7", "", "a"),
        ("hf://org/model@v1/d/x.bin#sha256=ab", "hf://org/model@v1/d/x.bin", "sha256:ab", "x.bin"),
        ("gs://data/a%20b", "gs://data/a%20b", "", "a%20b"),
        ("gs://data/a/..", "gs://data/a/..", "", "file"),
    ],
)
def test_what_is_written_for_a_file_of_an_origin(text: str, url: str, digest: str, last: str) -> None:
    found = parse_origin(text)
    assert found is not None
    assert (found.url, found.digest, found.last_part) == (url, digest, last)


def test_names_that_are_no_urls_stay_names() -> None:
    assert parse_origin("models/s3://a") is None
    with pytest.raises(InvalidArgumentError):
        parse_origin("https://a/b#c")
    with pytest.raises(InvalidArgumentError):
        parse_origin("s3://data")
