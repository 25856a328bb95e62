"""What a caller may publish."""

from collections.abc import Iterable

from minga_core.records import Publication
from minga_runtime.trust.callers import Caller


def may_publish(caller: Caller, publication: Publication) -> bool:
    """Whether a caller may give a name a content that is not known under it."""
    return publication.key.name in caller.rights.publish


def limited(caller: Caller, publications: Iterable[Publication]) -> list[Publication]:
    """The publications; those that the caller has no right to may only join a version that is known."""
    return [each if may_publish(caller, each) else each._replace(join_only=True) for each in publications]
