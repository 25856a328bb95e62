"""Keeps a credentials folder good while a process runs, and once for a command.

Certificate and grant are renewed when a third of their time is left; what members check each other with is asked for
every minute. When the authority is away, all stays as it is for as long as the certificate lasts.
"""

import asyncio
import fcntl
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from minga_core.clock import Clock, SystemClock
from minga_core.errors import MingaError, SettingsError, StorageError, UnauthenticatedError
from minga_runtime.backoff import backoff
from minga_runtime.logs import log_event
from minga_runtime.tasks import TaskOwner
from minga_runtime.trust.authority_call import call_authority
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.credentials_folder import CA, Joined, keep_trust
from minga_runtime.trust.joining import renew

log = logging.getLogger(__name__)

TRUST_SECONDS = 60.0
RETRY_SECONDS = 1.0
REMAINING = 1 / 3
"""The part of a certificate's life at which it is renewed."""
JITTER = 1 / 12
"""Of that life: those that joined together do not renew together."""


@asynccontextmanager
async def renewing(
    folder: Path | None, credentials: Credentials | None, *, at_once: bool = True
) -> AsyncIterator[None]:
    """Keep a folder good inside the block. None: an open network; certificates that others renew need nothing either.

    at_once: ask for what has changed at the start too. Raises SettingsError.
    """
    if folder is None or credentials is None or Joined.read(folder) is None:
        yield
        return
    tasks = TaskOwner()
    tasks.keep(Renewal(folder, credentials, at_once=at_once).run, "renewal")
    try:
        yield
    finally:
        await tasks.aclose()


async def renew_if_due(folder: Path, credentials: Credentials, clock: Clock | None = None) -> None:
    """Renew once, for a command that starts. A failure is logged as long as the certificate lasts, and raised after."""
    joined = Joined.read(folder)
    now = (clock or SystemClock()).wall()
    expires = credentials.current().expires
    if joined is None or now < expires - joined.life_seconds * REMAINING:
        return
    try:
        await _renew_alone(folder, joined)
    except MingaError as error:
        if expires <= now:
            raise
        log_event(log, logging.WARNING, "certificate_not_renewed", error=error)


class Renewal:
    """The background task of one process."""

    def __init__(
        self,
        folder: Path,
        credentials: Credentials,
        clock: Clock | None = None,
        *,
        at_once: bool = True,
    ) -> None:
        self._folder = folder
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._at_once = at_once

    async def run(self) -> None:
        """Run until cancelled."""
        if self._at_once:
            await self._asked_until_answered()
        while True:
            # Below a minute for lives of seconds, which tests have.
            interval = min(TRUST_SECONDS, self._joined().life_seconds / 12)
            await asyncio.sleep(interval * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
            await self._asked_until_answered()

    async def _asked_until_answered(self) -> None:
        waits = backoff(RETRY_SECONDS, TRUST_SECONDS)
        while True:
            try:
                await self._ask()
                return
            except MingaError as error:
                left = round(self._credentials.current().expires - self._clock.wall())
                kind = logging.ERROR if isinstance(error, UnauthenticatedError) else logging.WARNING
                hint = f" ({error.hint})" if error.hint else ""
                log_event(log, kind, "authority_not_asked", error=f"{error}{hint}", certificate_seconds_left=left)
            await asyncio.sleep(next(waits))

    async def _ask(self) -> None:
        """Raises MingaError."""
        joined = self._joined()
        early = joined.life_seconds * (REMAINING + random.uniform(0, JITTER))  # noqa: S311 - jitter
        if self._clock.wall() >= self._credentials.current().expires - early:
            await _renew_alone(self._folder, joined)
            return
        answer = await call_authority(joined.authority, await self._context(), "GET", "/v1/trust")
        await asyncio.to_thread(keep_trust, self._folder, answer)

    def _joined(self) -> Joined:
        """Raises SettingsError."""
        joined = Joined.read(self._folder)
        if joined is None:
            raise SettingsError(f"{self._folder} is no credentials folder any more")
        return joined

    async def _context(self) -> ssl.SSLContext:
        try:
            return await asyncio.to_thread(ssl.create_default_context, cafile=str(self._folder / CA))
        except OSError as error:
            raise StorageError(f"cannot read {self._folder / CA}: {error}") from error


async def _renew_alone(folder: Path, joined: Joined) -> None:
    """Renew, unless another process does. Raises what `renew` raises."""
    with _locked(folder) as locked:
        if locked:
            await renew(folder, joined)
            log_event(log, logging.INFO, "certificate_renewed", member=joined.member)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder's lock for the block. Raises StorageError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"cannot open {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        os.close(descriptor)
