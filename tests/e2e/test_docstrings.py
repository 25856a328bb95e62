"""The examples in docstrings: every public thing of `import minga` has one, and each is true of a running network."""

import ast
import asyncio
import doctest
import inspect
import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, NewType

import pytest

import minga
from minga.filesystem import MingaFileSystem
from tests.e2e.conftest import Story, running

pytestmark = pytest.mark.e2e

FILES = {"models/model.bin": b"multiplication", "models/small/model.bin": b"addition"}
KNOWN = {name: value for value in (minga, os, Path, PurePosixPath, timedelta) for name in [value.__name__]}


def public_methods(kind: type) -> Iterator[tuple[str, Any]]:
    return ((f"{kind.__name__}.{name}", getattr(kind, name)) for name in dir(kind) if name[0] != "_")


def public_things() -> dict[str, Any]:
    """All that can have a docstring, but AsyncClient."""
    things = {name: getattr(minga, name) for name in minga.__all__ if name != "AsyncClient"}
    things = {name: value for name, value in things.items() if not isinstance(value, (str, NewType))}
    return things | dict(public_methods(minga.Client)) | {"MingaFileSystem": MingaFileSystem}


def asynchronous_things() -> dict[str, Any]:
    return {"AsyncClient": minga.AsyncClient} | dict(public_methods(minga.AsyncClient))


def run(runner: asyncio.Runner, name: str, thing: Any, client: minga.Client | minga.AsyncClient) -> None:
    """Its examples print what they say."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "", name)
    assert examples, f"{name} has no example"
    names = KNOWN | {"client": client}
    for example in examples:
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = compile(example.source, name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if inspect.iscoroutine(waiting := eval(code, names)):
                runner.run(waiting)
        assert (name, example.source, printed.getvalue()) == (name, example.source, example.want)


def run_all() -> None:
    with asyncio.Runner() as runner:
        with minga.Client() as client:
            for name, thing in public_things().items():
                run(runner, name, thing, client)
        client = minga.AsyncClient()
        for name, thing in asynchronous_things().items():
            run(runner, name, thing, client)
        runner.run(client.aclose())


async def test_the_examples_of_docstrings_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a daemon whose network has two files."""
    async with running(tmp_path, 3) as story:
        await share_all(story)
        monkeypatch.setenv("MINGA_LOCATOR", story.net.locator_url)
        monkeypatch.setenv("MINGA_CONTROL", str(story.peers[1].control))
        here = tmp_path / "here"
        here.mkdir()
        (here / "model.bin").write_bytes(FILES["models/model.bin"])
        monkeypatch.chdir(here)
        await asyncio.to_thread(run_all)


async def share_all(story: Story) -> None:
    for name, data in FILES.items():
        await story.share(story.peers[0], name, data)
