"""The conformance suite over every program and topology: what the directory promises, it promises on all of them."""

import os
import subprocess
import sys

import pytest

from deploy.tests.redis.stores import KINDS, PROGRAMS, running

SUITE_SECONDS = 300.0
ONE_SERVER = ("test_collecting.py", "test_crashes.py", "test_interleaving.py", "test_recovery.py", "test_scale.py")
"""Use databases, or servers of their own, or bound the time of one server; they run on single servers alone."""
WITHOUT_KEYS = ("-m", "not asks_keys")
"""Without the tests that look at the keys themselves, which the directory never does."""


@pytest.mark.timeout(SUITE_SECONDS + 60)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_conformance_suite_passes(kind: str, program: str) -> None:
    """In a process of its own, against a store started here."""
    with running(kind, program) as store:
        ignored = [] if kind == "single" else [f"--ignore=tests/conformance/{name}" for name in ONE_SERVER]
        if kind == "cluster":
            ignored += WITHOUT_KEYS
        passed_over(store.url, store.admin_urls, *ignored)


def passed_over(url: str, admin_urls: list[str], *arguments: str, reader_url: str = "") -> None:
    """Runs the suite over a store; fails with the end of what it printed. reader_url: for the reader, if not `url`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/conformance", "-x", *arguments],
        env={
            **os.environ,
            "CONFORMANCE_URL": url,
            "CONFORMANCE_READER": reader_url,
            "CONFORMANCE_ADMIN": " ".join(admin_urls),
        },
        capture_output=True,
        text=True,
        timeout=SUITE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
