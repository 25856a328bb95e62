"""What holds in a child process that was forked: gRPC does not survive it once it has run in the parent."""

import os
from dataclasses import dataclass


@dataclass(slots=True)
class _Use:
    here: bool = False
    by_parent: bool = False


_grpc = _Use()


def before_grpc() -> None:
    """Note that gRPC is used from now on. Raises RuntimeError in a child whose parent had used it before the fork:
    calls would wait for threads that are not there."""
    if _grpc.by_parent:
        raise RuntimeError(
            "this process was forked after its parent had used gRPC, which does not survive that: make the first "
            "transfer after the fork, or start processes by 'spawn' (docs/python.md)"
        )
    _grpc.here = True


def grpc_is_lost() -> bool:
    """Whether `before_grpc` raises."""
    return _grpc.by_parent


def _in_child() -> None:
    _grpc.by_parent = _grpc.here or _grpc.by_parent


os.register_at_fork(after_in_child=_in_child)
