"""The client to what is outside goes nowhere that it may not, whatever names, redirects and answers say."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from minga_core.errors import InvalidArgumentError, MingaError, PermissionDeniedError, UnavailableError
from minga_core.origin_names import Endpoints
from minga_peer.origins.allowed import Allowed, parse_prefixes, parse_url
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.upstream import Upstream, _validator, redirected
from tests.support.authority import Authority
from tests.support.origin import origin


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://Host.Example/a?b=c#d", "https://host.example/a?b=c"),
        ("HTTPS://host", "https://host/"),
        ("http://host:80/", "http://host/"),
        ("http://host:8080/%41", "http://host:8080/%41"),
        ("https://host./x", "https://host/x"),
        ("http://[2001:DB8::1]:81/x", "http://[2001:db8::1]:81/x"),
    ],
)
def test_a_url_has_one_spelling(text: str, spelled: str) -> None:
    assert str(parse_url(text)) == spelled
    assert str(parse_url(spelled)) == spelled


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "host/a",
            "ftp://host/a",
            "file:///etc/passwd",
            "https://",
            "https:///a",
            "https://host:0x50/",
            "gopher://h/",
        ),
        *(
            "https://user@host/",
            "https://user:secret@host/",
            "https://host\\@evil/",
            "https://host /",
            "https://h\r\nX: y/",
        ),
        *(
            "https://host/a/../b",
            "https://host/%2e%2e/b",
            "https://host/./b",
            "https://höst/",
            "https://host:99999/",
            "https://a@b@c/",
        ),
        "https://host/" + "a" * 9000,
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_url(text)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://files.example.evil/data/x",
            "https://files.example/database",
            "https://files.example/",
            "https://evil/",
        ),
        *(
            "http://files.example/data/x",
            "https://files.example:444/data/x",
            "https://evil/https://files.example/data/",
        ),
    ],
)
def test_a_prefix_names_what_is_below_it_alone(url: str) -> None:
    allowed = Allowed(parse_prefixes(" https://files.example/data/ , http://10.0.0.5:9000"))
    for good in ("https://files.example/data/x", "https://FILES.example:443/data/x?y", "http://10.0.0.5:9000/any"):
        allowed.check(parse_url(good))
    with pytest.raises(PermissionDeniedError):
        allowed.check(parse_url(url))
    with pytest.raises(PermissionDeniedError):
        Allowed().check(parse_url(url))


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    ],
)
async def test_an_address_that_is_not_public_is_not_connected_to(address: str) -> None:
    """However it is written, as long as no prefix names the URL."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["203.0.114.1", address]

    upstream = Upstream(Allowed(["https://named.example/"]), resolve)
    with pytest.raises(PermissionDeniedError, match="not on the public network"):
        await upstream.head("https://files.example/a")
    assert asked == ["files.example"]
    Allowed(["https://named.example/"]).check_address(parse_url("https://named.example/x"), address)
    await upstream.aclose()


@pytest.mark.parametrize(
    "url", ["http://2130706433/", "http://127.1/", "http://0x7f.1/", "http://[::1]/", "http://localhost/"]
)
async def test_other_spellings_of_the_loopback_are_resolved_first(url: str) -> None:
    """What counts is where it leads."""
    upstream = Upstream(Allowed())
    with pytest.raises((PermissionDeniedError, UnavailableError)):
        await upstream.head(url)
    await upstream.aclose()


def always(address: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    return resolve


async def test_a_name_is_looked_up_once_and_its_address_is_what_is_connected_to() -> None:
    """A second answer of its name server (DNS rebinding) is never asked for; the host's own name is in the request."""
    answers = ["127.0.0.1", "127.0.0.2"]
    async with origin() as place:
        place.put("/a", b"x")
        url = f"http://files.example:{place.port}"

        async def resolve(host: str, port: int) -> list[str]:
            return [answers.pop(0)]

        upstream = Upstream(Allowed([url]), resolve)
        assert (await upstream.head(f"{url}/a")).size_bytes == 1
        assert answers == ["127.0.0.2"]
        assert place.requests[0].headers["host"] == f"files.example:{place.port}"
        assert place.requests[0].headers["accept-encoding"] == "identity"
        await upstream.aclose()


@asynccontextmanager
async def tls_origin(credentials: Path) -> AsyncIterator[int]:
    """A server with that certificate; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials / "tls.crt", credentials / "tls.key")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: "1"\r\nConnection: close\r\n\r\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_the_certificate_is_that_of_the_name_and_not_of_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for another name at the same address is refused, and so is one of an authority that nobody trusts."""
    authority = Authority()
    credentials = authority.issue(tmp_path / "server", "client", "server", host_names=["files.example"])
    monkeypatch.setenv("SSL_CERT_FILE", str(credentials / "ca.crt"))
    async with tls_origin(credentials) as port:
        upstream = Upstream(
            Allowed([f"https://{name}.example:{port}" for name in ("files", "other")]), always("127.0.0.1")
        )
        assert (await upstream.head(f"https://files.example:{port}/a")).validator == '"1"'
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await upstream.head(f"https://other.example:{port}/a")
        await upstream.aclose()
        monkeypatch.delenv("SSL_CERT_FILE")
        stranger = Upstream(Allowed([f"https://files.example:{port}"]), always("127.0.0.1"))
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await stranger.head(f"https://files.example:{port}/a")
        await stranger.aclose()


async def test_a_redirect_from_tls_to_none_is_not_followed() -> None:
    """Nor one to what is no URL of the web."""
    url = parse_url("https://files.example/a/b?c")
    assert str(redirected(url, "../d")) == "https://files.example/d"
    assert str(redirected(url, "//other/e#f")) == "https://other/e"
    for location in ("http://files.example/a", "file:///etc/passwd", "javascript:alert(1)", "https://user:pw@host/"):
        with pytest.raises(MingaError):
            redirected(url, location)


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"a"', "last-modified": "Tue, 01 Jan 2030 00:00:00 GMT"}, '"a"'),
        ({"etag": 'W/"a"', "last-modified": "Tue, 01 Jan 2030 00:00:00 GMT"}, "Tue, 01 Jan 2030 00:00:00 GMT"),
        ({"etag": "a"}, ""),
        ({"etag": '""'}, ""),
        ({"etag": '"ü"'}, ""),
        ({"etag": '"a"b"'}, ""),
        ({"etag": f'"{"a" * 2000}"'}, ""),
        ({"last-modified": "yesterday\r\nX: y"}, ""),
        ({"last-modified": "\u2026" * 20}, ""),
        ({}, ""),
    ],
)
def test_what_tells_versions_apart_can_be_sent_back(headers: dict[str, str], validator: str) -> None:
    """A strong ETag, or a date; nothing that would break a header, or fill one."""
    assert _validator(headers) == validator


SIGNATURE = (
    "X-Amz-Algorithm=A&X-Amz-Credential=B&X-Amz-Date=C&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature="
)


async def test_a_url_that_is_signed_for_get_is_asked_by_get_alone() -> None:
    """A signature is for one method: a HEAD would be refused, and count as an attempt to get in."""
    async with origin() as place:
        url, upstream = place.put("/a.bin", b"12345"), Upstream(Allowed([place.url]))
        answer = await upstream.head(f"{url}?versionId=1&{SIGNATURE}x")
        assert (answer.size_bytes, answer.status) == (5, 206)
        assert (place.count("HEAD"), place.count("GET")) == (0, 1)
        empty = place.put("/empty.bin", b"")
        assert (await upstream.head(f"{empty}?{SIGNATURE}x")).size_bytes == 0
        await upstream.aclose()


async def test_what_a_store_keeps_encoded_is_taken_as_it_is() -> None:
    """Where the caller says that any encoding is right; otherwise an origin that encodes is refused, as ever."""
    async with origin() as place:
        url, upstream = place.put("/a.json.gz", b"packed"), Upstream(Allowed([place.url]))
        place.faults.encoding = "gzip"
        for accepted in ("gzip", "identity, *;q=0.1"):
            async with upstream.stream(url, {"Accept-Encoding": accepted}) as (_, pieces):
                assert b"".join([piece async for piece in pieces]) == b"packed"
        with pytest.raises(UnavailableError, match="encodes"):
            await upstream.head(url)
        await upstream.aclose()


@pytest.mark.parametrize(("status", "bucket"), [(301, "data."), (400, "data."), (301, "")])
async def test_a_bucket_of_another_region_is_asked_there(status: int, bucket: str) -> None:
    """S3 names the region without a redirect. Nobody else is believed that, and credentials stay where they were."""
    async with origin() as place:
        place.put("/data/a.bin", b"12345")
        host, asked = f"http://{bucket}s3.amazonaws.com:{place.port}", list[str]()

        async def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            place.faults.status = 200 if "eu-west-3" in host else status
            return ["127.0.0.1"]

        regional = f"http://{bucket}s3.eu-west-3.amazonaws.com:{place.port}"
        upstream = Upstream(Allowed([host, regional, f"http://evil.example:{place.port}"]), resolve)
        place.faults.headers = {"x-amz-bucket-region": "eu-west-3"}
        answer = await upstream.head(f"{host}/data/a.bin", {"Authorization": "secret"})
        assert answer.size_bytes == 5
        assert asked == [f"{bucket}s3.amazonaws.com", f"{bucket}s3.eu-west-3.amazonaws.com"]
        assert "authorization" not in place.requests[-1].headers
        for region in ("evil.example/", "x y", ""):
            place.faults.headers = {"x-amz-bucket-region": region}
            with pytest.raises(MingaError):
                await upstream.head(f"{host}/data/a.bin")
        place.faults.headers = {"x-amz-bucket-region": "eu-west-3"}
        with pytest.raises(UnavailableError):
            await upstream.head(f"http://evil.example:{place.port}/data/a.bin")
        assert all(each.endswith(("amazonaws.com", "evil.example")) for each in asked)
        await upstream.aclose()


def test_names_of_stores_are_prefixes_too() -> None:
    """1. Of that bucket, whatever its endpoint. 2. Not of another one, and not of the rest of the store."""
    allowed = Allowed(parse_prefixes("s3://data/2026/,hf://org/,gs://data"), endpoints=Endpoints())
    names = OriginNames()
    for good in ("s3://data/2026/a", "hf://org/model/x", "gs://data/x", "hf://org/model@v1/x"):
        allowed.check(names.url(good))
    for bad in ("s3://data/2027/a", "s3://data2/2026/a", "gs://other/x", "hf://evil/model/x", "hf://datasets/org/m/x"):
        with pytest.raises(PermissionDeniedError):
            allowed.check(names.url(bad))
    own = Endpoints(s3="http://10.0.0.5:9000")
    names = OriginNames(own)
    Allowed(["s3://data/"], endpoints=own).check_address(names.url("s3://data/x"), "10.0.0.5")
    for nothing in (Allowed(endpoints=own), Allowed(["s3://other/"], endpoints=own), Allowed(["s3://data/"])):
        with pytest.raises(PermissionDeniedError):
            nothing.check_address(names.url("s3://data/x"), "10.0.0.5")


IMPORTER = """
import asyncio, sys, threading
from minga_peer.origins.allowed import Allowed
from minga_peer.origins.upstream import Upstream

importers = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "httpx":
            importers.append(threading.current_thread() is threading.main_thread())

async def ask():
    upstream = Upstream(Allowed(["http://127.0.0.1:1/"]))
    try:
        await upstream.head("http://127.0.0.1:1/")
    except Exception as error:
        print(type(error).__name__, importers)
    await upstream.aclose()

sys.meta_path.insert(0, Watch())
asyncio.run(ask())
"""


def test_the_client_is_not_imported_by_the_event_loop() -> None:
    """That takes a tenth of a second on a fast machine, in which a peer would serve nobody."""
    asked = subprocess.run([sys.executable, "-c", IMPORTER], capture_output=True, text=True, check=True)
    assert asked.stdout == "UnavailableError [False]\n"
