"""The authority: its server, and the commands on its folder."""

import sys

from minga_authority.commands import run_command
from minga_core.errors import MingaError
from minga_runtime.process import exit_code_for, print_error


def main() -> int:
    """Run `minga-authority serve` until SIGTERM or Ctrl-C, or another of its commands; the exit code (see
    `minga_runtime.process.run_process`)."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["serve"]:
            from minga_authority.serving import run_server

            return run_server(arguments[1:])
        return run_command(arguments)
    except MingaError as error:
        print_error(error)
        return exit_code_for(error)


if __name__ == "__main__":
    sys.exit(main())
