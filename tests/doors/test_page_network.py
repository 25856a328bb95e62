"""The page over a network of whole processes: an upload that a reload breaks off, and a download as it goes."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from minga.control import ControlClient
from minga_cli.localnet import LocalPeer
from minga_core.names import parse_name
from tests.doors.networks import FILES, Doors, doors_beside
from tests.e2e.conftest import eventually

pytestmark = pytest.mark.e2e

MIB = 1 << 20
DATA = os.urandom(12 * MIB + 3)
LARGE = "data/large.bin"


def slow_down(page: Any, bytes_per_second: int) -> None:
    """Uploads of the page are no faster; -1 for no limit."""
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", limits)


async def placed(network: Doors, name: str) -> None:
    """Returns once a peer has the file."""

    async def found() -> bool:
        paths = [peer.share_dir / name for peer in (network.first, network.second)]
        return any(path.exists() and path.read_bytes() == DATA for path in paths)

    await eventually(found, f"{name} is placed, and has the right content")


def test_the_page_goes_on_with_an_upload_after_a_reload(chromium: Any, tmp_path: Path) -> None:
    """It says what was broken off; once the file is chosen again, only what is missing is sent."""
    file = tmp_path / "ünfinished.bin"
    file.write_bytes(DATA)
    offsets: list[int] = []

    def note(request: Any) -> None:
        if request.method == "PATCH":
            offsets.append(int(request.headers["upload-offset"]))

    with doors_beside(tmp_path) as network, chromium.new_context() as context:
        page = context.new_page()
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("request", note)
        page.add_init_script(f"localStorage.setItem('minga.gateway', '{network.url}')")
        page.goto(f"{network.net.locator_url}/#/files/data/")
        slow_down(page, 4 * MIB)
        with page.expect_file_chooser() as chooser:
            page.click("text=Upload")
        chooser.value.set_files(file)
        bar = page.locator("#uploads progress")
        bar.wait_for()
        while int(bar.get_attribute("value")) < 20:
            page.wait_for_timeout(50)
        page.reload()
        page.wait_for_selector("#uploads >> text=Broken off.")
        slow_down(page, -1)
        with page.expect_file_chooser() as chooser:
            page.click("text=Choose the file")
        chooser.value.set_files(file)
        page.wait_for_selector("#uploads >> text=Uploaded")
        network.run(placed(network, "data/ünfinished.bin"))
        assert offsets[0] == 0
        assert len(DATA) // 10 < offsets[-1] < len(DATA)
        page.reload()
        page.wait_for_selector("table.list a")
        assert not page.locator("#uploads").is_visible()


async def fetch(peer: LocalPeer, name: str) -> None:
    """A download of that peer's daemon."""
    async with ControlClient(peer.control) as control, aclosing(control.download(parse_name(name))) as steps:
        async for _ in steps:
            pass


def test_the_page_shows_a_download_as_it_goes(chromium: Any, tmp_path: Path) -> None:
    """Of a peer that fetches a file from another one: what it has, how fast, how long it takes, and who has some of it.
    What is shown is what its gateway says, which the page finds by itself: it is on another machine, as it were."""
    flags = ("--gateway", "0.0.0.0:0", "--open", "1", "--limit-down", "2MB/s")
    with doors_beside(tmp_path, peer_flags=flags) as network, chromium.new_context() as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.add_init_script("localStorage.setItem('minga.gateway', 'http://127.0.0.1:9')")
        page.goto(f"{network.net.locator_url}/#/transfers")
        page.wait_for_selector("text=Nothing is being fetched. 2 gateways asked.")
        download = asyncio.run_coroutine_threadsafe(fetch(network.second, LARGE), network.loop)
        page.wait_for_selector("text=1 download under way.")
        seen = []
        while len(seen) < 3:
            (transfer,) = httpx.get(f"{network.url}/transfers").json()["transfers"]
            assert (transfer["name"], transfer["size_bytes"]) == (LARGE, len(FILES[LARGE]))
            assert 0 <= transfer["held_bytes"] < transfer["size_bytes"]
            if transfer["rate_bytes_per_second"] and transfer["held_bytes"] not in seen:
                assert transfer["active_source_count"] == 1
                assert transfer["rate_bytes_per_second"] < 8e6
                seen.append(transfer["held_bytes"])
            page.wait_for_timeout(100)
        assert seen == sorted(seen)
        page.wait_for_selector("text=/^[0-9.]+ MiB of 24.0 MiB · [0-9.]+ [KM]iB.s from 1 source · [0-9]+ s left$/")
        assert page.locator(".transfers >> xpath=..").get_attribute("aria-label") == "peer-2"
        page.click(f"text={LARGE}")
        page.wait_for_selector("text=1 of 2 peers has all of it, 1 more some of it.")
        download.result(60)
        page.wait_for_selector("text=2 of 2 peers have all of it.")
        page.click("nav >> text=Transfers")
        page.wait_for_selector("text=Nothing is being fetched.")
        assert httpx.get(f"{network.url}/transfers").json() == {"transfers": []}
