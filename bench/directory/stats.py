"""Percentiles, and durations as people read them."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above (nearest rank); NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * len(ordered) * 1_000_000) // 1_000_000) - 1))]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, p50, p99, p99.9 and the greatest; empty of none."""
    if not values:
        return {"count": 0}
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {name: round(percentile(values, share), 6) for name, share in shares.items()}
    return {"count": len(values), **found, "max": round(max(values), 6)}


def millis(seconds: float) -> str:
    """As `12.3 ms`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:,.0f} ms"
