"""Who fetches a file for all: asked of the registry, which may be away."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from minga_core.errors import MingaError
from minga_core.names import Name
from minga_core.records import TRANSFER_ID_BYTES, FetchClaim, Fetcher

RENEW_SECONDS = 1.5
"""Below a third of the time that a claim holds."""


class Registry(Protocol):
    """Takes claims."""

    async def claim_fetch(self, claim: FetchClaim) -> Fetcher | None:
        """Who fetches after a claim; None after a release. Raises RegistryUnavailableError, RegisterAgainError,
        PermissionDeniedError."""
        ...


class Claim:
    """This peer's claim on one name, renewed until it is released. http_port: where this peer serves chunks."""

    def __init__(self, registry: Registry, name: Name, http_port: Callable[[], int]) -> None:
        self.transfer_id = b""
        """Under which this peer fetches; empty while another one does."""
        self.lost = asyncio.Event()
        """Set once another peer has the claim that this one had."""
        self._registry = registry
        self._name = name
        self._http_port = http_port
        self._renewing: asyncio.Task[None] | None = None

    async def fetcher(self, instead_of: bytes = b"") -> Fetcher | None:
        """The peer that fetches, when it is another one; None when this one is to. instead_of: the transfer that was
        found dead.

        Without a registry, or without the right to share such a file, each fetches for itself.
        """
        self.lost.clear()
        wanted = FetchClaim(self._name, secrets.token_bytes(TRANSFER_ID_BYTES), self._http_port(), instead_of)
        try:
            found = await self._registry.claim_fetch(wanted)
        except MingaError:
            return None
        if found is None or found.transfer_id != wanted.transfer_id:
            return found
        self.transfer_id = wanted.transfer_id
        self._renewing = asyncio.create_task(self._renew(wanted), name="claim-renew")
        return None

    async def _renew(self, claim: FetchClaim) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(MingaError):
                found = await self._registry.claim_fetch(claim._replace(instead_of=b""))
                if found is not None and found.transfer_id != claim.transfer_id:
                    self.transfer_id = b""
                    self.lost.set()
                    return

    async def release(self) -> None:
        """Let the next one fetch, if this peer was to. Never fails: a claim ends by itself."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self.transfer_id:
            own = FetchClaim(self._name, self.transfer_id, self._http_port(), release=True)
            self.transfer_id = b""
            with suppress(MingaError):
                await self._registry.claim_fetch(own)
