"""Fixtures of the runtime's tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No MINGA_ variables, and an empty working folder; the folder."""
    for name in list(os.environ):
        if name.startswith("MINGA_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
