"""The locator process, wired by hand from top to bottom."""

import asyncio
import logging
import os
import socket
import sys
from contextlib import aclosing

import uvicorn

from minga_core.errors import AlreadyRunningError, MingaError
from minga_directory import connect_reader
from minga_locator.app import VERSION, make_app
from minga_locator.settings import LocatorSettings
from minga_runtime.channels import split_listen
from minga_runtime.flags import parse_flags
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.process import print_error, run_process, write_port_file
from minga_runtime.settings import effective_settings, load_settings

log = logging.getLogger(__name__)


def main() -> int:
    """Runs a locator until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    flags = parse_flags(LocatorSettings, "minga-locator", "Answers who has which file, over REST.")
    try:
        settings = load_settings(LocatorSettings, **flags)
    except MingaError as error:
        print_error(error)
        return 2
    configure_logging(settings.log_level, settings.log_format)
    return run_process(lambda stop: serve(settings, stop))


async def serve(settings: LocatorSettings, stop: asyncio.Event) -> None:
    """Runs until `stop`. Starts without the store, and answers 503 until it is there."""
    async with aclosing(connect_reader(settings.redis_url)) as reader:
        listening = bind(settings.listen)
        address = "{}:{}".format(*listening.getsockname()[:2])
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(reader),
                http="httptools",
                loop="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=int(settings.stop_grace.total_seconds()),
                server_header=False,
            )
        )
        # Signals are `run_process`'s; uvicorn is told to stop through its flag.
        serving = asyncio.create_task(server._serve([listening]), name="uvicorn")
        facts = effective_settings(settings) | {"address": address, "version": VERSION, "pid": os.getpid()}
        log_event(log, logging.INFO, "locator_started", **facts)
        write_port_file(settings.port_file, address)
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        stopping.cancel()


def bind(listen: str) -> socket.socket:
    """A listening socket on host:port. Raises AlreadyRunningError when that is taken."""
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise AlreadyRunningError(f"cannot listen on {listen}: {error.strerror}") from error
    return made


if __name__ == "__main__":
    sys.exit(main())
