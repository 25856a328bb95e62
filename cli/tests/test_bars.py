"""Rate, time left, and what is told where nobody watches a bar."""

import pytest

from minga_cli.bars import RateMeter, TransferBar
from minga_core.clock import ManualClock

MIB = 1 << 20


def test_the_rate_is_of_the_last_seconds() -> None:
    """A fast beginning does not flatter a slow end."""
    clock = ManualClock()
    meter = RateMeter(clock.monotonic)
    total = 0
    for second in range(60):
        clock.advance(1)
        total += 100 if second < 30 else 10
        meter.add(total)
    assert meter.rate == pytest.approx(10)


def test_many_updates_take_no_memory() -> None:
    """Marks are apart, however often progress is told."""
    clock = ManualClock()
    meter = RateMeter(clock.monotonic)
    for number in range(10_000):
        clock.advance(0.001)
        meter.add(number)
    assert len(meter._marks) < 120
    assert meter.rate == pytest.approx(1000, rel=0.05)


def test_figures_tell_files_bytes_rate_and_time_left() -> None:
    """What was there before counts as held, not as rate."""
    clock = ManualClock()
    with TransferBar("x", 2, 100 * MIB, clock.monotonic) as bar:
        bar.update("a", 60 * MIB, 50 * MIB, before_bytes=50 * MIB)
        clock.advance(1)
        bar.update("a", 60 * MIB, 60 * MIB, before_bytes=50 * MIB)
        bar.ended("a")
        assert bar.figures() == "1 of 2 files  60 MiB of 100 MiB  10 MiB/s  4.0 s left"


def test_a_size_that_nobody_announced_is_learnt() -> None:
    """The total follows what the items turn out to be."""
    with TransferBar("x", 1, 0) as bar:
        assert bar.figures() == ""
        bar.update("a", 10 * MIB, 5 * MIB, before_bytes=5 * MIB)
        assert bar.figures() == "5 MiB of 10 MiB"


def test_off_a_terminal_a_wait_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """No bar in a log file; one line when the wait begins, another when it begins again."""
    with TransferBar("x", 1, 0) as bar:
        for waiting in ("", "no source", "no source since 1 s", "no source since 2 s", "", "no source again"):
            bar.update("a", 10, 5, waiting=waiting)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "minga: a: no source\nminga: a: no source again\n"


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, so that results can be piped; a name with markup in it is shown as it is."""
    monkeypatch.setattr("minga_cli.bars.on_terminal", lambda stream: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with TransferBar("[red]a[/red]", 1, 10 * MIB) as bar:
        bar.update("a", 10 * MIB, 5 * MIB, before_bytes=5 * MIB)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[red]a[/red]" in err
    assert "5 MiB of 10 MiB" in err
