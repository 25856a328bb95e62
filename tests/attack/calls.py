"""Calls that only members may make, one for each thing that somebody could want of a network."""

from collections.abc import Awaitable, Callable
from typing import Any

from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2

from .attacker import Attacker
from .network import Network

Attack = Callable[[Network, Attacker], Awaitable[object]]
LEASE = {"peer_id": "peer-1", "generation": 2**62}


def _at_registry(method: str, request: Any) -> Attack:
    return lambda net, who: net.at_registry(who, method, request)


def _at_peer(method: str, request: Callable[[Network], Any]) -> Attack:
    return lambda net, who: net.at_peer(who, method, request(net))


def _at_locator(path: Callable[[Network], str]) -> Attack:
    return lambda net, who: net.at_locator(who, path(net))


def upload(name: str, data: bytes = b"evil") -> list[peer_pb2.StoreFileRequest]:
    """A whole upload of one chunk, which replaces what is there."""
    manifest = Manifest.from_digests(len(data), digest(data))
    encoded = manifest.encode()
    begin = peer_pb2.StoreBegin(
        name=name, content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded), overwrite=True
    )
    return [
        peer_pb2.StoreFileRequest(begin=begin),
        peer_pb2.StoreFileRequest(manifest_part=encoded),
        peer_pb2.StoreFileRequest(chunk=peer_pb2.ChunkHeader(index=0, size_bytes=len(data))),
        peer_pb2.StoreFileRequest(data=data),
    ]


AT_REGISTRY: dict[str, Attack] = {
    "takes a lease over": _at_registry("Register", registry_pb2.RegisterRequest(**LEASE, address="10.9.9.9:1")),
    "renews a lease": _at_registry("KeepLease", registry_pb2.HeartbeatRequest(**LEASE)),
    "rewrites a table": _at_registry(
        "PushTable",
        registry_pb2.PushTableRequest(begin=registry_pb2.TableBegin(**LEASE, whole=True, revision=2)),
    ),
    "publishes": _at_registry("Publish", registry_pb2.PublishRequest(**LEASE)),
    "claims a fetch": _at_registry(
        "ClaimFetch",
        registry_pb2.ClaimFetchRequest(**LEASE, name="origins/a", transfer_id=bytes(32), http_port=1),
    ),
    "ends a lease": _at_registry("Leave", registry_pb2.LeaveRequest(**LEASE)),
}
READS: dict[str, Attack] = {
    "reads a manifest": _at_peer(
        "GetManifest", lambda net: peer_pb2.GetManifestRequest(content_id=net.contents["secret.bin"].raw)
    ),
    "reads a small file": lambda net, who: net.small_file(who),
    "reads a chunk": lambda net, who: net.chunk(who),
    "lists peers": _at_locator(lambda net: "/v1/peers"),
    "lists names": _at_locator(lambda net: "/v1/files"),
    "looks a name up": _at_locator(lambda net: "/v1/files/secret.bin"),
    "looks a content up": _at_locator(lambda net: f"/v1/contents/{net.contents['secret.bin']}"),
    "reads totals": _at_locator(lambda net: "/v1/stats"),
    "reads metrics": _at_locator(lambda net: "/metrics"),
}
WRITES: dict[str, Attack] = {
    "overwrites a file": lambda net, who: net.at_peer(who, "StoreFile", *upload("secret.bin")),
    "has a file fetched": _at_peer(
        "ReplicateFile",
        lambda net: peer_pb2.ReplicateFileRequest(
            name="evil",
            content_id=bytes(32),
            sources=[peer_pb2.Source(peer_id="evil", address="127.0.0.1:9")],
        ),
    ),
}
