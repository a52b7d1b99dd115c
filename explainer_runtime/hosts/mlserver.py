"""Two MLServer runtimes: one serves an explainer, one the Keras model it explains.

Both are thin shells. What a request means is in `wire.py`, what an explainer needs to run in `service.py`,
what an error becomes in `status.py`; here are only MLServer's types, routes and life cycle. MLServer calls
`__init__` in processes that never serve, so nothing is opened or imported before `load`.
"""
# Annotations are evaluated here: with parallel workers MLServer wraps a custom handler in a function of
# another module, and FastAPI would look their names up there.

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fastapi.responses import Response
from mlserver import MLModel, ModelSettings
from mlserver.codecs.json import encode_to_json_bytes
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.handlers.custom import CustomHandler, register_custom_handler
from mlserver.logging import logger
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    ResponseOutput,
)
from mlserver.utils import generate_uuid, get_model_uri

from explainer_runtime import wire
from explainer_runtime.errors import ExplainerError, InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service import Service, parse_settings
from explainer_runtime.hosts.status import fault
from explainer_runtime.predictors.colocated import announce, withdraw
from explainer_runtime.spec import OPTIONS, Colocated, KerasModel, parse
from explainer_runtime.wire import Tensor


class ExplainerRuntime(MLModel):
    """Serves one explainer directory: `parameters.uri` is the directory, `parameters.extra` the settings.

    See `service.parse_settings` for the settings. Every row of a request is explained; the answer comes by
    `/infer` and by `/explain`, which MLServer does not know and which is registered here for each model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._service: Service | None = None
        # The names under which MLServer's workers look the handlers up are those of the functions.
        self.explain = self._route("explain", f"/v2/models/{self.name}/explain")
        if self.version:
            self.explain_version = self._route(
                "explain_version", f"/v2/models/{self.name}/versions/{self.version}/explain"
            )

    async def load(self) -> bool:
        """Read the artifact and compile; the model being explained need not be up."""
        with _faults():
            _refuse_sharing(self.settings)
            path = await get_model_uri(self.settings)
            settings = parse_settings(path, _extra(self.settings))
            if isinstance(settings.predictor, Colocated) and settings.predictor.model in _LOADING:
                await _LOADING[settings.predictor.model].wait()
            service = Service(settings)
            await asyncio.to_thread(service.load)
        spec, inputs = service.fitted.spec, service.fitted.inputs
        self.inputs = [_metadata(wire.describe_input(inputs))]
        self.outputs = [_metadata(tensor) for tensor in wire.describe_outputs(spec, inputs)]
        self._service = service
        return True

    async def unload(self) -> bool:
        """Take no more requests; running ones finish."""
        if self._service is not None:
            self._service.close()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Explain every row of the request's only input."""
        service = self._service
        if service is None:
            raise MLServerError(f"{self.name} is still loading", 503)
        with _faults():
            kind = service.fitted.spec.kind
            wanted = [output.name for output in payload.outputs or ()]
            wire.check_outputs(wanted, [output.name for output in self.outputs or ()])
            rows = wire.decode_rows(_tensors(payload))
            given = payload.parameters.model_extra if payload.parameters else None
            options = wire.decode_options(given, OPTIONS[kind].model_fields)
            explanation = await _run(service, rows, options)
            return _respond(
                self,
                payload,
                wire.encode(explanation, wanted),
                headers={"x-seldon-alibi-type": "explanation", "x-seldon-alibi-method": kind},
                predictor_calls=explanation.cost.calls,
                predictor_rows=explanation.cost.rows,
                predictor_seconds=round(explanation.cost.seconds, 6),
            )

    def _route(self, name: str, path: str) -> Callable[..., Any] | None:
        if "{" in path:  # would be a pattern; `load` says no to such a name
            return None

        async def handler(payload: InferenceRequest) -> Response:
            # Custom handlers pass by MLServer's data plane: what that would do is done here.
            payload.id = payload.id or generate_uuid()
            try:
                with model_context(self.settings):
                    response = await self.predict(payload)
            except MLServerError as error:
                return _json({"error": str(error)}, error.status_code)
            assert response.parameters is not None
            headers, response.parameters.headers = response.parameters.headers, None
            return _json(response.model_dump(), headers=headers)

        handler.__name__ = name
        register_custom_handler(CustomHandler(rest_path=path), handler)
        return handler


class KerasRuntime(MLModel):
    """Serves a `.keras` file or a SavedModel, `parameters.uri`, as one output `scores` of class scores.

    `parameters.extra` may say `logits: true` for a model without a softmax at its end. An explainer in the
    same process finds the model's graph under its name (`predictor: colocated:<name>`).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._predictor: Any = None

    async def load(self) -> bool:
        """Load the model, compile it, and offer its graph to explainers in this process."""
        with _faults(), _loading(self.name):
            path = await get_model_uri(self.settings, ["model.keras"])
            settings = parse(KerasModel, {"path": path, **_extra(self.settings)}, "parameters.extra")
            predictor = await asyncio.to_thread(_load_keras, settings)
            announce(self.name, predictor)
        open_shape = (-1 if size is None else size for size in predictor.shape)
        self.inputs = [_metadata(Tensor("input", "FP32", (-1, *open_shape)))]
        self.outputs = [_metadata(Tensor("scores", "FP32", (-1, predictor.classes or -1)))]
        self._predictor = predictor
        return True

    async def unload(self) -> bool:
        """Withdraw the graph from explainers in this process."""
        if self._predictor is not None:
            withdraw(self.name, self._predictor)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Class scores `(N, K)` of the rows of the request's only input."""
        with _faults():
            wire.check_outputs([output.name for output in payload.outputs or ()], ["scores"])
            rows = wire.decode_rows(_tensors(payload))
            scores = await asyncio.to_thread(self._predictor, rows)
            return _respond(self, payload, [Tensor("scores", "FP32", scores.shape, scores)])


_LOADING: dict[str, asyncio.Event] = {}
"""Keras models that are being loaded in this process. MLServer loads all models at the same time; an
explainer listed after its model waits for it here, and so is compiled before it is ready."""


@contextmanager
def _loading(name: str) -> Iterator[None]:
    done = _LOADING[name] = asyncio.Event()
    try:
        yield
    finally:
        _LOADING.pop(name, None)
        done.set()


async def _run(service: Service, rows: np.ndarray, options: Mapping[str, Any]) -> Explanation:
    """The explanation, computed off the event loop; when nobody waits any more, it stops."""
    gone = threading.Event()
    try:
        return await asyncio.wrap_future(service.submit(rows, options, gone.is_set))
    finally:
        gone.set()


def _load_keras(settings: KerasModel) -> Any:
    from explainer_runtime.predictors.keras import KerasPredictor

    predictor = KerasPredictor.load(settings.path, logits=settings.logits)
    shape = [size for size in predictor.shape if size is not None]
    if len(shape) == len(predictor.shape):
        predictor(np.zeros((1, *shape), np.float32))
    return predictor


def _refuse_sharing(settings: ModelSettings) -> None:
    """Refuse what would give one caller's answer to another.

    MLServer's adaptive batching merges the parameters of different callers, the last one winning, and its
    response cache leaves the model's name out of its key.
    """
    if settings.max_batch_size > 1:
        raise InvalidSpec("max_batch_size: batching would mix the options of different callers; set it to 0")
    if settings.cache_enabled:
        raise InvalidSpec("cache_enabled: the cache mixes the answers of different models; set it to false")
    if "{" in settings.name + (settings.version or ""):
        raise InvalidSpec(f"name: {settings.name!r} cannot be part of a route; leave the braces out")


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what goes wrong inside into an error that MLServer answers with our status and one line."""
    try:
        yield
    except MLServerError:
        raise
    except Exception as error:
        status, message = fault(error)
        if not isinstance(error, ExplainerError):
            logger.exception("unexpected error")
        elif status >= 500:
            logger.warning(message)
        raise MLServerError(message, status) from None


# --- MLServer's types -----------------------------------------------------------------------------------


def _extra(settings: ModelSettings) -> Mapping[str, Any]:
    return (settings.parameters.extra if settings.parameters else None) or {}


def _tensors(payload: InferenceRequest) -> list[Tensor]:
    return [
        Tensor(tensor.name, str(tensor.datatype), tuple(tensor.shape), tensor.data.root)
        for tensor in payload.inputs
    ]


def _metadata(tensor: Tensor) -> MetadataTensor:
    return MetadataTensor(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def _respond(
    model: MLModel, payload: InferenceRequest, tensors: Sequence[Tensor], **parameters: Any
) -> InferenceResponse:
    return InferenceResponse(
        model_name=model.name,
        model_version=model.version,
        id=payload.id,
        parameters=Parameters(**parameters),
        outputs=[
            ResponseOutput(
                name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape), data=_flat(tensor.data)
            )
            for tensor in tensors
        ],
    )


def _flat(data: Any) -> list[Any]:
    return data.ravel().tolist() if isinstance(data, np.ndarray) else data


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode_to_json_bytes(content), status, headers, media_type="application/json")
