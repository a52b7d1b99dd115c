"""A picture is a request, and the answer may be one: plain ASGI, inside the gate, before any host.

What is sent as `image/*` or `multipart/form-data` becomes the JSON that a client could have sent instead,
with the file in it: options, rows, limits and errors then go the road of all requests, on every route of
every host. What is accepted as a picture or a page is asked for as an output, and taken out of the answer.
No file is opened here, and its name is never read.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from explainer_runtime import wire
from explainer_runtime.errors import InvalidInput, InvalidOption, Overloaded
from explainer_runtime.hosts.door import forms
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.door.exchange import Collected, again
from explainer_runtime.hosts.door.gate import (
    DOCUMENT,
    EXPLAINS,
    HEAD,
    App,
    Message,
    Receive,
    Scope,
    Send,
    refuse,
    says_json,
)
from explainer_runtime.hosts.service.caller import caller
from explainer_runtime.hosts.service.reports import Reports, told
from explainer_runtime.hosts.service.status import shortened
from explainer_runtime.render.page import policy

JSON, _EVENTS = "application/json", "text/event-stream"
DRAWN = {"image/png": wire.PICTURE, "text/html": wire.PAGE}
"""Which output each media type is."""
_ANSWERS = (JSON, *DRAWN, _EVENTS)
FILES = tuple(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"))
"""Media types of pictures that are read."""
_HEADERS = {
    "image/png": [(b"content-type", b"image/png"), (b"x-content-type-options", b"nosniff")],
    "text/html": [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", policy().encode()),
    ],
    _EVENTS: [
        (b"content-type", _EVENTS.encode()),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ],
}
_OPTIONS = "explain_parameters"
_MOST = 100
"""Options in one query, and outputs in a list."""
_LONGEST = 64 * 1024
"""Bytes of options, or of a list of outputs."""


class Pictured:
    """ASGI middleware.

    Args:
        app: The server inside.
        verb: What it calls explaining over V2.
    """

    def __init__(self, app: App, verb: str = "explain") -> None:
        self._app, self._verb = app, verb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http" or scope["method"] != "POST" or not EXPLAINS.search(scope["path"]):
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        said = b",".join(value for name, value in scope["headers"] if name == b"accept") or b"*/*"
        wanted = accepted(said.decode("latin-1"))
        if wanted is None:
            return await refuse(send, 406, f"accept: expected one of {', '.join(_ANSWERS)}")
        if scope["path"].startswith("/v2/") and self._verb != "explain":
            path = scope["path"].removesuffix("explain") + self._verb
            scope = {**scope, "path": path, "raw_path": path.encode()}
        written = HEAD in headers or says_json(headers.get(b"content-type"))
        if written and wanted == JSON:
            return await self._app(scope, receive, send)
        if not written or (wanted in DRAWN and isinstance(scope[DOCUMENT], dict)):
            try:
                body = (await receive()).get("body", b"")
                scope, body = await aside(_rewritten, scope, headers, body, wanted)
            except _NoPicture as error:
                return await refuse(send, 415, str(error))
            except (InvalidInput, InvalidOption) as error:
                return await refuse(send, 422, shortened(str(error)))
            except Overloaded as error:
                return await refuse(send, 429, str(error), {"retry-after": str(error.retry_after)})
            receive = again(body, receive)
        if wanted == _EVENTS:
            return await self._stream(scope, receive, send, written)
        answer = await _answered(self._app, scope, receive)
        if answer.status != 200 and not written:
            answer = _renamed(answer)
        elif answer.status == 200 and wanted in DRAWN:
            kept = [pair for pair in answer.headers if pair[0] not in (b"content-type", b"content-length")]
            drawn = await aside(_drawing, answer.body, DRAWN[wanted])
            answer = _Answer(200, [*_HEADERS[wanted], *kept], drawn)
        return await answer.send(send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send, written: bool) -> None:
        """Progress, then the answer; what is refused before there is any progress is refused as elsewhere."""
        reports = Reports()
        caller().told = reports.report
        work = asyncio.ensure_future(_answered(self._app, scope, receive))
        work.add_done_callback(reports.end)
        begun = False
        try:
            async for progress in reports:
                if not begun:
                    begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS[_EVENTS]})
                outputs = [vars(one) for one in told(progress)]
                event = {"parameters": {"event": "progress"}, "outputs": outputs}
                await send(_piece(b"data: " + orjson.dumps(event)))
            answer = work.result()
        finally:
            work.cancel()
            await asyncio.wait({work})
        if answer.status != 200:
            answer = answer if written else _renamed(answer)
            if not begun:
                return await answer.send(send)
            await send(_piece(b"event: error\ndata: " + answer.body))
        else:
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS[_EVENTS]})
            await send(_piece(b"data: " + await aside(_last, answer.body)))
        return await send({"type": "http.response.body", "body": b""})


def accepted(header: str, kinds: Sequence[str] = _ANSWERS) -> str | None:
    """The media type of an answer that a client likes best, of those that there are; None where it is none.

    Args:
        header: What it accepts. What is named is liked better than what only falls under a `*`.
        kinds: Those that there are, the usual one first.
    """
    best: tuple[float, int, str] | None = None
    ranges = [part.partition(";")[::2] for part in header.lower().split(",")]
    for kind in kinds:
        rank, quality = -1, 0.0
        for name, parameters in ranges:
            places = {kind: 2, f"{kind.partition('/')[0]}/*": 1, "*/*": 0}
            if (place := places.get(name.strip(), -1)) > rank:
                rank, quality = place, _quality(parameters)
        if quality > 0 and (best is None or (quality, rank) > best[:2]):
            best = quality, rank, kind
    return best and best[2]


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


class _NoPicture(Exception):
    """A body of a kind that is not read."""


def _rewritten(scope: Scope, headers: Mapping[bytes, bytes], body: bytes, wanted: str) -> tuple[Scope, bytes]:
    """The request as JSON, with what is wanted among its outputs."""
    if HEAD in headers or says_json(headers.get(b"content-type")):
        document = {**scope[DOCUMENT]}
    else:
        document = _document(scope, headers[b"content-type"].decode("latin-1"), body)
    if wanted in DRAWN:
        document["outputs"] = [{"name": DRAWN[wanted]}]
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get(_OPTIONS), dict):
        # Not every host takes an object there.
        document["parameters"] = {**parameters, _OPTIONS: orjson.dumps(parameters[_OPTIONS]).decode()}
    body = orjson.dumps(document, default=_text, option=orjson.OPT_SERIALIZE_NUMPY)
    caller().hold(len(body))
    skipped = (b"content-type", b"content-length", HEAD)
    pairs = [pair for pair in scope["headers"] if pair[0] not in skipped]
    pairs += [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
    return {**scope, "headers": pairs, DOCUMENT: document}, body


def _document(scope: Scope, said: str, body: bytes) -> dict[str, Any]:
    """The request that a picture is, or a form with pictures in it."""
    kind = _kind(said)
    options = _query(scope.get("query_string", b"").decode("latin-1"))
    outputs = options.pop("outputs", None)
    if kind == "multipart/form-data":
        form = forms.read(body, said)
        for part in form.images:
            if part.kind:
                _check_kind(_kind(part.kind), "image: content-type", "application/octet-stream")
        files = [part.content for part in form.images]
        if options and form.options is not None:
            raise InvalidInput("options: expected them as a part or in the query, not both")
        text = orjson.dumps(options).decode() if form.options is None else _utf8(form.options, "options")
        if form.outputs is not None:
            outputs = _utf8(form.outputs, "outputs")
    else:
        _check_kind(kind, "content-type", "multipart/form-data", JSON)
        files, text = [body], orjson.dumps(options).decode()
    texts = [base64.b64encode(file).decode() for file in files]
    document: dict[str, Any] = {"parameters": {_OPTIONS: text}}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in _names(outputs)]
    if scope["path"].startswith("/v2/"):
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
        return {**document, "inputs": [tensor]}
    return {**document, "instances": [{"b64": one} for one in texts]}


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _check_kind(kind: str, field: str, *more: str) -> None:
    if kind not in (*FILES, *more):
        raise _NoPicture(f"{field}: expected one of {', '.join((*FILES, *more))}; got {kind[:100]!r}")


def _query(text: str) -> dict[str, Any]:
    """Options in a query: a value is JSON where it can be, else a word."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError:
        raise InvalidInput(f"query: expected options, at most {_MOST}, as name=value") from None
    options = {name: wire.scalar(name, value) if name != "outputs" else value for name, value in pairs}
    if len(options) < len(pairs):
        raise InvalidInput("query: expected each option once")
    return options


def _utf8(text: bytes, field: str) -> str:
    try:
        if len(text) <= _LONGEST:
            return text.decode()
    except UnicodeDecodeError:
        pass
    raise InvalidInput(f"{field}: expected JSON, at most {_LONGEST} bytes")


def _names(text: str) -> list[str]:
    """Outputs that are named by a JSON list, of names or as V2 names them."""
    try:
        said = orjson.loads(text)
        names = [one["name"] if isinstance(one, dict) else one for one in said]
        if isinstance(said, list) and len(names) <= _MOST and all(isinstance(name, str) for name in names):
            return names
    except (ValueError, TypeError, KeyError):
        pass
    raise InvalidInput(f"outputs: expected a JSON list of names, at most {_MOST}")


def _text(value: Any) -> Any:
    """What JSON takes in place of a binary tensor's texts, and of numbers that are not in one piece."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value.tolist()


# --- answers ----------------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What the server inside has answered."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    async def send(self, send: Send) -> None:
        """Answer with it."""
        headers = [pair for pair in self.headers if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


async def _answered(app: App, scope: Scope, receive: Receive) -> _Answer:
    kept = Collected()
    await app(scope, receive, kept)
    return _Answer(kept.status, kept.headers, kept.body)


def _renamed(answer: _Answer) -> _Answer:
    """A refusal that names the parts that were sent, and not those of the JSON that was made of them."""
    body = answer.body.replace(_OPTIONS.encode(), b"options")
    for ours in (b"inputs[0].data", b"instances"):
        body = body.replace(ours, b"image")
    return answer._replace(body=body)


def _drawing(body: bytes, name: str) -> bytes:
    """The output of this name, of an answer over V2 or one without tensors."""
    outputs = orjson.loads(body)["outputs"]
    if not isinstance(outputs, dict):
        outputs = {one["name"]: one["data"][0] for one in outputs}
    text: str = outputs[name]
    return base64.b64decode(text) if name == wire.PICTURE else text.encode()


def _last(body: bytes) -> bytes:
    """The last event of a stream: the answer, as `/infer_stream` says it."""
    document = orjson.loads(body)
    if "outputs" in document and "data" not in document:
        document["parameters"] = {**(document.get("parameters") or {}), "event": "explanation"}
    return orjson.dumps(document)


def _piece(event: bytes) -> Message:
    return {"type": "http.response.body", "body": event + b"\n\n", "more_body": True}
