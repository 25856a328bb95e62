"""How a file is named: by its name, by name and version, or by its content alone."""

from dataclasses import dataclass

from minga_core.errors import InvalidArgumentError
from minga_core.ids import CONTENT_ID_PREFIX, ContentId, is_content_id
from minga_core.names import Name, parse_name


@dataclass(frozen=True, slots=True)
class NameReference:
    """A name: its default version, or that content."""

    name: Name
    content_id: ContentId | None = None

    @classmethod
    def parse(cls, text: str) -> "NameReference":
        """What `NAME` or `NAME@b3:…` refers to. Raises InvalidNameError, InvalidArgumentError.

        Only a whole content id behind the last `@` is a version: `a@b3:1` is a name, as a listing may have it.
        """
        name, at, version = text.rpartition("@")
        if not at or not is_content_id(version):
            return cls(parse_name(text))
        if not name:
            raise InvalidArgumentError(f"{text[:80]!r} has a version, and no name before it")
        return cls(parse_name(name), ContentId.parse(version))

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
