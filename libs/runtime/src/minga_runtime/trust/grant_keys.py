"""The public keys by which grants are verified: JWK sets (RFC 7517) in files and at the URLs of issuers."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga_core.errors import InvalidArgumentError, MingaError
from minga_runtime.logs import log_event
from minga_runtime.trust.jwks_url import download
from minga_runtime.trust.key_sources import KeySource
from minga_runtime.trust.watched_file import WatchedFile

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
"""A URL is fetched again so long after the last time, when there is a grant to verify."""
UNKNOWN_KEY_SECONDS = 10.0
"""A key that is not known has its issuer's URL fetched at once, but no sooner than this after the last time: anybody
can name a key that does not exist."""
MAX_KEYS = 100
MIN_RSA_BITS = 2048

# Key type and curve, and the one algorithm for which such a key is used: nothing symmetric, and never `none`.
_ALGORITHMS: dict[Any, str] = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256"}


@dataclass(frozen=True, slots=True)
class GrantKey:
    """A public key. Two are the same when their JWKs are."""

    key_id: str
    algorithm: str
    jwk: str
    key: "PyJWK" = field(compare=False, repr=False)


Keys = tuple[GrantKey, ...]


def parse_keys(data: bytes) -> Keys:
    """The keys of a JWK set which can verify grants; others are passed over. Raises InvalidArgumentError when there are
    none."""
    try:
        entries = json.loads(data)["keys"]
        found = [key for entry in entries[:MAX_KEYS] if (key := _parsed_key(entry)) is not None]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgumentError("this is not a JWK set: a JSON object with `keys` is needed") from error
    if not found:
        raise InvalidArgumentError("no key of the JWK set is an Ed25519, P-256 or RSA key with a `kid`")
    return tuple(found)


def _parsed_key(entry: Mapping[str, Any]) -> GrantKey | None:
    import jwt

    algorithm = _ALGORITHMS.get((entry.get("kty"), entry.get("crv")))
    key_id = entry.get("kid")
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    if not isinstance(key_id, str) or not key_id:
        return None
    # Only what is public: a private key that got into the file by mistake verifies as its public one does.
    public = {name: entry[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in entry}
    try:
        key = jwt.PyJWK(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and key.key.key_size < MIN_RSA_BITS:
        return None
    return GrantKey(key_id, algorithm, json.dumps(public, sort_keys=True), key)


class KeyUrl:
    """Keys at a URL, fetched in a thread; for any thread. Those of the last good answer stay while it is away."""

    def __init__(self, source: KeySource, fetch: Callable[[str, str], bytes]) -> None:
        self._source = source
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: Keys = ()
        self._fetching: Future[None] | None = None
        self._begun_at = -math.inf
        self._failed = False

    def current(self) -> Keys:
        """The newest good keys; none before the first answer. Never blocks."""
        self.refresh(REFRESH_SECONDS)
        return self._keys

    def refresh(self, after_seconds: float) -> "Future[None] | None":
        """Fetch them unless that was begun less than `after_seconds` ago; what ends with the fetch under way."""
        with self._lock:
            if self._fetching is not None and not self._fetching.done():
                return self._fetching
            now = time.monotonic()
            if now - self._begun_at < after_seconds:
                return None
            self._begun_at, self._fetching = now, Future()
            threading.Thread(target=self._run, args=(self._fetching,), name="grant-keys", daemon=True).start()
            return self._fetching

    def _run(self, done: "Future[None]") -> None:
        try:
            keys = parse_keys(self._fetch(self._source.location, self._source.issuer))
        except MingaError as error:
            if not self._failed:
                log_event(log, logging.WARNING, "grant_keys_not_fetched", url=self._source.location, error=error)
            self._failed = True
        else:
            self._failed = False
            if keys != self._keys:
                self._keys = keys
                log_event(log, logging.INFO, "grant_keys_fetched", url=self._source.location, count=len(keys))
        finally:
            done.set_result(None)


class GrantKeys:
    """The keys of all sources, by issuer. network_issuer: the issuer of sources that name none.

    Raises SettingsError for a file that is no good.
    """

    def __init__(
        self,
        sources: tuple[KeySource, ...],
        network_issuer: str,
        fetch: Callable[[str, str], bytes] = download,
    ) -> None:
        self._issuers = [source.issuer or network_issuer for source in sources]
        self._sources = [
            KeyUrl(source, fetch)
            if source.is_url
            else WatchedFile(Path(source.location).expanduser(), "MINGA_GRANT_KEYS", parse_keys)
            for source in sources
        ]
        self._seen: list[Keys] = []
        self._by_issuer: dict[str, Keys] = {}

    def current(self) -> Mapping[str, Keys]:
        """The newest good keys: the same object until one changes. Never blocks but for reading a small file."""
        seen = [source.current() for source in self._sources]
        if seen != self._seen:
            by_issuer: dict[str, Keys] = dict.fromkeys(self._issuers, ())
            for issuer, keys in zip(self._issuers, seen, strict=True):
                by_issuer[issuer] += keys
            self._seen, self._by_issuer = seen, by_issuer
        return self._by_issuer

    def refresh(self, issuer: str) -> "list[Future[None]]":
        """Have the URLs of an issuer fetched, one of whose keys is not known; what ends with each fetch under way."""
        asked = [
            source.refresh(UNKNOWN_KEY_SECONDS)
            for of, source in zip(self._issuers, self._sources, strict=True)
            if of == issuer and isinstance(source, KeyUrl)
        ]
        return [fetch for fetch in asked if fetch is not None]
