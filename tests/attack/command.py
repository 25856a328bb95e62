"""The `minga` command as somebody runs it."""

import os
import subprocess
import sys
from pathlib import Path


def minga(
    *arguments: str, folder: Path, credentials: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command, run in a folder, without settings but these. credentials: those of the environment."""
    dropped = ("XDG_RUNTIME",) if credentials else ("XDG_RUNTIME", "MINGA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        [sys.executable, "-m", "minga_cli", *arguments],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
