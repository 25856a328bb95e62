"""Names in backticks, in documents and docstrings, are names that exist."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPAN = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"^[A-Za-z_][\w.]*(/[\w.*-]+)*/?(\(\))?$")
OURS = re.compile(r"[a-z]_[a-z]|[a-z][A-Z]|[a-z]/[a-z]{2}|^minga")
"""What looks like a name of ours: snake_case, CamelCase, a path."""
HISTORY = ("docs/adr/", "docs/map.md", "docs/metrics.md", "CHANGELOG.md")
"""They may name what is gone, or are generated from the code."""


def tracked() -> list[str]:
    """Every file that git tracks and is there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [name for name in listed if name and (ROOT / name).is_file()]


def docstrings(text: str) -> list[str]:
    """Docstrings, and strings that stand alone as those of constants do."""
    return [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def prose(name: str) -> list[str]:
    """The texts of a file that speak to people."""
    if name.endswith(".py"):
        return docstrings((ROOT / name).read_text())
    return [(ROOT / name).read_text()] if name.endswith(".md") else []


def words(names: list[str]) -> set[str]:
    """Every word of the code: identifiers, strings, keys; docstrings left out, so that nothing proves itself."""
    found: set[str] = set()
    for name in names:
        if not name.endswith(
            (".py", ".pyi", ".lua", ".proto", ".toml", ".yaml", ".yml", ".sh", ".in", ".lock", "Makefile", "file")
        ):
            continue
        text = (ROOT / name).read_text(errors="replace")
        if name.endswith(".py"):
            for each in docstrings(text):
                text = text.replace(each, "")
        found.update(re.findall(r"\w+", text))
    return found


def test_every_name_in_backticks_exists() -> None:
    """A rename that forgets a document or a docstring is found here."""
    names = tracked()
    known = words(names) | {part.removesuffix(Path(name).suffix) for name in names for part in Path(name).parts}
    paths = {
        "/".join(Path(name).parts[start:end])
        for name in names
        for start in range(len(Path(name).parts))
        for end in range(start + 1, len(Path(name).parts) + 1)
    }
    stale = []
    for name in names:
        if name.startswith(HISTORY):
            continue
        for span in (span for text in prose(name) for span in SPAN.findall(text)):
            if "::" in span:
                span = span.rpartition("::")[2]
            elif not NAME.match(span) or not OURS.search(span):
                continue
            spelt = span.removesuffix("()").rstrip("/")
            if spelt in paths or all(word in known for word in re.findall(r"\w+", spelt)):
                continue
            stale.append(f"{name}: {span}")
    assert not stale, "\n".join(stale)
