"""Moving contents between peers: the asyncio shell around the swarm, and the gRPC service."""
