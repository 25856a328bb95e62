"""Tokens with which a registry lets anybody pull what is public: got without credentials, kept until they end."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from minga_core.errors import UnavailableError
from minga_peer.images.challenges import Challenge

MAX_ANSWER_BYTES = 64 * 1024
MAX_TOKENS = 1024
DEFAULT_SECONDS = 60.0
"""How long a token is good that does not say it, as registries and clients have it."""
SPARE_SECONDS = 10.0
"""A token is used until so long before its end, or until half of its time: the request is still on its way."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")

Fetch = Callable[[str], Awaitable[bytes]]
"""GETs a URL: its body, of MAX_ANSWER_BYTES at most. Raises MingaError."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    until: float


@dataclass(slots=True)
class Tokens:
    """One for a process. now: monotonic seconds."""

    fetch: Fetch
    now: Callable[[], float]
    _known: dict[str, _Token] = field(default_factory=dict)
    _fetching: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def known(self, key: str) -> str:
        """The token of a repository; empty when there is none that is still good."""
        token = self._known.get(key)
        return "" if token is None or token.until <= self.now() else token.value

    async def get(self, key: str, challenge: Challenge, url: str, refused: str) -> str:
        """A token of a repository, other than the one that was refused; callers at the same time share one request.

        Raises MingaError.
        """
        lock = self._fetching.setdefault(key, asyncio.Lock())
        async with lock:
            if (known := self.known(key)) and known != refused:
                return known
            token = _parse(await self.fetch(url), challenge.realm, self.now())
            self._known.pop(key, None)
            self._known[key] = token
            if len(self._known) > MAX_TOKENS:
                del self._known[next(iter(self._known))]
            return token.value


def _parse(answer: bytes, realm: str, now: float) -> _Token:
    """The token of an answer. Raises UnavailableError."""
    try:
        fields = json.loads(answer)
        value = fields.get("token") or fields.get("access_token")
        seconds = float(fields.get("expires_in") or DEFAULT_SECONDS)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UnavailableError(f"{realm[:200]} answers no token") from None
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or not 0 < seconds < 1e9:
        raise UnavailableError(f"{realm[:200]} answers no token")
    return _Token(value, now + seconds - min(SPARE_SECONDS, seconds / 2))
