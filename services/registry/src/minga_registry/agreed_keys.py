"""Publication keys that all registries of a network have: one with another key would lose the times of all versions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from minga_core.errors import SettingsError, UnavailableError
from minga_runtime.logs import log_event
from minga_runtime.trust.publication_keys import Keys, PublicationKeys, foreign_keys

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
"""As often as the file of keys is looked at."""


class AgreedKeys:
    """The keys of a file, as soon as they are known to be the network's; afterwards the last ones that were.

    confirm: whether keys with these ids are the network's. Raises StoreUnavailableError.
    """

    def __init__(self, keys: Keys, confirm: Callable[[Sequence[str]], Awaitable[bool]]) -> None:
        self._keys = keys
        self._confirm = confirm
        self._agreed: PublicationKeys | None = None
        self._refused: PublicationKeys | None = None

    def __call__(self) -> PublicationKeys | None:
        """The keys; None in a network without. Raises UnavailableError where none has been confirmed."""
        if self._agreed is None and self._keys() is not None:
            raise UnavailableError("this registry's publication keys are not known to be those of its network")
        return self._agreed

    async def check(self) -> None:
        """Confirm the keys that the file has now. Raises SettingsError when they are not the network's,
        StoreUnavailableError."""
        keys = self._keys()
        if keys is not None and not await self._confirm(keys.long_ids):
            raise foreign_keys()
        self._agreed = keys

    async def start(self) -> None:
        """The first check, which a store that is away puts off. Raises SettingsError."""
        with suppress(UnavailableError):
            await self.check()

    async def run(self) -> None:
        """Check until cancelled. Keys that are not the network's are logged once, and change nothing."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except UnavailableError:
                continue
            except SettingsError as error:
                if self._refused is not self._keys():
                    self._refused = self._keys()
                    log_event(log, logging.ERROR, "publication_keys_refused", error=error)
