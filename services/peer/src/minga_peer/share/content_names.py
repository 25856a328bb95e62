"""Under which names each content is shared."""

from minga_core.ids import ContentId
from minga_core.names import Name


class ContentNames:
    """A name for each content, and a set only of those that have several: an empty set has 216 bytes."""

    def __init__(self) -> None:
        self._one: dict[ContentId, Name] = {}
        self._others: dict[ContentId, set[Name]] = {}

    def any(self, content_id: ContentId) -> Name | None:
        """Some name of a content."""
        return self._one.get(content_id)

    def add(self, content_id: ContentId, name: Name) -> None:
        """Add a name that is not there yet."""
        if self._one.setdefault(content_id, name) != name:
            self._others.setdefault(content_id, set()).add(name)

    def discard(self, content_id: ContentId, name: Name) -> None:
        """Remove a name that is there."""
        others = self._others.get(content_id)
        if others is None:
            del self._one[content_id]
            return
        if self._one[content_id] == name:
            self._one[content_id] = others.pop()
        else:
            others.discard(name)
        if not others:
            del self._others[content_id]
