"""Peers in front of a hub of ours, and the real clients of hubs, each version in an environment of its own."""

import os
from dataclasses import dataclass
from pathlib import Path

from minga_cli.localnet import LocalPeer
from tests.origins.programs import run
from tests.support.alone import is_alone
from tests.support.hub import LARGE, StubHub

ENVIRONMENTS = Path(__file__).parents[2] / ".venv"
VERSIONS = sorted(lock.stem for lock in Path(__file__).parent.glob("hub_clients/*.lock"))
LIBRARIES = ("0.36", "2.4")
"""Those whose environments have transformers and datasets, too: the oldest and the newest."""
IMPORTS = "from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, snapshot_download, try_to_load_from_cache"
MIB = 1024 * 1024
MODEL = {
    "config.json": b'{"model_type": "bert", "xetHash": "mine"}',
    "empty.txt": b"",
    "sub folder/tokenizer.json": b"{}" * 10_000,
    "model-1.safetensors": os.urandom(9 * MIB + 1),
    "model-2.safetensors": os.urandom(LARGE),
}


@dataclass(slots=True)
class Hubs:
    """A network of two peers in front of a hub. urls: of their gateways. locator: its URL."""

    hub: StubHub
    urls: tuple[str, ...]
    peers: list[LocalPeer]
    locator: str
    asks_dns: bool = False
    """Set by a test whose clients ask for the address of a host that there is not."""


async def client(version: str, home: Path, url: str, *arguments: str, code: int = 0, **more: str) -> str:
    """What a program of a client's environment prints. Whatever it asks but the loopback fails at once."""
    # Otherwise the command asks PyPI for its newest version, and `datasets` counts each use at Amazon S3.
    environment = {"HF_HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    if not is_alone():
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environment |= {"HF_ENDPOINT": f"{url}/hf", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": "", **more}
    program = ENVIRONMENTS / f"hub-{version}" / "bin" / arguments[0]
    return await run(str(program), *arguments[1:], code=code, environment=environment)


async def python(version: str, home: Path, url: str, script: str, **more: str) -> str:
    """The last line that a script prints; as `client`."""
    printed = await client(version, home, url, "python", "-c", f"{IMPORTS}\n{script}", **more)
    return printed.strip().rpartition("\n")[2]
