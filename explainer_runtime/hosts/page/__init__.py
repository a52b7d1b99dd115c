"""The page that people look at: a picture in, explanations out, on one screen.

Its files are static and hold nothing, so everybody may have them; all that it shows it asks of the routes
that every client has, with the reader's token. Its policy lets it fetch nothing from elsewhere. Its addresses
are relative, so a proxy may put it below any path.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import orjson

from explainer_runtime import artifact, pictures
from explainer_runtime.hosts.door.gate import App, Receive, Scope, Send
from explainer_runtime.render import page as rendered
from explainer_runtime.render.sheet import encode, plain
from explainer_runtime.search.kept import Kept
from explainer_runtime.spec import Inputs, parse

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_OWN = ("index.html", "app.css", "app.js", "jobs.js", "options.js", "painting.js", "server.js")
_SHARED = ("card.css", "page.css", "compare.js")
_SAMPLES = 8


class File(NamedTuple):
    """What is sent for one path.

    Attributes:
        kind: Its content type.
        content: Its bytes.
        open: Whether everybody may have it; else the gate asks for a token first.
    """

    kind: str
    content: bytes
    open: bool = True


@dataclass(frozen=True)
class Shown:
    """What an operator lets the page show.

    Attributes:
        jobs: Whether the server keeps jobs.
        sidecar: Whether it is a sidecar, whose list of explainers is elsewhere.
        samples: Directories of explainers, of whose reference rows the first few are offered.
    """

    jobs: bool = False
    sidecar: bool = False
    samples: Sequence[Path] = ()

    def files(self) -> dict[str, File]:
        """Every file of the page, by its path.

        Raises:
            InvalidArtifact: One of `samples` is none.
        """
        mimetypes.add_type("text/javascript", ".js")
        found = {
            "/page/" + name: _file(name, files(__package__).joinpath(name).read_bytes()) for name in _OWN
        }
        found |= {"/page/" + name: _file(name, rendered.shipped(name).encode()) for name in _SHARED}
        found["/page/"] = found.pop("/page/index.html")
        known = [*dict.fromkeys(_samples(self.samples))][:_SAMPLES]  # several keep the same
        samples = {f"/page/samples/{number}.png": file for number, file in enumerate(known, 1)}
        found |= samples
        about = {
            "models": "explain/models" if self.sidecar else "v2/models",
            "jobs": self.jobs,
            "policy": rendered.policy(),
            "samples": [path.removeprefix("/page/") for path in samples],
        }
        found["/page/about.json"] = File("application/json", orjson.dumps(about))
        return found


class Page:
    """ASGI middleware that answers for the page's files, inside the gate.

    Args:
        app: The server inside.
        files: What there is, by path; see `Shown.files`. Nothing where no page is served.
    """

    def __init__(self, app: App, files: Mapping[str, File]) -> None:
        self._app, self._files = app, files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not self._files:
            return await self._app(scope, receive, send)
        path, headers = scope["path"], dict(scope["headers"])
        # Whoever asks for `/` and is no browser means the server, which KServe's probes do.
        if path == "/page" or (path == "/" and b"text/html" in headers.get(b"accept", b"")):
            return await _send(send, 307, {"location": "page/"}, b"")
        file = self._files.get(path)
        if file is None:
            return await self._app(scope, receive, send)
        body = b"" if scope["method"] == "HEAD" else file.content
        length = str(len(file.content))
        return await _send(send, 200, {"content-type": file.kind, "content-length": length, **_HEADERS}, body)


def opened(files: Mapping[str, File]) -> tuple[str, ...]:
    """Paths for which nobody needs a token."""
    return ("/", "/page", *(path for path, file in files.items() if file.open)) if files else ()


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _file(name: str, content: bytes) -> File:
    return File(f"{mimetypes.guess_type(name)[0]}; charset=utf-8", content)


def _samples(artifacts: Iterable[Path]) -> Iterator[File]:
    """The first reference rows that explainers keep, as pictures of the size of a row."""
    for path in artifacts:
        report = artifact.verify(path)
        inputs = parse(Inputs, report.manifest["inputs"], "inputs")
        if not pictures.taken(inputs) or "reference_rows" not in report.arrays:
            continue
        for row in Kept(report.arrays["reference_rows"][:_SAMPLES], inputs.low, inputs.high)[:]:
            yield File("image/png", encode(plain(row, inputs)), open=False)
