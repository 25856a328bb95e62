"""Get the same files to many machines: find, fetch and put files of a Minga network.

::

    import minga

    with minga.Client() as client:
        client.put("model.bin", "models/model.bin", replicas=2)
        for file in client.ls("models/"):
            print(file.name, file.size_bytes)
        print(client.get("models/model.bin").path)

`AsyncClient` has the same methods for asyncio. Errors are in `minga.errors`. Names are imported when they are first
used: `import minga` itself loads nothing of the network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import minga_runtime  # noqa: F401 - what it sets for gRPC must be there before anything here imports gRPC

if TYPE_CHECKING:
    from minga import errors, units
    from minga.async_client import AsyncClient
    from minga.catalogue import Change, ChangeKind, FileInfo, FileStat, Folder
    from minga.client import Client
    from minga.control import DaemonCondition, DaemonStatus, DaemonTransfer, ScrubStatus
    from minga.fetching import FetchItem, Outcome
    from minga.putting import PutItem
    from minga.settings import ClientSettings, load_settings
    from minga_core.ids import Address, ContentId, PeerId, parse_peer_id
    from minga_core.names import HIDDEN_ROOT, Name, parse_name, parse_prefix
    from minga_engine.explanation import (
        Explanation,
        Phase,
        SlowReason,
        SlowSource,
        SourceShare,
        WaitCause,
    )
    from minga_engine.parts.files import IGNORE_FILE, PARTS_FOLDER
    from minga_engine.parts.ignoring import IgnoreRules
    from minga_engine.progress import (
        BadFile,
        DownloadPhase,
        Progress,
        PutPhase,
        PutProgress,
        PutResult,
        VerifyProgress,
    )
    from minga_engine.transfer.preheated import Preheated, PreheatedPeer
    from minga_engine.wire.locator_answers import DirectoryFigures, FileSource, FileVersion, ListedFile, ListedPeer
    from minga_engine.wire.preheating import PreheatStep

_MODULES = {
    "minga.async_client": "AsyncClient",
    "minga.catalogue": "Change ChangeKind FileInfo FileStat Folder",
    "minga.client": "Client",
    "minga.control": "DaemonCondition DaemonStatus DaemonTransfer ScrubStatus",
    "minga.fetching": "FetchItem Outcome",
    "minga.putting": "PutItem",
    "minga.settings": "ClientSettings load_settings",
    "minga_core.ids": "Address ContentId PeerId parse_peer_id",
    "minga_core.names": "HIDDEN_ROOT Name parse_name parse_prefix",
    "minga_engine.explanation": "Explanation Phase SlowReason SlowSource SourceShare WaitCause",
    "minga_engine.parts.files": "IGNORE_FILE PARTS_FOLDER",
    "minga_engine.parts.ignoring": "IgnoreRules",
    "minga_engine.progress": "BadFile DownloadPhase Progress PutPhase PutProgress PutResult VerifyProgress",
    "minga_engine.transfer.preheated": "Preheated PreheatedPeer",
    "minga_engine.wire.locator_answers": "DirectoryFigures FileSource FileVersion ListedFile ListedPeer",
    "minga_engine.wire.preheating": "PreheatStep",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [  # noqa: RUF022 - the classes first
    "Client",
    "AsyncClient",
    "Address",
    "BadFile",
    "Change",
    "ChangeKind",
    "ClientSettings",
    "ContentId",
    "DaemonCondition",
    "DaemonStatus",
    "DaemonTransfer",
    "DirectoryFigures",
    "DownloadPhase",
    "Explanation",
    "FetchItem",
    "FileInfo",
    "FileSource",
    "FileStat",
    "FileVersion",
    "Folder",
    "HIDDEN_ROOT",
    "IGNORE_FILE",
    "IgnoreRules",
    "ListedFile",
    "ListedPeer",
    "Name",
    "Outcome",
    "PARTS_FOLDER",
    "PeerId",
    "Phase",
    "PreheatStep",
    "Preheated",
    "PreheatedPeer",
    "Progress",
    "PutItem",
    "PutPhase",
    "PutProgress",
    "PutResult",
    "ScrubStatus",
    "SlowReason",
    "SlowSource",
    "SourceShare",
    "VerifyProgress",
    "WaitCause",
    "errors",
    "load_settings",
    "parse_name",
    "parse_peer_id",
    "parse_prefix",
    "units",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in ("errors", "units"):
        return import_module(f"minga.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'minga' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
