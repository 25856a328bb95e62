"""Programs of others, as they are."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

RUN_SECONDS = 120


async def run(
    program: str,
    *arguments: str,
    code: int = 0,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = RUN_SECONDS,
) -> str:
    """What a program prints; skips the test where it is not installed. No proxy stands between it and the loopback."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: make origins-test installs it")
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *(program, *arguments),
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=inherited | dict(environment or {}),
    )
    try:
        async with asyncio.timeout(seconds):
            printed = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode == 0) == (code == 0), printed
    return printed
