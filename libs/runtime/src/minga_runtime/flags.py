"""Command-line flags of a process, made from its settings: one `--name` for each."""

import argparse
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from minga_runtime.settings import KNOWN_VARIABLES, PREFIX, Settings


def parse_flags(
    cls: type[Settings],
    program: str,
    description: str,
    argv: Sequence[str] | None = None,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str | None]:
    """Parse the command line (`sys.argv` unless `argv`) into unchecked values for `load_settings`.

    aliases: a second spelling of a flag, by the setting's name.
    None stands for a flag that was not given. `--help` and unknown flags end the process, as argparse does it.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Each flag can be a variable instead, as shown.",
        allow_abbrev=False,
    )
    for name in cls.model_fields:
        variable = PREFIX + name.upper()
        text = KNOWN_VARIABLES.get(variable, "").replace("%", "%%")
        spellings = [f"--{name.replace('_', '-')}", *filter(None, [aliases.get(name)])]
        parser.add_argument(*spellings, metavar="X", help=f"{text} [{variable}]")
    return vars(parser.parse_args(argv))
