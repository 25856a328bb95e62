"""The order in which many machines begin the same items."""

from minga_core.batching import in_turn

__all__ = ["in_turn"]
