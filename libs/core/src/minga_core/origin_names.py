"""Names of files in stores: `s3://BUCKET/KEY`, `gs://BUCKET/OBJECT`, `hf://[datasets/]ORG/REPO[@REV]/PATH`. Pure.

Keys and paths stand for themselves, as in the stores' own commands: nothing in them is percent-encoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from minga_core.errors import InvalidArgumentError

AWS_URL = "https://s3.amazonaws.com"
GOOGLE_URL = "https://storage.googleapis.com"
HUB_URL = "https://huggingface.co"
MAX_KEY_BYTES = 1024
_SCHEME = re.compile(r"(s3|gs|hf)://(.*)", re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# A bucket that may be a part of a host's name, below one certificate for all.
_HOST_PART = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_VERSIONS = {"s3": "versionId", "gs": "generation"}
_VERSION = re.compile(r"[A-Za-z0-9._~+/=-]{1,1024}")
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,255}"
_KIND = r"(?:(?:datasets|spaces|kernels)/|(?!(?:datasets|spaces|kernels|models)/))"
# One part alone is a repository only with a revision: `hf://gpt2/config.json` may be either.
_REPOSITORY = re.compile(rf"(?:models/)?({_KIND}(?:{_PART}/{_PART}|{_PART}(?=@)))(?:@([^/@]+))?/(.+)", re.DOTALL)
_REFERENCE = re.compile(r"(refs/(?:convert/\w+|pr/\d+))/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """URLs of the stores, without `/` at their ends. hub: empty for none."""

    s3: str = AWS_URL
    gs: str = GOOGLE_URL
    hub: str = HUB_URL


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a bucket. scheme: `s3` or `gs`. version: a versionId or a generation; empty for the newest."""

    scheme: str
    bucket: str
    key: str
    version: str = ""

    def __str__(self) -> str:
        version = f"?{_VERSIONS[self.scheme]}={self.version}" if self.version else ""
        return f"{self.scheme}://{self.bucket}/{self.key}{version}"

    @property
    def last_part(self) -> str:
        """What a copy of it is called."""
        return self.key.rpartition("/")[2]

    def url(self, endpoints: "Endpoints") -> str:
        """Where it is asked for without credentials."""
        version = f"?{_VERSIONS[self.scheme]}={quote(self.version, safe='')}" if self.version else ""
        return _bucket_url(self.scheme, self.bucket, endpoints) + quote(self.key, safe="/~") + version


@dataclass(frozen=True, slots=True)
class HubPath:
    """A file of a repository of a hub."""

    repository: str
    """With `datasets/` and so on before it."""
    revision: str
    path: str

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision.replace('/', '%2F')}/{self.path}"

    @property
    def last_part(self) -> str:
        """What a copy of it is called."""
        return self.path.rpartition("/")[2]

    def url(self, endpoints: Endpoints) -> str:
        """Where it is asked for. Raises InvalidArgumentError when there is no hub."""
        if not endpoints.hub:
            raise InvalidArgumentError(f"{str(self)[:100]!r}: the peer here has no hub", hint="MINGA_HUB names one")
        return endpoints.hub + self.target

    @property
    def target(self) -> str:
        """What follows the hub's URL."""
        return f"/{self.repository}/resolve/{quote(self.revision, safe='')}/{quote(self.path, safe='/~')}"


OriginName = StoredObject | HubPath


def parse_origin_name(text: str) -> OriginName | None:
    """What a name of a store refers to; None for any other text. Raises InvalidArgumentError.

    >>> parse_origin_name("s3://data/2026/a b.csv").url(Endpoints())
    'https://data.s3.amazonaws.com/2026/a%20b.csv'
    """
    found = _SCHEME.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    return _hub_path(text, found[2]) if scheme == "hf" else _stored_object(text, scheme, found[2])


def _stored_object(text: str, scheme: str, rest: str) -> StoredObject:
    bucket, _, key = rest.partition("/")
    before, mark, version = key.rpartition(f"?{_VERSIONS[scheme]}=")
    if mark and _VERSION.fullmatch(version):
        key = before
    else:
        version = ""
    _check_bucket(text, bucket)
    _check_path(text, key)
    return StoredObject(scheme, bucket, key, version)


def _hub_path(text: str, rest: str) -> HubPath:
    found = _REPOSITORY.fullmatch(rest)
    if found is None:
        raise InvalidArgumentError(
            f"{text[:100]!r} is no file of a hub", hint="hf://ORG/REPO/PATH, hf://datasets/ORG/REPO@REVISION/PATH"
        )
    repository, revision, path = found[1], (found[2] or "main").replace("%2F", "/"), found[3]
    # A revision has slashes where the hub itself makes them.
    if revision == "refs" and (special := _REFERENCE.fullmatch(f"refs/{path}")) is not None:
        revision, path = special[1], special[2]
    _check_path(text, path)
    return HubPath(repository, revision, path)


def _check_path(text: str, path: str) -> None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = MAX_KEY_BYTES + 1
    if not 0 < size <= MAX_KEY_BYTES or path.endswith("/"):
        raise InvalidArgumentError(
            f"{text[:100]!r} is no file: a key has 1 to {MAX_KEY_BYTES:,} bytes and no / at its end"
        )


def prefix_url(text: str, endpoints: Endpoints) -> str:
    """The beginning of URLs that the beginning of a name of a store stands for; any other text as it is.

    Raises InvalidArgumentError.

    >>> prefix_url("s3://data/2026/", Endpoints())
    'https://data.s3.amazonaws.com/2026/'
    """
    found = _SCHEME.fullmatch(text)
    if found is None:
        return text
    scheme = found[1].lower()
    if scheme == "hf":
        return f"{endpoints.hub}/{quote(found[2], safe='/~')}"
    bucket, _, key = found[2].partition("/")
    _check_bucket(text, bucket)
    return _bucket_url(scheme, bucket, endpoints) + quote(key, safe="/~")


def endpoints_of(environment: Mapping[str, str], hub: str) -> Endpoints:
    """Endpoints as the stores' own programs find them in the environment. Credentials are none of its matters."""
    s3 = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or AWS_URL
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        s3 = AWS_URL
    gs = environment.get("STORAGE_EMULATOR_HOST") or GOOGLE_URL
    if "://" not in gs:
        gs = f"http://{gs}"
    return Endpoints(s3.rstrip("/"), gs.rstrip("/"), hub)


def _bucket_url(scheme: str, bucket: str, endpoints: Endpoints) -> str:
    """Of a bucket, with `/` at its end."""
    endpoint = endpoints.s3 if scheme == "s3" else endpoints.gs
    if endpoint == AWS_URL and _HOST_PART.fullmatch(bucket):
        return f"https://{bucket}.s3.amazonaws.com/"
    return f"{endpoint}/{bucket}/"


def _check_bucket(text: str, bucket: str) -> None:
    if not _BUCKET.fullmatch(bucket):
        raise InvalidArgumentError(f"{text[:100]!r} has no bucket: s3://BUCKET/KEY, gs://BUCKET/OBJECT")
