"""MLServer's runtime of an explainer: a thin shell.

What a request means is in `wire.py`, what an explainer needs to run in `service.py`, what an error becomes in
`status.py`, which paths it answers in `routes.py`; here are only MLServer's life cycle and its two questions,
`predict` and `predict_stream`. MLServer calls `__init__` in processes that never serve, so nothing is opened
or imported before `load`.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import orjson
from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    Parameters,
)
from mlserver.utils import get_model_uri

from explainer_runtime import render, wire
from explainer_runtime.driver import Progress
from explainer_runtime.errors import ExplainerError, InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts import routes, v2types
from explainer_runtime.hosts.caller import caller
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.faults import faults
from explainer_runtime.hosts.keras import KerasRuntime, loaded
from explainer_runtime.hosts.names import check_name
from explainer_runtime.hosts.service import Service, parse_settings
from explainer_runtime.predictors.settings import Colocated
from explainer_runtime.spec import options_of
from explainer_runtime.wire import PICTURE, Tensor

__all__ = ["ExplainerRuntime", "KerasRuntime"]

_BETWEEN = 0.1
"""Seconds between two progress events of one stream, at least."""


class ExplainerRuntime(MLModel):
    """Serves one explainer directory: `parameters.uri` is the directory, `parameters.extra` the settings.

    See `service.parse_settings` for the settings. Every row of a request is explained; the answer comes by
    `/infer`, and by the routes that MLServer does not know and `routes.py` adds.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._service: Service | None = None
        routes.register(self)

    async def load(self) -> bool:
        """Read the artifact and compile; the model being explained need not be up."""
        with faults():
            _refuse_sharing(self.settings)
            path = await get_model_uri(self.settings)
            settings = parse_settings(path, v2types.settings_of(self.settings))
            if isinstance(settings.predictor, Colocated):
                await loaded(settings.predictor.model)
            service = Service(settings, self.name)
            await asyncio.to_thread(service.load)
        inputs = service.fitted.inputs
        outputs = [*wire.describe_outputs(service.fitted), Tensor(PICTURE, "BYTES", (1, 1))]
        self.inputs = [v2types.described(wire.describe_input(inputs))]
        self.outputs = [v2types.described(tensor) for tensor in outputs]
        self._service = service
        routes.enter(self)
        return True

    async def unload(self) -> bool:
        """Take no more requests; running ones finish."""
        routes.leave(self)
        if self._service is not None:
            await asyncio.to_thread(self._service.close)
        return True

    async def metadata(self) -> MetadataModelResponse:
        """Inputs and outputs, and the JSON schema of the options: as a string, which gRPC carries, too."""
        said = await super().metadata()
        schema = options_of(type(self._ready().fitted.spec)).model_json_schema()
        said.parameters = Parameters(explain_parameters=orjson.dumps(schema).decode())
        return said

    def marks(self) -> dict[str, str]:
        """Headers by which clients tell an explanation."""
        kind = self._ready().fitted.spec.kind
        return {"x-seldon-alibi-type": "explanation", "x-seldon-alibi-method": kind}

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Explain every row of the request's only input."""
        with faults():
            rows, wanted = await aside(self._read, payload)
            explanation = await self.explained(rows, v2types.parameters(payload))
            return await self._respond(payload, rows, wanted, explanation)

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """The same for each payload, with progress before the answer; `parameters.event` tells them apart."""
        async for payload in payloads:
            with faults():
                rows, wanted = await aside(self._read, payload)
                reports = _Reports()
                work = asyncio.ensure_future(
                    self.explained(rows, v2types.parameters(payload), reports.report)
                )
                work.add_done_callback(reports.end)
                try:
                    async for progress in reports:
                        yield v2types.respond(self, payload, _progress(progress), event="progress")
                    yield await self._respond(payload, rows, wanted, await work, event="explanation")
                finally:
                    work.cancel()

    async def explained(
        self,
        rows: np.ndarray,
        parameters: Mapping[str, Any] | None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Explanation:
        """The explanation of rows, with the options in a request's parameters; it stops when nobody waits.

        Raises:
            ExplainerError: Whatever is wrong, see `status.py`.
        """
        service, asking, gone = self._ready(), caller(), threading.Event()
        with _counting(service):
            options = wire.decode_options(parameters, options_of(type(service.fitted.spec)).model_fields)
        try:
            future = service.submit(
                rows,
                options,
                lambda: gone.is_set() or asking.gone.is_set(),
                client=asking.name,
                progress=progress,
            )
            return await asking.unless_cut(future)
        finally:
            gone.set()

    def _ready(self) -> Service:
        if self._service is None:
            raise MLServerError(f"{self.name} is still loading", 503)
        return self._service

    def _read(self, payload: InferenceRequest) -> tuple[np.ndarray, list[str]]:
        with _counting(self._ready()):
            wanted = [output.name for output in payload.outputs or ()]
            wire.check_outputs(wanted, [output.name for output in self.outputs or ()])
            if PICTURE in wanted:
                render.check(self._ready().fitted.inputs)
            return wire.decode_rows(v2types.tensors(payload)), wanted

    async def _respond(
        self,
        payload: InferenceRequest,
        rows: np.ndarray,
        wanted: list[str],
        explanation: Explanation,
        **more: Any,
    ) -> InferenceResponse:
        return await aside(self._answer, payload, rows, wanted, explanation, more)

    def _answer(
        self,
        payload: InferenceRequest,
        rows: np.ndarray,
        wanted: list[str],
        explanation: Explanation,
        more: Mapping[str, Any],
    ) -> InferenceResponse:
        tensors = wire.encode(explanation, wanted)
        if PICTURE in wanted:
            png = render.png(explanation, rows, self._ready().fitted.inputs)
            tensors.append(Tensor(PICTURE, "BYTES", (1, 1), [base64.b64encode(png)]))
        return v2types.respond(
            self,
            payload,
            tensors,
            headers=self.marks(),
            predictor_calls=explanation.cost.calls,
            predictor_rows=explanation.cost.rows,
            search_steps=explanation.cost.steps,
            predictor_seconds=round(explanation.cost.seconds, 6),
            **more,
        )


class _Reports:
    """Progress, from the thread that computes to the task that tells: the newest, and not too often."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._last = 0.0

    def report(self, progress: Progress) -> None:
        """Called by the thread."""
        now = time.monotonic()
        if now - self._last >= _BETWEEN:
            self._last = now
            self._loop.call_soon_threadsafe(self._queue.put_nowait, progress)

    def end(self, work: asyncio.Future[Explanation]) -> None:
        """Called by the event loop: there will be no more."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while (progress := await self._queue.get()) is not None:
            yield progress


def _progress(progress: Progress) -> list[Tensor]:
    tensors = [
        Tensor("progress", "FP32", (1,), [progress.fraction]),
        Tensor("predictor_rows", "INT64", (1,), [progress.rows]),
        Tensor("predictor_calls", "INT64", (1,), [progress.calls]),
    ]
    if progress.best is not None:
        tensors.append(Tensor("best", "FP32", (1,), [float(progress.best)]))
    return tensors


class _counting:
    """Within, refusals are counted by the service, which never sees the request."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ExplainerError):
            self._service.refused(error)


def _refuse_sharing(settings: ModelSettings) -> None:
    """Refuse what would give one caller's answer to another.

    MLServer's adaptive batching merges the parameters of different callers, the last one winning, and its
    response cache leaves the model's name out of its key.
    """
    if settings.max_batch_size > 1:
        raise InvalidSpec("max_batch_size: batching would mix the options of different callers; set it to 0")
    if settings.cache_enabled:
        raise InvalidSpec("cache_enabled: the cache mixes the answers of different models; set it to false")
    check_name(settings.name)
    if settings.version:
        check_name(settings.version, "parameters.version")
