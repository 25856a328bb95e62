"""For all tests, before any of them imports gRPC."""

import os
import signal

from hypothesis import settings

import minga_runtime  # noqa: F401 - it sets how gRPC behaves where tests fork

# The same examples in each run of `make test`, other ones each time in `make fuzz`; a failure says how to repeat it.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", print_blob=True, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Tests that run in a shell's background, or under nohup, would have every process that they start ignore these too.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
