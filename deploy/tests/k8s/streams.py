"""Clients that download and look up all the time while something is done to the cluster."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from deploy.tests.k8s.cluster import Pod
from deploy.tests.support.engine import Container, eventually

PAUSE_SECONDS = 0.2
"""Between two calls of a client: two processors carry the clients, too."""
DOWNLOAD_SECONDS = 90.0
Call = Callable[[], str]
"""One download or look-up; what went wrong, or nothing."""


class Stream:
    """Clients by name. As a context manager: each has finished something before, and one more afterwards."""

    def __init__(self, clients: Mapping[str, Call]) -> None:
        self.finished = dict.fromkeys(clients, 0)
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each) for each in clients.items()]

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        self._each_finishes_another()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._each_finishes_another()
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _each_finishes_another(self) -> None:
        seen = dict(self.finished)
        eventually(
            lambda: all(self.finished[name] > count for name, count in seen.items()),
            f"every client finishes something: {self.finished}, {self.problems}",
            DOWNLOAD_SECONDS,
        )

    def _run(self, name: str, call: Call) -> None:
        while not self._stop.is_set():
            problem = call()
            self.finished[name] += 1
            if problem:
                self.problems.append(f"{name}: {problem}")
            time.sleep(PAUSE_SECONDS)


def get_alone(client: Container, names: list[str], *options: str) -> Call:
    """`minga get` on a machine without a peer, the names in turn."""
    cycle = itertools.cycle(names)
    target = f"/tmp/{names[0].replace('/', '-')}"
    script = f'minga get "$1" --output {target} {" ".join(options)} && rm {target}'
    return lambda: _exec(client, "sh", "-c", script, "sh", next(cycle))


def get_through_peer(pod: Pod, names: Iterator[str]) -> Call:
    """`minga get` on a machine with a peer, each name once, as the peer then holds it."""
    return lambda: _exec(pod.container, "minga", "get", next(names))


def look_up(kept: httpx.Client, url: str, options: Mapping[str, Any]) -> Call:
    """Any HTTP client: on a connection that is kept, and on one of its own. Only 503 with Retry-After may come instead.

    options: of its own connection. A kept one that the server has just closed is opened again, once (RFC 9110, 9.2.2).
    """

    def call() -> str:
        try:
            try:
                answers = [kept.get(url)]
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                answers = [kept.get(url)]
            answers.append(httpx.get(url, timeout=10, **options))
        except httpx.HTTPError as error:
            return repr(error)
        wrong = [
            a for a in answers if a.status_code != 200 and not (a.status_code == 503 and "Retry-After" in a.headers)
        ]
        return ", ".join(f"{answer.status_code} {answer.text}" for answer in wrong)

    return call


def _exec(container: Container, *command: str) -> str:
    ended = container.exec(*command, check=False, limit=DOWNLOAD_SECONDS)
    return f"{command[-1]}: exit code {ended.code}: {ended.err.strip()}" if ended.code else ""
