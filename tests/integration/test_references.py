"""The references in docs/ are what the code says now."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from minga_cli.commands import _MODULES

DOCS = Path(__file__).parents[2] / "docs"
MANUAL = "../cli/man/minga.1"


def reference(name: str) -> str:
    """A reference as the code would write it."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.REFERENCES[name]()
    return text


@pytest.mark.parametrize("name", ["redis.md", "rest.md", "cli.md", "settings.md", "metrics.md", "map.md", MANUAL])
def test_a_reference_is_what_the_code_says(name: str) -> None:
    """After a change of keys, routes, commands, settings or measured costs: `make references`."""
    assert (DOCS / name).read_text() == reference(name)


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_the_manual_page_can_be_read() -> None:
    """Without a warning, with every command, and with hyphens that can be copied."""
    command = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=120n", str(DOCS / MANUAL)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert [name for name in _MODULES if not any(line.startswith(f"minga {name} [OPTIONS]") for line in lines)] == []
    assert "--limit-down RATE" in lines
    assert "minga peer --share ~/data --registry HOST:50051 --locator http://HOST:50052" in lines


def test_every_setting_of_every_part_is_documented() -> None:
    """No field without a line in KNOWN_VARIABLES."""
    from minga_authority.settings import AuthoritySettings
    from minga_locator.settings import LocatorSettings
    from minga_peer.settings import PeerSettings
    from minga_registry.settings import RegistrySettings
    from minga_runtime.settings import KNOWN_VARIABLES, PREFIX

    fields = {
        PREFIX + name.upper()
        for cls in (AuthoritySettings, RegistrySettings, LocatorSettings, PeerSettings)
        for name in cls.model_fields
    }
    assert fields == set(KNOWN_VARIABLES)


def test_no_module_lies_on_a_cycle() -> None:
    """A module that imports itself by way of others cannot be read, or tested, alone."""
    import grimp

    from docs.house import PACKAGES, modules_on_cycles

    assert modules_on_cycles(grimp.build_graph(*PACKAGES)) == []
