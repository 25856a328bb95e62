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
THEIRS = {"FileMetadataError", "RedisCluster", "from_pretrained", "hf_xet"}
"""Names of libraries that the code does not use itself."""
CODE = (".py", ".pyi", ".lua", ".proto", ".toml", ".yaml", ".yml", ".sh", ".in", ".lock", "Makefile", "file")


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
        for body in _bodies(ast.parse(text))
        for node in body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def _bodies(tree: ast.Module) -> list[list[ast.stmt]]:
    """The statements of a module, its classes and its functions, without a look into expressions."""
    bodies = [tree.body]
    for body in bodies:  # grows while it is walked
        bodies.extend(
            node.body for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )
    return bodies


def spoken_and_code(name: str) -> tuple[list[str], str]:
    """The texts of a file that are for people, and its code without them, so that nothing proves itself."""
    if not name.endswith((*CODE, ".md")):
        return [], ""
    text = (ROOT / name).read_text(errors="replace")
    if name.endswith(".md"):
        return [text], ""
    if not name.endswith(".py"):
        return [], text
    prose = docstrings(text)
    for each in prose:
        text = text.replace(each, "")
    return prose, text


def paths_of(names: list[str]) -> set[str]:
    """Every path that leads to a file or folder, from any folder above it."""
    return {
        "/".join(Path(name).parts[start:end])
        for name in names
        for start in range(len(Path(name).parts))
        for end in range(start + 1, len(Path(name).parts) + 1)
    }


def test_every_name_in_backticks_exists() -> None:
    """A rename that forgets a document or a docstring is found here."""
    names = tracked()
    texts = {name: spoken_and_code(name) for name in names}
    known = {part.removesuffix(Path(name).suffix) for name in names for part in Path(name).parts} | THEIRS
    for _, code in texts.values():
        known.update(re.findall(r"\w+", code))
    paths = paths_of(names)
    stale = []
    for name, (prose, _) in texts.items():
        if name.startswith(HISTORY):
            continue
        for span in (span for text in prose for span in SPAN.findall(text)):
            file, separator, test = span.rpartition("::") if "test_" in span else ("", "", span)
            if separator and file not in {"…", *paths}:
                stale.append(f"{name}: {span}")
            spelt = test.removesuffix("()").rstrip("/")
            if not separator and not (NAME.match(span) and OURS.search(span)):
                continue
            if spelt not in paths and not all(word in known for word in re.findall(r"\w+", spelt)):
                stale.append(f"{name}: {span}")
    assert not stale, "\n".join(stale)
