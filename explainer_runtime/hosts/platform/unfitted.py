"""An explainer that nobody has fitted: its settings from a command line, its input from the model.

KServe's own example of an image explainer names a method and its settings as arguments (`AnchorImages
--threshold 0.95 --batch_size 40`), beside an artifact of another maker that this package does not open.
Such a method (`Spec.fitless`) only has to know what an image is; so the model is asked, by its metadata:
V2's, or that of TensorFlow Serving. It may start at the same moment, hence the patience. Whoever knows better
says so: `--shape 32,32,3 --classes 10 --low 0 --high 255`.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidSpec, PredictorUnavailable
from explainer_runtime.explainers import fit
from explainer_runtime.methods import parse_spec, settings_of
from explainer_runtime.predictors.settings import Endpoint
from explainer_runtime.spec import Inputs, parse

FOLDER = "fitted-from-arguments"
"""Name of the directory that is written, by which others know it."""
PATIENCE = 300.0
"""Seconds in which the model has to answer."""
_PAUSE = 1.0
_MOST = 2**20
_INPUTS = ("shape", "classes", "low", "high")


def explainer(
    kind: str, settings: Mapping[str, str], model: Endpoint, scratch: Path, patience: float = PATIENCE
) -> Path:
    """Write an explainer of this kind for this model; its directory.

    Args:
        kind: A method for which nothing has to be fitted.
        settings: Fields of its settings and of `spec.Inputs` as words; others are not looked at.
        model: Where the model is.
        scratch: Where to write.
        patience: Seconds in which the model has to answer.

    Raises:
        InvalidSpec: A word that is no value of its field, or a model that does not say what its input is.
        PredictorUnavailable: The model did not answer in time.
    """
    said = {name: _value(value) for name, value in settings.items()}
    fields = {name: value for name, value in said.items() if name in settings_of(kind).model_fields}
    spec = parse_spec({**fields, "kind": kind})
    known = {name: said[name] for name in _INPUTS if name in said}
    if not {"shape", "classes"} <= known.keys():
        known = {**_described(model, patience), **known}
    if isinstance(known.get("shape"), str):
        known["shape"] = tuple(_value(size) for size in known["shape"].split(","))
    inputs = parse(Inputs, {"low": 0.0, "high": 1.0, **known}, "inputs")
    return artifact.save(fit(spec, inputs=inputs), scratch / FOLDER)


def unused(kind: str, settings: Mapping[str, str]) -> list[str]:
    """Names of settings that `explainer` does not look at."""
    return [name for name in settings if name not in settings_of(kind).model_fields and name not in _INPUTS]


def _value(word: str) -> Any:
    """`0.9`, `40`, `True` or a name."""
    try:
        return orjson.loads(word.lower() if word in ("True", "False", "None") else word)
    except orjson.JSONDecodeError:
        return word


def _described(model: Endpoint, patience: float) -> dict[str, Any]:
    """Shape, range and classes, from the model's metadata; asked again until it answers."""
    if not model.url.startswith("http"):
        raise InvalidSpec("shape, classes: without a fitted artifact, say --shape and --classes for gRPC")
    path = (
        (model.path or f"/{model.kind}/models/{model.model}").removesuffix(":predict").removesuffix("/infer")
    )
    address = model.url + path + "/metadata" * (model.kind == "v1")
    until = time.monotonic() + patience
    while (answer := _answer(address, model)) is None:
        if time.monotonic() + _PAUSE > until:
            raise PredictorUnavailable(f"model {model.model!r}: no metadata at {address}")
        time.sleep(_PAUSE)
    try:
        return _tensorflow(answer) if model.kind == "v1" else _v2(answer)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        raise InvalidSpec(
            f"model {model.model!r}: the metadata at {address} does not say what an image is; say "
            "--shape 32,32,3 --classes 10"
        ) from None


def _answer(address: str, model: Endpoint) -> Any:
    """The JSON at an address; None where there is none, yet."""
    request = urllib.request.Request(address, headers=dict(model.headers))  # noqa: S310 - http or https
    trust = ssl.create_default_context(cafile=model.ca_path) if address.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=model.timeout, context=trust) as answer:  # noqa: S310
            return orjson.loads(answer.read(_MOST))
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
        return None


def _tensorflow(answer: Any) -> dict[str, Any]:
    """TensorFlow Serving's: `/v1/models/<model>/metadata`."""
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    (image,) = signature["inputs"].values()
    scores = next(iter(signature["outputs"].values()))
    sizes = [[int(one["size"]) for one in part["tensor_shape"]["dim"]] for part in (image, scores)]
    return _contract(sizes[0], sizes[1], image["dtype"] == "DT_UINT8")


def _v2(answer: Any) -> dict[str, Any]:
    """V2's: `/v2/models/<model>`."""
    (image,) = answer["inputs"]
    return _contract(image["shape"], answer["outputs"][0]["shape"], image["datatype"] == "UINT8")


def _contract(image: Any, scores: Any, integers: bool) -> dict[str, Any]:
    if min(*image[1:], scores[-1]) < 1:
        raise ValueError(f"no fixed sizes: {image}, {scores}")
    return {"shape": tuple(image[1:]), "classes": scores[-1], "high": 255.0 if integers else 1.0}
