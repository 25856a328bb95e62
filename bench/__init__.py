"""The benchmark: Minga and its rivals on the same shaped hosts. `python -m bench.run --help`; see bench/README.md."""
