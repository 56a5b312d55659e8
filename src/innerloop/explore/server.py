"""The page over HTTP: Starlette answers, Uvicorn listens. On this machine only, unless the user says otherwise."""

import json
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from ipaddress import ip_address

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from innerloop.as_json import without_nan
from innerloop.explore.asked import ContextAsked, DrawAsked, LossesAsked
from innerloop.explore.explorer import Explorer
from innerloop.refused import describe

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/plots.js": ("plots.js", "text/javascript"),
}
_HEADERS = {
    # Nothing is fetched from elsewhere, and the browser sees to it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LONGEST = 300  # characters of an error; the value that it quotes may be a whole context


class _Json(JSONResponse):
    """Numbers that JSON cannot say are null."""

    def render(self, content) -> bytes:
        return json.dumps(without_nan(content), allow_nan=False, separators=(",", ":")).encode()


def application(explorer: Explorer, host: str = "127.0.0.1") -> Starlette:
    """The page and its numbers as an ASGI application for the address `host`.

    Bound to loopback it answers only requests that name this machine, so that no site whose name was made to point here
    can read it (DNS rebinding).
    """
    routes = [Route(path, _file(*file)) for path, file in _PAGE.items()]
    routes += [
        Route("/api/about", _given(explorer.about)),
        Route("/api/sample", _given(explorer.sample)),
        Route("/api/draw", _asked(DrawAsked, explorer.draw), methods=["POST"]),
        Route("/api/context", _asked(ContextAsked, explorer.context), methods=["POST"]),
        Route("/api/losses", _asked(LossesAsked, explorer.losses), methods=["POST"]),
    ]
    hosts = ["localhost", "127.0.0.1", "[::1]", host] if is_loopback(host) else ["*"]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
        ],
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`; port 0 stands for any that is free.

    Raises:
        ValueError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}") from None
    # Connections inherit it. Without, an answer's body waits 40 ms for the acknowledgement of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address(listening: socket.socket) -> str:
    """The URL of what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def server(explorer: Explorer, host: str) -> uvicorn.Server:
    """A server of the page; `.run(sockets=[listen(host, port)])` serves until Ctrl-C."""
    return uvicorn.Server(
        uvicorn.Config(
            application(explorer, host), log_level="warning", access_log=False, lifespan="off", ws="none"
        )
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (files("innerloop.explore") / "page" / name).read_bytes()

    def respond(request: Request) -> Response:
        return Response(content, media_type=kind)

    return respond


def _given(compute: Callable[[], dict]) -> Callable[[Request], Response]:
    def respond(request: Request) -> Response:
        return _Json(compute())

    return respond


def _asked(form: type[BaseModel], compute: Callable[..., dict]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers a body of this form, and anything else with status 400 and one sentence."""

    async def respond(request: Request) -> Response:
        try:
            asked = form.model_validate_json(await request.body())
            return _Json(await run_in_threadpool(compute, asked))
        except ValidationError as error:
            said = describe(error, form)
        except ValueError as error:
            said = str(error)
        return _Json({"error": said if len(said) <= _LONGEST else said[:_LONGEST] + " ..."}, status_code=400)

    return respond


async def _with_headers(request: Request, call_next) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response
