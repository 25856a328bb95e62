"""Attacks on whole networks, secure and open. docs/security.md names the test of each. `make attack`.

An attack ends with nothing read, written, evicted, renamed or demoted that is not the attacker's own, and with a
refusal that is clear and quick.
"""
