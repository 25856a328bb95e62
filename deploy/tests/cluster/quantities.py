"""Kubernetes' quantities: `512Mi`, `250m`, `1.5`."""

import re

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def bytes_of(text: str | float) -> float:
    """The number that a quantity means. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[kMGT]i?|Ki|)", str(text))
    if not found:
        raise ValueError(f"{text} is no quantity")
    return float(found[1]) / 1000 if found[2] == "m" else float(found[1]) * _UNITS[found[2]]


cores_of = bytes_of
