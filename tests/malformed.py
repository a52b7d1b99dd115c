"""Requests that are wrong in ways nobody thought of: valid ones, broken at random.

Each is a path, headers and a body. What is broken is structure (values replaced, dropped, doubled, nested),
numbers (huge, negative, not finite), text (cut, flipped, of another encoding), or what headers claim.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from typing import Any, NamedTuple

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
