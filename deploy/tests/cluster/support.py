"""What the tests of a running cluster share."""

import os
from collections.abc import Sequence

import httpx

from deploy.tests.cluster.cluster import Cluster
from deploy.tests.cluster.pods import Pod

SHARE = "/srv/minga"
USER = 10001
KIB = 1024
MIB = 1024 * KIB


def put(pod: Pod, name: str, data: bytes) -> None:
    """Drops a file into a peer's shared folder, as its user would."""
    folder = pod.folder(SHARE)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    for each in (path, *path.relative_to(folder).parents):
        os.chown(folder / each, USER, USER)


def noise(size_bytes: int) -> bytes:
    """Bytes that nothing could make smaller."""
    return os.urandom(size_bytes)


async def holders(cluster: Cluster, name: str) -> set[str]:
    """Peers with the whole newest version of a file, asked at the locator's Service; empty when nobody has it."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            answer = await client.get(f"{locator_url(cluster)}/v1/files/{name}", timeout=5)
        except httpx.HTTPError:
            return set()
    if answer.status_code != 200:
        return set()
    versions = answer.json()["versions"]
    return {one["peer_id"] for one in versions[0]["sources"] if one["state"] == "complete"} if versions else set()


async def held_by(cluster: Cluster, name: str, peers: Sequence[str], limit: float = 30.0) -> float:
    """Returns once these peers, and maybe others, hold the file, with the seconds that took."""

    async def held() -> bool:
        return set(peers) <= await holders(cluster, name)

    return await cluster.eventually(held, f"{name} is held by {', '.join(peers)}", limit)


def locator_url(cluster: Cluster) -> str:
    """The locator's Service, from outside of pods."""
    return f"http://{cluster.service_address('locator')}:50052"


def start_up(cluster: Cluster, ref: str) -> str:
    """How long a workload's pods took from the start of their containers to ready."""
    seconds = [pod.first_ready for pod in cluster.pods(ref) if pod.first_ready is not None]
    return f"{ref} {max(seconds):.1f} s" if seconds else f"{ref} never"
