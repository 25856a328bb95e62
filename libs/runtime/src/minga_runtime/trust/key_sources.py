"""Where the keys are by which grants are verified, as settings name them. Nothing that fetches is imported for them."""

from dataclasses import dataclass

from minga_core.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the keys of an issuer are. issuer: empty for the network's own authority."""

    issuer: str
    location: str
    """An https URL, or the path of a file."""

    @property
    def is_url(self) -> bool:
        """Whether the keys are fetched."""
        return "://" in self.location


def parse_sources(text: str) -> tuple[KeySource, ...]:
    """The sources in a value of MINGA_GRANT_KEYS: with commas between, each `location` or `issuer=location`.

    Raises InvalidArgumentError.
    """
    return tuple(_source(part.strip()) for part in text.split(",") if part.strip())


def _source(text: str) -> KeySource:
    before, equals, after = text.partition("=")
    source = KeySource(before, after) if equals else KeySource("", before)
    if (equals and not source.issuer) or not source.location:
        raise InvalidArgumentError(f"{text!r} is neither a file, a URL, nor `issuer=` one of them")
    if source.is_url and not source.location.startswith("https://"):
        raise InvalidArgumentError(f"keys are fetched by https:// alone, not from {source.location}")
    return source
