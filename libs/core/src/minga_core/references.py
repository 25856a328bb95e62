"""How a file is named: by its name, by name and version, or by its content alone."""

from dataclasses import dataclass

from minga_core.errors import InvalidArgumentError
from minga_core.ids import CONTENT_ID_PREFIX, ContentId
from minga_core.names import Name, parse_name

_VERSION = "@" + CONTENT_ID_PREFIX


@dataclass(frozen=True, slots=True)
class NameReference:
    """A name: its default version, or that content."""

    name: Name
    content_id: ContentId | None = None

    @classmethod
    def parse(cls, text: str) -> "NameReference":
        """What `NAME` or `NAME@b3:…` refers to: the last `@b3:` begins a version, so a name that has one itself is only
        reached with its version. Raises InvalidNameError, InvalidArgumentError."""
        name, version, digits = text.rpartition(_VERSION)
        if not version:
            return cls(parse_name(text))
        if not name:
            raise InvalidArgumentError(f"{text[:80]!r} has a version, and no name before it")
        return cls(parse_name(name), ContentId.parse(CONTENT_ID_PREFIX + digits))

    def __str__(self) -> str:
        return f"{self.name}@{self.content_id}" if self.content_id is not None else self.name


@dataclass(frozen=True, slots=True)
class ContentReference:
    """A content, whatever it is called."""

    content_id: ContentId
    name: None = None

    def __str__(self) -> str:
        return str(self.content_id)


Reference = NameReference | ContentReference


def parse_reference(text: str | ContentId) -> Reference:
    """What `NAME`, `NAME@b3:…` or `b3:…` refers to. Raises InvalidNameError, InvalidArgumentError."""
    if isinstance(text, ContentId):
        return ContentReference(text)
    if text.startswith(CONTENT_ID_PREFIX):
        return ContentReference(ContentId.parse(text))
    return NameReference.parse(text)
