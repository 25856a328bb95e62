"""Sizes, rates and durations as text, in both directions."""

import math
import re
from fractions import Fraction

from minga_core.errors import InvalidArgumentError

_BYTE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _BYTE_UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
_BIT_UNITS = {"bit": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _BIT_UNITS |= {f"{_letter}bit": 1000**_power, f"{_letter}ibit": 1024**_power}
_AMOUNT = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", re.ASCII)
_PER_SECOND = re.compile(r"\s*/s\s*$", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Parse a size in bytes: `512`, `10k`, `1.5 GiB` (powers of 1,024), `50MB` (powers of 1,000).

    Raises InvalidArgumentError.
    """
    match = _AMOUNT.fullmatch(text)
    unit = _BYTE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InvalidArgumentError(f"{text!r} is not a size: a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    return _at_most_63_bits(text, int(Fraction(match[1]) * unit))


def parse_rate(text: str) -> int:
    """Parse a rate in bytes per second: `50MB/s`, `50MiB/s`, `400Mbit/s`, `64k`; `0` is 0, whatever its unit.

    Units of bytes are those of `parse_bytes`, bits are 8 to the byte; `/s` may be left out. `Mb/s`, which may mean
    bits or bytes, is refused. Raises InvalidArgumentError.
    """
    match = _AMOUNT.fullmatch(_PER_SECOND.sub("", text))
    unit = match[2] if match else ""
    eighths = _BIT_UNITS.get(unit.lower()) or 8 * _BYTE_UNITS.get(unit.lower(), 0)
    ambiguous = len(unit) == 2 and unit[1] == "b"
    if match is None or not eighths or ambiguous:
        hint = f" ({unit} may be bits or bytes)" if ambiguous else ""
        raise InvalidArgumentError(f"{text!r} is not a rate: write 50MB/s, 50MiB/s or 400Mbit/s{hint}")
    # Rounded up, so that no positive rate becomes 0, which stands for no limit.
    return _at_most_63_bits(text, math.ceil(Fraction(match[1]) * eighths / 8))


def _at_most_63_bits(text: str, count: int) -> int:
    if count >= 1 << 63:
        raise InvalidArgumentError(f"{text!r} is too large")
    return count


def format_rate(bytes_per_second: float) -> str:
    """Format a rate in powers of 1,024: `0 B/s`, `1.5 KiB/s`, `512 MiB/s`."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_bytes(size_bytes: float) -> str:
    """Format a size in powers of 1,024: `0 B`, `1.5 KiB`, `512 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5 or unit == "TiB":
            break
        value /= 1024
    digits = 0 if unit == "B" or value >= 99.95 or value == int(value) else 1
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """Format a duration: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
