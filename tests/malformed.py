"""Requests that are wrong in ways nobody thought of: valid ones, broken at random.

Each is a path, headers and a body, or a gRPC message; a tenth is of the kinds that once cost a server dearly.
What is broken is structure (values replaced, dropped, doubled, nested), numbers (huge, negative, not finite),
text (cut, flipped, of another encoding), or what headers claim.
"""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import random
import struct
from typing import Any, NamedTuple

from PIL import Image

PATHS = (
    "/v2/models/{}/infer",
    "/v2/models/{}/explain",
    "/v2/models/{}/infer_stream",
    "/v1/models/{}:explain",
    "/explain",
    "/api/v1.0/explain",
    "/api/v0.1/explain",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e999, float("nan")),
    *(
        "",
        "x",
        "0.5",
        "[]",
        "{",
        "\u0000",
        "\ud800",
        "☃" * 50,
        "FP32",
        "BYTES",
        "INT64",
        "explanation",
        "a" * 10_000,
    ),
    *([], {}, [[]], [None], [[1], [1, 2]], {"": None}, {"explain_parameters": []}, {"headers": {"x": 1}}),
    *([0.5] * 64, [[0.5] * 8] * 8, [-1, 8, 8, 1], [2**40, 2**40], [1, 8, 8, 1], [0]),
)


class Request(NamedTuple):
    """One request to be sent as it is."""

    path: str
    headers: dict[str, str]
    body: bytes


def requests(model: str, seed: int, count: int):
    """So many requests to this model; the same seed gives the same."""
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.1:
            yield dear(model, rng)
            continue
        if rng.random() < 0.3:
            yield _picture(model, rng)
            continue
        body = _body(rng)
        headers = {"content-type": "application/json"}
        kind = rng.random()
        if kind < 0.05:
            headers["content-type"] = rng.choice(["text/plain", "", "application/x-www-form-urlencoded", "x"])
        elif kind < 0.15:
            headers["content-encoding"] = rng.choice(["gzip", "gzip", "br", "identity", "deflate", "x"])
            if rng.random() < 0.7:
                packed = gzip.compress(body)
                body = packed if rng.random() < 0.5 else _torn(rng, packed)
        yield Request(rng.choice(PATHS).format(model), headers, body)


_ACCEPTED = ("*/*", "image/png", "text/html", "text/event-stream", "x", "image/*;q=" + "9" * 400)
_QUERIES = ("max_calls=1", "max_calls=1&seed=%ff", "x=" + "[" * 3000, "&".join(["a=1"] * 200), "&=&=")


def _picture(model: str, rng: random.Random) -> Request:
    """A picture, a form with pictures, or binary tensors, most of them broken."""
    path = rng.choice([path for path in PATHS if path.endswith("explain")]).format(model)
    kind = rng.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
    buffer = io.BytesIO()
    Image.frombytes("L", (8, 8), rng.randbytes(64)).save(buffer, kind)
    file = _torn(rng, buffer.getvalue()) if rng.random() < 0.5 else buffer.getvalue()
    headers, act = {"accept": rng.choice(_ACCEPTED)}, rng.randrange(4)
    if act == 0:
        size = rng.choice([256, 256, 0, -1, 255, "256", 2**70])
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8, 8, 1]}
        document = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}
        document["parameters"] = {"max_calls": 1}
        body = json.dumps(_broken(rng, document) if rng.random() < 0.5 else document).encode()
        headers["inference-header-content-length"] = str(rng.choice([len(body), len(body), 0, 1, 10**9]))
        body += struct.pack("<64f", *(rng.random() for _ in range(64)))
    elif act == 1:
        text = base64.b64encode(file).decode()
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [text]}
        document = rng.choice([{"inputs": [tensor]}, {"instances": [{"b64": text}]}])
        document = _broken(rng, {**document, "parameters": {"max_calls": 1}})
        headers["content-type"] = "application/json"
        body = json.dumps(document).encode("utf-8", "surrogatepass")
    elif act == 2:
        path = f"{path}?{rng.choice(_QUERIES)}"
        said = rng.choice([f"image/{kind.lower()}"] * 3 + ["image/svg+xml", "image/", "IMAGE/PNG;x=1"])
        headers["content-type"], body = said, file
    else:
        part = b'--b\r\nContent-Disposition: form-data; name="%b"; filename="<b>.png"\r\n\r\n%b\r\n'
        image, options = part % (b"image", file), part % (b"options", b'{"max_calls": 1}')
        body = rng.choice([image + options + b"--b--\r\n"] * 3 + [image * 300, b"--b\r\n"])
        body = _torn(rng, body) if rng.random() < 0.5 else body
        boundary = rng.choice(["b", "b", "b", "", "c", "b" * 5000])
        headers["content-type"] = f"multipart/form-data; boundary={boundary}"
    return Request(path, headers, body)


def valid(rng: random.Random) -> dict[str, Any]:
    """A request that is as it should be, in one of the protocols; it asks for little."""
    numbers = [round(rng.random(), 3) for _ in range(64)]
    nested = [[[[numbers[8 * i + j]] for j in range(8)] for i in range(8)]]
    options = {"max_calls": 1, "seed": rng.randrange(99)}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": rng.choice([numbers, nested])}
    return rng.choice(
        [
            {
                "id": "1",
                "inputs": [tensor],
                "outputs": [{"name": "found"}],
                "parameters": {"explain_parameters": options},
            },
            {"inputs": [tensor], "parameters": options},
            {"instances": nested, "parameters": options},
            {"data": {"ndarray": nested}, "meta": {"tags": options}},
            {"data": {"tensor": {"shape": [1, 8, 8, 1], "values": numbers}}, "explain_parameters": options},
        ]
    )


def _body(rng: random.Random) -> bytes:
    document = valid(rng)
    for _ in range(rng.randrange(4)):
        document = _broken(rng, document)
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    return _torn(rng, body) if rng.random() < 0.2 else body


def _broken(rng: random.Random, document: Any) -> Any:
    """A copy with one place changed."""
    document = copy.deepcopy(document)
    holder: Any = document
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        if not len(keys):
            return document
        key = rng.choice(list(keys))
        if isinstance(holder[key], dict | list) and rng.random() < 0.75:
            holder = holder[key]
            continue
        break
    act = rng.randrange(5)
    if act == 0:
        del holder[key]
    elif act == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif act == 2:
        for _ in range(rng.choice([1, 10, 40, 80])):
            holder[key] = [holder[key]] if rng.random() < 0.9 else {"x": holder[key]}
    elif act == 3 and isinstance(holder, dict):
        holder[rng.choice(["inputs", "instances", "data", "shape", "", "jsonData", "outputs"])] = holder[key]
    else:
        holder[key] = rng.choice(_VALUES)
    return document


def _torn(rng: random.Random, body: bytes) -> bytes:
    act, at = rng.randrange(4), rng.randrange(len(body) + 1)
    if act == 0:
        return body[:at]
    if act == 1:
        return body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]
    if act == 2:
        return (
            body[:at]
            + rng.choice([b"[", b"{", b'"', b"\\", b"NaN", b"-Infinity", b"\xff\xfe"]) * 50
            + body[at:]
        )
    return rng.randbytes(at)


# --- gRPC, and what has once cost a server dearly ---------------------------------------------------------


class Message(NamedTuple):
    """One gRPC message to be sent as it is."""

    method: str
    content: bytes
    packed: bool


_METHODS = ("ModelInfer",) * 8 + ("ModelReady", "ModelMetadata", "ServerLive", "Absent", "RepositoryIndex")


def messages(model: str, seed: int, count: int):
    """So many gRPC messages to this model; the same seed gives the same."""
    rng = random.Random(seed)
    for _ in range(count):
        content = _dear_message(rng, model) if rng.random() < 0.1 else _message(rng, model)
        yield Message(rng.choice(_METHODS), content, rng.random() < 0.1)


def dear(model: str, rng: random.Random) -> Request:
    """A request of a kind that once took gigabytes, minutes, a traceback or a series of metrics."""
    path, headers = rng.choice(PATHS).format(model), {"content-type": "application/json"}
    size = rng.choice([10, 1000, 100_000])
    tensor = '{"inputs":[{"name":"x","datatype":"FP32","shape":%s,"data":%s}],"parameters":%s}'
    body = rng.choice(
        [
            '{"inputs":[' + "{}," * size + "{}]}",
            '{"inputs":[' + "1," * size + "1]}",
            '{"inputs":[],"outputs":[' + "{}," * size + "{}]}",
            tensor % ("[" + "1," * size + "1]", "[0]", "{}"),
            tensor % ("[1,8,8,1]", "[" + "[]," * size + "[]]", "{}"),
            tensor % ("[1,8,8,1]", "[" + '"a",' * size + '"a"]', "{}"),
            tensor
            % (rng.choice(["[1,0,9223372036854775808]", "[" + "1," * 70 + "64]", "[1e400]"]), "[]", "{}"),
            tensor % ("[1,8,8,1]", "[0]", "{" + ",".join(f'"{index:x}":1' for index in range(size)) + "}"),
            tensor % ("[1,8,8,1]", "[0]", '{"threshold":"%s"}' % ("[" * 900 + "]" * 900)),
            '{"id":"%s","inputs":[]}' % ("a" * size),
            '{"instances":[' + "[]," * size + "[]]}",
            '{"data":{"tensor":{"shape":[' + "1," * size + '1],"values":[]}}}',
            "[" * size,
            '{"a":' * size,
        ]
    ).encode()
    act = rng.randrange(6)
    if act == 0:
        headers["content-encoding"], body = "gzip", gzip.compress(body, 1)
    elif act == 1:
        path = path.replace(model, f"{model}-{rng.getrandbits(40):x}")
    elif act == 2:
        headers["baggage"] = "x" * rng.choice([10, 9000])
    return Request(path, headers, body)


def _message(rng: random.Random, model: str) -> bytes:
    rows = struct.pack("<64f", *(rng.random() for _ in range(64)))
    tensor = _field(1, b"x") + _field(2, b"FP32") + _field(3, b"\x01\x08\x08\x01")
    parts = [_field(1, model.encode()), _field(3, b"1"), _field(5, tensor), _field(7, rows)]
    if rng.random() < 0.3:
        parts[3] = b""
        parts[2] = _field(5, tensor + _field(5, _field(6, rows)))
    parts.append(_field(4, _field(1, b"max_calls") + _field(2, b"\x10\x01")))
    for _ in range(rng.randrange(3)):
        act, at = rng.randrange(5), rng.randrange(len(parts))
        if act == 0:
            parts[at] = b""
        elif act == 1:
            parts.insert(at, parts[at])
        elif act == 2:
            parts[at] = rng.randbytes(rng.randrange(40))
        elif act == 3:
            parts[at] = _torn(rng, parts[at]) if parts[at] else b""
        else:
            parts[at] = _field(rng.randrange(1, 9), rng.choice([b"", b"\xff", b"a\nb", b"\x00" * 9, rows]))
    return b"".join(parts)


def _dear_message(rng: random.Random, model: str) -> bytes:
    size, name = rng.choice([10, 1000, 300_000]), _field(1, model.encode())
    tensor = _field(1, b"x") + _field(2, b"FP32")
    return rng.choice(
        [
            name + b"\x2a\x00" * size,
            name + b"\x32\x00" * size,
            name + b"\x3a\x00" * size,
            name + _field(5, tensor + _field(5, b"\x42\x00" * size)),
            name + _field(5, tensor + _field(5, _field(6, bytes(4 * size)))),
            name + _field(5, tensor + _field(3, b"\x01" * size)),
            name + _field(5, tensor + _field(3, b"\x01\x00" + b"\xff" * 8 + b"\x7f")) + _field(7, b""),
            name + _field(3, b"a" * size) + _field(5, tensor),
            name
            + b"".join(
                _field(4, _field(1, b"%x" % index) + _field(2, b"\x10\x01")) for index in range(size % 9999)
            ),
            _field(1, b"%x" % rng.getrandbits(60)) + _field(5, tensor),
            name + _field(5, tensor + _field(3, b"\x01" * 70 + b"\x40")) + _field(7, bytes(256)),
            name + _field(4, _field(1, b"threshold") + _field(2, _field(3, b"[" * 900 + b"]" * 900))),
            gzip.compress(name + b"\x2a\x00" * (10 * size), 1),
            gzip.compress(bytes(100 * size), 1),
            b"\x2b" * size,
            b"\xff" * size,
            b"\x1f\x8b\x08" + rng.randbytes(size % 500),
        ]
    )


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
