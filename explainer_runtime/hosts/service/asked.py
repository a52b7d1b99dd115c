"""A request goes down once, and its answer comes up once: what the hosts of an explainer share.

A host turns what it was sent into tensors and parameters, or a body; one call makes of them what was asked,
with everything checked, and one what is answered. What is between, `explained`, waits for the explanation and
stops it when nobody else does.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from explainer_runtime import pictures, render, wire
from explainer_runtime.driver import Progress
from explainer_runtime.errors import ExplainerError, InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service.caller import Caller, Checked, caller
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.pictures import Sent
from explainer_runtime.spec import options_of, parse_options, with_options
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import CARD, DRAWN, PAGE, PICTURE, Files

_FEW = 32
"""Values of a setting beyond which its schema does not say them."""


@dataclass(frozen=True)
class Asked:
    """One request to one explainer.

    Attributes:
        rows: What to explain `(N, ...)`, float32.
        options: What it changes of the settings, not yet validated.
        outputs: Names of the outputs that are wanted; none are all but those that are drawn.
        by: Who asks.
        sent: The pictures that the rows were, where they came as such.
    """

    rows: np.ndarray
    options: Mapping[str, Any]
    outputs: tuple[str, ...]
    by: Caller
    sent: tuple[Sent, ...] = ()


class Answered(NamedTuple):
    """What a host sends back.

    Attributes:
        tensors: The outputs.
        parameters: What it took.
        headers: By which clients tell an explanation.
    """

    tensors: list[Tensor]
    parameters: dict[str, Any]
    headers: dict[str, str]


def asked(
    service: Service,
    inputs: Sequence[Tensor],
    parameters: Mapping[str, Any] | None,
    outputs: Sequence[str] = (),
) -> Asked:
    """What a V2 request asks.

    Raises:
        InvalidInput, InvalidOption: Its rows, its options, or the outputs it names.
    """
    with _counting(service):
        it = _asked(service, wire.decode_input(inputs), parameters, tuple(outputs))
        if outputs:
            spec = service.fitted.spec  # a request may ask for more (`also`) than the metadata says
            fitted = replace(service.fitted, spec=with_options(spec, parse_options(spec, it.options)))
            wire.check_outputs(outputs, [*DRAWN, *(one.name for one in wire.describe_outputs(fitted))])
        return it


def asked_in(service: Service, body: Mapping[str, Any]) -> Asked:
    """What a body of V1 or Seldon asks; see `wire.decode_body`. Of its `outputs` those count that are drawn.

    Raises:
        InvalidInput, InvalidOption: Its rows or its options.
    """
    with _counting(service):
        return _asked(service, *wire.decode_body(body), drawn(body.get("outputs")))


def drawn(outputs: Any) -> tuple[str, ...]:
    """Those of a body's outputs that are drawn, which an answer without tensors may have as well."""
    entries = outputs if isinstance(outputs, list | tuple) else ()
    named = [one.get("name") for one in entries if isinstance(one, dict)]
    return tuple(name for name in DRAWN if name in named)


async def explained(
    service: Service, asked: Asked, progress: Callable[[Progress], None] | None = None
) -> Explanation:
    """The explanation, computed off the event loop; when nobody waits any more, it stops.

    Raises:
        ExplainerError: Whatever is wrong, see `status.py`.
        Checked: Nothing is, and the caller asked for no more than that.
    """
    by, gone = asked.by, threading.Event()
    if by.kept is not None:
        if by.artifact != service.digest:  # other classes, another range: it would be drawn as what it is not
            raise InvalidInput("it was answered by an artifact that is served no more")
        return by.kept
    if by.checks:
        await asyncio.to_thread(service.check, asked.rows, asked.options)
        raise Checked(service.name)
    by.artifact = service.digest
    try:
        future = service.submit(
            asked.rows,
            asked.options,
            lambda: gone.is_set() or by.gone.is_set(),
            client=by.name,
            progress=progress or by.told,
            give_way=gone.set if by.spare else None,
        )
        explanation = await by.unless_cut(future)
    finally:
        gone.set()
    if not asked.sent:
        return explanation
    return replace(explanation, meta={**explanation.meta, "pictures": [one.said() for one in asked.sent]})


def answered(service: Service, asked: Asked, explanation: Explanation) -> Answered:
    """The answer to it."""
    tensors, cost = wire.encode(explanation, asked.outputs), explanation.cost
    tensors += _drawings(service, asked, explanation)
    took = {
        "predictor_calls": cost.calls,
        "predictor_rows": cost.rows,
        "search_steps": cost.steps,
        "predictor_seconds": round(cost.seconds, 6),
    }
    return Answered(tensors, took, marks(service, explanation))


def marks(service: Service, explanation: Explanation) -> dict[str, str]:
    """Headers by which clients tell an explanation, and one that was made before."""
    kept = {"x-explanation-cache": "hit"} if "cached" in explanation.meta else {}
    return {"x-seldon-alibi-type": "explanation", "x-seldon-alibi-method": service.fitted.spec.kind, **kept}


def document(service: Service, asked: Asked, explanation: Explanation) -> bytes:
    """The answer where it has no tensors: `{"meta", "data"}`, and `outputs` where any is drawn."""
    said = explanation.to_json()
    drawings = {one.name: one.data[0].decode() for one in _drawings(service, asked, explanation)}
    return said if not drawings else said[:-1] + b',"outputs":' + orjson.dumps(drawings) + b"}"


def _drawings(service: Service, asked: Asked, explanation: Explanation) -> Iterator[Tensor]:
    """The outputs that are drawn and asked for."""
    fitted, sent = service.fitted, asked.sent
    these = explanation, asked.rows, fitted.inputs
    about = {"explainer": f"{service.name}, SHA-256 {service.digest}"}
    more: Any = {"sent": sent, "accuracy": fitted.model.get("accuracy"), "about": about}
    if PICTURE in asked.outputs:
        yield Tensor(PICTURE, "BYTES", (1, 1), [base64.b64encode(render.png(*these, sent=sent))])
    if CARD in asked.outputs:
        yield Tensor(CARD, "BYTES", (1, 1), [render.fragment(*these, **more).encode()])
    if PAGE in asked.outputs:
        yield Tensor(PAGE, "BYTES", (1, 1), [render.html(*these, **more).encode()])


def listed(service: Service, state: str, versions: Sequence[str] = ()) -> dict[str, Any]:
    """What a list of what is served says of one explainer, as JSON values."""
    inputs = service.fitted.inputs
    draws = True
    try:
        render.check(inputs)
    except InvalidInput:
        draws = False
    return {
        "name": service.name,
        "versions": list(versions),
        "state": state,
        "method": service.fitted.spec.kind,
        "takes_pictures": pictures.taken(inputs),
        "draws_pictures": draws,
        "about": inspect.getdoc(type(service.fitted.spec)),
        "inputs": inputs.model_dump(mode="json"),
        "explain_parameters": options(service),
    }


def described(service: Service) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and the outputs, for metadata."""
    outputs = [*wire.describe_outputs(service.fitted), *(Tensor(name, "BYTES", (1, 1)) for name in DRAWN)]
    return [wire.describe_input(service.fitted.inputs)], outputs


def schema(service: Service) -> str:
    """The JSON schema of the options: a string, which gRPC carries, too."""
    return orjson.dumps(options(service)).decode()


def options(service: Service) -> dict[str, Any]:
    """The JSON schema of the options; the default of each is what the explainer was fitted with."""
    spec = service.fitted.spec
    said = options_of(type(spec)).model_json_schema()
    own = spec.model_dump(mode="json")
    for name in said["properties"].keys() & own.keys():
        if np.size(own[name]) <= _FEW:
            said["properties"][name]["default"] = own[name]
    return said


def _asked(
    service: Service,
    rows: np.ndarray | Files,
    parameters: Mapping[str, Any] | None,
    outputs: tuple[str, ...] = (),
) -> Asked:
    options = wire.decode_options(parameters, options_of(type(service.fitted.spec)).model_fields)
    if set(DRAWN) & set(outputs):
        render.check(service.fitted.inputs)
    if isinstance(rows, np.ndarray):
        return Asked(rows, options, outputs, caller())
    most, (files, field) = service.settings.limits.max_batch, rows
    if len(files) > most:  # before any is decoded
        raise InvalidInput(f"{field}: expected 1 to {most} rows, got {len(files)}", field)
    places = [f"{field}[{index}]" for index in range(len(files))]
    sent = tuple(
        pictures.read(io.BytesIO(file), service.fitted.inputs, place, place, caller().hold)
        for file, place in zip(files, places, strict=True)
    )
    return Asked(np.stack([one.row for one in sent]), options, outputs, caller(), sent)


@contextmanager
def _counting(service: Service) -> Iterator[None]:
    """Within, refusals are counted by the service, which never sees the request."""
    try:
        yield
    except ExplainerError as error:
        service.refused(error)
        raise
