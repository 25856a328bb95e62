"""Sizes, rates and durations as people write and read them: `1.5 GiB`, `50 MB/s`, `3 min 20 s`."""

from minga_core.units import format_bytes, format_rate, format_seconds, parse_bytes, parse_rate

__all__ = ["format_bytes", "format_rate", "format_seconds", "parse_bytes", "parse_rate"]
