"""Rate, time left, and what is printed where nobody watches a bar."""

import pytest
from rich.progress import Progress

from minga_cli.progress_bar import TransferBar, figures

MIB = 1 << 20


def test_off_a_terminal_a_wait_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """No bar in a log file; one line when the wait begins, another when it begins again."""
    with TransferBar("x", 1, 0) as bar:
        for waiting in ("", "no source", "no source since 1 s", "no source since 2 s", "", "no source again"):
            bar.update("a", 10, 5, waiting=waiting)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "minga: a: no source\nminga: a: no source again\n"


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, so that results can be piped; a name with markup in it is shown as it is.

    The total is what was listed or what items turned out to be; what was held before makes no rate.
    """
    monkeypatch.setattr("minga_cli.progress_bar.on_terminal", lambda stream: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with TransferBar("[red]a[/red]", 2, 10 * MIB) as bar:
        bar.update("a", 10 * MIB, 5 * MIB, resumed_bytes=5 * MIB)
        bar.ended()
        bar.update("b", 20 * MIB, 0, doing="copying: 1 of 2 replicas")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[red]a[/red]" in err
    assert "1 of 2 files  5 MiB of 30 MiB  copying: 1 of 2 replicas" in err


def test_the_rate_and_the_time_left_are_shown_while_bytes_flow() -> None:
    """In the units of every other message."""
    moments = iter(range(100))
    with Progress(disable=True, get_time=lambda: float(next(moments))) as rich:
        task = rich.add_task("x", total=100 * MIB, files="", doing="", source_count=3)
        for held in range(0, 60, 10):
            rich.update(task, completed=held * MIB)
        assert "50 MiB of 100 MiB" in figures(rich.tasks[0])
        assert "MiB/s from 3 peers" in figures(rich.tasks[0])
        assert figures(rich.tasks[0]).endswith(" left")
