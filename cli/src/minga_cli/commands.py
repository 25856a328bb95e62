"""Which command is which function. A command's module is imported when that command, or the help, is wanted: the
modules of all others would be a tenth of a cold `minga ls`."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer import _click as click
from typer.core import TyperGroup

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""Daemon and authority parse their own flags, `--help` too."""
_PASSING_ON = frozenset({"peer", "ca", "token"})

_MODULES = {
    "up": "daemon",
    "peer": "daemon",
    "ls": "listing",
    "find": "listing",
    "info": "listing",
    "get": "get",
    "put": "put",
    "cat": "passing",
    "cp": "copying",
    "rm": "removal",
    "cache": "cache",
    "preheat": "preheat",
    "verify": "verify",
    "peers": "network",
    "status": "network",
    "doctor": "doctor",
    "shell": "shell",
    "join": "authority",
    "ca": "authority",
    "token": "authority",
    "containerd": "containerd",
    "hf": "hf",
    "container": "container",
}
"""Module of each command, in the order of the help; the function in it has the command's name."""


class CommandGroup(TyperGroup):
    """All commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.rich_markup_mode)  # type: ignore[assignment]


class _Commands(Mapping[str, click.Command]):
    def __init__(self, markup: Any) -> None:
        self._markup = markup
        self._made: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._made:
            module = import_module(f"minga_cli.{_MODULES[name]}")
            only = typer.Typer(add_completion=False, rich_markup_mode=self._markup)
            only.command(name, context_settings=PASS_ON if name in _PASSING_ON else None)(getattr(module, name))
            self._made[name] = typer.main.get_command(only)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)
