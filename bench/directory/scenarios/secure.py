"""What trust costs the directory: a secure network, with TLS, grants and tags, in turn with an open one."""

import time
from statistics import median

from bench.authority import BenchAuthority
from bench.directory import fixture, load
from bench.directory.fixture import Layout
from bench.directory.load import Requests
from bench.directory.network import Network
from bench.directory.pushers import prepare, push_alone
from bench.directory.scenarios.rates import InTurn
from bench.directory.session import Session
from bench.netns import LabError
from bench.product import Role
from bench.results import Outcome

COPIES = 10
JOINS = 10
LOOKUP_RATIO, PUSH_RATIO = 0.85, 0.9
MORE_ENTRY_BYTES = 24
JOIN_SECONDS = 1.0


class SecureLookups:
    """Look-ups over HTTPS that bear a grant, which the locator has seen before, in turn with those of an open one."""

    name = "secure-lookups"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        outcome = Outcome(
            self.name,
            f"{scale.lookup_names:,} names, Zipf popularity, one open locator and one with TLS and grants; "
            f"{scale.rounds} rounds of {scale.round_seconds:g} s each",
        )
        network = await session.filled()
        authority = await network.start_authority()
        await network.start_locator(f"--credentials={authority.credentials(Role.LOCATOR)}")
        found = InTurn(session, network, outcome, "secure look-ups")
        for number in range(scale.rounds + 1):
            for name, address, grant in zip(
                ("locator-1", "locator-2"), network.locators, ("", authority.grant()), strict=True
            ):
                requests = Requests(network.folder, load.zipf(scale.lookup_names), grant)
                await found.load(name, address, requests, warm_up=number == 0)
        rates, costs = [list(of.values()) for of in (found.rates, found.costs)]
        ratio = median(secure / plain for plain, secure in zip(*rates, strict=True))
        outcome.judge(
            "look-ups with TLS and grants, one process",
            f"≥ {LOOKUP_RATIO} × those of an open locator",
            f"{ratio:.2f} × ({median(rates[1]):,.0f} against {median(rates[0]):,.0f} requests/s)",
            ratio >= LOOKUP_RATIO and not found.failed,
        )
        cheaper = median(plain / secure for plain, secure in zip(*costs, strict=True))
        outcome.inform("look-ups with TLS and grants: the same ratio by CPU time a request", f"{cheaper:.2f} ×")
        return outcome


class SecurePushes:
    """Whole tables pushed cold, each peer over its own connection: with certificates and tags, and without."""

    name = "secure-pushes"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class. Raises LabError when tags do not prove what they should."""
        scale = session.scale
        layout = Layout(scale.secure_peers * scale.secure_files // COPIES, COPIES, scale.secure_peers)
        outcome = Outcome(
            self.name,
            f"{layout.peers} peers with {layout.files_a_peer:,} files each push at once, one registry; "
            f"{scale.rounds} rounds",
        )
        figures: list[tuple[list[float], list[float]]] = []
        for _ in range(scale.rounds):
            plain = await self._push(session, layout, outcome, secure=False)
            figures.append((plain, await self._push(session, layout, outcome, secure=True)))
        rate, cheaper = (median(plain[at] / secure[at] for plain, secure in figures) for at in (0, 1))
        rates = [layout.entries / median(each[at][0] for each in figures) for at in (0, 1)]
        outcome.judge(
            "file tables pushed with TLS and tags",
            f"≥ {PUSH_RATIO} × those of an open network",
            f"{rate:.2f} × ({rates[1]:,.0f} against {rates[0]:,.0f} entries/s)",
            rate >= PUSH_RATIO,
        )
        outcome.inform("file tables with TLS and tags: the same ratio by CPU time of the registry", f"{cheaper:.2f} ×")
        more = median((secure[2] - plain[2]) / layout.entries for plain, secure in figures)
        limit = f"≤ {MORE_ENTRY_BYTES} bytes an entry"
        outcome.judge("memory of Redis beyond an open network's", limit, f"{more:.1f} bytes", more <= MORE_ENTRY_BYTES)
        return outcome

    async def _push(self, session: Session, layout: Layout, outcome: Outcome, *, secure: bool) -> list[float]:
        """What it took, the registry's CPU time, bytes in the store."""
        async with session.network() as network:
            await network.start_store()
            flags, folders, key = (), {}, ""
            if secure:
                authority = await network.start_authority()
                peers = {peer: fixture.peer_id(peer) for peer in range(layout.peers)}
                await authority.admit(Role.PEER, list(peers.values()))
                flags = (f"--credentials={authority.credentials(Role.REGISTRY)}",)
                folders = {peer: authority.credentials(peer_id) for peer, peer_id in peers.items()}
                key = authority.publication_key
            await network.start_registry(*flags)
            before = await network.store.memory_bytes()
            worker = network.start_worker("pusher")
            await worker.run(prepare, layout, list(range(layout.peers)), key)
            meter = network.meter()
            found = await worker.run(push_alone, network.registries[0], folders)
            use = meter.read(f"pushes, {'secure' if secure else 'open'}")
            outcome.uses.append(use)
            await self._check(network, layout)
            return [found["seconds"], use.cpu_seconds("registry"), await network.store.memory_bytes() - before]

    async def _check(self, network: Network, layout: Layout) -> None:
        pushed = await network.metric("minga_registry_pushed_rows_total")
        unproven = await network.metric("minga_registry_unproven_rows_total")
        if pushed != layout.entries or unproven:
            raise LabError(f"{pushed:,.0f} of {layout.entries:,} rows came, {unproven:,.0f} of them unproven")


class Joins:
    """Peers that join by a token, one after the other: a key, a request, and a folder that the authority answers."""

    name = "joins"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        outcome = Outcome(self.name, f"{JOINS} peers join one after the other by one token")
        authority = BenchAuthority(session.directory / "joins")
        await authority.start()
        try:
            seconds = []
            for number in range(JOINS):
                started = time.perf_counter()
                await authority.admit(Role.PEER, [f"joiner-{number}"])
                seconds.append(time.perf_counter() - started)
        finally:
            await authority.stop()
        worst = max(seconds)
        measured = f"{worst:.3f} s at worst, {median(seconds):.3f} s in the middle"
        outcome.judge("joining by a token", f"≤ {JOIN_SECONDS:g} s", measured, worst <= JOIN_SECONDS)
        return outcome
