"""Moving contents between machines: protocols, swarm decisions, part files and transfers."""

import minga_runtime  # noqa: F401 - what it sets for gRPC must be there before anything here imports gRPC
