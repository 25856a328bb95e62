"""`minga://` under fsspec's own tests for file systems, against a network of one peer: it holds all that is written,
and may remove it. And in a secure network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from minga_cli.localnet import LocalNetwork, LocalNetworkConfig

fsspec = pytest.importorskip("fsspec", reason="no fsspec: make doors installs it")
abstract = pytest.importorskip("fsspec.tests.abstract")
abstract_open = pytest.importorskip("fsspec.tests.abstract.open")
abstract_pipe = pytest.importorskip("fsspec.tests.abstract.pipe")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@contextmanager
def running(folder: Path, **options: bool) -> Iterator[LocalNetwork]:
    """A network of one peer, which is this machine's."""
    config = LocalNetworkConfig(peer_count=1, directory=folder, **options)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(LocalNetwork(config)) as network:
        portal.call(network.wait_ready)
        yield network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with running(tmp_path_factory.mktemp("net")) as network:
        yield network


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    @pytest.fixture
    def fs(self, network: LocalNetwork) -> Any:
        return fsspec.filesystem("minga", locator=network.locator_url, control=str(network.peers[0].control))

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        return tmp_path.name

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, _Fixtures):  # type: ignore[misc, name-defined]
    pass


class TestGet(abstract.AbstractGetTests, _Fixtures):  # type: ignore[misc, name-defined]
    pass


class TestPut(abstract.AbstractPutTests, _Fixtures):  # type: ignore[misc, name-defined]
    pass


class TestOpen(abstract_open.AbstractOpenTests, _Fixtures):  # type: ignore[misc, name-defined]
    pass


class TestPipe(abstract_pipe.AbstractPipeTests, _Fixtures):  # type: ignore[misc, name-defined]
    pass


@pytest.mark.parametrize("has_daemon", [True, False])
def test_a_secure_network_needs_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_daemon: bool) -> None:
    """From the environment, as the command; without them it is a PermissionError."""
    with running(tmp_path / "net", secure=True) as network:
        control = network.peers[0].control if has_daemon else tmp_path / "none.sock"
        options = {"locator": network.locator_url, "control": str(control), "skip_instance_cache": True}
        stranger = fsspec.filesystem("minga", **options)
        with pytest.raises(PermissionError):
            stranger.ls("d")
        with pytest.raises(PermissionError):
            stranger.pipe_file("d/1", b"abc")
        monkeypatch.setenv("MINGA_CREDENTIALS", str(network.command_credentials))
        member = fsspec.filesystem("minga", **options)
        member.pipe_file("d/1", b"abc")
        assert (member.cat_file("d/1", -2), member.ls("d", detail=False)) == (b"bc", ["d/1"])
        for fs in (stranger, member):
            fsspec.asyn.sync(fs.loop, fs.aclose)
