"""Tags, which prove when a name was given a content, and tickets, which allow a peer to publish an upload.

Both are keyed BLAKE3 with secret keys that registries and locators share (docs/adr/0035). The text that is hashed
begins with fields of a fixed length, what it is for among them, so that no two meanings have the same text::

    tag     key id (2) | hash (14) of  "minga tag"    | published time, ns (8) | content id (32) | name
    ticket  key id (2) | expiry, s (8) | hash (16) of  "minga ticket" | expiry (8) | content id (32) | name
"""

import hmac
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from minga_core.errors import InvalidArgumentError, SettingsError
from minga_core.records import TAG_BYTES, RowKey
from minga_runtime.trust.credentials import warn_of_mode
from minga_runtime.trust.watched_file import WatchedFile

KEY_BYTES = 32
MAX_KEYS = 16
KEY_ID_BYTES = 2
LONG_ID_BYTES = 16
TICKET_BYTES = 26
TICKET_SECONDS = 24 * 3600
"""Life of a ticket: above what the largest upload takes."""

_TEXT = struct.Struct(">12sQ32s")
_EXPIRY = struct.Struct(">Q")
_TAG, _TICKET = b"minga tag", b"minga ticket"
_TAG_HASH_BYTES = TAG_BYTES - KEY_ID_BYTES
_TICKET_HEAD_BYTES = KEY_ID_BYTES + _EXPIRY.size
_TICKET_HASH_BYTES = TICKET_BYTES - _TICKET_HEAD_BYTES


class PublicationKeys:
    """Some keys, each of 32 bytes: the first signs, all verify.

    Raises InvalidArgumentError for keys that are no good."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not 1 <= len(keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in keys):
            raise InvalidArgumentError(f"1 to {MAX_KEYS} keys are needed, each of {KEY_BYTES} bytes")
        ids = [blake3(b"minga key id", key=key).digest(KEY_ID_BYTES) for key in keys]
        self.long_ids = [blake3(b"minga key id", key=key).digest(LONG_ID_BYTES).hex() for key in keys]
        """Tell the keys of one network from those of another; they show nothing of the keys."""
        if len(set(ids)) < len(ids):
            raise InvalidArgumentError("two keys are the same, or have the same id: make another one")
        self.key_id = ids[0]
        """Id of the key that signs; the first bytes of its tags and tickets."""
        # Copies of a hasher that has its key: less than making one costs.
        self._hashers = {key_id: blake3(key=key) for key_id, key in zip(ids, keys, strict=True)}
        self._signing = self._hashers[self.key_id]

    def tag(self, key: RowKey, published_ns: int) -> bytes:
        """The proof that `key` was published at that time; empty for a version that is not published."""
        if published_ns <= 0:
            return b""
        return self.key_id + _hash(self._signing, _TAG, published_ns, key, _TAG_HASH_BYTES)

    def has_signed(self, tag: bytes, key: RowKey, published_ns: int) -> bool:
        """Whether `tag` proves that `key` was published at that time."""
        hasher = self._hashers.get(tag[:KEY_ID_BYTES])
        if hasher is None or published_ns <= 0:
            return False
        return hmac.compare_digest(tag[KEY_ID_BYTES:], _hash(hasher, _TAG, published_ns, key, _TAG_HASH_BYTES))

    def ticket(self, key: RowKey, now: float) -> bytes:
        """The permission to publish `key` within TICKET_SECONDS. now: seconds since 1970."""
        expiry = int(now) + TICKET_SECONDS
        hashed = _hash(self._signing, _TICKET, expiry, key, _TICKET_HASH_BYTES)
        return self.key_id + _EXPIRY.pack(expiry) + hashed

    def allows(self, ticket: bytes, key: RowKey, now: float) -> bool:
        """Whether `ticket` permits that `key` is published now."""
        hasher = self._hashers.get(ticket[:KEY_ID_BYTES])
        if hasher is None or len(ticket) != TICKET_BYTES:
            return False
        (expiry,) = _EXPIRY.unpack_from(ticket, KEY_ID_BYTES)
        hashed = _hash(hasher, _TICKET, expiry, key, _TICKET_HASH_BYTES)
        return hmac.compare_digest(ticket[_TICKET_HEAD_BYTES:], hashed) and now < expiry


def _hash(keyed: blake3, purpose: bytes, number: int, key: RowKey, length: int) -> bytes:
    hasher = keyed.copy()
    hasher.update(_TEXT.pack(purpose, number, key.content_id.raw) + key.name.encode())
    digest: bytes = hasher.digest(length)
    return digest


Keys = Callable[[], PublicationKeys | None]
"""The keys of the moment; None in a network without."""


def foreign_keys() -> SettingsError:
    """What ends a part whose keys are not those of its network."""
    return SettingsError(
        "MINGA_PUBLICATION_KEY: none of these keys is one of the network's, so nobody else would believe their proofs",
        hint="take the file of the other registries and locators; where their key is lost for good, stop them all and "
        "remove minga:v2:publication_keys:{all} from Redis",
    )


def no_keys() -> None:
    """The keys of a network that has none."""
    return


def watched_keys(path: Path | None) -> Keys:
    """The keys in a file, read again when it changes: a line for each, in hex. Raises SettingsError."""
    if path is None:
        return no_keys
    file = WatchedFile(path, "MINGA_PUBLICATION_KEY", parse_keys)
    warn_of_mode(path)
    return file.current


def parse_keys(data: bytes) -> PublicationKeys:
    """The keys in the lines of a file. Raises InvalidArgumentError, which shows none of them."""
    try:
        keys = [bytes.fromhex(line.decode("ascii")) for line in data.split()]
    except ValueError:
        raise InvalidArgumentError(f"each line has {2 * KEY_BYTES} hex digits: one key") from None
    return PublicationKeys(keys)
