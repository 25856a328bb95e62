"""Slow tests of what is deployed: each suite has a make target of its own, and is not part of `make test`."""
