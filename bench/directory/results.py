"""What a row found out, as it is printed and kept. Plain data, to JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.directory.usage import Part, Use
from bench.results import Figure


@dataclass(slots=True)
class RowOutcome:
    """Of one row."""

    row: str
    setting: str
    """What was run, in a sentence."""
    figures: list[Figure] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    """Who used the processor during which work."""
    notes: list[str] = field(default_factory=list)
    """What has to be known to read the figures, in sentences."""
    details: dict[str, Any] = field(default_factory=dict)
    """Everything else that was measured."""
    seconds: float = 0.0
    """That measuring took, with all that came before it."""

    def figure(self, work: str, wanted: str, measured: str, met: bool | None) -> None:
        """Adds a line of the table."""
        self.figures.append(Figure(work, wanted, measured, met))

    def told(self, work: str, measured: str) -> None:
        """Adds a line for information."""
        self.figures.append(Figure(work, "", measured))

    def to_json(self) -> dict[str, Any]:
        """For the results file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RowOutcome":
        """What `to_json` gave."""
        uses = [Use(**{**use, "parts": [Part(**part) for part in use["parts"]]}) for use in data["uses"]]
        return cls(
            data["row"],
            data["setting"],
            [Figure(**figure) for figure in data["figures"]],
            uses,
            data["notes"],
            data["details"],
            data["seconds"],
        )
