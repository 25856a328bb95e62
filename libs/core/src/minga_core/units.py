"""Sizes and durations as people write them."""

import re

from minga_core.errors import InvalidArgumentError

_BYTE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _BYTE_UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """Bytes that `text` says: `512`, `10k`, `1.5 GiB` (powers of 1,024), `50MB` (powers of 1,000).

    Raises InvalidArgumentError.
    """
    match = _AMOUNT.fullmatch(text)
    unit = _BYTE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InvalidArgumentError(f"{text!r} is not a size: a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    return int(float(match[1]) * unit)


def format_bytes(size_bytes: float) -> str:
    """A size for people in powers of 1,024: `0 B`, `1.5 KiB`, `512 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5 or unit == "TiB":
            break
        value /= 1024
    digits = 0 if unit == "B" or value >= 99.95 or value == int(value) else 1
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
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
