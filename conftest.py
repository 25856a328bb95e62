"""For all tests, before any of them imports gRPC."""

import minga_runtime  # noqa: F401 - it sets how gRPC behaves where tests fork
