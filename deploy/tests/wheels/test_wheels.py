"""The wheels of `make dist`, as somebody installs them: by pip, into an environment with nothing else in it."""

import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[3]
DIST = ROOT / "dist"
INSTALL_SECONDS = 600
RUN_SECONDS = 60

MODULES = {
    "": ({"minga"}, {"minga_cli", "minga_peer", "minga_locator", "fsspec", "typer"}),
    "cli": ({"minga", "minga_cli"}, {"minga_peer", "minga_locator"}),
    "fsspec": ({"minga", "fsspec"}, {"minga_cli", "minga_peer", "minga_locator"}),
    "peer": ({"minga", "minga_cli", "minga_peer"}, {"minga_locator", "minga_registry"}),
}
"""What each extra of `minga` brings, and what it does not."""
_FIND = "import sys\nfrom importlib.util import find_spec\nprint(*(name for name in sys.argv[1:] if find_spec(name)))"


def metadata_of(wheel: Path) -> dict[str, list[str]]:
    """Name, version and requirements of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(path).decode())
    return {key: headers.get_all(key, []) for key in ("Name", "Version", "Requires-Dist", "Provides-Extra")}


@pytest.fixture(scope="module")
def wheels() -> dict[str, dict[str, list[str]]]:
    """The metadata of every wheel, by its name."""
    found = [metadata_of(wheel) for wheel in DIST.glob("*.whl")]
    return {one["Name"][0]: one for one in found}


def test_every_package_has_a_wheel_and_versions_agree(wheels: dict[str, dict[str, list[str]]]) -> None:
    """A package that `make dist` does not know would be missed by those that need it."""
    projects = [path for where in ("*", "libs/*", "services/*") for path in ROOT.glob(f"{where}/pyproject.toml")]
    assert len(wheels) == len(projects)
    assert len({one["Version"][0] for one in wheels.values()}) == 1


def test_wheels_need_only_wheels_of_ours_that_are_there(wheels: dict[str, dict[str, list[str]]]) -> None:
    """None is looked for on an index, where anybody may take the name."""
    ours = {
        need.split(";")[0].split("[")[0].split("=")[0].split(">")[0].strip()
        for one in wheels.values()
        for need in one["Requires-Dist"]
        if need.startswith("minga")
    }
    assert ours <= wheels.keys()


def test_the_library_is_typed(wheels: dict[str, dict[str, list[str]]]) -> None:
    """Every package says so to type checkers."""
    for wheel in DIST.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            assert any(name.endswith("/py.typed") for name in archive.namelist()), wheel.name


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_brings_its_part(extra: str, tmp_path: Path) -> None:
    """And nothing of the others; the command runs where it is."""
    wanted, unwanted = MODULES[extra]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True, timeout=INSTALL_SECONDS)
    python = tmp_path / "bin" / "python"
    package = f"minga[{extra}]" if extra else "minga"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--find-links", str(DIST), package],
        check=True,
        timeout=INSTALL_SECONDS,
    )
    found = _run(python, "-c", _FIND, *wanted, *unwanted).split()
    assert set(found) == wanted
    ours = metadata_of(next(DIST.glob("minga_core-*.whl")))["Version"][0]
    assert _run(python, "-c", "from importlib.metadata import version; print(version('minga-core'))") == ours
    assert _run(python, "-c", "import minga; print(minga.Client.__name__)") == "Client"
    if "fsspec" in wanted:
        assert _run(python, "-c", "import fsspec; print(fsspec.filesystem('minga').protocol)") == "minga"
    command = python.with_name("minga")
    assert command.exists() == ("minga_cli" in wanted)
    if command.exists():
        version = _run(command, "--version")
        assert version == f"minga {ours}"
        assert (tmp_path / "share/man/man1/minga.1").read_text().count(f'"Minga {ours}"') == 1
    if "minga_peer" in wanted:
        assert "--share" in _run(command, "peer", "--help")


def _run(*command: object) -> str:
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=RUN_SECONDS, check=True)
    return ended.stdout.strip()
