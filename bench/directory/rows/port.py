"""What the command line knows of a row."""

from typing import Protocol

from bench.directory.results import RowOutcome
from bench.directory.session import Session


class Row(Protocol):
    """A row of the table."""

    name: str

    async def measure(self, session: Session) -> RowOutcome:
        """Measures it. Raises LabError."""
        ...
