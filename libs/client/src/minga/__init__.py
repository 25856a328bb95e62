"""The network for programs: find, fetch and put files."""

import minga_runtime  # noqa: F401 - what it sets for gRPC must be there before anything here imports gRPC
