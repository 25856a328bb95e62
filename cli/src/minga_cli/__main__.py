"""The start of the `minga` command, `python -m minga_cli` too: what must be set before anything is imported."""

import gc
import sys
from types import SimpleNamespace
from typing import NoReturn

GC_THRESHOLD = 200_000
"""Allocations between collections, above what a cold command imports: with Python's 700 a seventh of its time goes into
collecting modules, with 50,000 a twentieth."""


def main() -> NoReturn:
    """Run the command line and end the process."""
    gc.set_threshold(GC_THRESHOLD)
    # Pydantic searches all packages for plugins of its own, which none of ours has: a twentieth of a cold `ls`, even
    # where the search is disabled, for what it imports.
    sys.modules["pydantic.plugin._loader"] = SimpleNamespace(get_plugins=tuple)  # type: ignore[assignment]
    # httpx imports its own command line, with rich and pygments, where those are installed: a fifth of a cold `ls`.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    from minga_cli.streams import open_streams

    open_streams()
    from minga_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
