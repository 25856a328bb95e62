"""What a scenario is."""

from collections.abc import Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from bench.results import Outcome
from bench.session import Session


class Scenario(Protocol):
    """A frozen dataclass of what can be changed about it (`--peers 8` sets the field `peers`), and a way to run it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str:
        """For the command line and the results file."""
        ...

    @property
    def systems(self) -> Sequence[str]:
        """What it measures unless the session chooses others."""
        ...

    async def run(self, session: Session) -> Outcome:
        """Measures. Raises LabError when something did not happen at all; a missed figure is no error."""
        ...
