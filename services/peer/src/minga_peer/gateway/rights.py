"""What a caller may do. One without a grant is asked for one, which browsers and `curl -u` can give."""

from minga_core.errors import PermissionDeniedError, Refusal, UnauthenticatedError
from minga_core.names import Name
from minga_runtime.trust.callers import Caller
from minga_runtime.trust.rights import Prefixes


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


def _refusal(caller: Caller, error: PermissionDeniedError) -> PermissionDeniedError | UnauthenticatedError:
    if caller.subject:
        return error
    return UnauthenticatedError(
        f"without a grant: {error}",
        hint="send it as `Authorization: Bearer GRANT`, or as the password: `curl -u :GRANT`",
        refusal=Refusal.RIGHT_MISSING,
    )
