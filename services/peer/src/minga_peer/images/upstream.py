"""What registries say of what they have: asked without credentials, so that only what is public comes from here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from minga_core.errors import FileNotFoundInDirectoryError, UnavailableError
from minga_peer.gateway.recent import Recent
from minga_peer.images.challenges import parse_challenge
from minga_peer.images.manifests import MAX_MANIFEST_BYTES
from minga_peer.images.requests import ImageRequest, Kind
from minga_peer.images.tokens import MAX_ANSWER_BYTES, Tokens
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.upstream import Answer, OriginRefusedError, Upstream

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
REFUSED_SECONDS = 60.0
"""A repository that wants credentials is not asked again for so long: a pull has many layers."""
VIA = "1.1 minga-images"
"""In requests to registries: a mirror that is asked by a mirror refuses, so that none asks itself in a circle."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a registry says of a manifest or blob. digest: empty, size_bytes: None where it does not say."""

    digest: str
    size_bytes: int | None
    media_type: str


class ImageUpstream:
    """Asks registries of images. One for a process. now: monotonic seconds."""

    def __init__(self, upstream: Upstream, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._tokens = Tokens(lambda url: self._read(url, {}, MAX_ANSWER_BYTES), now)
        self._refused = Recent(now, REFUSED_SECONDS)

    async def describe(self, image: ImageRequest, accept: str = "") -> Described:
        """A HEAD. Raises FileNotFoundInDirectoryError for what is not there for everybody, UnavailableError."""
        repository, headers = _repository(image), self.headers(image, accept)
        if repository in self._refused:
            raise _refusal(image)
        try:
            answer = await self._head(image, headers)
        except OriginRefusedError:
            self._refused.add(repository)
            raise _refusal(image) from None
        digest, media_type = (_plain(answer.headers, name) for name in ("docker-content-digest", "content-type"))
        return Described(digest, answer.size_bytes, media_type)

    async def manifest(self, image: ImageRequest, accept: str = "") -> bytes:
        """A GET of a manifest, after `describe`. Raises UnavailableError."""
        return await self._read(image.url, self.headers(image, accept), MAX_MANIFEST_BYTES)

    def origin(self, image: ImageRequest, size_bytes: int | None) -> OriginFile:
        """What to fetch it with, after `describe`. Its token is one that anybody is given, so that it is public."""
        headers, renew = self.headers(image), partial(self.renewed, image)
        return OriginFile(image.url, image.digest, size_bytes, headers=headers, private=False, renew=renew)

    async def renewed(self, image: ImageRequest) -> dict[str, str]:
        """As `headers`, with a token that the registry takes now. Raises as `describe`."""
        await self.describe(image)
        return self.headers(image)

    def headers(self, image: ImageRequest, accept: str = "") -> dict[str, str]:
        """What a request for it must say, with the token of its repository if there is one."""
        token = self._tokens.known(_repository(image))
        # Registries answer 404 for OCI manifests to one who takes anything, as curl says.
        anything = MANIFEST_TYPES if image.kind is Kind.MANIFEST else "*/*"
        found = {"Via": VIA, "Accept": anything if accept.strip() in ("", "*/*") else accept}
        return found | ({"Authorization": f"Bearer {token}"} if token else {})

    async def _head(self, image: ImageRequest, headers: dict[str, str]) -> Answer:
        """With a token, once, when the registry wants one. Raises MingaError."""
        try:
            return await self._upstream.head(image.url, headers)
        except OriginRefusedError as error:
            challenge = parse_challenge(error.challenge)
            if challenge is None:
                raise
        refused = headers.get("Authorization", "").removeprefix("Bearer ")
        await self._tokens.get(_repository(image), challenge, challenge.url(image.repository), refused)
        return await self._upstream.head(image.url, self.headers(image, headers["Accept"]))

    async def _read(self, url: str, headers: dict[str, str], max_bytes: int) -> bytes:
        """A body of at most `max_bytes`. Raises MingaError."""
        body = b""
        async with self._upstream.stream(url, headers) as (_, pieces):
            async for piece in pieces:
                body += piece
                if len(body) > max_bytes:
                    raise UnavailableError(f"{url[:200]} answers more than {max_bytes:,} bytes")
        return body


def _plain(headers: Mapping[str, str], name: str) -> str:
    """A header that can be passed on; empty when it is none or has odd characters."""
    value = headers.get(name, "")
    return value if value.isascii() and value.isprintable() else ""


def _repository(image: ImageRequest) -> str:
    return f"{image.registry.name}/{image.repository}"


def _refusal(image: ImageRequest) -> FileNotFoundInDirectoryError:
    """As what is not there: it is not, for everybody."""
    return FileNotFoundInDirectoryError(f"{image.registry.name} wants credentials for {image.repository}")
