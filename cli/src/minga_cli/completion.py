"""What the shell offers for a NAME: the catalogue, asked within a short limit. A shell that waits or sees an error is
worse than one that offers nothing, so every failure is silent."""

import asyncio

import typer

LIMIT_SECONDS = 1.0
MAX_OFFERED = 100


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names and folders that begin with `incomplete`, a folder at a time; empty when the locator does not answer."""
    try:
        return asyncio.run(_ask(context, incomplete))
    except Exception:  # noqa: BLE001 - see the module
        return []


async def _ask(context: typer.Context, incomplete: str) -> list[str]:
    from minga.settings import ClientSettings
    from minga_cli.context import make_locator
    from minga_runtime.settings import load_settings

    settings = load_settings(ClientSettings, locator=context.find_root().params.get("locator"))
    async with asyncio.timeout(LIMIT_SECONDS), make_locator(settings) as locator:
        page = await locator.list_files(prefix=incomplete, page_size=MAX_OFFERED)
    return step_by_folder([file.name for file in page.files], incomplete)


def step_by_folder(names: list[str], incomplete: str) -> list[str]:
    """`names` cut after the next `/`, each once: a shell steps down folder by folder."""
    begun = len(incomplete)
    ends = [(name, name.find("/", begun)) for name in names]
    return list(dict.fromkeys(name if end < 0 else name[: end + 1] for name, end in ends))
