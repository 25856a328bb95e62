"""Many things at once, for the `minga` command."""

from minga_core.batching import in_turn
from minga_runtime.tasks import all_of

__all__ = ["all_of", "in_turn"]
