"""Publication keys of a registry whose network has others."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from minga_core.errors import SettingsError, StoreUnavailableError, UnavailableError
from minga_registry import agreed_keys
from minga_registry.agreed_keys import AgreedKeys
from minga_runtime.trust.publication_keys import PublicationKeys

OURS, NEXT, FOREIGN = (PublicationKeys([bytes([number]) * 32]) for number in range(3))


class File:
    """A file of keys, and a store that knows which are the network's. None of it: the store is away."""

    def __init__(self, *known: PublicationKeys) -> None:
        self.keys: PublicationKeys | None = OURS
        self.known: tuple[PublicationKeys, ...] | None = known

    def current(self) -> PublicationKeys | None:
        return self.keys

    async def confirm(self, ids: Sequence[str]) -> bool:
        if self.known is None:
            raise StoreUnavailableError("away")
        return any(each.long_ids == list(ids) for each in self.known)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - the condition belongs to a task
            await asyncio.sleep(0.01)


async def test_foreign_keys_end_the_start() -> None:
    file = File(NEXT)
    with pytest.raises(SettingsError, match="none of these keys is one of the network's"):
        await AgreedKeys(file.current, file.confirm).start()


async def test_while_the_store_is_away_no_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor while it refuses them; a network without keys needs no store."""
    monkeypatch.setattr(agreed_keys, "CHECK_SECONDS", 0.01)
    file = File()
    keys = AgreedKeys(file.current, file.confirm)
    file.known = None
    await keys.start()
    checking = asyncio.create_task(keys.run())
    with pytest.raises(UnavailableError):
        keys()
    file.known = (OURS,)
    await until(lambda: keys._agreed is OURS)
    assert keys() is OURS
    file.keys = None
    await until(lambda: keys() is None)
    checking.cancel()


async def test_a_foreign_key_later_changes_nothing_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agreed_keys, "CHECK_SECONDS", 0.01)
    file = File(OURS, NEXT)
    keys = AgreedKeys(file.current, file.confirm)
    await keys.start()
    checking = asyncio.create_task(keys.run())
    file.keys = FOREIGN
    await until(lambda: "publication_keys_refused" in caplog.text)
    await asyncio.sleep(0.1)
    assert keys() is OURS
    assert caplog.text.count("publication_keys_refused") == 1
    file.keys = NEXT
    await until(lambda: keys() is NEXT)
    checking.cancel()
