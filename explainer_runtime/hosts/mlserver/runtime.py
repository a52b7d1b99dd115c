"""MLServer's runtime of an explainer: a thin shell.

What a request asks and what is answered is in `asked.py`, what an explainer needs to run in `service.py`,
what an error becomes in `status.py`, which paths it answers in `routes.py`; here are only MLServer's life
cycle and its two questions, `predict` and `predict_stream`. MLServer calls `__init__` in processes that never
serve, so nothing is opened or imported before `load`; it also looks at every attribute of an instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    Parameters,
)
from mlserver.utils import get_model_uri

from explainer_runtime.driver import Progress
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.mlserver import routes, v2types
from explainer_runtime.hosts.mlserver.faults import faults
from explainer_runtime.hosts.mlserver.keras import KerasRuntime, loaded
from explainer_runtime.hosts.service.asked import Asked, answered, asked, described, explained, schema
from explainer_runtime.hosts.service.names import check_name
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.hosts.service.settings import parse_settings
from explainer_runtime.predictors.settings import Colocated
from explainer_runtime.wire import Tensor

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
        inputs, outputs = described(service)
        self.inputs = [v2types.described(tensor) for tensor in inputs]
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
        """Inputs and outputs, and the JSON schema of the options."""
        said = await super().metadata()
        said.parameters = Parameters(explain_parameters=schema(self.service()))
        return said

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Explain every row of the request's only input."""
        with faults():
            read = await aside(self.read, payload)
            explanation = await explained(self.service(), read)
            return await aside(self._respond, payload, read, explanation)

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """The same for each payload, with progress before the answer; `parameters.event` tells them apart."""
        async for payload in payloads:
            with faults():
                read, reports = await aside(self.read, payload), _Reports()
                work = asyncio.ensure_future(explained(self.service(), read, reports.report))
                work.add_done_callback(reports.end)
                try:
                    async for progress in reports:
                        yield v2types.respond(self, payload, _progress(progress), event="progress")
                    yield await aside(self._respond, payload, read, await work, "explanation")
                finally:
                    work.cancel()

    def service(self) -> Service:
        """What explains; once it is loaded."""
        if self._service is None:
            raise MLServerError(f"{self.name} is still loading", 503)
        return self._service

    def read(self, payload: InferenceRequest, *, bare: bool = False) -> Asked:
        """What a V2 request asks; a `bare` answer has no outputs to choose from."""
        wanted = [] if bare else [output.name for output in payload.outputs or ()]
        return asked(self.service(), v2types.tensors(payload), v2types.parameters(payload), wanted)

    def _respond(
        self, payload: InferenceRequest, read: Asked, explanation: Explanation, event: str | None = None
    ) -> InferenceResponse:
        tensors, took, headers = answered(self.service(), read, explanation)
        more = took if event is None else {**took, "event": event}
        return v2types.respond(self, payload, tensors, headers=headers, **more)


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
