"""File systems of other places behind `minga::`: they know what there is, and the network has the bytes."""

import asyncio
from collections.abc import Mapping
from typing import Any

import fsspec  # type: ignore[import-untyped]

from minga.origin_urls import OriginUrl, parse_origin
from minga_core.errors import InvalidArgumentError

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "http", "https": "https"}
_OF_READING = frozenset(
    (
        *("default_block_size", "block_size", "default_cache_type", "cache_type", "default_fill_cache"),
        *("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "version_aware", "project"),
    )
)
"""Options of theirs that say nothing of who asks, or for what."""


class Target:
    """The file system of `protocol`, with its own options, which say by which credentials files are fetched too."""

    def __init__(self, protocol: str, options: Mapping[str, Any], *, asynchronous: bool) -> None:
        if protocol not in _SCHEMES:
            raise InvalidArgumentError(f"minga:: fetches nothing from {protocol}", hint=f"from {', '.join(_SCHEMES)}")
        self._scheme = _SCHEMES[protocol]
        self._options = {name: value for name, value in options.items() if name not in _OF_READING}
        kind = fsspec.get_filesystem_class(protocol)
        self.fs = kind(**options, **({"asynchronous": asynchronous} if kind.async_impl else {}))

    def origin(self, path: str) -> OriginUrl:
        """The file at a path, as the client fetches it. Raises InvalidArgumentError."""
        found = parse_origin(path if "://" in path else f"{self._scheme}://{path}")
        if found is None:
            raise InvalidArgumentError(f"{path[:80]!r} is no file of {self._scheme}://")
        return OriginUrl(found.url, found.digest, options=self._options)

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What it answers to a method of fsspec's."""
        if self.fs.async_impl:
            return await getattr(self.fs, f"_{method}")(*arguments, **options)
        return await asyncio.to_thread(getattr(self.fs, method), *arguments, **options)
