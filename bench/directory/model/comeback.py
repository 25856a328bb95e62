"""Everybody says everything anew: an emptied store, or peers that restart. Simulated in small steps.

Peers are counted, not followed: so many are in each state, in fractions where it comes to that, and none is lost. The
rules are those of the code:

- a peer notices at its next heartbeat (`Announcer`, the interval ± JITTER), registers and pushes without a pause;
- a registry takes `max_pushes` pushes at a time and refuses the next (`RegistryService._push_counted`); who is refused
  waits a part, by lot between half and all, of 0.2 s, then 0.4 s, up to 3 s, and tries again;
- a registry is one event loop: heartbeats on their streams and pushes under way go first, as new calls come in one by
  one; but calls that wait get CALLS_SHARE of the processor at least;
- all pushes under way go on equally fast, as fast as registries and the hottest primary allow; one that takes longer
  than PUSH_TIMEOUT is given up, and was for nothing. A call that waits longer than CALL_TIMEOUT was for nothing, too.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import floor

from bench.directory.model.costs import MEASURED, MICROS, UnitCosts
from bench.directory.model.deployment import Deployment
from bench.directory.model.steady import row_registry, row_store, rows_a_second
from minga_peer.daemon.announcer import FIRST_RETRY_SECONDS, JITTER, MAX_RETRY_SECONDS
from minga_peer.daemon.lease_stream import CALL_TIMEOUT
from minga_peer.daemon.registry import PUSH_TIMEOUT

LONGEST_STEP = 0.4
SHORTEST_STEP = 0.05
"""Seconds. In between, so short that a registry's places for pushes do not all change hands within one."""
MOST = 0.99
"""Of the peers: then it counts as over."""
CALLS_SHARE = 0.25
"""Taken. From 0.1 to 0.4 the model fits the runs of `validation` alike."""
NEARLY = 1e-9


class Call(Enum):
    """What a peer asks for."""

    REGISTER = "register"
    PUSH = "push"


@dataclass(slots=True)
class _Pushes:
    """Peers that were let in at the same time."""

    until: float
    """Rows that each push has got, of those let in at the very beginning, when these are done."""
    since: float
    peers: float


@dataclass(slots=True)
class Told:
    """What it was like."""

    seconds: float = float("inf")
    """Until MOST of the peers' tables were there; endless if that was not before the limit."""
    half_seconds: float = float("inf")
    rows_a_second: float = 0.0
    """At its most."""
    refused: float = 0.0
    """Pushes that were told to come again."""
    given_up: float = 0.0
    """Pushes that took too long."""
    late_calls: float = 0.0
    """Registrations that nobody waited for any more."""
    call_seconds: float = 0.0
    """The longest that a call waited for its turn."""
    registry_cpu_seconds: float = 0.0
    refused_cpu_seconds: float = 0.0
    """Of that: for saying no."""
    back: list[tuple[float, float]] = field(default_factory=list)
    """Share of the peers' tables that are there, by the second."""

    def share_at(self, seconds: float) -> float:
        """Of the tables: there by then."""
        return max((share for at, share in self.back if at <= seconds), default=0.0)


class Comeback:
    """One run. `states` says where the peers are; they are always as many as there were."""

    def __init__(
        self,
        deployment: Deployment,
        arrivals: Callable[[float], float],
        costs: UnitCosts = MEASURED,
        *,
        registry_cores: float | None = None,
        unlists: bool = False,
    ) -> None:
        """arrivals: the share of the peers that has noticed by a second. registry_cores: of all registries, one each
        unless given. unlists: with each row that is told, one of before is taken away."""
        self._it = deployment
        self._arrivals = arrivals
        self._costs = costs
        self._cores = float(deployment.registries if registry_cores is None else registry_cores)
        self._row_seconds = (row_registry(deployment, costs) + costs.unlist_registry * unlists) * MICROS
        row_micros = row_store(deployment, costs) + costs.unlist_store * unlists
        self._store_rows = rows_a_second(deployment, costs, row_micros)
        self._rows = max(1.0, float(deployment.files))
        turnover = self._rows * self._row_seconds * deployment.max_pushes
        self._step = max(SHORTEST_STEP, min(LONGEST_STEP, turnover / 4))
        self.peers = deployment.peers
        self.unaware = float(deployment.peers)
        self.done = 0.0
        self._now = 0.0
        self._steps = 0
        self._calls: deque[tuple[float, Call, int, float]] = deque()
        self._waiting = dict.fromkeys(Call, 0.0)
        """Peers in `_calls`, by what they ask for."""
        self._pauses: dict[int, dict[tuple[Call, int], float]] = {}
        self._pushes: deque[_Pushes] = deque()
        self.active = 0.0
        """Pushes under way."""
        self._rows_wanted = 0.0
        self._pushed_each = 0.0
        self.told = Told()

    @property
    def states(self) -> dict[str, float]:
        """How many peers are where."""
        return {
            "unaware": self.unaware,
            "calling": sum(self._waiting.values()),
            "pausing": sum(sum(pauses.values()) for pauses in self._pauses.values()),
            "pushing": sum(each.peers for each in self._pushes),
            "done": self.done,
        }

    def run(self, limit_seconds: float = 6 * 3_600) -> Told:
        """Until MOST is back, or the limit."""
        told, peers = self.told, self._it.peers
        while self._now < limit_seconds and self.done < MOST * peers:
            self.step()
            if self.done >= peers / 2:
                told.half_seconds = min(told.half_seconds, self._now)
            if not told.back or self._now >= told.back[-1][0] + 1:
                told.back.append((self._now, self.done / peers))
        if self.done >= MOST * peers:
            told.seconds = self._now
        return told

    def step(self) -> None:
        """One step of time."""
        self._notice()
        self._end_pauses()
        aware = self._it.peers - self.unaware
        budget = self._cores * self._step
        beats = min(budget, aware / self._it.interval_seconds * self._step * self._costs.beat_registry * MICROS)
        calls, pushes = self._turns(budget - beats)
        used = beats + self._answer(calls) + self._push(pushes)
        self.told.registry_cpu_seconds += used
        self._steps += 1
        self._now = self._steps * self._step

    def _notice(self) -> None:
        noticed = self._it.peers * min(1.0, self._arrivals(self._now + self._step))
        new = min(self.unaware, noticed - (self._it.peers - self.unaware))
        if new > NEARLY:
            self.unaware -= new
            self._call(Call.REGISTER, 0, new)

    def _end_pauses(self) -> None:
        for (call, stage), count in self._pauses.pop(self._steps, {}).items():
            self._call(call, stage, count)

    def _call(self, call: Call, stage: int, count: float) -> None:
        self._calls.append((self._now, call, stage, count))
        self._waiting[call] += count

    def _turns(self, left: float) -> tuple[float, float]:
        """Processor seconds for calls and for pushes."""
        oldest = self._now - self._calls[0][0] if self._calls else 0.0
        calls = sum(count * self._call_seconds(call, oldest) for call, count in self._waiting.items())
        rows = min(self._store_rows * self._step, self._rows_wanted)
        calls = min(calls, max(left - rows * self._row_seconds, left * CALLS_SHARE))
        return calls, left - calls

    def _call_seconds(self, call: Call, waited: float) -> float:
        costs = self._costs
        if call is Call.REGISTER and waited > CALL_TIMEOUT.total_seconds():
            return costs.late_call * MICROS
        if call is Call.REGISTER:
            return (costs.register_registry + costs.beat_registry) * MICROS
        return (costs.push_registry if self._free > 0 else costs.refused_push) * MICROS

    @property
    def _free(self) -> float:
        return max(0.0, self._it.registries * self._it.max_pushes - self.active)

    def _answer(self, budget: float) -> float:
        """Answers calls in the order in which they came; the processor seconds used."""
        left = budget
        while self._calls and left > NEARLY:
            since, call, stage, waiting = self._calls[0]
            each = self._call_seconds(call, self._now - since)
            count = min(waiting, left / each)
            if call is Call.PUSH and (free := self._free) > NEARLY:
                count = min(count, free)
            if count < waiting - NEARLY:
                self._calls[0] = (since, call, stage, waiting - count)
            else:
                count = waiting
                self._calls.popleft()
            self._waiting[call] -= count
            left -= count * each
            self._answered(since, call, stage, count, each)
        return budget - left

    def _answered(self, since: float, call: Call, stage: int, count: float, cost: float) -> None:
        waited = self._now - since
        self.told.call_seconds = max(self.told.call_seconds, waited)
        if call is Call.REGISTER:
            if waited > CALL_TIMEOUT.total_seconds():
                self.told.late_calls += count
                self._pause(call, stage, count)
            else:
                self._call(Call.PUSH, 0, count)
        elif self._free > NEARLY:
            self._pushes.append(_Pushes(self._pushed_each + self._rows, self._now, count))
            self.active += count
            self._rows_wanted += count * self._rows
        else:
            self.told.refused += count
            self.told.refused_cpu_seconds += count * cost
            self._pause(call, stage, count)

    def _pause(self, call: Call, stage: int, count: float) -> None:
        for at, share in spread(wait_seconds(stage), self._step):
            pauses = self._pauses.setdefault(self._steps + at, {})
            key = (call, min(stage + 1, 10))
            pauses[key] = pauses.get(key, 0.0) + count * share

    def _push(self, budget: float) -> float:
        """Takes rows; the processor seconds used."""
        if self.active <= NEARLY:
            return 0.0
        rows = min(budget / self._row_seconds, self._store_rows * self._step, self._rows_wanted)
        self.told.rows_a_second = max(self.told.rows_a_second, rows / self._step)
        self._pushed_each += rows / self.active
        self._rows_wanted -= rows
        while self._pushes and self._pushes[0].until <= self._pushed_each + NEARLY * self._rows:
            self.done += self._ended(self._pushes.popleft())
        while self._pushes and self._now - self._pushes[0].since > PUSH_TIMEOUT.total_seconds():
            late = self._ended(self._pushes.popleft())
            self.told.given_up += late
            self._pause(Call.PUSH, 0, late)
        return rows * self._row_seconds

    def _ended(self, pushes: _Pushes) -> float:
        """They leave their places; how many they are."""
        self.active = max(0.0, self.active - pushes.peers)
        self._rows_wanted = max(0.0, self._rows_wanted - (pushes.until - self._pushed_each) * pushes.peers)
        return pushes.peers


def wait_seconds(stage: int) -> float:
    """Before a try again, at most; at least half of that."""
    return float(min(FIRST_RETRY_SECONDS * 2**stage, MAX_RETRY_SECONDS))


def spread(wait: float, step: float) -> Iterator[tuple[int, float]]:
    """Steps from now, and the share of those who wait between half of `wait` and all of it that comes then."""
    first, last = wait / 2, wait
    for at in range(floor(first / step), floor(last / step) + 1):
        begins, ends = max(first, at * step), min(last, (at + 1) * step)
        if ends > begins:
            yield at + 1, (ends - begins) / (last - first)


def next_heartbeat(interval: float) -> Callable[[float], float]:
    """The share of peers that has beaten by a second, seen from any instant: intervals are even within ± JITTER."""
    least, most = interval * (1 - JITTER), interval * (1 + JITTER)

    def by(seconds: float) -> float:
        if seconds <= least:
            return seconds / interval
        late = min(seconds, most)
        return (late * most - late**2 / 2 - least**2 / 2) / (most - least) / interval

    return by


def emptied(deployment: Deployment, costs: UnitCosts = MEASURED, *, registry_cores: float | None = None) -> Comeback:
    """The store has just lost everything."""
    return Comeback(deployment, next_heartbeat(deployment.interval_seconds), costs, registry_cores=registry_cores)


def restarted(deployment: Deployment, over_seconds: float, costs: UnitCosts = MEASURED) -> Comeback:
    """All peers are restarted, evenly over a while; what each had said is taken away besides."""
    return Comeback(deployment, lambda seconds: seconds / over_seconds, costs, unlists=True)


def unknown_share(back: float, copies: int) -> float:
    """Of the contents: none of their holders has told yet, where that share of the peers, chance ones, has."""
    return (1 - back) ** copies
