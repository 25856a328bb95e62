"""An upload that is asked for, what has become of it so far, and the peers that are to have it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minga_core.errors import MingaError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_engine.progress import PutPhase, PutProgress
from minga_engine.transfer.put_file import PutFile
from minga_engine.wire.locator_answers import FileVersion
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.uploads import StoredFile

OnPut = Callable[[PutProgress], None]


@dataclass(slots=True)
class PutRequest:
    """What to put where."""

    file: PutFile
    name: Name
    replicas: int
    overwrite: bool
    on_progress: OnPut
    elsewhere: Sequence[SourceAddress] = ()
    """Peers that hold the content under another name: they copy it on their disk."""
    holders: dict[PeerId, SourceAddress] = field(default_factory=dict)
    """Peers that hold it whole."""
    published: set[PeerId] = field(default_factory=set)
    """Peers that have published it for this request."""
    failed: dict[PeerId, MingaError] = field(default_factory=dict)
    """Why peers that were asked to store it did not, when they were last asked."""
    ticket: bytes | None = None
    """The permission to publish it, which may be empty; None before the locator has been asked."""

    @property
    def size_bytes(self) -> int:
        """Size of the content."""
        return self.file.manifest.size_bytes

    @property
    def stored_file(self) -> StoredFile:
        """The file as peers are asked to store it."""
        ticket = self.ticket or b""
        return StoredFile(self.name, self.file.content_id, self.overwrite, self.file.attributes, ticket)

    def report(self, phase: PutPhase, done_bytes: int = 0, message: str = "") -> None:
        """Reports progress."""
        self.on_progress(PutProgress(phase, self.size_bytes, done_bytes, len(self.holders), self.replicas, message))


def holders_of(version: FileVersion, state: HoldingState) -> dict[PeerId, SourceAddress]:
    """The peers that hold it in that state, and where they answer."""
    return {
        source.peer_id: SourceAddress(source.peer_id, source.address)
        for source in version.sources
        if source.state is state
    }


def known_targets(request: PutRequest, same: FileVersion | None, versions: list[FileVersion]) -> list[SourceAddress]:
    """Peers that have the content under another name, or a part of it, so that an upload that was broken off goes on
    there, and those whose file is to be replaced."""
    others = {peer_id for version in versions for peer_id in holders_of(version, HoldingState.COMPLETE)}
    known = {peer.peer_id: peer for peer in request.elsewhere if peer.peer_id not in others}
    known |= holders_of(same, HoldingState.PARTIAL) if same is not None else {}
    resumed = list(known.values())[: max(0, request.replicas - len(request.holders))]
    return resumed + [target for target in _targets_to_replace(request, versions) if target not in resumed]


def _targets_to_replace(request: PutRequest, versions: list[FileVersion]) -> list[SourceAddress]:
    """With overwrite: the peers that hold other contents under the name, so that those are replaced."""
    if not request.overwrite:
        return []
    others = [version for version in versions if version.content_id != request.file.content_id]
    found = {
        peer_id: source for version in others for peer_id, source in holders_of(version, HoldingState.COMPLETE).items()
    }
    return [source for peer_id, source in found.items() if peer_id not in request.holders]
