"""Files of stores by their names: S3 (moto's server, and a stub that verifies signatures), Google's, and a hub."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.session
import fsspec
import httpx
import pytest
from moto.server import ThreadedMotoServer

from minga import AsyncClient
from minga_cli.exit_codes import ExitCode
from minga_cli.localnet import LocalNetwork, LocalPeer
from minga_cli.localprocess import module_command
from minga_core.errors import ContentChangedError, FileNotFoundInDirectoryError, PermissionDeniedError
from tests.e2e.conftest import eventually, noise
from tests.origins.networks import gateways
from tests.origins.programs import run
from tests.support.hub import LARGE, Repository, StubHub, stub_hub
from tests.support.origin import Origin, origin, sha256

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024
KEYS = {"AKIDEXAMPLE": "the secret of this user"}
ODD = "dir/a b+c&d=e%20é#1?x=y~'(!)*.bin"


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without credentials, whom no cloud has."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "HF_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    for name, value in (("HOME", str(tmp_path)), ("AWS_EC2_METADATA_DISABLED", "true"), ("NO_GCE_CHECK", "true")):
        monkeypatch.setenv(name, value)


def sign_in(monkeypatch: pytest.MonkeyPatch, key_id: str = "AKIDEXAMPLE", secret: str = KEYS["AKIDEXAMPLE"]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


@dataclass(frozen=True, slots=True)
class Stores:
    """Peers, and where they get files from. urls: of their gateways."""

    net: LocalNetwork
    urls: tuple[str, ...]

    def client(self, peer: int = 0) -> AsyncClient:
        """The library, beside a peer."""
        return AsyncClient(locator=self.net.locator_url, control=self.net.peers[peer].control)

    @property
    def peers(self) -> list[LocalPeer]:
        """The peers."""
        return self.net.peers


async def read(client: AsyncClient, name: str) -> bytes:
    """All of a file, by its name."""
    async with await client.open(name) as file:
        return await file.read()


def on_disk(folder: Path) -> list[bytes]:
    """What all files there have, of a network that runs: some are replaced meanwhile."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += [path.read_bytes()] if path.is_file() else []
    return found


# S3 as it is.


@pytest.fixture(name="s3")
def _s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a store of S3, which programs of this test and the peers use too."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    client = botocore.session.Session().create_client(
        "s3", "us-east-1", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="private-data")
    client.create_bucket(Bucket="public.data")
    yield client
    client.close()
    server.stop()


@pytest.fixture(name="stores")
async def _stores(tmp_path: Path, s3: Any) -> AsyncIterator[Stores]:
    async with gateways(tmp_path / "net", 2, ("--fetch-allow", "s3://private-data/,s3://public.data/open/")) as network:
        yield Stores(*network)


async def test_objects_of_a_private_bucket_are_had_by_this_users_credentials_alone(
    s3: Any, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Whatever their keys are, by the command and the library. 2. Others get nothing: not anonymously, not by the
    gateway, also once it is on that machine. 3. What is not there is said; so is a version."""
    data = {key: noise(MIB + number) for number, key in enumerate(("model.bin", ODD, "/a//b", "empty"))}
    data["empty"] = b""
    for key, body in data.items():
        s3.put_object(Bucket="private-data", Key=key, Body=body)
    s3.put_bucket_versioning(Bucket="private-data", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="private-data", Key="moving", Body=b"first")["VersionId"]
    s3.put_object(Bucket="private-data", Key="moving", Body=b"second")
    s3.put_object(Bucket="private-data", Key="packed.json", Body=b"\x1f\x8bpacked", ContentEncoding="gzip")
    sign_in(monkeypatch)
    async with stores.client() as client:
        for key, body in data.items():
            assert await read(client, f"s3://private-data/{key}") == body
        assert await read(client, "s3://private-data/moving") == b"second"
        assert await read(client, f"s3://private-data/moving?versionId={first}") == b"first"
        assert await read(client, "s3://private-data/packed.json") == b"\x1f\x8bpacked"
        with pytest.raises(FileNotFoundInDirectoryError, match="private-data"):
            await client.get("s3://private-data/nothing")
    control = ("--locator", stores.net.locator_url, "--control", str(stores.peers[1].control))
    command = module_command("minga_cli", *control, "get", "s3://private-data/model.bin", "--as", "models/model.bin")
    await run(*command)
    assert (stores.peers[1].share_dir / "models/model.bin").read_bytes() == data["model.bin"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    async with stores.client() as client:
        with pytest.raises(PermissionDeniedError, match="private-data") as refused:
            await client.get("s3://private-data/model.bin")
        assert "anonymously" in str(refused.value.hint)
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{stores.urls[0]}/fetch/s3/private-data/model.bin")
    assert answer.status_code == 403
    assert data["model.bin"] not in answer.content


async def test_objects_of_a_public_bucket_are_served_by_the_gateway(s3: Any, stores: Stores) -> None:
    """1. Once for all, by ranges and conditions, whatever the key is. 2. Those alone that a prefix names."""
    body = noise(2 * MIB)
    for key in ("open/model.bin", f"open/{ODD}", "closed/model.bin"):
        s3.put_object(Bucket="public.data", Key=key, Body=body, ACL="public-read")
    async with httpx.AsyncClient() as http:
        for peer, source in ((0, "upstream"), (1, "peers"), (1, "local")):
            answer = await http.get(f"{stores.urls[peer]}/fetch/s3/public.data/open/model.bin")
            assert (answer.status_code, answer.headers.get("X-Minga-Source")) == (200, source)
            assert answer.content == body
        url = f"{stores.urls[0]}/fetch/s3/public.data"
        part = await http.get(f"{url}/open/{quote(ODD)}", headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, body[100:200])
        known = await http.get(f"{url}/open/model.bin", headers={"If-None-Match": answer.headers["ETag"]})
        assert known.status_code == 304
        head = await http.head(f"{url}/open/model.bin")
        assert head.headers["Content-Length"] == str(len(body))
        for path, status in (
            ("closed/model.bin", 403),
            ("open/nothing", 404),
            ("open/%2e%2e/closed/model.bin", 400),
            ("open/", 400),
            ("open/model.bin?versionid=1", 400),
        ):
            assert (await http.get(httpx.URL(f"{url}/{path}"))).status_code == status, path
    async with stores.client(1) as client:
        assert await read(client, "s3://public.data/open/model.bin") == body


async def test_fsspec_reads_what_it_is_chained_to_through_the_network(
    s3: Any, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With s3fs as people have it. 1. One file, several and a pattern; what there is and how large comes from S3. 2. By
    the options of s3fs, or the environment. 3. Nothing is written there."""
    data = {f"t/part-{number}.csv": f"a,b\n{number},2\n".encode() for number in range(3)}
    for key, body in data.items():
        s3.put_object(Bucket="private-data", Key=key, Body=body)
    url = "minga::s3://private-data/t/part-1.csv"
    own: dict[str, Any] = {"locator": stores.net.locator_url, "control": str(stores.peers[0].control)}

    def chained() -> None:
        keys = {"key": "of-options", "secret": "secret"}
        with fsspec.open(url, s3=keys, **own) as file:
            assert file.read() == data["t/part-1.csv"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        urls = [f"minga::s3://private-data/{key}" for key in data]
        for wanted in (urls, "minga::s3://private-data/t/*.csv"):
            read = []
            for opened in fsspec.open_files(wanted, **own):
                with opened as file:
                    read.append(file.read())
            assert read == list(data.values())
        fs, path = fsspec.url_to_fs(url, **own)
        assert (fs.info(path)["size"], fs.isdir("private-data/t")) == (8, True)
        assert fs.ls("private-data/t", detail=False) == [f"private-data/{key}" for key in data]
        assert fs.cat_ranges([path, path], [0, 4], [3, 8]) == [b"a,b", b"1,2\n"]
        assert fs.ukey(path) == fs.ukey(path) != fs.ukey("private-data/t/part-2.csv")
        assert fsspec.url_to_fs(urls[2], **own)[0] is fs
        with pytest.raises(OSError, match="only read"):
            fs.pipe_file("private-data/new", b"x")
        with pytest.raises(FileNotFoundError):
            fs.open("private-data/t/nothing")
        with pytest.raises(OSError, match="no such option"):
            fsspec.open(url, s3=keys | {"requester_pays": True}, **own).open()
        with fsspec.open("minga://s3://private-data/t/part-2.csv", **own) as file:
            assert file.read() == data["t/part-2.csv"]

    await asyncio.to_thread(chained)
    async with httpx.AsyncClient() as http:
        status = (await http.get(f"{stores.urls[0]}/fetch/s3/private-data/t/part-1.csv")).status_code
    assert status == 403


# S3 with signatures that are verified, and with faults.


@dataclass(frozen=True, slots=True)
class Signed:
    """Peers in front of a store that verifies signatures."""

    stores: Stores
    place: Origin

    def put(self, key: str, data: bytes) -> str:
        """An object; its name."""
        self.place.put(f"/bucket/{quote(key)}", data)
        return f"s3://bucket/{key}"


@pytest.fixture(name="signed")
async def _signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Signed]:
    async with origin() as place:
        place.faults.keys = KEYS
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", place.url)
        async with gateways(tmp_path / "net", 2, ("--fetch-allow", "s3://bucket/")) as network:
            sign_in(monkeypatch)
            yield Signed(Stores(*network), place)


async def test_two_users_with_credentials_cost_a_bucket_one_copy(signed: Signed, tmp_path: Path) -> None:
    """1. Each is asked for by signed GETs, and no HEAD. 2. What signs goes no further: nothing of it is on any disk."""
    data = noise(4 * MIB)
    name = signed.put("a/model.bin", data)
    async with signed.stores.client(0) as first, signed.stores.client(1) as second:
        assert await asyncio.gather(read(first, name), read(second, name)) == [data, data]
        assert signed.place.sent_bytes <= 1.01 * len(data)
        assert await read(second, f"{name}#{sha256(data).replace(':', '=')}") == data
    assert signed.place.count("HEAD") == 0
    assert all("X-Amz-Signature=" in each.target for each in signed.place.requests)
    secrets = [KEYS["AKIDEXAMPLE"].encode(), b"X-Amz-Signature"]
    files = on_disk(tmp_path / "net")
    assert data in files
    assert not [found for found in files if any(secret in found for secret in secrets)]


async def test_wrong_credentials_are_refused_with_the_bucket_and_where_they_are_from(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for what another user of that machine has fetched."""
    data = noise(MIB)
    name = signed.put("model.bin", data)
    async with signed.stores.client() as client:
        assert await read(client, name) == data
    sign_in(monkeypatch, "AKIDEXAMPLE", "a wrong one")
    async with signed.stores.client() as client:
        with pytest.raises(PermissionDeniedError, match=r"s3://bucket/model\.bin") as refused:
            await client.get(name)
    assert "AWS credentials of env" in str(refused.value.hint)
    command = module_command("minga_cli", "--control", str(signed.stores.peers[0].control), "cat", name)
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    assert (process.returncode, out) == (ExitCode.DENIED, b"")
    assert b"s3://bucket/model.bin" in err
    assert b"a wrong one" not in err


async def test_an_object_that_ends_early_is_asked_for_the_rest_and_one_that_changes_is_not_mixed(
    signed: Signed,
) -> None:
    """By the same signature, with `If-Range` of its ETag."""
    data = noise(4 * MIB)
    name = signed.put("model.bin", data)
    signed.place.faults.ends_after = 3 * MIB
    async with signed.stores.client() as client:
        assert await read(client, name) == data
        assert "range" in signed.place.requests[-1].headers
        assert "if-range" in signed.place.requests[-1].headers

        moving = signed.put("moving.bin", data)
        signed.place.faults.ends_after, signed.place.faults.stalls_after = None, 2 * MIB
        getting = asyncio.create_task(client.get(moving))

        async def begun() -> bool:
            return signed.place.sent_bytes >= 6 * MIB

        await eventually(begun, "some of it has come")
        signed.put("moving.bin", data[::-1])
        signed.place.faults.stalls_after = None
        with pytest.raises(ContentChangedError):
            await getting
        assert await read(client, moving) == data[::-1]


async def test_fsspec_is_chained_to_urls_too(tmp_path: Path) -> None:
    """By the headers that the file system behind is given, and without any file system behind."""
    data = noise(MIB)
    async with origin() as place:
        url = place.put("/a b.csv".replace(" ", "%20"), data)
        async with gateways(tmp_path / "net", 1, ("--fetch-allow", place.url)) as network:
            stores = Stores(*network)
            own: dict[str, Any] = {"locator": stores.net.locator_url, "control": str(stores.peers[0].control)}

            def chained() -> None:
                for wanted in (f"minga::{url}", f"minga://{url}"):
                    with fsspec.open(wanted, **own) as file:
                        assert file.read() == data
                place.faults.admits = ("Bearer me",)
                place.put("/private.csv", data)
                private = f"minga::{place.url}/private.csv"
                with fsspec.open(private, http={"headers": {"Authorization": "Bearer me"}}, **own) as file:
                    assert file.read() == data
                with pytest.raises(PermissionError, match="the origin refuses"):
                    fsspec.open(private, **own).open()
                with pytest.raises(OSError, match="fetches nothing from memory"):
                    fsspec.open("minga::memory://a", **own).open()

            await asyncio.to_thread(chained)
            assert place.count("GET") == 2


# Google's store.


async def test_objects_of_google_are_had_by_its_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. Public ones by anybody. 2. Others by the token that Google's credentials bring, which no disk has."""
    data = noise(2 * MIB)
    async with origin() as place:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", place.url)
        place.put(f"/bucket/{quote(ODD)}", data)
        async with gateways(tmp_path / "net", 2, ("--fetch-allow", "gs://bucket/")) as network:
            stores = Stores(*network)
            async with stores.client() as client, httpx.AsyncClient() as http:
                assert await read(client, f"gs://bucket/{ODD}") == data
                answer = await http.get(f"{stores.urls[1]}/fetch/gs/bucket/{quote(ODD)}")
                assert (answer.content, answer.headers["X-Minga-Source"]) == (data, "peers")
                assert place.requests[0].headers["accept-encoding"] == "gzip"
                place.faults.admits = ("Bearer of-google",)
                place.put("/bucket/private", data)
                with pytest.raises(PermissionDeniedError, match="gs://bucket/private"):
                    await client.get("gs://bucket/private")
                monkeypatch.setattr("minga.origin_gs._token", lambda *_: "of-google")
                monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/credentials")
                assert await read(client, "gs://bucket/private") == data
                assert (await http.get(f"{stores.urls[0]}/fetch/gs/bucket/private")).status_code == 403
        assert not [found for found in on_disk(tmp_path / "net") if b"of-google" in found]


# A hub.

MODEL = {"config.json": b"{}", "sub folder/model.safetensors": os.urandom(LARGE + 1)}


@pytest.fixture(name="hub")
async def _hub() -> AsyncIterator[StubHub]:
    async with stub_hub() as hub:
        hub.repositories["org/model"] = Repository(MODEL)
        hub.repositories["org/gated"] = Repository(MODEL, token="good", gated=True)
        yield hub


async def test_files_of_a_hub_are_had_by_its_own_names(
    tmp_path: Path, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Large ones once for all, by their sha256, by whichever door. 2. Gated ones by this user's token alone. 3. What
    is refused is as the hub says."""
    large = MODEL["sub folder/model.safetensors"]
    flags = ("--hub", hub.url, "--fetch-allow", f"hf://org/,{hub.cdn}")
    async with gateways(tmp_path / "net", 2, flags) as network:
        stores = Stores(*network)
        async with stores.client() as client, httpx.AsyncClient() as http:
            for path, data in MODEL.items():
                for name in (f"hf://org/model/{path}", f"hf://org/model@{hub.repositories['org/model'].commit}/{path}"):
                    assert await read(client, name) == data
            answer = await http.get(f"{stores.urls[1]}/fetch/hf/org/model@main/sub%20folder/model.safetensors")
            assert (answer.content, answer.headers["X-Minga-Source"]) == (large, "peers")
            assert hub.sent == len(large)
            with pytest.raises(ContentChangedError, match="sha256:"):
                await client.get(f"hf://org/model/sub folder/model.safetensors#sha256={64 * '0'}")
            for absent in ("hf://org/model/nothing", "hf://org/nothing/x", "hf://org/model@nothing/config.json"):
                with pytest.raises(FileNotFoundInDirectoryError):
                    await client.get(absent)
            with pytest.raises(PermissionDeniedError, match="org/gated"):
                await client.get("hf://org/gated/sub folder/model.safetensors")
            monkeypatch.setenv("HF_TOKEN", "good")
            assert await read(client, "hf://org/gated/sub folder/model.safetensors") == large
            gated = await http.get(f"{stores.urls[0]}/fetch/hf/org/gated/sub%20folder/model.safetensors")
            assert gated.status_code == 403
            other = await http.get(f"{stores.urls[0]}/fetch/hf/evil/model/config.json")
            assert other.status_code == 403
