"""Counts of the repository: lines by area, sizes of files and functions, import edges. `make house`."""

import ast
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "minga",
    "minga_authority",
    "minga_cli",
    "minga_core",
    "minga_directory",
    "minga_engine",
    "minga_locator",
    "minga_peer",
    "minga_protos",
    "minga_registry",
    "minga_runtime",
)
GENERATED = ("_pb2.py", "_pb2_grpc.py")
AROUND = ("tests", "bench", "deploy", "demo")
"""What is not the product: the folders, and every folder `tests` of a package."""


def tracked(*endings: str) -> list[Path]:
    """The hand-written files that git tracks, by their endings; relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [Path(name) for name in listed if name.endswith(endings) and not name.endswith(GENERATED)]


def is_source(path: Path) -> bool:
    """Whether a file is a part of the product."""
    return "src" in path.parts


def area_of(path: Path) -> str:
    """The package or folder that a file counts to."""
    if is_source(path):
        return "/".join(path.parts[: path.parts.index("src")])
    if path.parts[0] not in AROUND:
        return "tests of packages"
    return "/".join(path.parts[: 1 if len(path.parts) == 2 else 2])


def line_count(path: Path) -> int:
    """Lines of a file."""
    return (ROOT / path).read_text().count("\n")


def function_lines(paths: Iterable[Path]) -> list[int]:
    """The length of every function, its decorators left out."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in paths
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def spread(values: Sequence[int]) -> str:
    """Median, 90th percentile and the largest."""
    return f"median {median(values):g}, 90th percentile {quantiles(values, n=10)[-1]:.0f}, largest {max(values)}"


def areas(paths: Iterable[Path]) -> dict[str, int]:
    """Lines by area."""
    found: dict[str, int] = {}
    for path in paths:
        found[area_of(path)] = found.get(area_of(path), 0) + line_count(path)
    return dict(sorted(found.items()))


def import_edges() -> tuple[dict[tuple[str, str], int], int]:
    """Imports between packages, counted by module; and how many modules lie on a cycle."""
    graph = grimp.build_graph(*PACKAGES)
    edges: dict[tuple[str, str], int] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = importer.split(".")[0], imported.split(".")[0]
            if pair[0] != pair[1]:
                edges[pair] = edges.get(pair, 0) + 1
    return edges, len(modules_on_cycles(graph))


def modules_on_cycles(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import themselves by way of others."""
    return sorted(
        module
        for module in graph.modules
        if any(
            graph.find_shortest_chain(imported, module) for imported in graph.find_modules_directly_imported_by(module)
        )
    )


def main() -> None:
    """Prints the counts."""
    python = tracked(".py")
    source = [path for path in python if is_source(path)]
    around = [path for path in python if not is_source(path) and (path.parts[0] in AROUND or "tests" in path.parts)]
    source_lines, around_lines = (sum(map(line_count, paths)) for paths in (source, around))
    print("lines of Python, by area")
    for title, paths in (("source", source), ("tests, benchmarks, deployment, demo", around)):
        print(f"  {title}: {sum(map(line_count, paths)):,}")
        for area, count in areas(paths).items():
            print(f"    {area:<24} {count:>6,}")
    print(f"lines of Lua: {sum(map(line_count, tracked('.lua'))):,}")
    print(f"tests, benchmarks, deployment and demo to source: {around_lines / source_lines:.2f}")
    print(f"files of source: {len(source)}; lines: {spread([line_count(path) for path in source])}")
    print(f"functions of source: {spread(function_lines(source))}")
    edges, cyclic = import_edges()
    print(f"import edges between packages: {len(edges)}; modules on a cycle: {cyclic}")
    for (importer, imported), count in sorted(edges.items()):
        print(f"    {importer:<16} -> {imported:<16} {count:>4}")


if __name__ == "__main__":
    main()
