"""MLServer's runtime of an explainer: a thin shell.

What a request asks and what is answered is in `asked.py`, what an explainer needs to run in `service.py`,
what an error becomes in `status.py`, which paths it answers in `routes.py`; here are only MLServer's life
cycle and its two questions, `predict` and `predict_stream`. MLServer calls `__init__` in processes that never
serve, so nothing is opened or imported before `load`; it also looks at every attribute of an instance.
"""

from __future__ import annotations

import asyncio
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

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.mlserver import routes, v2types
from explainer_runtime.hosts.mlserver.faults import faults
from explainer_runtime.hosts.mlserver.keras import KerasRuntime, loaded
from explainer_runtime.hosts.service.asked import Asked, answered, asked, described, explained, schema
from explainer_runtime.hosts.service.names import check_name
from explainer_runtime.hosts.service.reports import Reports, told
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.hosts.service.settings import parse_settings
from explainer_runtime.predictors.settings import Colocated
from explainer_runtime.wire import DRAWN

__all__ = ["ExplainerRuntime", "KerasRuntime"]


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
                read, reports = await aside(self.read, payload), Reports()
                work = asyncio.ensure_future(explained(self.service(), read, reports.report))
                work.add_done_callback(reports.end)
                try:
                    async for progress in reports:
                        yield v2types.respond(self, payload, told(progress), event="progress")
                    yield await aside(self._respond, payload, read, await work, "explanation")
                finally:
                    work.cancel()

    def service(self) -> Service:
        """What explains; once it is loaded."""
        if self._service is None:
            raise MLServerError(f"{self.name} is still loading", 503)
        return self._service

    def read(self, payload: InferenceRequest, *, bare: bool = False) -> Asked:
        """What a V2 request asks; a `bare` answer has only those outputs to choose from that are drawn."""
        wanted = [output.name for output in payload.outputs or () if not bare or output.name in DRAWN]
        return asked(self.service(), v2types.tensors(payload), v2types.parameters(payload), wanted)

    def _respond(
        self, payload: InferenceRequest, read: Asked, explanation: Explanation, event: str | None = None
    ) -> InferenceResponse:
        tensors, took, headers = answered(self.service(), read, explanation)
        more = took if event is None else {**took, "event": event}
        return v2types.respond(self, payload, tensors, headers=headers, **more)


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
