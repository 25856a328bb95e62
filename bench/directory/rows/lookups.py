"""Look-ups and placements of one locator process against an empty handler."""

from bench.directory.results import RowOutcome
from bench.directory.rows.rates import Contest
from bench.directory.session import Session


class PopularLookups:
    """Names are asked for as they are in life: few of them again and again."""

    name = "lookups"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        outcome = RowOutcome(self.name, _setting(session) + " Zipf popularity (exponent 1).")
        requests = {"kind": "zipf", "of": {"names": scale.lookup_names}}
        async with session.network() as network:
            await network.start_store(await session.filled())
            contest = await Contest.ready(network)
            await contest.rates(outcome, scale, "look-ups", lambda round_: requests, 0.6)
            await contest.at_rate(outcome, scale, "look-ups", requests)
        return outcome


class DistinctLookups:
    """No cache helps: never the same name twice."""

    name = "distinct"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        outcome = RowOutcome(self.name, _setting(session) + " Never the same name twice.")
        # A part for each round, and one for the warming up.
        part = scale.lookup_names // (scale.rounds + 1)

        def requests(round_: int) -> dict[str, object]:
            return {"kind": "distinct", "of": {"names": scale.lookup_names, "start": round_ * part, "count": part}}

        async with session.network() as network:
            await network.start_store(await session.filled())
            contest = await Contest.ready(network)
            await contest.rates(outcome, scale, "look-ups, each name once", requests, 0.3)
        return outcome


class Placements:
    """Where may it be put?"""

    name = "placements"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        outcome = RowOutcome(self.name, _setting(session) + " 3 replicas; half of the names are new.")
        requests = {"kind": "placements", "of": {"names": scale.lookup_names}}
        async with session.network() as network:
            await network.start_store(await session.filled())
            contest = await Contest.ready(network)
            await contest.rates(outcome, scale, "placements", lambda round_: requests, 0.5)
        return outcome


def _setting(session: Session) -> str:
    scale = session.scale
    return (
        f"{scale.lookup_names:,} names with {scale.lookup_holders} holders each among {scale.lookup_peers:,} peers, "
        f"one locator; {scale.rounds} rounds of {scale.round_seconds:g} s each."
    )
