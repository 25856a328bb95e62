"""Ids that stand for contents whose own id is not known yet, or was not when somebody asked for them."""

from collections import OrderedDict

from minga_core.ids import ContentId

MAX_STAND_INS = 4096
"""The oldest are forgotten: by then nobody asks for them any more."""


class StandIns:
    """Which content each id means."""

    def __init__(self) -> None:
        self._meant: OrderedDict[ContentId, ContentId] = OrderedDict()
        self._of: dict[ContentId, set[ContentId]] = {}

    def meant(self, content_id: ContentId) -> ContentId:
        """The content that an id stands for; the id itself when it stands for no other."""
        return self._meant.get(content_id, content_id)

    def of(self, content_id: ContentId) -> frozenset[ContentId]:
        """All ids that stand for a content."""
        return frozenset(self._of.get(content_id, ()))

    def add(self, stand_in: ContentId, content_id: ContentId) -> None:
        """Have an id, and all that stand for it, stand for a content from now on."""
        for each in (*self._of.pop(stand_in, ()), stand_in):
            self._meant[each] = content_id
            self._of.setdefault(content_id, set()).add(each)
        while len(self._meant) > MAX_STAND_INS:
            oldest, meant = self._meant.popitem(last=False)
            self._of[meant].discard(oldest)
            if not self._of[meant]:
                del self._of[meant]
