"""Transfers: the asyncio shell around the swarm's decisions."""
