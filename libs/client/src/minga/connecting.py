"""What a client is connected to: the locator, the daemon of this machine, and peers.

Each is made when it is first needed, and its modules are imported then: a look-up needs neither gRPC nor the engine.
"""

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from minga.forking import before_grpc, grpc_is_lost
from minga.settings import ClientSettings
from minga_engine.settings import read_socket

if TYPE_CHECKING:
    from minga.control import ControlClient
    from minga.fetching import Fetcher, FetchOptions
    from minga.reading import Source
    from minga.standalone import Engine
    from minga_core.references import Reference
    from minga_engine.wire.locator import LocatorClient
    from minga_runtime.trust.credentials import Credentials
    from minga_runtime.trust.own_grant import OwnGrant

RETRY_BUDGET = timedelta(seconds=3)
"""How long look-ups retry while a locator restarts."""


class Connections:
    """The connections of one client in one event loop. `aclose` them; they are made anew when they are used again.

    Pickling keeps the settings and no connection.
    """

    def __init__(self, settings: ClientSettings, *, standalone: bool, retry_budget: timedelta) -> None:
        self.settings = settings
        self.standalone = standalone
        self.retry_budget = retry_budget
        self._uses_daemon = False if standalone else None
        self.other_network = ""
        """Locator of this machine's daemon, once `uses_daemon` found that it is not the one given; otherwise empty."""
        self._credentials: Credentials | None = None
        self._grant: OwnGrant | None = None
        self._locator: LocatorClient | None = None
        self._daemon: ControlClient | None = None
        self._engine: Engine | None = None
        self._stack = AsyncExitStack()

    def __getstate__(self) -> tuple[ClientSettings, bool, timedelta]:
        return self.settings, self.standalone, self.retry_budget

    def __setstate__(self, state: tuple[ClientSettings, bool, timedelta]) -> None:
        settings, standalone, retry_budget = state
        Connections.__init__(self, settings, standalone=standalone, retry_budget=retry_budget)

    async def aclose(self) -> None:
        """End all of them."""
        self._locator = self._daemon = self._engine = None
        await self._stack.aclose()

    # Whom to ask.

    def locator(self) -> "LocatorClient":
        """The locator's client. Raises SettingsError."""
        if self._locator is None:
            from minga_engine.wire.locator import LocatorClient

            self._locator = LocatorClient(
                self.settings.locator,
                retry_budget=self.retry_budget,
                credentials=self.credentials(),
                grant=self.grant(),
            )
            self._stack.push_async_exit(self._locator)
        return self._locator

    def daemon(self) -> "ControlClient":
        """The client of this machine's daemon, whether there is one or not. Raises RuntimeError in a forked child where
        gRPC is lost."""
        before_grpc()
        if self._daemon is None:
            from minga.control import ControlClient

            self._daemon = ControlClient(self.settings.control)
            self._stack.push_async_exit(self._daemon)
        return self._daemon

    def engine(self) -> "Engine":
        """What transfers by this process itself. Raises RuntimeError in a forked child where gRPC is lost."""
        before_grpc()
        if self._engine is None:
            from minga.standalone import Engine

            self._engine = Engine(self.locator(), self.settings, self.credentials(), self.grant())
            self._stack.push_async_callback(self._engine.aclose)
        return self._engine

    # By way of the daemon, or without it: chosen here alone.

    async def uses_daemon(self) -> bool:
        """Whether files come through the daemon: asked once, when first needed."""
        if self._uses_daemon is None:
            found = await self.daemon().answer()
            # A locator that nobody chose is a default, and the daemon's own counts.
            if found is not None and "locator" in self.settings.model_fields_set:
                same = found.locator.rstrip("/") == self.settings.locator.rstrip("/")
                self.other_network = "" if same else found.locator
            self._uses_daemon = found is not None and not self.other_network
        return self._uses_daemon

    async def fetcher(self, options: "FetchOptions") -> "Fetcher":
        """The way to fetch files."""
        if await self.uses_daemon():
            from minga.daemon_fetcher import DaemonFetcher

            return DaemonFetcher(self.daemon(), options)
        from minga.standalone import StandaloneFetcher

        return StandaloneFetcher(self.engine(), options)

    async def source(self, wanted: "Reference", wait: timedelta | None) -> "Source":
        """Where the bytes of an open file come from. Raises FileNotFoundInDirectoryError, DaemonUnavailableError."""
        from minga.sources import DaemonSource, OwnSource

        if await self._reads_by_daemon():
            return await DaemonSource.open(read_socket(self.settings.control), wanted, wait)
        engine = self.engine()
        return await OwnSource.open(engine.streams, await engine.locate(wanted), wait)

    async def _reads_by_daemon(self) -> bool:
        """As `uses_daemon`; in a forked child, where gRPC may not be asked, whether the socket for it is there."""
        if self._uses_daemon is None and grpc_is_lost():
            return read_socket(self.settings.control).is_socket()
        return await self.uses_daemon()

    # Who asks, in a secure network.

    def credentials(self) -> "Credentials | None":
        """This client's certificate; None in an open network. Raises SettingsError."""
        if self._credentials is None and self.settings.tls is not None:
            from minga_runtime.trust.credentials import Credentials
            from minga_runtime.trust.members import USERS

            self._credentials = Credentials(self.settings.tls, USERS, both=self.settings.both)
        return self._credentials

    def grant(self) -> "OwnGrant | None":
        """This client's grant, if it has one. Raises SettingsError."""
        if self._grant is None and self.settings.grant is not None:
            from minga_runtime.trust.own_grant import OwnGrant

            self._grant = OwnGrant(self.settings.grant)
        return self._grant

    async def keep_credentials(self) -> None:
        """Renew them now when that is due, and then until `aclose`. Raises MingaError when they have ended."""
        if self.settings.credentials is None or (own := self.credentials()) is None:
            return
        from minga_runtime.trust.renewal import renew_if_due, renewing

        await renew_if_due(self.settings.credentials, own)
        await self._stack.enter_async_context(renewing(self.settings.credentials, own, at_once=False))
