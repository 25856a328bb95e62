"""Fetching ahead of time, as others ask: what an item is made of, and all of it into the cache of this peer."""
