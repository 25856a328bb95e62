"""Every row, in the table's order."""

from bench.directory.rows.added import Added
from bench.directory.rows.catalogue import Catalogue
from bench.directory.rows.deaths import Deaths
from bench.directory.rows.emptied import Emptied
from bench.directory.rows.heartbeats import Heartbeats
from bench.directory.rows.lookups import DistinctLookups, Placements, PopularLookups
from bench.directory.rows.port import Row
from bench.directory.rows.tables import Tables

TABLE: tuple[Row, ...] = (
    PopularLookups(),
    DistinctLookups(),
    Placements(),
    Heartbeats("heartbeats", "stream", judged=True),
    Tables(),
    Added(),
    Catalogue(),
    Emptied(),
    Deaths(),
)
EXTRA: tuple[Row, ...] = (Heartbeats("heartbeats-unary", "unary", judged=False),)
"""Measured when asked for by name."""

ROWS = {row.name: row for row in (*TABLE, *EXTRA)}
