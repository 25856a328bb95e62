"""A network's authority for the secure half of a comparison: the product's own server, which members join for real."""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bench.process import HostProcess
from bench.product import AUTHORITY_FILE, Authority, JoinToken, Network, Role, Terms, init, join, module_command

READY_SECONDS = 30.0
LIFE = timedelta(hours=12)


class BenchAuthority:
    """Its folder, its server, and a credentials folder for each member. `start` once, then `stop`."""

    def __init__(self, folder: Path) -> None:
        """folder: on the disk; it is made, and its owner removes it."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._keys = init(folder / "keys", Network("bench", "https://127.0.0.1"), time.time())
        self._authority = Authority(self._keys, life=LIFE)

    async def start(self) -> None:
        """Returns once members can join. Raises LabError."""
        sign = self._folder / "port"
        words = ["serve", "--authority-dir", str(self._keys.path), "--listen", "127.0.0.1:0", "--port-file", str(sign)]
        self._process = HostProcess(module_command("minga_authority", *words), self._folder / "authority.log")
        await self._process.ready(sign, READY_SECONDS)
        self._network = Network("bench", f"https://{sign.read_text().strip()}")

    async def stop(self) -> None:
        """Ends the server; what it made is good for hours."""
        await self._process.stop()

    def credentials(self, name: str) -> Path:
        """The credentials folder of a member."""
        return self._folder / name

    async def admit(self, role: Role, names: Sequence[str], hosts: Sequence[str] = ()) -> None:
        """Makes members, which may read and publish everything. hosts: addresses of a registry or locator."""
        terms = Terms(role, "", tuple(hosts), ("*",), ("*",), 0)
        token = JoinToken.parse(self._authority.create_token(terms, LIFE, self._network))
        for name in names:
            await join(token, self.credentials(name), name)
            # Nobody renews: hosts of a lab do not reach this machine's own address.
            (self.credentials(name) / AUTHORITY_FILE).unlink()

    def grant(self) -> str:
        """A bearer's grant that reads everything."""
        return self._authority.grant("bench", ("*",), (), LIFE)

    @property
    def publication_key(self) -> str:
        """With which publications are signed."""
        return self._keys.keys().publication_key
