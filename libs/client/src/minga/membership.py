"""Joining a secure network by a token (docs/adr/0036)."""

from minga_runtime.trust.credentials_folder import Joined
from minga_runtime.trust.joining import JoinToken, join

__all__ = ["JoinToken", "Joined", "join"]
