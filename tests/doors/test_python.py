"""The blocks of docs/python.md, each in a Python of its own, on a machine with a daemon and on one without."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.doors.networks import doors

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("has_daemon", [True, False])
async def test_the_examples_run(tmp_path: Path, has_daemon: bool) -> None:
    assert len(BLOCKS) >= 9
    async with doors(tmp_path) as network:
        control = network.second.control if has_daemon else tmp_path / "none.sock"
        environment = {**os.environ, "MINGA_LOCATOR": network.net.locator_url, "MINGA_CONTROL": str(control)}
        for block in BLOCKS:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", block),
                env=environment,
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(60):
                printed, _ = await process.communicate()
            assert process.returncode == 0, f"{block}\n{printed.decode(errors='replace')}"
        assert b"step,loss" in (network.first.share_dir / "results/run-1.csv").read_bytes()
