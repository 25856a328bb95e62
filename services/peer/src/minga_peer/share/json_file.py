"""Small files of the state folder."""

import json
import os
from contextlib import suppress
from pathlib import Path


def replace_json(path: Path, document: object) -> None:
    """Replace the file in one step. Blocking. Raises OSError; then the file is as it was."""
    successor = path.with_suffix(".new")
    try:
        successor.write_text(json.dumps(document))
        os.replace(successor, path)
    except OSError:
        with suppress(OSError):
            successor.unlink()
        raise
