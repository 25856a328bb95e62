"""The peer: shares a folder, serves it, fetches into it, and keeps its lease."""

import minga_runtime  # noqa: F401 - what it sets for gRPC must be there before anything here imports gRPC
