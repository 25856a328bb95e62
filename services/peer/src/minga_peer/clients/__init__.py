"""Clients of the other parts: registry, locator, peers, and the local daemon."""
