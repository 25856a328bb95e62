"""Peer ids, addresses, generations, error codes, and units."""

import random

import pytest

from minga_core.errors import (
    ERROR_CLASSES,
    WIRE_STATUS,
    Code,
    InternalError,
    InvalidArgumentError,
    MingaError,
)
from minga_core.ids import new_generation, parse_address, parse_generation, parse_peer_id
from minga_core.units import format_bytes, format_seconds, parse_bytes, parse_rate


@pytest.mark.parametrize("text", ["a", "node-1.rack_2", "0" * 128])
def test_peer_ids_that_keep_the_rules(text: str) -> None:
    """Letters, digits, dot, underscore, hyphen."""
    assert parse_peer_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "a/b", "a:b", "a{b}", "ä", "a\n", "0" * 129])
def test_peer_ids_that_break_them_are_refused(text: str) -> None:
    """Nothing that could mean something in a key, a path or a log line."""
    with pytest.raises(InvalidArgumentError):
        parse_peer_id(text)


@pytest.mark.parametrize("text", ["host:1", "10.0.0.1:50053", "[::1]:65535", "a-b.example:80"])
def test_addresses_that_keep_the_rules(text: str) -> None:
    """host:port, IPv6 in brackets."""
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:0", "host:65536", "host:8a", "::1:80", "unix:/x:1", "a b:80", "h:١"]
)
def test_addresses_that_break_them_are_refused(text: str) -> None:
    """Above all, nothing that a gRPC channel would read as another scheme."""
    with pytest.raises(InvalidArgumentError):
        parse_address(text)


def test_a_later_start_has_the_greater_generation() -> None:
    """One millisecond later is enough, whatever the random bits."""
    rng = random.Random(1)
    drawn = [new_generation(1_700_000_000 + step / 1000, rng) for step in range(200)]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 200
    assert all(0 < value < 1 << 63 for value in drawn)


@pytest.mark.parametrize("value", [0, -1, 1 << 63])
def test_generations_outside_of_an_int64_are_refused(value: int) -> None:
    """1 to 2^63 - 1."""
    with pytest.raises(InvalidArgumentError):
        parse_generation(value)


def test_every_code_has_a_status_and_a_class() -> None:
    """The one table is whole."""
    assert set(WIRE_STATUS) == set(Code) == set(ERROR_CLASSES)


def test_every_error_has_its_own_code_or_its_parents() -> None:
    """No class falls back to `internal` by accident."""
    pending = MingaError.__subclasses__()
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        assert cls is InternalError or cls.code is not Code.INTERNAL, cls


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("512", 512), ("10k", 10240), ("1.5 GiB", 1610612736), ("50MB", 50_000_000), ("2 tib", 2 << 40)),
        *(("9007199254740993", 9007199254740993), ("0.29 kB", 290), ("8191.999 PiB", 9223370910954868965)),
    ],
)
def test_sizes_are_parsed(text: str, size_bytes: int) -> None:
    """A bare letter and iB are powers of 1,024, B alone powers of 1,000. To the byte, above 2^53 too."""
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "k", "-1", "1 XB", "1,5 GB", "1e3", "５", "9" * 400, "8192 PiB"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    """Never a silent zero."""
    with pytest.raises(InvalidArgumentError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("0", 0),
        ("0 MB/s", 0),
        ("50MB/s", 50_000_000),
        ("50MiB/s", 50 << 20),
        ("400Mbit/s", 50_000_000),
        ("400 mbit", 50_000_000),
        ("1Gibit/s", 1 << 27),
        ("1.5 GB/S", 1_500_000_000),
        ("64k", 65536),
        (" 8bit/s ", 1),
        ("100B/s", 100),
        ("0.01B/s", 1),
    ],
)
def test_rates_are_parsed(text: str, bytes_per_second: int) -> None:
    """Bytes or bits per second; decimal and binary units as the standards have them."""
    assert parse_rate(text) == bytes_per_second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/s",
        "fast",
        "-1MB/s",
        "50Mb/s",
        "50mb",
        "50MB/min",
        "MB/s",
        "50MB/s/s",
        "1e3",
        "1,5MB/s",
        "50 Mbps",
        "inf",
        "５",
        "9" * 400,
    ],
)
def test_rates_that_are_none_are_refused_with_an_example(text: str) -> None:
    """What could be bits as well as bytes, too: a guess would be wrong by a factor of eight."""
    with pytest.raises(InvalidArgumentError, match="400Mbit/s"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (1 << 40, "1 TiB")],
)
def test_sizes_are_formatted(size_bytes: int, text: str) -> None:
    """Powers of 1,024 with at most one digit after the point."""
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (12.3, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    """Two units at most."""
    assert format_seconds(seconds) == text
