"""Debian's podman with files of its own, and a peer as the mirror of one registry."""

import tempfile
from pathlib import Path
from types import TracebackType

from tests.origins.programs import run

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def policy_file(folder: Path) -> Path:
    """One that trusts all images."""
    path = folder / "policy.json"
    path.write_text(POLICY)
    return path


class Podman:
    """registry: as images are named. Its own state ends with the block."""

    def __init__(self, folder: Path, registry: str, gateway: str) -> None:
        self._registry = registry
        self._policy = policy_file(folder)
        self._config = folder / "registries.conf"
        self._config.write_text(_registries_conf(registry, gateway))
        self._root = folder / "podman"
        # Its own state must have a path of 50 characters at most.
        self._short = tempfile.TemporaryDirectory(prefix="minga-")

    def __enter__(self) -> "Podman":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._short.cleanup()

    async def pull(self, image: str, *options: str) -> str:
        """The id of an image, pulled; empty for none."""
        pull = ("pull", "-q", "--signature-policy", str(self._policy), *options, f"{self._registry}/{image}")
        await self._run(*pull)
        return (await self._run("images", "-q", f"{self._registry}/{image}")).strip()

    async def _run(self, *arguments: str) -> str:
        own = ("--root", str(self._root), "--runroot", self._short.name, "--storage-driver", "vfs")
        return await run("podman", *own, *arguments, environment={"CONTAINERS_REGISTRIES_CONF": str(self._config)})


def _registries_conf(registry: str, gateway: str) -> str:
    """podman's file as docs/images.md has it, with a peer as the mirror of a registry that has no TLS."""
    guide = (Path(__file__).parents[2] / "docs/images.md").read_text()
    text = guide.partition("```toml\n[[registry]]\n")[2].partition("```")[0]
    place = f"{gateway.removeprefix('http://')}/{registry.replace(':', '_')}"
    own = text.replace("127.0.0.1:50080/docker.io", place).replace("docker.io", registry)
    return f"[[registry]]\ninsecure = true\n{own}"
