"""The local page for raters: on the loopback interface only, behind a token in its address."""

import hmac
import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lightleak.errors import UserError
from lightleak.raters.questions import Question, Questions, named

LOOPBACK = "127.0.0.1"
LARGEST = 4096  # bytes of an answer
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the token stands in the address
    "X-Content-Type-Options": "nosniff",
}


class Serving(ThreadingHTTPServer):
    """The server of the page for some questions; `serve_forever` runs until `shutdown`. Port 0: any free port."""

    daemon_threads = True

    def __init__(self, questions: Questions, port: int = 0) -> None:
        self.questions, self.token = questions, secrets.token_urlsafe(16)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port} of this machine cannot be used ({error}); leave --port out") from None

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Serving  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "lightleak", ""
    timeout = 30

    def do_GET(self) -> None:
        """The page, a rater's next pair, and its pictures."""
        self._answered(self._get)

    def do_POST(self) -> None:
        """An answer."""
        self._answered(self._post)

    def _answered(self, work: Any) -> None:
        parts = urlsplit(self.path)
        token, _, rest = parts.path.removeprefix("/").partition("/")
        own = f":{self.server.server_port}"
        home = self.headers.get("Host") in (f"{LOOPBACK}{own}", f"localhost{own}")  # else another page's name for us
        if not home or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
        try:
            return work(rest, parse_qs(parts.query))
        except UserError as error:
            return self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _get(self, rest: str, query: dict[str, list[str]]) -> None:
        if rest == "":
            page = (files("lightleak.raters") / "page.html").read_bytes()
            return self._send(HTTPStatus.OK, page, "text/html; charset=utf-8")
        if rest == "next":
            return self._json(self._next(named(query.get("rater", [""])[0])))
        name, *where = rest.split("/")
        if name == "picture" and len(where) == 3:
            question = _at(self.server.questions, named(unquote(where[0])), where[1])
            file = question.picture(where[2]) if question else None
            if file is not None:
                return self._send(HTTPStatus.OK, file.read_bytes(), "image/png")
        return self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")

    def _next(self, rater: str) -> dict[str, Any]:
        question, seconds, done = self.server.questions.next(rater)
        told = {"rater": rater, "done": done, "of": len(self.server.questions.pairs)}
        return told | {
            "place": None if question is None else question.place,
            "seconds": seconds,
            "each": self.server.questions.seconds,
        }

    def _post(self, rest: str, query: dict[str, list[str]]) -> None:  # noqa: ARG002
        told = self._body() if rest == "answer" else None
        if told is None or not isinstance(told.get("rater"), str) or type(told.get("place")) is not int:
            raise UserError("expected an answer as JSON: rater, place, side")
        if told.get("side") not in ("left", "right", None):
            raise UserError(f"a side is left or right, not {told['side']!r}")
        rater = named(told["rater"])
        kept = self.server.questions.answer(rater, told["place"], told.get("side"))
        self._json({"kept": kept} | self._next(rater))

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        plain = self.headers.get("Content-Type", "").partition(";")[0] == "application/json"
        if not plain or not length.isdecimal() or int(length) > LARGEST:
            return None
        try:
            told = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) else None

    def _json(self, told: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(told).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged: an address holds the token."""


def _at(questions: Questions, rater: str, place: str) -> Question | None:
    order = questions.order(rater)
    return order[int(place)] if place.isdecimal() and int(place) < len(order) else None
