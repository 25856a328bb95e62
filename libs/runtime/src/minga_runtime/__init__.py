"""Process glue: settings, logs, metrics endpoint, health, error mapping, signals."""

import os

# gRPC's C core writes lines to standard error, past our logs, about failures that our errors report anyway (a port in
# use, a server that stops). It reads this variable when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Its handlers for fork() start threads in the child, which abort one child in a hundred when descriptors are closed
# before exec. No code of ours runs in a child without an exec. Read when gRPC is first imported, which this precedes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
