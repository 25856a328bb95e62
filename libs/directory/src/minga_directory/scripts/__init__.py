"""The Lua scripts, by name. What each takes and returns stands at its top."""

from importlib.resources import files

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

NAMES = (
    "register",
    "heartbeat",
    "commit",
    "leave",
    "list_holder",
    "list_name",
    "unlist_holder",
    "unlist_name",
    "lease_over",
)


def load(client: Redis) -> dict[str, AsyncScript]:
    """Every script, ready to be called; sent again by itself when Redis has forgotten it."""
    here = files(__name__)
    return {name: client.register_script((here / f"{name}.lua").read_text()) for name in NAMES}
