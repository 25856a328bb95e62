"""Sizes, rates and durations as people write and read them: `1.5 GiB`, `50 MB/s`, `3 min 20 s`.

>>> minga.units.format_bytes(1536), minga.units.parse_rate("400Mbit/s")
('1.5 KiB', 50000000)
"""

from minga_core.units import format_bytes, format_rate, format_seconds, parse_bytes, parse_rate

__all__ = ["format_bytes", "format_rate", "format_seconds", "parse_bytes", "parse_rate"]
