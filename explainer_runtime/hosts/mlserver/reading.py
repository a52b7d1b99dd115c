"""gRPC messages read as they should be: raw contents as arrays, and fractions as parameters.

MLServer unpacks raw contents into lists, number by number, and fails on contents that do not fit their shape.
As arrays they cost nothing, and whether they fit is for the runtime to say. Its generated messages are older
than `double_param`, in which newer clients send a parameter that is a fraction: it arrives as an unknown
field, which protobuf keeps, and is read here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlserver.errors import MLServerError
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import handle_mlserver_error
from mlserver.types import TensorData

from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.door import messages
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.mlserver import refusals, v2types
from explainer_runtime.hosts.service.names import check_id
from explainer_runtime.tensors import unpack


class Servicer(InferenceServicer):
    """MLServer's, with messages read as they should be, and aside from the event loop."""

    def __init__(self, data_plane: Any, model_repository_handlers: Any) -> None:
        super().__init__(data_plane, model_repository_handlers)
        self._InsertHeaders = reading(super()._InsertHeaders)

    @handle_mlserver_error
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Answer one request."""
        try:
            raw = self._GetReturnRaw(request)
            payload = await aside(self._InsertHeaders, request, context)
            result = await self._data_plane.infer(payload, request.model_name, request.model_version)
            self._SetTrailingMetadata(result, context)
            return await aside(ModelInferResponseConverter.from_types, result, raw)
        except Exception as error:
            raise refusals.noted(error) from None

    @handle_mlserver_error
    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether a model is ready; of one that is not there MLServer tells the class of its error."""
        return await super().ModelReady(request, context)


def reading(convert: Callable[..., Any]) -> Callable[..., Any]:
    """`convert`, which makes MLServer's request of a gRPC message, with what it drops kept."""

    def read(message: Any, context: Any) -> Any:
        try:
            check_id(message.id)
        except InvalidInput as error:
            raise v2types.refusal(error) from None
        raw = list(message.raw_input_contents)
        del message.raw_input_contents[:]
        try:
            payload = convert(message, context)
        except Exception:  # conversions of values that protobuf lets pass; all of them the caller's
            raise MLServerError("body: expected a V2 request", 422) from None
        for name, value in messages.parameters(message).items():
            if isinstance(value, float):
                setattr(payload.parameters, name, value)
        bare = [tensor for tensor in payload.inputs if not len(tensor.data)]
        if raw and len(raw) != len(bare):
            raise MLServerError(
                f"raw_input_contents: expected one for each of {len(bare)} inputs, got {len(raw)}", 422
            )
        for tensor, content in zip(bare, raw, strict=False):
            try:
                numbers = unpack(tensor.datatype, content)
            except InvalidInput as error:
                raise MLServerError(str(error), 422) from None
            # BOOL stays packed; our runtimes refuse it.
            tensor.data = TensorData.model_construct(root=[content] if numbers is None else numbers)
        return payload

    return read
