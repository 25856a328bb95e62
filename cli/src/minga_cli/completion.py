"""What the shell offers for a NAME: names from the directory, asked for within two seconds.

A shell that waits or prints an error is worse than one that offers nothing, so every failure is silent.
"""

from contextlib import aclosing
from datetime import timedelta

import typer

LIMIT_SECONDS = 2.0
MAX_OFFERED = 100


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names and folders that begin with `incomplete`, a folder at a time; empty when the locator does not answer."""
    import asyncio

    try:
        return asyncio.run(_ask(context, incomplete))
    except Exception:  # noqa: BLE001 - a shell prints no errors while one types
        return []


def complete_remote(context: typer.Context, incomplete: str) -> list[str]:
    """As `complete_name`, for names after `minga:`; nothing before it, since a path may be meant."""
    before, found, name = incomplete.partition(":")
    if before != "minga" or not found:
        return []
    return [f"minga:{offered}" for offered in complete_name(context, name)]


async def _ask(context: typer.Context, incomplete: str) -> list[str]:
    import asyncio

    from minga import AsyncClient

    client = AsyncClient(locator=context.find_root().params.get("locator"), retry_budget=timedelta(0))
    names: list[str] = []
    async with asyncio.timeout(LIMIT_SECONDS), client, aclosing(client.ls(incomplete)) as files:
        async for file in files:
            names.append(file.name)
            if len(names) == MAX_OFFERED:
                break
    return step_by_folder(names, incomplete)


def step_by_folder(names: list[str], incomplete: str) -> list[str]:
    """`names` cut after the next `/`, each once: a shell goes down folder by folder."""
    ends = [(name, name.find("/", len(incomplete))) for name in names]
    return list(dict.fromkeys(name if end < 0 else name[: end + 1] for name, end in ends))
