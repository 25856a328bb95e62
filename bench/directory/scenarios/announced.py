"""Two registries under one name, and tables that take longer than a lease to push: by the real announcer and client."""

import os

from bench.directory.fixture import Layout
from bench.directory.fleet import announce
from bench.directory.network import Network
from bench.directory.scenarios.heartbeats import count_peers
from bench.directory.session import Session
from bench.netns import LabError
from bench.results import Outcome
from minga_directory import connect_reader

NAME = "registry"
HOSTS = ("127.0.0.1", "127.0.0.2")
LEASE_SECONDS = 3
LIMIT_SECONDS = 120.0


class Announced:
    """Each call of a peer goes to the next registry, as with a headless service: the lease is granted by one, the table
    is pushed to another."""

    name = "announced"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class. Raises LabError without root, which a name of our own needs."""
        if os.geteuid():
            raise LabError("two registries under one name need root")
        scale = session.scale
        layout = Layout(scale.slow_peers * scale.slow_files, 1, scale.slow_peers)
        outcome = Outcome(
            self.name,
            f"{layout.peers} peers (the real announcer and client) with {layout.files_a_peer:,} files each start at "
            f"once; leases of {LEASE_SECONDS} s; {len(HOSTS)} registries under one name",
        )
        async with session.network() as network:
            await network.start_store()
            address = await _start_registries(network)
            worker = network.start_worker("fleet", network.folder / "hosts")
            meter = network.meter()
            found = await worker.run(announce, address, layout, list(range(layout.peers)), LIMIT_SECONDS)
            outcome.uses.append(meter.read("slow pushes"))
            reader = connect_reader(network.store.url)
            try:
                living, files = await count_peers(reader)
            finally:
                await reader.aclose()
        outcome.judge(
            f"{layout.peers} tables of {layout.files_a_peer:,} files, slower than their leases: announced",
            "all",
            f"{found['announced']:g}, {living} of them listed with {files:,} files, after {found['seconds']:.1f} s",
            found["announced"] == living == layout.peers and files == layout.entries,
        )
        lost = found["granted"] - layout.peers
        outcome.judge("slow pushes: leases lost meanwhile", "none", f"{lost:g}", lost == 0)
        return outcome


async def _start_registries(network: Network) -> str:
    """The name and port of all."""
    (network.folder / "hosts").write_text("".join(f"{host} {NAME}\n" for host in HOSTS))
    port = "0"
    for host in HOSTS:
        await network.start_registry("--listen", f"{host}:{port}", "--lease-ttl", f"{LEASE_SECONDS}")
        port = network.registries[-1].rpartition(":")[2]
    return f"{NAME}:{port}"
