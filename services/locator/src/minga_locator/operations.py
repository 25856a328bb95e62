"""The table of all operations, in the order in which paths are matched and documented."""

from starlette.convertors import PathConvertor, register_url_convertor

from minga_core.errors import Code
from minga_locator import files, health, peers, placements
from minga_locator.endpoint import Operation

_BAD_VALUE, _BAD_NAME = Code.INVALID_ARGUMENT, Code.INVALID_NAME
_NO_FILE, _NO_PEER = Code.FILE_NOT_FOUND, Code.PEER_NOT_FOUND
_NO_PLACE = (Code.NO_SPACE, Code.PEER_UNAVAILABLE)

_NO_SLOT = (Code.UNAVAILABLE, Code.BUSY)


class _AnyText(PathConvertor):
    """Like Starlette's `path`, but also matches line breaks: such a name gets the refusal of a name, not of a path."""

    regex = "[\\s\\S]*"


register_url_convertor("any", _AnyText())


OPERATIONS = (
    Operation("GET", "/v1/files", files.list_files, "files", (_BAD_VALUE, _BAD_NAME)),
    Operation("GET", "/v1/files/{name:any}", files.get_file, "files", (_BAD_NAME, _BAD_VALUE, _NO_FILE)),
    Operation("POST", "/v1/files:lookup", files.look_up_files, "files", (_BAD_VALUE, _BAD_NAME)),
    Operation("GET", "/v1/contents/{content_id}", files.get_content, "files", (_BAD_VALUE, _NO_FILE)),
    Operation("POST", "/v1/placements", placements.place_upload, "uploads", (_BAD_VALUE, _BAD_NAME, *_NO_PLACE)),
    Operation("GET", "/v1/peers", peers.list_peers, "peers", (_BAD_VALUE,)),
    Operation("GET", "/v1/peers/{peer_id}", peers.get_peer, "peers", (_BAD_VALUE, _NO_PEER)),
    Operation("GET", "/v1/stats", peers.get_stats, "peers"),
    Operation("GET", "/livez", health.live, "health"),
    Operation("GET", "/readyz", health.ready, "health", (Code.STORE_UNAVAILABLE, *_NO_SLOT)),
    Operation("GET", "/metrics", health.metrics, "health", _NO_SLOT),
)
