"""What a caller may do. One without a grant is asked for one, which browsers and `curl -u` can give."""

from ipaddress import ip_address

from starlette.types import Scope

from minga_core.errors import PermissionDeniedError, Refusal, UnauthenticatedError
from minga_core.names import Name
from minga_runtime.trust.callers import OPEN, Caller
from minga_runtime.trust.rights import Prefixes
from minga_runtime.web.members import caller_of


def check_read(caller: Caller, name: Name) -> None:
    """Raises PermissionDeniedError, or UnauthenticatedError for one without a grant."""
    try:
        caller.rights.check_read(name)
    except PermissionDeniedError as error:
        raise _refusal(caller, error) from None


def check_publish(caller: Caller, name: Name) -> None:
    """As `check_read`."""
    try:
        caller.rights.check_publish(name)
    except PermissionDeniedError as error:
        raise _refusal(caller, error) from None


def readable(caller: Caller) -> Prefixes:
    """The names that a caller may read. Raises UnauthenticatedError for one without a grant that may read nothing."""
    read = caller.rights.read
    if not (read.everything or read.folders):
        raise _refusal(caller, PermissionDeniedError("may read nothing"))
    return read


def identity(scope: Scope, caller: Caller) -> str:
    """Who a caller is: a member, whom a grant names, or a host; empty for the owner of this peer."""
    return caller.subject if caller.member is None and caller.subject else caller_of(scope)


def metered(scope: Scope, caller: Caller) -> str | None:
    """Whom a quota counts the caller as. None for the owner of this peer, at the Unix socket, and for programs of this
    machine in an open network, which it does not count."""
    client = scope.get("client")
    if client is None or (caller is OPEN and ip_address(client[0].partition("%")[0]).is_loopback):
        return None
    return identity(scope, caller)


def _refusal(caller: Caller, error: PermissionDeniedError) -> PermissionDeniedError | UnauthenticatedError:
    if caller.subject:
        return error
    return UnauthenticatedError(
        f"without a grant: {error}",
        hint="send it as `Authorization: Bearer GRANT`, or as the password: `curl -u :GRANT`",
        refusal=Refusal.RIGHT_MISSING,
    )
