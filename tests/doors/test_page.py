"""The locator's web page in a real browser."""

import ast
import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.types import Receive, Scope, Send

from minga_core.errors import NoSpaceError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_locator.app import make_app
from minga_peer.gateway.transfers import Transfer
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.key_sources import KeySource
from minga_runtime.web.members import CLIENT
from services.locator.tests.test_rights import ISSUER, OWN, Connection
from tests.doors.browsing import (
    HOSTILE,
    MIB,
    SHARED,
    Gateway,
    filled_directory,
    gateway_for,
    many_files,
    page_and_gateway,
    serving,
)
from tests.doors.conftest import IMAGES
from tests.support.grants import write_keys
from tests.support.memory_directory import MemoryDirectory

VIEWS = {"files": "#/files/", "file": f"#/file/{SHARED}", "peers": "#/peers", "transfers": "#/transfers"}
DIRECTORY = filled_directory()
TRANSFER = Transfer(Name(SHARED), ContentId(bytes(32)), 824_180_736, 412_090_368, 103_022_592.0, 5)


class Visit:
    """A page of a browser with the user's gateway set, and what went wrong in it."""

    def __init__(self, page: Any, locator: str, url: str, gateway: Gateway) -> None:
        self.page, self.locator, self.url, self.gateway = page, locator, url, gateway
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.add_init_script(f"localStorage.setItem('minga.gateway', '{url}')")

    def open(self, view: str = "") -> Any:
        """The page at that view."""
        self.page.goto(f"{self.locator}/{view}")
        return self.page

    def asked(self, pattern: str) -> list[str]:
        """From now on, addresses that the page asks for and that have that pattern."""
        found: list[str] = []
        self.page.on("request", lambda request: found.append(request.url) if re.search(pattern, request.url) else None)
        return found


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[str, str, Gateway]]:
    with page_and_gateway(DIRECTORY) as made:
        yield made


@pytest.fixture
def visit(chromium: Any, network: tuple[str, str, Gateway]) -> Iterator[Visit]:
    with chromium.new_context(accept_downloads=True) as context:
        context.set_default_timeout(20_000)
        visit = Visit(context.new_page(), *network)
        yield visit
        assert visit.problems == []


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names(page: Any) -> list[str]:
    """Folders and files in the list."""
    return [text.strip() for text in page.locator("table.list a").all_inner_texts()]


def test_a_cold_load_is_small_and_asks_each_part_once(visit: Visit) -> None:
    """Everything that is loaded before the list is there; in how long is printed."""
    asked, sizes = visit.asked(""), []
    visit.page.on("response", lambda response: sizes.append(len(response.body())))
    page = visit.open()
    page.wait_for_selector("table.list a")
    page.wait_for_load_state("networkidle")
    scripts = [url for url in asked if url.endswith(".js")]
    assert len(scripts) == len(set(scripts)) > 1
    assert sum(sizes) < 200 * 1024
    assert all(url.startswith(visit.locator) for url in asked)
    assert page.locator("#health").inner_text() == "All is well: 8 peers, 20 files, 708 GiB free"


def test_the_scripts_may_make_no_markup_of_text(visit: Visit) -> None:
    """Should the page ever be changed so that it does, the browser refuses."""
    page = visit.open()
    refused = page.evaluate("""() => {
        try { document.body.innerHTML = "<b>x</b>"; return false; } catch { return true; }
    }""")
    assert refused
    assert [problem for problem in visit.problems if "TrustedHTML" not in problem] == []
    visit.problems.clear()


def test_hostile_names_are_text_everywhere(visit: Visit) -> None:
    page = visit.open("#/files/odd/")
    page.wait_for_selector("table.list a")
    assert len(names(page)) == len(HOSTILE)
    page.fill("#search", "pwned")
    page.wait_for_selector("mark")
    links = page.locator("table.list a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
    assert all(link.startswith("#/file/") for link in links)
    for name in HOSTILE:
        page = visit.open(f"#/file/{_in_address(f'odd/{name}')}")
        page.wait_for_selector("#download")
        shown = page.locator("h1").inner_text()
        assert shown.replace("‹U+202E›", "\u202e") == name.rpartition("/")[2]
        assert page.locator("#download").get_attribute("href").startswith(f"{visit.url}/files/odd/")
        assert page.evaluate("document.images.length + document.scripts.length") == 2
        assert page.evaluate("typeof pwned") == "undefined"


def _in_address(name: str) -> str:
    return quote(name, safe="/")


@pytest.mark.parametrize("name", HOSTILE)
def test_copied_lines_name_the_file_and_run_nothing_else(visit: Visit, tmp_path: Path, name: str) -> None:
    """A shell gives the program the very name, whatever characters it has; Python too."""
    page = visit.open(f"#/file/{_in_address(f'odd/{name}')}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lines = []
    for label in ("minga", "curl", "Python"):
        page.get_by_role("button", name=f"Copy the {label} line").click()
        lines.append(page.evaluate("navigator.clipboard.readText()"))
    program = tmp_path / "bin" / "minga"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    program.chmod(0o755)
    (program.parent / "curl").symlink_to(program)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    run = [
        subprocess.run(["sh", "-c", line], env=environment, cwd=tmp_path, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")[:-1]
        for line in lines[:2]
    ]
    assert run[0][-1] == f"odd/{name}"
    base = name.rpartition("/")[2]
    assert run[1][:2] == ["-f", "-o"]
    assert (tmp_path / run[1][2]) == tmp_path / base
    assert not run[1][2].startswith("-")
    assert run[1][3].startswith(f"{visit.url}/files/odd/")
    literals = [node.value for node in ast.walk(ast.parse(lines[2])) if isinstance(node, ast.Constant)]
    assert literals == [f"odd/{name}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_folders_and_files_by_keyboard_alone(visit: Visit) -> None:
    page = visit.open()
    page.wait_for_selector("table.list a")
    assert names(page)[:4] == ["backups/", "datasets/", "models/", "odd/"]
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=imagenet/")
    assert names(page) == ["imagenet/", "taxi/"]
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.click("text=train-0001.tar")
    assert page.locator("h1").inner_text() == "train-0001.tar"
    page.go_back()
    page.go_back()
    page.wait_for_selector("text=imagenet/")


def test_a_search_as_it_is_typed_shows_what_was_typed_last(visit: Visit) -> None:
    """An older question is broken off, whenever its answer comes."""
    page = visit.open()
    page.wait_for_selector("table.list a")
    asked, held = visit.asked("query="), []
    page.route("**/v1/files?*query=imagenet*", lambda route: held.append(route))
    page.locator("#search").press_sequentially("imagenet")
    page.wait_for_selector("main .status >> text=Searching")
    eventually(lambda: page.wait_for_timeout(20) is None and bool(held))
    page.fill("#search", "*.PARQUET")
    page.wait_for_selector("text=1 found")
    assert names(page) == ["datasets/taxi/2024-01.parquet"]
    for route in held:
        route.abort()
    page.wait_for_timeout(100)
    assert names(page) == ["datasets/taxi/2024-01.parquet"]
    assert len(asked) < len("imagenet") + 1
    page.reload()
    page.wait_for_selector("text=1 found")
    page.fill("#search", "no such file")
    page.wait_for_selector("text=Nothing found")


def test_long_lists_come_in_parts(chromium: Any, network: tuple[str, str, Gateway]) -> None:
    """Where a page of the catalogue has nothing although more follows, too."""
    with page_and_gateway(many_files(250)) as made, chromium.new_context() as context:
        visit = Visit(context.new_page(), *made)
        page = visit.open()
        page.wait_for_selector("table.list a")
        seen = set(names(page))
        assert len(seen) == 100
        page.click("text=Show more")
        page.wait_for_selector("table.list >> text=file-0199")
        assert len(names(page)) == 200
        page.click("text=Show more")
        page.wait_for_selector("table.list >> text=file-0249")
        assert not page.locator("text=Show more").is_visible()
        assert len(set(names(page))) == 250
        assert visit.problems == []


def test_a_file_shows_versions_holders_and_spread(visit: Visit) -> None:
    page = visit.open("#/file/README.txt")
    page.wait_for_selector("text=Versions")
    assert page.locator(".facts dd").first.inner_text() == "1.3 KiB"
    page.locator(".version").nth(1).click()
    page.wait_for_selector("text=If that peer goes, so does the file.")
    assert page.locator(".facts dd").first.inner_text() == "999 bytes"
    assert "/files/README.txt@b3:" in page.locator("#download").get_attribute("href")
    page = visit.open(f"#/file/{SHARED}")
    page.wait_for_selector("text=6 of 8 peers have all of it, 2 more some of it.")
    assert page.locator("text=some of it").count() == 3
    page = visit.open("#/file/no/such")
    page.wait_for_selector("text=Nobody shares this file now.")
    visit.problems.clear()


def test_a_download_goes_through_the_gateway(visit: Visit) -> None:
    visit.gateway.share("README.txt", b"the file")
    page = visit.open("#/file/README.txt")
    with page.expect_download() as download:
        page.click("#download")
    assert Path(download.value.path()).read_bytes() == b"the file"


def test_files_that_are_dropped_are_uploaded_to_the_folder_that_is_shown(visit: Visit) -> None:
    content, drop = "x" * (3 * MIB), """content => {
        const data = new DataTransfer();
        data.items.add(new File([content], "dropped ü.bin"));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""  # fmt: skip
    page = visit.open("#/files/datasets/")
    page.wait_for_selector("table.list a")
    page.evaluate(drop, content)
    page.wait_for_selector("#uploads >> text=Uploaded")
    assert visit.gateway.published["datasets/dropped ü.bin"] == content.encode()
    visit.gateway.served.uploader.failure = NoSpaceError("no living peer has room for it")
    page.evaluate(drop, content)
    page.wait_for_selector("#uploads >> text=no living peer has room for it")
    visit.gateway.served.uploader.failure = None
    assert any("507" in problem for problem in visit.problems)
    visit.problems.clear()


def choose(page: Any, file: Path) -> None:
    """Upload a file to the folder that is shown."""
    with page.expect_file_chooser() as chooser:
        page.click("text=Upload")
    chooser.value.set_files(file)


def test_an_upload_goes_on_after_a_lost_connection(visit: Visit, tmp_path: Path) -> None:
    """By itself, a moment later."""
    (tmp_path / "lost").write_bytes(b"x" * MIB)
    lost: list[str] = []

    def lose_once(route: Any) -> None:
        if route.request.method == "PATCH" and not lost:
            lost.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.page.route("**/uploads/*", lose_once)
    page = visit.open("#/files/datasets/")
    choose(page, tmp_path / "lost")
    page.wait_for_selector("#uploads >> text=Uploaded")
    assert visit.gateway.published["datasets/lost"] == b"x" * MIB
    assert len(lost) == 1
    assert all("ERR_CONNECTION_RESET" in problem for problem in visit.problems)
    visit.problems.clear()


def test_an_upload_that_is_cancelled_leaves_nothing(visit: Visit, tmp_path: Path) -> None:
    """Neither at the gateway, nor for the next load of the page."""
    (tmp_path / "cancelled").write_bytes(b"x" * MIB)
    before = visit.gateway.kept()
    held: list[Any] = []
    hold = lambda route: held.append(route) if route.request.method == "PATCH" else route.continue_()  # noqa: E731
    visit.page.route("**/uploads/*", hold)
    page = visit.open("#/files/datasets/")
    choose(page, tmp_path / "cancelled")
    eventually(lambda: page.wait_for_timeout(20) is None and bool(held))
    assert len(visit.gateway.kept()) == len(before) + 2
    page.get_by_role("button", name="Cancel").click()
    assert not page.locator("#uploads").is_visible()
    eventually(lambda: page.wait_for_timeout(20) is None and visit.gateway.kept() == before)
    page.reload()
    page.wait_for_selector("table.list a")
    assert not page.locator("#uploads").is_visible()
    assert "datasets/cancelled" not in visit.gateway.published


def test_files_that_are_chosen_are_uploaded(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "<b>chosen").write_bytes(b"chosen")
    page = visit.open("#/files/datasets/")
    choose(page, tmp_path / "<b>chosen")
    page.wait_for_selector("#uploads >> text=Uploaded")
    assert visit.gateway.published["datasets/<b>chosen"] == b"chosen"
    page.get_by_role("button", name="Dismiss").click()
    assert not page.locator("#uploads").is_visible()


def test_transfers_are_those_of_the_gateways(visit: Visit) -> None:
    visit.gateway.served.transfers = [TRANSFER]
    page = visit.open("#/transfers")
    page.wait_for_selector("text=1 download under way.")
    assert page.locator("progress").get_attribute("value") == "50"
    page.wait_for_selector("text=393 MiB of 786 MiB · 98.3 MiB/s from 5 sources · 4 s left")
    visit.gateway.served.transfers = []
    page.wait_for_selector("text=Nothing is being fetched.")


@pytest.mark.parametrize("view", VIEWS)
def test_at_most_one_poll_in_two_seconds_and_none_while_hidden(visit: Visit, view: str) -> None:
    page = visit.page
    page.clock.install()
    visit.open(VIEWS[view])
    page.wait_for_selector("main h1", state="attached")
    page.clock.run_for(1000)
    page.wait_for_timeout(300)
    asked = visit.asked("/v1/|/transfers|/health")
    for _ in range(30):
        page.clock.run_for(2000)
        page.wait_for_timeout(10)
    # A poll of one file or of all transfers may ask for the peers and their gateways as well, each ten seconds.
    polls = [url for url in asked if not re.search("page_size=1000|/health", url)]
    assert 4 <= len(polls) <= 30
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.clock.run_for(2000)
    page.wait_for_timeout(100)
    asked.clear()
    page.clock.run_for(600_000)
    page.wait_for_timeout(100)
    assert asked == []
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { value: false });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.clock.run_for(3000)
    eventually(lambda: page.wait_for_timeout(20) is None and bool(asked))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Any, network: tuple[str, str, Gateway], scheme: str) -> None:
    """In every view, in the dialog, and in the documentation of the API."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: make doors installs it").Axe()
    network[2].served.transfers = [TRANSFER]
    with chromium.new_context(color_scheme=scheme, reduced_motion="reduce") as context:
        visit = Visit(context.new_page(), *network)
        found = {}
        for view, address in [*VIEWS.items(), ("odd", "#/files/odd/"), ("found", "#/files/?q=a"), ("docs", "docs")]:
            page = visit.open(address)
            page.wait_for_selector("main h2, table.list a, main tr")
            found[view] = axe.run(page).response["violations"]
        page = visit.open()
        page.click("#open-settings")
        found["settings"] = axe.run(page).response["violations"]
    network[2].served.transfers = []
    assert {view: [each["id"] for each in violations] for view, violations in found.items() if violations} == {}


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_no_view_is_wider_than_the_window(visit: Visit, width: int) -> None:
    visit.gateway.served.transfers = [TRANSFER]
    visit.page.set_viewport_size({"width": width, "height": 800})
    for address in [*VIEWS.values(), "#/files/odd/", f"#/file/{_in_address('odd/' + HOSTILE[-1])}", "docs"]:
        page = visit.open(address)
        page.wait_for_selector("main h2, table.list a, main tr")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
    visit.gateway.served.transfers = []


def test_health_in_words(chromium: Any) -> None:
    directory = MemoryDirectory()
    with page_and_gateway(directory) as made, chromium.new_context() as context:
        visit = Visit(context.new_page(), *made)
        page = visit.open()
        page.wait_for_selector("#health >> text=No peer is connected")
        page.wait_for_selector("main >> text=There are no files yet.")
        directory.available = False
        page = visit.page
        page.reload()
        page.wait_for_selector("#health >> text=The directory does not answer")
        page.wait_for_selector("main >> text=The directory does not answer")


def test_a_secure_network_is_seen_with_a_grant(chromium: Any, tmp_path: Path) -> None:
    """It is kept for the tab alone, and sent to the locator and to the user's own gateway."""
    callers = Callers(OWN, (KeySource("", str(write_keys(tmp_path / "keys", ISSUER))),))
    made = make_app(DIRECTORY, member=OWN, callers=callers)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await made(scope | {CLIENT: Connection(None)}, receive, send)

    grant = ISSUER.grant("alice", read=("datasets",))
    with (
        serving(app) as locator,
        gateway_for(locator) as (url, gateway),
        gateway_for(locator) as (other_url, other),
        chromium.new_context() as context,
    ):
        visit = Visit(context.new_page(), locator, url, gateway)
        visit.page.route("**/v1/peers?*", lambda route: _with_gateway(route, other_url))
        page = visit.open()
        page.wait_for_selector("dialog >> text=This network is secure.")
        page.fill("#grant", f" {grant[:40]}\n{grant[40:]} ")
        page.click("text=Save")
        page.wait_for_selector("table.list a")
        assert names(page) == ["datasets/"]
        page = visit.open("#/transfers")
        page.wait_for_selector("text=2 gateways asked")
        assert (gateway.grants, other.grants) == ({f"Bearer {grant}"}, {None})
        assert page.evaluate("JSON.stringify(localStorage)").find(grant[:20]) == -1
        page.click("#open-settings")
        page.click("text=Sign out")
        page.wait_for_selector("#health >> text=Sign in")
        assert page.evaluate("sessionStorage.length") == 0


def _with_gateway(route: Any, url: str) -> None:
    answer = route.fetch()
    peers = answer.json()
    if "peers" in peers:
        peers["peers"][0]["gateway_url"] = url
        peers["peers"][1]["gateway_url"] = "javascript:pwned=1"
    route.fulfill(response=answer, json=peers)


def test_a_gateway_is_a_link_when_it_is_http(visit: Visit) -> None:
    visit.page.route("**/v1/peers?*", lambda route: _with_gateway(route, "http://node-01:50080/x"))
    page = visit.open("#/peers")
    page.wait_for_selector("table.list a")
    assert page.locator("table.list a").evaluate_all("all => all.map((each) => each.href)") == [
        "http://node-01:50080/files/"
    ]


def test_a_setting_that_is_no_address_is_refused(visit: Visit) -> None:
    page = visit.open()
    page.click("#open-settings")
    for text in ("javascript:pwned=1", "file:///etc/passwd", "node"):
        page.fill("#gateway", text)
        page.click("text=Save")
        assert page.locator("#settings").is_visible()
    page.fill("#gateway", "http://10.0.0.1:50080/path")
    page.click("text=Save")
    assert page.evaluate("localStorage.getItem('minga.gateway')") == "http://10.0.0.1:50080"
    visit.problems.clear()


def test_pictures(chromium: Any, network: tuple[str, str, Gateway], tmp_path: Path) -> None:
    """For the documentation where MINGA_PICTURES is set; elsewhere they show that each view can be drawn."""
    folder = IMAGES if os.environ.get("MINGA_PICTURES") else tmp_path
    network[2].served.transfers = [TRANSFER]
    sizes = {"": (1100, 680), "-phone": (390, 780)}
    for (view, address), (kind, (width, height)) in itertools.product(VIEWS.items(), sizes.items()):
        scheme = "dark" if view in ("peers", "transfers") else "light"
        with chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
            page = Visit(context.new_page(), *network).open(address)
            page.wait_for_selector("main h2, table.list a, main tr")
            page.wait_for_selector("#health[data-state=good]")
            page.screenshot(path=folder / f"page-{view}{kind}.png", animations="disabled")
    assert len(list(folder.glob("page-*.png"))) == 2 * len(VIEWS)
