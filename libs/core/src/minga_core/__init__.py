"""Words and arithmetic of Minga. Imports nothing of ours, does no I/O."""
