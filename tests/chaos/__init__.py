"""A network under constant work and constant faults; see `run`."""
