"""Debian's docker-registry on a free port of the loopback, and images pushed to it.

It may be as public ones are: with tokens from a server of their own, and blobs on another host.
"""

import asyncio
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import eventually
from tests.origins.tokens import ISSUER, SERVICE, TokenServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
USER = ("user", "secret")
_HTPASSWD = "user:$2b$05$zMaOxnx19XyQIjpe.2KAGOT4q.wowaFEJBkUwkAAYL1SGxc.A3dAS\n"
_CONFIG_FILE = """
version: 0.1
log: {{level: info, formatter: json, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"}}
"""
_TOKENS = """
auth: {{token: {{realm: "{server.url}/tokens", service: {service}, issuer: {issuer}, rootcertbundle: {certificate}}}}}
"""
_ELSEWHERE = 'middleware: {{storage: [{{name: redirect, options: {{baseurl: "{url}"}}}}]}}\n'
_BLOBS = "docker/registry/v2/blobs/sha256"
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


Auth = tuple[str, str] | Callable[[httpx.Request], httpx.Request] | None


@dataclass(frozen=True, slots=True)
class Image:
    """What was pushed. digest: of its manifest."""

    digest: str
    layers: tuple[str, ...]


class DockerRegistry:
    """A running registry. name: as images are named by it. auth: of those who push."""

    def __init__(self, folder: Path, port: int, auth: Auth) -> None:
        self._folder = folder
        self._auth = auth
        self.name = f"127.0.0.1:{port}"
        self.url = f"http://{self.name}"

    def push(self, repository: str, tag: str, layers: Sequence[bytes]) -> Image:
        """Make an image of those layers, each a tar, and push it."""
        with httpx.Client(base_url=self.url, auth=self._auth, trust_env=False, timeout=120) as client:
            rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
            config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
            described = [self._described(client, repository, layer, LAYER) for layer in layers]
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": described}
            manifest["config"] = self._described(client, repository, config, CONFIG)
            data = json.dumps(manifest).encode()
            path = f"/v2/{repository}/manifests/{tag}"
            client.put(path, content=data, headers={"Content-Type": MANIFEST}).raise_for_status()
        return Image(sha256(data), tuple(str(each["digest"]) for each in described))

    def place_zeros(self, repository: str, size_bytes: int, digest: str) -> None:
        """Have it keep a blob of zeros, which takes no place on the disk; nothing is sent for it."""
        blob, hexed = self.blob_file(digest), digest.removeprefix("sha256:")
        link = self._folder / f"data/docker/registry/v2/repositories/{repository}/_layers/sha256/{hexed}/link"
        for path in (blob, link):
            path.parent.mkdir(parents=True)
        with blob.open("wb") as file:
            file.truncate(size_bytes)
        link.write_text(digest)

    def sent(self, digest: str) -> list[dict[str, object]]:
        """What the registry says of its answers to GETs of a blob or manifest."""
        lines = (self._folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if '"response completed"' in line and digest in line]
        return [each for each in found if each["http.request.method"] == "GET"]

    async def sent_once(self, *digests: str) -> None:
        """Returns once it says that it has sent each of these to one GET, which it writes after the answer has gone.
        Fails the test when it says more."""
        for digest in digests:
            await eventually(lambda digest=digest: self._sent(digest, 1), f"{digest} was sent")  # type: ignore[misc]
            assert len(self.sent(digest)) == 1

    async def _sent(self, digest: str, count: int) -> bool:
        return len(self.sent(digest)) >= count

    def sent_bytes(self, digest: str) -> int:
        """What it has sent of a blob or manifest in all."""
        return sum(int(str(each["http.response.written"])) for each in self.sent(digest))

    def agents(self) -> set[str]:
        """What those who asked it for anything call themselves."""
        lines = (self._folder / "log").read_text().splitlines()
        return {str(json.loads(line).get("http.request.useragent", "")) for line in lines if line.startswith("{")}

    def blobs(self) -> dict[str, bytes]:
        """All that it keeps, by the paths to which it redirects."""
        data = self._folder / "data"
        return {f"/{path.relative_to(data)}": path.read_bytes() for path in data.glob(f"{_BLOBS}/*/*/data")}

    def blob_file(self, digest: str) -> Path:
        """Where it keeps a blob."""
        hexed = digest.removeprefix("sha256:")
        return self._folder / "data" / _BLOBS / hexed[:2] / hexed / "data"

    def _described(self, client: httpx.Client, repository: str, blob: bytes, media_type: str) -> dict[str, object]:
        answer = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
        place = httpx.URL(answer.headers["location"]).copy_merge_params({"digest": sha256(blob)})
        client.put(place, content=blob, headers={"Content-Type": "application/octet-stream"}).raise_for_status()
        return {"mediaType": media_type, "digest": sha256(blob), "size": len(blob)}


def sha256(data: bytes) -> str:
    """As digests are written."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_of(**files: bytes) -> bytes:
    """A tar of files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


@asynccontextmanager
async def docker_registry(
    folder: Path, *, private: bool = False, tokens: TokenServer | None = None, blobs_at: str = ""
) -> AsyncIterator[DockerRegistry]:
    """One that runs; skips the test where it is not installed. private: it serves USER alone. tokens: it serves who has
    one of that server. blobs_at: it redirects to that URL for blobs."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no docker-registry: make origins-test installs it")
    _prepare(folder, tokens, blobs_at, private=private)
    auth: Auth = USER if private else None if tokens is None else tokens.authorize
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "docker-registry", "serve", str(folder / "config.yml"), stdout=log, stderr=log
        )
    try:
        yield DockerRegistry(folder, await _port(folder / "log"), auth)
    finally:
        process.kill()
        await process.wait()


def _prepare(folder: Path, tokens: TokenServer | None, blobs_at: str, *, private: bool) -> None:
    folder.mkdir(parents=True)
    text = _CONFIG_FILE.format(folder=folder)
    if private:
        (folder / "htpasswd").write_text(_HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    if tokens is not None:
        certificate = folder / "tokens.crt"
        certificate.write_bytes(tokens.certificate)
        text += _TOKENS.format(server=tokens, service=SERVICE, issuer=ISSUER, certificate=certificate)
    (folder / "config.yml").write_text(text + (_ELSEWHERE.format(url=blobs_at) if blobs_at else ""))


async def _port(log: Path) -> int:
    ports: list[str] = []

    async def listens() -> bool:
        ports[:] = _LISTENING.findall(_text(log))
        return bool(ports)

    await eventually(listens, "the registry listens")
    return int(ports[0])


def _text(path: Path) -> str:
    return path.read_text()
