"""Process glue: settings, logs, metrics endpoint, health, error mapping, signals."""

import os

# gRPC's C core writes lines of its own to standard error, past our logs, about what our errors tell anyway (a port that
# is taken, a server that stops). It reads this when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Its handlers for fork() start threads in the child, which abort it when descriptors are closed before exec: one in a
# hundred. None of ours goes on after a fork without an exec. It is read when gRPC is first imported: this comes first.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
