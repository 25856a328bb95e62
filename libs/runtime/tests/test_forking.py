"""Children of a process that has used gRPC."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, minga_runtime
print(os.environ["GRPC_ENABLE_FORK_SUPPORT"])
"""


@pytest.mark.parametrize(("set_before", "found"), [(None, "0"), ("1", "1")])
def test_grpcs_fork_handlers_are_off(set_before: str | None, found: str) -> None:
    """They aborted one or two of a hundred children that were forked to run a command. Whoever sets it decides."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    if set_before is not None:
        environment["GRPC_ENABLE_FORK_SUPPORT"] = set_before
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
