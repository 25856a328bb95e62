"""The Lua scripts, by name. What each takes and returns stands at its top."""

from importlib.resources import files

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

NAMES = (
    "announce",
    "begin",
    "commit",
    "extend",
    "give_up",
    "gone_rows",
    "heartbeat",
    "lease_over",
    "leave",
    "list_holders",
    "list_names",
    "overdue",
    "register",
    "renew",
    "stage",
    "unlist_holders",
    "unlist_names",
)


def load(client: Redis) -> dict[str, AsyncScript]:
    """Every script, ready to be called; sent again by itself when Redis has forgotten it."""
    here = files(__name__)
    return {name: client.register_script((here / f"{name}.lua").read_text()) for name in NAMES}
