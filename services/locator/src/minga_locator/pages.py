"""The web page and the documentation of the API: static answers, the same for everybody, that ask no store.

They say nothing of the network, so that a browser without a certificate gets them in a secure one too: what the page
shows it asks of the API, with the grant of its user.
"""

from hashlib import sha256
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minga_locator.docs_page import docs_html

_ASSETS = "/page/"
"""Below this path are the parts of the page."""
_HEADERS = {
    # Names in the directory are anybody's: nothing of them can become a script, whatever the page does.
    # connect-src: uploads go to the gateway of any peer, which the page's user chooses.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept, and asked for again at each use: that is an answer of 304 while the locator is of the same version.
    "Cache-Control": "no-cache",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""By the end of the name: not from the machine's own table of types, which may lack these."""


def is_page(path: str) -> bool:
    """Whether that path is of the page or of the documentation."""
    return path in ("/", "/docs") or path.startswith(_ASSETS)


def page_routes() -> list[Route]:
    """GET and HEAD of the page, its parts, and `/docs`."""
    files = {file.name: file.read_bytes() for file in (resources.files("minga_locator") / "page").iterdir()}
    index = files.pop("index.html")
    parts = [_static(_ASSETS + name, content, _TYPES[name[name.rindex(".") :]]) for name, content in files.items()]
    return [_static("/", index, "text/html"), _static("/docs", docs_html().encode(), "text/html"), *parts]


def _static(path: str, content: bytes, media_type: str) -> Route:
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}

    async def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if known == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, answer)
