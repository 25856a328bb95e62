"""Everything that a call to Minga can raise: one class for each kind of failure, all of them `MingaError`.

`str(error)` is one sentence for people, `error.hint` says what to do (or is empty), `error.code` is its stable name,
and `error.retryable` says whether the same call may succeed later by itself.

>>> try:
...     client.stat("nothing")
... except minga.errors.FileNotFoundInDirectoryError as error:
...     print(error.code, error.retryable)
file_not_found False
"""

from minga_core.errors import *  # noqa: F403 - all of them
