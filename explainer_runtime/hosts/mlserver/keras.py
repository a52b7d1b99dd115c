"""The MLServer runtime of a Keras model that is to be explained."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from mlserver import MLModel, ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

from explainer_runtime import wire
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.mlserver import v2types
from explainer_runtime.hosts.mlserver.faults import faults
from explainer_runtime.hosts.service.admission import be_nice
from explainer_runtime.predictors import connect
from explainer_runtime.predictors.colocated import announce, withdraw
from explainer_runtime.predictors.settings import KerasModel
from explainer_runtime.spec import parse
from explainer_runtime.tensors import Tensor

_THREADS = 4


class KerasRuntime(MLModel):
    """Serves a `.keras` file or a SavedModel, `parameters.uri`, as one output `scores` of class scores.

    `parameters.extra` may say what the model takes and what its numbers mean, as `spec.ModelContract` does
    (`logits: true` for a model without a softmax at its end). An explainer in the same process finds the
    model's graph under its name (`predictor: colocated:<name>`).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._predictor: Any = None

    async def load(self) -> bool:
        """Load the model, compile it, and offer its graph to explainers in this process."""
        with faults(), _loading(self.name):
            path = await get_model_uri(self.settings, ["model.keras"])
            extra = {"path": path, **v2types.settings_of(self.settings)}
            settings = parse(KerasModel, extra, "parameters.extra")
            predictor = await _compute(_load, settings)
            announce(self.name, predictor)
        open_shape = (-1 if size is None else size for size in predictor.shape)
        self.inputs = [v2types.described(Tensor("input", "FP32", (-1, *open_shape)))]
        self.outputs = [v2types.described(Tensor("scores", "FP32", (-1, predictor.classes or -1)))]
        self._predictor = predictor
        return True

    async def unload(self) -> bool:
        """Withdraw the graph from explainers in this process."""
        if self._predictor is not None:
            withdraw(self.name, self._predictor)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Class scores `(N, K)` of the rows of the request's only input."""
        with faults():
            wire.check_outputs([output.name for output in payload.outputs or ()], ["scores"])
            rows = await aside(wire.decode_rows, v2types.tensors(payload))
            scores = await _compute(self._predictor, rows)
            tensors = [Tensor("scores", "FP32", scores.shape, scores)]
            return await aside(v2types.respond, self, payload, tensors)


_LOADING: dict[str, asyncio.Event] = {}
"""Keras models that are being loaded in this process. MLServer loads all models at the same time; an
explainer listed after its model waits for it here, and so is compiled before it is ready."""


async def loaded(name: str) -> None:
    """Wait until the Keras model of this name, if it is being loaded now, is loaded."""
    if name in _LOADING:
        await _LOADING[name].wait()


@contextmanager
def _loading(name: str) -> Iterator[None]:
    done = _LOADING[name] = asyncio.Event()
    try:
        yield
    finally:
        _LOADING.pop(name, None)
        done.set()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "keras", initializer=be_nice)


async def _compute(function: Any, *args: Any) -> Any:
    run = contextvars.copy_context().run  # logs know what they are about from the context
    return await asyncio.get_running_loop().run_in_executor(_pool(), run, function, *args)


def _load(settings: KerasModel) -> Any:
    predictor: Any = connect(settings)
    shape = [size for size in predictor.shape if size is not None]
    if len(shape) == len(predictor.shape):
        predictor(np.zeros((1, *shape), np.float32))
    return predictor
