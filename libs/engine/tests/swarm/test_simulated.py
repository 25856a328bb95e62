"""Swarms in virtual time: every download ends, nearly as soon as links allow, whatever some peers do."""

import pytest

from minga_engine.swarm.config import SwarmConfig

from .simulator import Link, SimPeer, Simulation

MIB = 1024 * 1024
FAST = Link(up=6.25e6, down=6.25e6)  # 50 Mbit/s each way


def swarm(
    downloaders: int, size_bytes: int = 16 * MIB, *, seed: int = 1, link: Link = FAST, validate: bool = False
) -> tuple[Simulation, SimPeer, list[SimPeer]]:
    """One seed and some downloaders that begin together."""
    simulation = Simulation(size_bytes, seed, validate=validate)
    source = simulation.add_seed("seed", link)
    return simulation, source, [simulation.add_downloader(f"peer{i}", link) for i in range(downloaders)]


def test_sixteen_downloaders_take_little_longer_than_the_bound() -> None:
    """64 MiB over equal links: the last one ends within 1.25 × the lower bound."""
    simulation, source, peers = swarm(16, 64 * MIB)
    simulation.run()
    assert not simulation.unfinished()
    assert simulation.ratio(source, peers) < 1.25


def test_sixty_peers_all_end() -> None:
    """60 downloaders of one seed: all end, and the seed has sent a small multiple of the file."""
    simulation, source, _ = swarm(60, 4 * MIB)
    simulation.run()
    assert not simulation.unfinished()
    assert sum(source.sent.values()) < 40 * simulation.geometry.chunk_count


def test_no_invariant_breaks_on_the_way() -> None:
    """Every scheduler is checked after every event."""
    simulation, _, _ = swarm(12, 8 * MIB, validate=True)
    simulation.run()
    assert not simulation.unfinished()


@pytest.mark.parametrize("behaviour", ["stalls", "corrupts", "busy"])
def test_a_source_that_misbehaves_stops_nobody(behaviour: str) -> None:
    """With an honest seed beside it everybody ends within twice the time."""
    honest, _, peers = swarm(6)
    honest.run()
    simulation, _, _ = swarm(6)
    simulation.add_seed("evil", FAST, behaviour)
    simulation.run()
    assert not simulation.unfinished()
    fair = max(peer.finished_at or 0 for peer in peers)
    assert max(peer.finished_at or 0 for peer in simulation.downloaders) < 2 * fair + 15


def test_the_seed_may_leave_once_every_chunk_has_left_it() -> None:
    """What is in the swarm stays in the swarm."""
    simulation, source, _ = swarm(8, 32 * MIB)

    def leave_when_all_are_out() -> None:
        out = set().union(*(set(peer.held) for peer in simulation.downloaders))
        if len(out) == simulation.geometry.chunk_count:
            simulation.kill_at(simulation.now, source)
        else:
            simulation.at(simulation.now + 0.1, leave_when_all_are_out)

    simulation.at(0.1, leave_when_all_are_out)
    simulation.run()
    assert not source.alive
    assert not simulation.unfinished()


def test_a_third_of_the_downloaders_may_die_half_way() -> None:
    """The others end."""
    simulation, _, peers = swarm(12, 32 * MIB)
    for peer in peers[:4]:
        simulation.kill_at(3.0, peer)
    simulation.run()
    assert not simulation.unfinished()
    assert all(peer.finished_at is not None for peer in peers[4:])


def test_a_download_without_sources_waits_and_goes_on() -> None:
    """The only source dies; another appears later."""
    simulation, source, (peer,) = swarm(1)
    simulation.kill_at(1.0, source)
    simulation.at(30.0, lambda: _appear(simulation))
    simulation.run(limit_seconds=200)
    assert peer.finished_at is not None
    assert peer.finished_at > 30.0


def _appear(simulation: Simulation) -> None:
    simulation.add_seed("second", FAST)


def test_slow_sources_do_not_slow_a_fast_taker() -> None:
    """One fast seed and nine slow ones: hardly slower than the fast one alone."""
    alone = Simulation(32 * MIB)
    alone.add_seed("fast", Link(25e6, 25e6))
    downloader = alone.add_downloader("downloader", Link(25e6, 25e6))
    alone.run()
    mixed = Simulation(32 * MIB)
    mixed.add_seed("fast", Link(25e6, 25e6))
    for number in range(9):
        mixed.add_seed(f"slow{number}", Link(0.3e6, 0.3e6))
    other = mixed.add_downloader("downloader", Link(25e6, 25e6))
    mixed.run()
    assert downloader.finished_at is not None
    assert other.finished_at is not None
    assert other.finished_at < 2 * downloader.finished_at + 2


def test_a_large_file_costs_little_to_schedule() -> None:
    """2,048 chunks from ten sources: the simulation itself ends within the test's time limit."""
    simulation = Simulation(32 * 1024 * MIB)
    for number in range(10):
        simulation.add_seed(f"seed{number}", Link(1e9, 1e9))
    peer = simulation.add_downloader("downloader", Link(10e9, 10e9))
    simulation.run()
    assert simulation.geometry.chunk_count == 2048
    assert peer.finished_at is not None


@pytest.mark.parametrize("size_bytes", [16 * MIB, 32 * MIB])
def test_a_swarm_of_readers_ends_nearly_as_soon_as_one_of_downloads(size_bytes: int) -> None:
    """All read from the first byte to the last, and begin together: within 1.15 × the time of downloads."""
    ahead = SwarmConfig().read_ahead_chunks
    ends: dict[int, float] = {}
    for reads_ahead in (0, ahead):
        simulation = Simulation(size_bytes, validate=bool(reads_ahead))
        simulation.add_seed("seed", FAST)
        peers = [simulation.add_downloader(f"peer{i}", FAST, reads_ahead=reads_ahead) for i in range(8)]
        simulation.run()
        assert not simulation.unfinished()
        ends[reads_ahead] = max(peer.finished_at or 0 for peer in peers)
    assert ends[ahead] < 1.15 * ends[0]


@pytest.mark.parametrize("size_bytes", [64 * MIB, 1024 * MIB])
def test_readers_of_what_a_peer_fetches_meanwhile_do_not_all_ask_it_for_the_same(size_bytes: int) -> None:
    """It sends little more than one copy, as to downloads: else the others wait for its uplink."""
    link = Link(12.5e6, 12.5e6)
    simulation = Simulation(size_bytes)
    fetcher = simulation.add_fetcher("fetcher", link, origin_rate=12.5e6)
    ahead = SwarmConfig().read_ahead_chunks
    for number in range(4):
        simulation.add_downloader(f"peer{number}", link, reads_ahead=ahead)
    simulation.run()
    assert not simulation.unfinished()
    assert fetcher.sent.total() < 1.4 * simulation.geometry.chunk_count
