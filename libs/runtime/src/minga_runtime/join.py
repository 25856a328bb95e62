"""`python -m minga_runtime.join`: join a network where the `minga` command is not installed, as in images.

Does nothing where the folder has a certificate that is good for a while: an init container may run it at each start.
"""

import argparse
import asyncio
import socket
import sys
from pathlib import Path

from minga_core.errors import MingaError, SettingsError
from minga_runtime.process import exit_code_for, print_error
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, Joined
from minga_runtime.trust.joining import JoinToken, join
from minga_runtime.trust.members import Role
from minga_runtime.trust.renewal import renew_if_due
from minga_runtime.trust.tls_files import TlsFiles


def main() -> int:
    """Join by the token in a file; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m minga_runtime.join", description=__doc__)
    parser.add_argument("--token-file", type=Path, required=True, help="a file with a join token")
    parser.add_argument("--dir", type=Path, required=True, help="the credentials folder")
    parser.add_argument("--name", default="", help="who to be; the host's name unless the token says it")
    options = parser.parse_args()
    try:
        if not asyncio.run(_is_member(options.dir)):
            asyncio.run(_join(_token(options.token_file), options.dir, options.name))
    except MingaError as error:
        print_error(error)
        return exit_code_for(error)
    return 0


def _token(file: Path) -> JoinToken:
    """Raises SettingsError, InvalidArgumentError."""
    try:
        return JoinToken.parse(file.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {error}") from error


async def _join(token: JoinToken, folder: Path, name: str) -> None:
    """Raises MingaError."""
    joined = await join(token, folder, token.name or name or socket.gethostname())
    sys.stdout.write(f"joined as {joined.owner} of {joined.owner.network}: {folder}\n")


async def _is_member(folder: Path) -> bool:
    """Whether what is there is good, renewed if need be."""
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA)
    try:
        if Joined.read(folder) is None:
            return False
        await renew_if_due(folder, Credentials(files, frozenset(Role)))
    except MingaError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
