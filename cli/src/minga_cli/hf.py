"""`minga hf fill`: a model into the cache of the Hugging Face hub's clients, through the swarm."""

import asyncio
import fnmatch
import hashlib
import os
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from minga.batching import all_of, in_turn
from minga.errors import (
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    MingaError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
)
from minga.origin_urls import OriginUrl
from minga.units import format_bytes
from minga_cli.context import QuietOption, run_look_up
from minga_cli.hub_cache import (
    RepositoryCache,
    TreeFile,
    check_commit,
    copy_shared,
    default_cache,
    home_of,
    parse_entry,
    parse_repository,
)
from minga_cli.output import be_quiet, counted, safe, say
from minga_cli.progress_bar import TransferBar

if TYPE_CHECKING:
    import httpx

    from minga import AsyncClient

AT_ONCE = 8
ATTEMPTS = 3
"""Of a file: one that was cut comes from the hub itself the next time."""
SILENCE_SECONDS = 60.0


class Action(StrEnum):
    """What to do."""

    FILL = "fill"


def hf(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(metavar="fill", help="What to do.")],
    repository: Annotated[
        str, typer.Argument(metavar="REPO[@REV]", help="As `org/name`, `datasets/org/name` or `org/name@v1.0`.")
    ],
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The cache. [HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface/hub]")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Only such files: *.json")] = None,
    quiet: QuietOption = False,
) -> None:
    """Get a model, data set or space into the cache of the hub's clients, which then run with HF_HUB_OFFLINE=1.

    The peer here asks its hub (MINGA_HUB) with your token (HF_TOKEN, or that of `hf auth login`), and takes large files
    from other peers. They take no second place on the disk where its file system shares blocks. docs/models.md is the
    guide.
    """
    name, revision = parse_repository(repository)
    be_quiet(wanted=quiet)
    place = RepositoryCache(cache or default_cache(os.environ), name)
    run_look_up(context, "hf", lambda client: _fill(client, name, revision, place, include or []))


async def _fill(
    client: "AsyncClient", name: str, revision: str, place: RepositoryCache, patterns: list[str]
) -> int | None:
    import httpx

    from minga.settings import gateway_socket

    if not await client.available():
        raise UnavailableError("there is no peer on this machine", hint="minga peer --share FOLDER")
    transport = httpx.AsyncHTTPTransport(uds=str(gateway_socket(client.settings.control)))
    timeout = httpx.Timeout(SILENCE_SECONDS)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=_token(), timeout=timeout
    ) as hub:
        filling = _Filling(client, hub, name, place)
        commit = await filling.commit(revision)
        listed = await filling.listed(commit)
        wanted = [file for file in listed if not patterns or any(fnmatch.fnmatch(file.path, each) for each in patterns)]
        if not wanted:
            raise InvalidArgumentError(f"{name} has no such files")
        await filling.fill(commit, wanted)
        await asyncio.to_thread(place.finish, revision, commit, listed)
    total = format_bytes(sum(file.size_bytes for file in wanted))
    say(f"{safe(name)} at {commit[:12]}: {counted(len(wanted), 'file')}, {total}, in {place.folder}")
    return None


class _Filling:
    """Gets one repository."""

    def __init__(self, client: "AsyncClient", hub: "httpx.AsyncClient", name: str, place: RepositoryCache) -> None:
        self._client = client
        self._hub = hub
        self._name = name
        kind, _, rest = name.partition("/")
        self._api = f"/hf/api/{name}" if kind in ("datasets", "spaces") and rest else f"/hf/api/models/{name}"
        self._place = place

    async def commit(self, revision: str) -> str:
        """What a revision stands for now."""
        quoted = revision.replace("/", "%2F")
        answer = await self._get(f"{self._api}/revision/{quoted}")
        return check_commit(answer.json().get("sha"))

    async def listed(self, commit: str) -> list[TreeFile]:
        """All files of a commit."""
        found: list[TreeFile] = []
        url = f"{self._api}/tree/{commit}?recursive=true&expand=false"
        while url:
            answer = await self._get(url)
            found += [parse_entry(entry) for entry in answer.json() if entry.get("type") == "file"]
            url = answer.links.get("next", {}).get("url", "")
        return found

    async def fill(self, commit: str, files: list[TreeFile]) -> None:
        """Have the cache show all of them. Raises what the first of them raises."""
        turns = asyncio.Semaphore(AT_ONCE)
        with TransferBar(self._name, len(files), sum(file.size_bytes for file in files)) as bar:

            async def one(file: TreeFile) -> None:
                async with turns:
                    if not await asyncio.to_thread(self._place.has, file):
                        await self._placed(commit, file, bar)
                    await asyncio.to_thread(self._place.link, commit, file)
                    bar.update(file.path, file.size_bytes, file.size_bytes)
                    bar.ended()

            await all_of((one(file) for file in in_turn(files, AT_ONCE)), "fill")

    async def _placed(self, commit: str, file: TreeFile, bar: TransferBar) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._place.placing(file) as path:
                    await self._write(commit, file, path, bar, through_swarm=attempt == 1 and bool(file.sha256))
                return
            except UnavailableError:
                if attempt == ATTEMPTS:
                    raise
            except OSError as error:
                raise StorageError(f"cannot write {file.path} to the cache: {error.strerror or error}") from error

    async def _write(self, commit: str, file: TreeFile, path: Path, bar: TransferBar, *, through_swarm: bool) -> None:
        """Get a file to a path. Raises UnavailableError, OSError."""
        if not (through_swarm and await self._copied(commit, file, path, bar)):
            await self._received(commit, file, path, bar)
        if not await asyncio.to_thread(_is_right, path, file):
            raise UnavailableError(f"{file.path} did not arrive as the hub lists it")

    async def _copied(self, commit: str, file: TreeFile, path: Path, bar: TransferBar) -> bool:
        """Whether the peer got a file, and it could be copied from there."""
        origin = OriginUrl(f"hf://{self._name}@{commit}/{file.path}", f"sha256:{file.sha256}")
        try:
            got = await self._client.get(
                origin, on_progress=lambda progress: bar.update(file.path, file.size_bytes, progress.held_bytes)
            )
        except MingaError:
            # The mirror of the hub has another way, or says why there is none.
            return False
        return got.path is not None and await asyncio.to_thread(copy_shared, got.path, path, file.size_bytes)

    async def _received(self, commit: str, file: TreeFile, path: Path, bar: TransferBar) -> None:
        """Get a file to a path from the mirror of the hub."""
        async with self._hub.stream("GET", self._url(commit, file)) as answer:
            await _check(answer)
            await _receive(answer, file, path, bar)

    def _url(self, commit: str, file: TreeFile) -> str:
        return f"/hf/{self._name}/resolve/{commit}/{quote(file.path)}"

    async def _get(self, url: str) -> "httpx.Response":
        import httpx

        try:
            answer = await self._hub.get(url)
        except httpx.HTTPError as error:
            raise UnavailableError(f"the peer here did not answer: {error}") from error
        await _check(answer)
        return answer


async def _receive(answer: "httpx.Response", file: TreeFile, path: Path, bar: TransferBar) -> None:
    """Write a body to a path. Raises UnavailableError, OSError."""
    import httpx

    received = 0
    with await asyncio.to_thread(open, path, "wb") as writing:
        try:
            async for piece in answer.aiter_raw():
                await asyncio.to_thread(writing.write, piece)
                received += len(piece)
                bar.update(file.path, file.size_bytes, received)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{file.path} was cut off after {format_bytes(received)}") from error


async def _check(answer: "httpx.Response") -> None:
    """Raises the error of an answer that is none."""
    if answer.status_code == 200:
        return
    await answer.aread()
    why = answer.headers.get("x-error-message") or f"the hub answers HTTP {answer.status_code}"
    if answer.status_code in (401, 403):
        raise PermissionDeniedError(safe(why), hint="is the name right? Gated and private ones need HF_TOKEN")
    if answer.status_code == 404:
        raise FileNotFoundInDirectoryError(safe(why))
    raise UnavailableError(safe(why))


def _is_right(path: Path, file: TreeFile) -> bool:
    """Whether it is what the hub lists: by its sha256, or by its id in git."""
    with path.open("rb") as reading:
        if file.sha256:
            return hashlib.file_digest(reading, "sha256").hexdigest() == file.sha256
        made = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
        made.update(reading.read())
        return made.hexdigest() == file.git_id


def _token() -> dict[str, str]:
    """As clients find it."""
    token = os.environ.get("HF_TOKEN", "")
    path = os.environ.get("HF_TOKEN_PATH") or home_of(os.environ) / "token"
    if not token:
        with suppress(OSError):
            token = Path(path).expanduser().read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}
