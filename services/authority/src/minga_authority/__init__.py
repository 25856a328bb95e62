"""The authority of a secure network: it makes members by join tokens, renews their certificates, and revokes them
(docs/adr/0036)."""

from importlib.metadata import version

VERSION = version("minga-authority")
