"""A password of Redis in a file, as a secret is mounted: no process shows it in its environment."""

import asyncio
from pathlib import Path

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

MAX_BYTES = 4096


class PasswordFile(CredentialProvider):
    """User and password for each new connection. The file is read each time, so a password that is exchanged needs no
    restart. user: the default one when empty."""

    def __init__(self, user: str, path: Path) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What AUTH takes. Blocking. Raises AuthenticationError, which names the file."""
        try:
            with self._path.open(encoding="utf-8") as file:
                password = file.read(MAX_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthenticationError(f"password_file: {error}") from error
        if not password:
            raise AuthenticationError(f"password_file: {self._path} is empty")
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same, off the event loop."""
        return await asyncio.to_thread(self.get_credentials)
