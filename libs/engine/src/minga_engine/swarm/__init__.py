"""The swarm scheduler: pure decisions, no I/O."""
