"""Reading mappings whose every key must be accounted for."""

from types import TracebackType
from typing import Any, Self


class NotEmulatedError(Exception):
    """A manifest asks for what this cluster does not do. The message names the field."""


class Fields:
    """A mapping of a manifest, to be read in a `with` block: keys that nobody asked for at its end are an error.

    `take` is for what is emulated, `ignore` for what makes no difference here; say why beside the call.
    """

    def __init__(self, raw: dict[str, Any] | None, where: str) -> None:
        self._raw = dict(raw or {})
        self.where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None and self._raw:
            raise NotEmulatedError(f"{self.where}: {', '.join(sorted(self._raw))}")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key that may be absent; an explicit null is absent too."""
        found = self._raw.pop(key, None)
        return default if found is None else found

    def need(self, key: str) -> Any:
        """The value of a key that must be there."""
        if key not in self._raw:
            raise NotEmulatedError(f"{self.where}: {key} is missing")
        return self._raw.pop(key)

    def only(self, key: str, *allowed: Any) -> None:
        """A key that, where it is given, has one of the values that are emulated."""
        found = self._raw.pop(key, None)
        if found is not None and found not in allowed:
            raise NotEmulatedError(f"{self.where}.{key}: {found}")

    def ignore(self, *keys: str) -> None:
        """Keys that make no difference here."""
        for key in keys:
            self._raw.pop(key, None)

    def child(self, key: str) -> "Fields":
        """The mapping under a key; empty when it is absent."""
        return Fields(self.take(key, {}), f"{self.where}.{key}")

    def children(self, key: str) -> list["Fields"]:
        """The mappings in the list under a key."""
        found = self.take(key, [])
        return [Fields(one, f"{self.where}.{key}[{one.get('name', place)}]") for place, one in enumerate(found)]
