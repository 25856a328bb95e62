"""The authority of a local network, and how everything on this machine joins by its tokens."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from minga.batching import all_of
from minga.errors import UnavailableError
from minga.membership import JoinToken, join
from minga_cli.localprocess import environment, module_command
from minga_cli.localservice import LocalService

COMMAND = "command"
"""The folder of the credentials of commands."""
COMMAND_SECONDS = 30.0


class LocalAuthority:
    """Its server, its folder, and a folder of credentials for each member."""

    def __init__(self, service: LocalService, folder: Path, members: Path) -> None:
        self.service = service
        self.folder = folder
        """Its secrets, for `minga ca --dir` and `minga token`."""
        self._members = members

    def credentials(self, name: str) -> Path:
        """For MINGA_CREDENTIALS of a part."""
        return self._members / name

    async def start(self, host: str, base_port: int = 0) -> None:
        """Make it unless it is there, start it, and make registry and locator members. Raises MingaError.

        base_port: of the registry, where it is known before: tokens that are made later name it."""
        if not await asyncio.to_thread(self.folder.exists):
            places = _places(host, base_port) if base_port else ()
            await _authority("init", "--dir", str(self.folder), "--network", "local", *places)
        await self.service.start()
        hosts = [f"--host={each}" for each in dict.fromkeys((host.strip("[]"), "localhost"))]
        await all_of((self._admit([name], "--role", name, *hosts) for name in ("registry", "locator")), "admit")

    async def admit_peers(self, registry: str, locator: str, peer_ids: Sequence[str]) -> None:
        """Make peers members, and commands of this user. All may read and publish everything. Raises MingaError."""
        rights = ("--publish", "*", "--registry", registry, "--locator", locator)
        await all_of(
            [
                self._admit(peer_ids, "--role", "peer", *rights),
                self._admit([COMMAND], "--role", "client", *rights),
            ],
            "admit",
        )

    async def _admit(self, names: Sequence[str], *terms: str) -> None:
        url = f"https://{self.service.address}"
        command = ("token", "create", "--dir", str(self.folder), "--url", url, "--uses", "0", "--expires", "10m")
        token = JoinToken.parse(await _authority(*command, *terms))
        await all_of((self._join(token, name) for name in names), "join")

    async def _join(self, token: JoinToken, name: str) -> None:
        await join(token, self.credentials(name), name)


def _places(host: str, base_port: int) -> tuple[str, ...]:
    return (
        f"--url=https://{host}:{base_port - 1}",
        f"--registry={host}:{base_port}",
        f"--locator=https://{host}:{base_port + 1}",
    )


async def _authority(*arguments: str) -> str:
    """What a command of the authority prints. Raises UnavailableError when it fails."""
    pipe = asyncio.subprocess.PIPE
    command = module_command("minga_authority", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment(inherit_settings=False)
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise UnavailableError("the authority's command did not end") from None
    if process.returncode != 0:
        raise UnavailableError(f"the authority: {errors.decode(errors='replace').strip()}")
    return output.decode().strip()
