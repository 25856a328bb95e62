"""Process glue: settings, logs, metrics endpoint, health, error mapping, signals."""

import os

# gRPC's C core writes lines of its own to standard error, past our logs, about what our errors tell anyway (a port that
# is taken, a server that stops). It reads this when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
