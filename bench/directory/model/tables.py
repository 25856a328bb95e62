"""The tables of docs/scale.md, computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite

from bench.directory.model.comeback import Told, emptied, restarted, unknown_share
from bench.directory.model.costs import MEASURED, UnitCosts, table_rows
from bench.directory.model.departures import half_dies, registry_dies
from bench.directory.model.deployment import Deployment
from bench.directory.model.limits import RESTART_SECONDS, limits
from bench.directory.model.steady import Steady, steady, store_wait
from bench.directory.model.validation import CHECKS

SMALL = Deployment(1_000, 1_000, registries=2)
MIDDLE = Deployment(10_000, 10_000, registries=4, locators=4)
BILLION = Deployment(100_000, 10_000, registries=32, primaries=16, locators=32)
ARRANGED = replace(BILLION, dealt=True, connected_to=2, max_pushes=16)
SIZES = (
    ("1,000 × 1,000", SMALL),
    ("10,000 × 10,000", MIDDLE),
    ("100,000 × 10,000", BILLION),
    ("the same, arranged", ARRANGED),
)
LIMIT_SECONDS = 2 * 3_600.0


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def needs(costs: UnitCosts = MEASURED) -> str:
    """What each size takes on an ordinary day."""
    loads = [(it, steady(it, costs)) for _, it in SIZES]
    rows = [[what, *(tell(it, load) for it, load in loads)] for what, tell in _NEEDS]
    return markdown(["", *(name for name, _ in SIZES)], rows)


_NEEDS: tuple[tuple[str, Callable[[Deployment, Steady], str]], ...] = (
    ("entries · contents", lambda it, _: f"{count(it.entries)} · {count(it.contents)}"),
    ("registries: how many · cores in all", lambda it, on: f"{it.registries} · {on.registry_cores:.2f}"),
    ("each: memory · connections", lambda _, on: f"{memory(on.registry_bytes)} · {on.registry_connections:,}"),
    ("Redis: primaries · memory in all", lambda it, on: f"{it.primaries} · {memory(on.store_bytes)}"),
    ("Redis: cores in all · of the hottest primary", lambda _, on: f"{on.store_cores:.2f} · {on.hottest_cores:.2f}"),
    ("memory of the hottest primary", lambda _, on: memory(on.hottest_bytes)),
    ("slot `{all}`: cores", lambda _, on: f"{on.all_slot_cores:.3f}"),
    ("connections to a primary, at most", lambda _, on: f"{on.store_clients:,}"),
    ("heartbeats: a second · network", lambda it, on: f"{it.beats:,.0f} · {bits(on.beat_bits)}"),
    ("registries to Redis: network", lambda _, on: bits(on.store_bits)),
    (
        "locators: look-ups a second · cores",
        lambda it, on: f"{it.peers * it.lookups_a_second:,.0f} · {on.locator_cores:.1f}",
    ),
    ("peer: memory", lambda _, on: memory(on.peer_bytes)),
)


def first_to_break(costs: UnitCosts = MEASURED) -> str:
    """In order."""
    rows = [[f"{round_down(limit.peers):,}", limit.what, limit.knob, limit.price] for limit in limits(costs)]
    return markdown(["peers", "what ends there", "knob", "what moving it costs"], rows)


@dataclass(frozen=True, slots=True)
class Variant:
    """Of the large deployment, when the store has lost everything."""

    name: str
    deployment: Deployment
    cheaper: bool = False
    """Rows cost a third."""


_DEALT = replace(BILLION, dealt=True)
_FEWER = replace(_DEALT, max_pushes=16)
_LONGER = replace(_FEWER, lease_seconds=60, interval_seconds=20)
VARIANTS = (
    Variant("10,000 peers, 4 registries, one Redis", MIDDLE),
    Variant("100,000 peers, 16 registries, 16 primaries", replace(BILLION, registries=16)),
    Variant("32 registries", BILLION),
    Variant("and shards dealt by hand", _DEALT),
    Variant("and `MINGA_MAX_PUSHES=16`", _FEWER),
    Variant("and `MINGA_LEASE_TTL=60`", _LONGER),
    Variant("and rows at a third of today's cost", _LONGER, cheaper=True),
)


@lru_cache(maxsize=32)
def told(variant: Variant, costs: UnitCosts = MEASURED) -> Told:
    """How a variant comes back."""
    return emptied(variant.deployment, _costs_of(variant, costs)).run(LIMIT_SECONDS)


def _costs_of(variant: Variant, costs: UnitCosts) -> UnitCosts:
    """A Cluster's rows at a third, where the variant has that."""
    if not variant.cheaper:
        return costs
    return replace(costs, row_registry_steps=costs.row_registry_steps / 3, row_store_steps=costs.row_store_steps / 3)


def comebacks(costs: UnitCosts = MEASURED) -> str:
    """After the store has lost everything."""
    rows = []
    for variant in VARIANTS:
        was = told(variant, costs)
        rows.append(
            [
                variant.name,
                minutes(was.half_seconds),
                minutes(was.seconds),
                f"{count(was.rows_a_second)}/s",
                count(was.refused),
                count(was.late_calls),
                f"{store_wait(variant.deployment, _costs_of(variant, costs)):.1f} s",
            ]
        )
    heads = (
        "",
        "half is back",
        "99 % are back",
        "rows, most",
        "pushes refused",
        "registrations too late",
        "wait for Redis",
    )
    return markdown(heads, rows)


def unknown(costs: UnitCosts = MEASURED) -> str:
    """Contents of which no holder has told yet, by when."""
    moments = (20, 60, 300, 600, 1_200)
    rows = []
    for variant in (VARIANTS[0], VARIANTS[2], VARIANTS[4], VARIANTS[6]):
        shares = [told(variant, costs).share_at(moment) for moment in moments]
        rows.append(
            [
                variant.name,
                *(f"{unknown_share(share, 10):.0%} · {unknown_share(share, 1):.0%}" for share in shares),
            ]
        )
    return markdown(["10 holders · one", *(minutes(moment) for moment in moments)], rows)


def departures(costs: UnitCosts = MEASURED) -> str:
    """A registry's death, half of the peers' deaths, all peers' restart."""
    rows: list[list[str]] = []
    found = [(it, registry_dies(it, costs), half_dies(it, costs)) for it in (SMALL, MIDDLE, ARRANGED)]
    rows.append(
        [
            "a registry dies: its heartbeats · those of the others afterwards",
            *(f"{one.before:.0%} · {one.peak:.0%} of a core" for _, one, _ in found),
        ]
    )
    rows.append(["streams opened anew", *(f"{one.opened_a_second:,.0f}/s" for _, one, _ in found)])
    rows.append(
        ["until the next one has nine tenths of its share", *(minutes(one.shared_seconds) for _, one, _ in found)]
    )
    rows.append(["half of the peers die: rows to unlist", *(count(dead.rows) for *_, dead in found)])
    rows.append(["no answer names them", *(f"{dead.unnamed_seconds:.0f} s" for *_, dead in found)])
    rows.append(
        [
            "nothing of theirs is left",
            *(f"{minutes(dead.seconds)} ({count(dead.rows_a_second)}/s)" for *_, dead in found),
        ]
    )
    rows.append(
        [
            f"peers updated one by one, {RESTART_SECONDS:.0f} s each",
            *(days(it.peers * RESTART_SECONDS) for it, *_ in found),
        ]
    )
    rows.append(
        [
            "all peers restarted within an hour: 99 % have told",
            *(minutes(restarted(it, 3_600.0, costs).run(LIMIT_SECONDS * 2).seconds) for it, *_ in found),
        ]
    )
    return markdown(["", "1,000 × 1,000", "10,000 × 10,000", "100,000 × 10,000, arranged"], rows)


def checks() -> str:
    """The model beside what was measured."""
    rows = []
    for check in CHECKS:
        modelled = check.modelled()
        off = modelled / check.measured - 1
        rows.append([check.what, f"{check.measured:g} {check.unit}", f"{modelled:.3g} {check.unit}", f"{off:+.0%}"])
    return markdown(["", "measured", "model", "off by"], rows)


def unit_costs(costs: UnitCosts = MEASURED) -> str:
    """What all of it stands on."""
    return markdown(["cost of", "is", "from"], table_rows(costs))


def hottest_contents(primaries: int) -> str:
    """Shards of contents on the hottest primary, and primaries without any, where slots are cut evenly."""
    layout = replace(BILLION, primaries=primaries).layout
    shards = [round(one.contents * 16) for one in layout]
    return f"{max(shards)} of 16 shards on one, none on {shards.count(0)}"


def count(value: float) -> str:
    """In three digits."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {name}"
    return f"{round_down(value):,}"


def round_down(value: float) -> int:
    """To two digits from a thousand on: more would claim too much."""
    digits = 10 ** max(0, len(str(int(value))) - 2) if value >= 1_000 else 1
    return int(value) // digits * digits


def memory(value: float) -> str:
    """Bytes in MB or GB."""
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def bits(value: float) -> str:
    """Bits a second."""
    return f"{value / 1e6:.3g} Mbit/s"


def minutes(seconds: float) -> str:
    """Seconds, or minutes from three on."""
    if not isfinite(seconds):
        return "never"
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def days(seconds: float) -> str:
    """Hours or days."""
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
