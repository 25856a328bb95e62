"""The rival: a FastAPI app whose handler does nothing, under uvicorn as it is, with the locator's settings."""

import sys
from pathlib import Path

from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_locator.settings import LocatorSettings
from minga_runtime.listening import bound_address
from minga_runtime.process import StopSignal, run_process, write_port_file
from minga_runtime.web.server import bind, http_server

PATH = "/empty"


def make_app() -> FastAPI:
    """One route, no middleware."""
    app = FastAPI(redoc_url=None)

    @app.get(PATH)
    async def empty() -> dict[str, str]:
        return {}

    return app


async def _run(port_file: Path, stop: StopSignal) -> None:
    settings = LocatorSettings(listen="127.0.0.1:0")
    with await bind(settings.listen) as listening:
        async with http_server(make_app(), listening, settings.stop_grace, stop, HttpToolsProtocol):
            write_port_file(port_file, bound_address(settings.listen, listening.getsockname()[1]))
            await stop.wait()


if __name__ == "__main__":
    sys.exit(run_process(lambda stop: _run(Path(sys.argv[1]), stop)))
