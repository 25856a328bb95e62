"""What a caller may publish."""

from collections.abc import Callable, Iterable

from minga_core.records import Publication
from minga_runtime.trust.callers import Caller


def may_publish(caller: Caller, publication: Publication, permitted: Callable[[Publication], bool]) -> bool:
    """Whether a caller may give a name a content that is not known under it: by a right of its own, or because an
    upload of just that was `permitted` to somebody who has the right."""
    return publication.key.name in caller.rights.publish or permitted(publication)


def limited(
    caller: Caller, publications: Iterable[Publication], permitted: Callable[[Publication], bool]
) -> list[Publication]:
    """The publications; those that the caller may not make may only join a version that is known."""
    return [each if may_publish(caller, each, permitted) else each._replace(join_only=True) for each in publications]
