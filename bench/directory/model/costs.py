"""Every measured figure that the model stands on, in one place, with where it comes from.

After new measurements: change the figure and its source here, then `make references`.
"""

from dataclasses import dataclass, field, fields
from typing import Any

_ROWS = "row `{}` of `make bench-directory`"
_FULL = f"{_ROWS} at full scale: ten million entries, which take the store almost twice the time of a million"
_UNITS = "`bench.directory.unit_costs`"


def _cost(value: float, unit: str, what: str, source: str) -> Any:
    return field(default=value, metadata={"unit": unit, "what": what, "source": source})


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Processor time in microseconds, memory and messages in bytes."""

    beat_registry: float = _cost(311, "µs", "a heartbeat over KeepLease: registry", _ROWS.format("heartbeats"))
    beat_store: float = _cost(23.0, "µs", "a heartbeat: store, 8 in a batch", _UNITS)
    lease_indexed: float = _cost(9.5, "µs", "of that in slot `{all}` (script `renew`)", _UNITS)
    row_registry: float = _cost(16.0, "µs", "a row pushed, one server: registry", _FULL.format("tables"))
    row_store: float = _cost(19.7, "µs", "the same: store", _FULL.format("tables"))
    row_registry_steps: float = _cost(
        22.8, "µs", "a row pushed, Cluster: registry", f"the first, and what `row_in_steps` has more, {_UNITS}"
    )
    row_store_steps: float = _cost(
        20.7, "µs", "the same: store", f"the second, and what `row_in_steps` has more, {_UNITS}"
    )
    row_stage_share: float = _cost(
        0.15, "", "of that in the peer's slot (`stage`)", f"`row_staged` of `row_in_steps`, {_UNITS}"
    )
    row_names_share: float = _cost(
        0.38, "", "of that in the name's shard (`list_names`)", "what `row_staged_and_held` leaves"
    )
    unlist_registry: float = _cost(7.8, "µs", "a row unlisted: registry", _UNITS)
    unlist_store: float = _cost(8.6, "µs", "a row unlisted: store", _UNITS)
    register_registry: float = _cost(1_260, "µs", "a registration: registry", f"half of `join`, {_UNITS}")
    push_registry: float = _cost(1_260, "µs", "a push without a row: registry", "the other half")
    join_store: float = _cost(430, "µs", "both: store", f"twice `register`, {_UNITS}")
    refused_push: float = _cost(550, "µs", "a push told to come again: registry", _UNITS)
    late_call: float = _cost(
        580, "µs", "a registration nobody waits for any more: registry", "fitted, see `validation`"
    )
    stream_opened: float = _cost(400, "µs", "a KeepLease stream opened: registry", "taken, a little above a unary call")
    connection: float = _cost(90, "µs", "a connection made: registry", _UNITS)
    lookup_locator: float = _cost(
        230, "µs", "a look-up no cache answers, one server: locator", _FULL.format("distinct")
    )
    lookup_store: float = _cost(99, "µs", "the same, ten holders: store", f"`lookup_at_once`, {_UNITS}")
    lookup_http: float = _cost(55, "µs", "of a look-up: HTTP", "what one costs that the cache answers, docs/adr/0018")
    step_command: float = _cost(
        31, "µs", "a command of a look-up in steps: locator", f"`lookup_in_steps` over 34, {_UNITS}"
    )
    step_store: float = _cost(5.5, "µs", "the same: store", "the same")
    peer_listed: float = _cost(28.2, "µs", "a peer of a list or of `/v1/stats`: locator", _UNITS)
    search_page: float = _cost(7_000, "µs", "10,000 names searched: locator and store", _ROWS.format("catalogue"))

    entry_table_bytes: float = _cost(146.7, "B", "an entry in `table`", _ROWS.format("tables"))
    entry_holder_bytes: float = _cost(32.5, "B", "an entry in `holders`", "243 B at ten holders, 810 at one")
    content_bytes: float = _cost(344, "B", "a content: `holders`, `called`, keyspace", "the same")
    name_bytes: float = _cost(287, "B", "a name: `name`, `names`, keyspace", "the same")
    registry_bytes: float = _cost(66e6, "B", "a registry at rest", "docs/operations.md")
    connection_bytes: float = _cost(18_500, "B", "a peer's connection: registry", _UNITS)
    stream_bytes: float = _cost(28_500, "B", "a peer's stream: registry", "47 kB a peer, less the connection")
    peer_bytes: float = _cost(75e6, "B", "a peer at rest", "docs/operations.md")
    peer_file_bytes: float = _cost(1_500, "B", "a shared file: peer", "docs/operations.md")

    row_message_bytes: float = _cost(107, "B", "a row from peer to registry", "names of 42 bytes, encoded")
    row_sent_bytes: float = _cost(349, "B", "the same from registry to store, one server", _UNITS)
    row_sent_steps_bytes: float = _cost(605, "B", "the same, Cluster", _UNITS)
    beat_wire_bytes: float = _cost(355, "B", "a heartbeat and its answer", "91 B of gRPC, four packets of 66 B")
    beat_sent_bytes: float = _cost(228, "B", "the same from registry to store", _UNITS)

    @property
    def row_holders_share(self) -> float:
        """Of a row's cost to the store: in the content's shard."""
        return 1 - self.row_stage_share - self.row_names_share

    def entry_bytes(self, copies: float) -> float:
        """Of the store for each entry, where every content has that many holders and one name."""
        return self.entry_table_bytes + self.entry_holder_bytes + (self.content_bytes + self.name_bytes) / copies


MEASURED = UnitCosts()
MICROS = 1e-6


def table_rows(costs: UnitCosts = MEASURED) -> list[tuple[str, str, str]]:
    """What, how much, and where from."""
    return [
        (str(one.metadata["what"]), _told(getattr(costs, one.name), str(one.metadata["unit"])), one.metadata["source"])
        for one in fields(costs)
    ]


def _told(value: float, unit: str) -> str:
    if unit == "B" and value >= 1e6:
        return f"{value / 1e6:g} MB"
    return f"{value:,.6g} {unit}".strip()
