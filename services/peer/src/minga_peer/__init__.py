"""The peer: the node daemon and the `minga` command."""

import minga_runtime  # noqa: F401 - what it sets for gRPC must be there before anything here imports gRPC
