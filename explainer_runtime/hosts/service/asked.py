"""A request goes down once, and its answer comes up once: what the hosts of an explainer share.

A host turns what it was sent into tensors and parameters, or a body; one call makes of them what was asked,
with everything checked, and one what is answered. What is between, `explained`, waits for the explanation and
stops it when nobody else does.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from explainer_runtime import render, wire
from explainer_runtime.driver import Progress
from explainer_runtime.errors import ExplainerError
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service.caller import Caller, Checked, caller
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.spec import options_of, parse_options, with_options
from explainer_runtime.wire import PICTURE, Tensor


@dataclass(frozen=True)
class Asked:
    """One request to one explainer.

    Attributes:
        rows: What to explain `(N, ...)`, float32.
        options: What it changes of the settings, not yet validated.
        outputs: Names of the outputs that are wanted; none are all but the picture.
        by: Who asks.
    """

    rows: np.ndarray
    options: Mapping[str, Any]
    outputs: tuple[str, ...]
    by: Caller


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
        it = _asked(service, wire.decode_rows(inputs), parameters, tuple(outputs))
        if outputs:
            spec = service.fitted.spec  # a request may ask for more (`also`) than the metadata says
            fitted = replace(service.fitted, spec=with_options(spec, parse_options(spec, it.options)))
            wire.check_outputs(outputs, [PICTURE, *(one.name for one in wire.describe_outputs(fitted))])
        if PICTURE in outputs:
            render.check(service.fitted.inputs)
        return it


def asked_in(service: Service, body: Mapping[str, Any]) -> Asked:
    """What a body of V1 or Seldon asks; see `wire.decode_body`.

    Raises:
        InvalidInput, InvalidOption: Its rows or its options.
    """
    with _counting(service):
        return _asked(service, *wire.decode_body(body))


async def explained(
    service: Service, asked: Asked, progress: Callable[[Progress], None] | None = None
) -> Explanation:
    """The explanation, computed off the event loop; when nobody waits any more, it stops.

    Raises:
        ExplainerError: Whatever is wrong, see `status.py`.
        Checked: Nothing is, and the caller asked for no more than that.
    """
    by, gone = asked.by, threading.Event()
    if by.checks:
        await asyncio.to_thread(service.check, asked.rows, asked.options)
        raise Checked(service.name)
    try:
        future = service.submit(
            asked.rows,
            asked.options,
            lambda: gone.is_set() or by.gone.is_set(),
            client=by.name,
            progress=progress or by.told,
            give_way=gone.set if by.spare else None,
        )
        return await by.unless_cut(future)
    finally:
        gone.set()


def answered(service: Service, asked: Asked, explanation: Explanation) -> Answered:
    """The answer to it."""
    tensors, cost = wire.encode(explanation, asked.outputs), explanation.cost
    if PICTURE in asked.outputs:
        png = render.png(explanation, asked.rows, service.fitted.inputs)
        tensors.append(Tensor(PICTURE, "BYTES", (1, 1), [base64.b64encode(png)]))
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


def described(service: Service) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and the outputs, for metadata."""
    outputs = [*wire.describe_outputs(service.fitted), Tensor(PICTURE, "BYTES", (1, 1))]
    return [wire.describe_input(service.fitted.inputs)], outputs


def schema(service: Service) -> str:
    """The JSON schema of the options: a string, which gRPC carries, too."""
    return orjson.dumps(options_of(type(service.fitted.spec)).model_json_schema()).decode()


def _asked(
    service: Service, rows: np.ndarray, parameters: Mapping[str, Any] | None, outputs: tuple[str, ...] = ()
) -> Asked:
    options = wire.decode_options(parameters, options_of(type(service.fitted.spec)).model_fields)
    return Asked(rows, options, outputs, caller())


@contextmanager
def _counting(service: Service) -> Iterator[None]:
    """Within, refusals are counted by the service, which never sees the request."""
    try:
        yield
    except ExplainerError as error:
        service.refused(error)
        raise
