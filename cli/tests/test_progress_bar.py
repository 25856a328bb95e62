"""Rate, time left, and what is printed where nobody watches a bar."""

import pytest
from rich.progress import Progress

from minga import PutPhase, PutProgress, parse_name
from minga_cli.progress_bar import TransferBar, figures
from minga_cli.put import show_put

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


def test_the_line_is_never_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the bar and the title get shorter; the time left stood below, or was cut off."""
    monkeypatch.setattr("minga_cli.progress_bar.on_terminal", lambda stream: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    doing = "a word " * 6
    with TransferBar("folder/" * 20, 1, 0) as bar:
        bar.update("a", 10 * MIB, 5 * MIB, doing=doing)
    assert f"5 MiB of 10 MiB  {doing.rstrip()}" in capsys.readouterr().err


def test_copies_that_begin_during_an_upload_change_nothing_of_the_bar() -> None:
    """Its rate was that of the whole file, each time when a peer had copied something."""
    size, name = 10 * MIB, parse_name("a")
    shown: list[tuple[int, str]] = []

    class Bar(TransferBar):
        def update(self, name: str, size_bytes: int, held_bytes: int, *, doing: str = "", **more: object) -> None:
            super().update(name, size_bytes, held_bytes)
            shown.append((held_bytes // MIB, doing))

    bar = Bar("a", 1, size)
    for phase, done, replicas in (
        ("hashing", 0, 0),
        ("placing", 0, 0),
        ("replicating", 0, 0),
        ("uploading", 4 * MIB, 0),
        ("replicating", 2 * MIB, 0),
        ("uploading", 10 * MIB, 0),
        ("replicating", 8 * MIB, 1),
        ("announcing", 10 * MIB, 2),
    ):
        show_put(bar, name, size, PutProgress(PutPhase(phase), size, done, replicas, 2))
    copying = "copying: {} of 2 replicas".format
    assert shown == [(0, ""), (0, ""), (0, copying(0)), (4, ""), (10, ""), (10, copying(1)), (10, "")]


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
