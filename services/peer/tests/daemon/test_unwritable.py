"""A daemon on a disk that is full, or that is mounted read-only: in a mount namespace of its own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from libs.engine.tests.parts.support import eventually
from minga_core.ids import ContentId
from minga_peer.daemon.main import running_daemon
from minga_peer.settings import PeerSettings
from minga_runtime.settings import load_settings

SETTINGS = {
    "registry": "nowhere.invalid:1",
    "locator": "http://nowhere.invalid:2",
    "listen": "0.0.0.0:0",
    "http_listen": "0.0.0.0:0",
    "open": "1",
    "settle": "0.01",
}
"""No name resolves: there is no network either."""
DATA = b"x" * 5000


def in_namespace(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; $SHARE and $STATE are folders."""
    (tmp_path / "share").mkdir()
    folders = {"SHARE": str(tmp_path / "share"), "STATE": str(tmp_path / "state")}
    environment = {**folders, "PATH": "/usr/sbin:/usr/bin:/bin"}
    command = ["unshare", "-Urm", "sh", "-ec", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def started(tmp_path: Path, script: str) -> dict[str, list[str]]:
    """The conditions, with their lines, of a daemon on a small file system, once it has served the file that is there.

    script: makes the file system unwritable; `daemon` in it starts one daemon, which ends by itself.
    """
    if in_namespace(tmp_path / "try", "mount -t tmpfs none $SHARE").returncode:
        pytest.skip("this user may not mount")
    run = f"daemon() {{ {sys.executable} -m services.peer.tests.daemon.test_unwritable $SHARE $@; }}"
    mounted = f"mount -t tmpfs -o size=512k none $SHARE; head -c {len(DATA)} /dev/zero | tr '\\0' x > $SHARE/a"
    done = in_namespace(tmp_path, f"{run}; {mounted}; {script}")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    (tmp_path / "try").mkdir()


FILL = "cat /dev/zero > $SHARE/zeros || true"
READ_ONLY = "mount -o remount,ro $SHARE"


@pytest.mark.parametrize("before", ["", "daemon; "], ids=["first start", "later start"])
def test_a_daemon_starts_on_a_full_disk(tmp_path: Path, before: str) -> None:
    """What is there is served, and what cannot be kept is a condition."""
    found = started(tmp_path, f"{before}{FILL}; daemon")
    assert {"no_space", "index", "registry_away"} <= set(found)
    assert any("lease" in line for line in found["index"])


@pytest.mark.parametrize("before", ["", "daemon; "], ids=["first start", "later start"])
def test_a_read_only_file_system_is_shared(tmp_path: Path, before: str) -> None:
    """Its index is in memory, with what it had when it was writable."""
    found = started(tmp_path, f"{before}{READ_ONLY}; daemon")
    assert {"read_only", "index", "registry_away"} == set(found)
    assert any("in memory" in line for line in found["index"])


def test_a_read_only_file_system_is_shared_with_its_state_elsewhere(tmp_path: Path) -> None:
    """Then nothing is lost at a restart; nothing can be stored, so that the state is elsewhere is no obstacle."""
    found = started(tmp_path, f"{READ_ONLY}; daemon --state $STATE")
    assert {"read_only", "registry_away"} == set(found)


def test_a_machine_without_a_network_has_a_daemon(tmp_path: Path) -> None:
    """It waits for the network, and says so."""
    found = started(tmp_path, "daemon")
    assert set(found) == {"registry_away"}
    assert "no address towards the registry nowhere.invalid:1" in found["registry_away"][0]


async def _serve(share: Path, state: Path | None) -> dict[str, list[str]]:
    settings = load_settings(PeerSettings, share_dir=share, state_dir=state, control=share.parent / "c", **SETTINGS)
    async with running_daemon(settings) as daemon:
        store = daemon.store
        await eventually(lambda: store.inventory.files.get("a") is not None, "the file is shared")
        content_id: ContentId = store.inventory.files["a"].content_id
        manifest = await store.manifest(content_id)
        assert manifest.size_bytes == len(DATA)
        async with store.open_chunk(content_id, 0) as chunk:
            assert chunk.read() == DATA
        await eventually(lambda: store.conditions.count("registry_away") > 0, "it has tried to register")
        return {each.kind.value: list(each.examples) for each in store.conditions.all()}


if __name__ == "__main__":
    shared, _, kept = sys.argv[1:] + [""] * (4 - len(sys.argv))
    print(json.dumps(asyncio.run(_serve(Path(shared), Path(kept) if kept else None))))  # noqa: T201
