"""What was found out a moment ago, and holds for a while."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MAX_KEYS = 4096

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values that hold for some seconds, max_keys of them: the oldest are forgotten first. now: monotonic seconds."""

    def __init__(self, now: Callable[[], float], seconds: float, max_keys: int = MAX_KEYS) -> None:
        self._now = now
        self._seconds = seconds
        self._max_keys = max_keys
        self._known: dict[Hashable, tuple[float, Value]] = {}

    def put(self, key: Hashable, value: Value) -> None:
        """Remember a value from now on."""
        self._known.pop(key, None)
        self._known[key] = self._now() + self._seconds, value
        if len(self._known) > self._max_keys:
            del self._known[next(iter(self._known))]

    def get(self, key: Hashable) -> Value | None:
        """The value; None when it is not known, or not any more."""
        until, value = self._known.get(key, (0.0, None))
        if value is None or until > self._now():
            return value
        del self._known[key]
        return None


class Recent(Remembered[bool]):
    """Remembers keys alone."""

    def add(self, key: str) -> None:
        """Remember a key from now on."""
        self.put(key, True)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None
