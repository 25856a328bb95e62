"""A headless Chromium, where it is installed: `make doors` installs it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser of all tests of a module. They are not coroutines: Playwright's own loop runs beside them."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: make doors installs it")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: make doors installs it")
    with sync_api.sync_playwright() as playwright:
        # Root may not have Chromium's own sandbox; what it loads is ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
