"""promtool, with its words when it does not like what it is given."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Promtool:
    """The program."""

    binary: Path

    def check(self, *arguments: str | Path, stdin: str = "") -> str:
        """What it prints. Fails the test when it finds anything."""
        done = subprocess.run(
            [self.binary, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"promtool {' '.join(map(str, arguments))}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr
