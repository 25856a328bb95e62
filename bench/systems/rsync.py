"""An rsync daemon on the seed, one rsync on each other host. Checks a digest of the whole file at the end."""

from bench.content import place
from bench.netns import LabError
from bench.process import until
from bench.systems.lone_server import LoneServer

PORT = 8730
READY_SECONDS = 20.0
CONFIGURATION = """
use chroot = no
uid = root
gid = root
pid file = {folder}/rsyncd.pid
[files]
path = {root}
read only = yes
"""


class Rsync(LoneServer):
    """The daemon's own protocol: no ssh, nothing encrypted, nothing compressed (the content is random)."""

    name = "rsync"
    port = PORT
    commands = ("rsync",)

    async def start(self) -> None:
        seed = self.arena.seeds[0]
        folder = self.arena.folder(seed)
        root = folder / "files"
        root.mkdir()
        place(self.arena.content, root)
        address = self.lab.hosts[seed].address
        path = folder / "rsyncd.conf"
        path.write_text(CONFIGURATION.format(folder=folder, root=root))
        self._url = f"rsync://{address}:{PORT}/files/{self.arena.content.name}"
        words = ["rsync", "--daemon", "--no-detach", "--config", str(path), "--address", address, "--port", str(PORT)]
        process = self.spawn(seed, words)
        await until(self.answers, READY_SECONDS, "the rsync daemon answers", process)

    async def fetch(self, host: str) -> None:
        target = self.result(host)
        target.parent.mkdir(parents=True, exist_ok=True)
        # --whole-file: nothing to compare with. --inplace: no second name to rename from.
        words = ["rsync", "--recursive", "--whole-file", "--inplace", self._url, str(target.parent)]
        rsync = self.spawn(host, words)
        if code := await rsync.wait():
            raise LabError(f"rsync on {host} ended with code {code}: {rsync.tail()}")
