"""Arrays <-> KServe's types. Imported by `model.py`, which has made KServe's import harmless by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from kserve import InferOutput

from explainer_runtime import tensors, wire
from explainer_runtime.tensors import Tensor


def whole(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those that KServe's converter to gRPC knows: fractions are not among them."""
    return {name: value for name, value in parameters.items() if not isinstance(value, float)}


def parameters(parameters: Any) -> dict[str, Any]:
    """The parameters of a V2 request, from REST or from gRPC's messages."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice")) if hasattr(value, "WhichOneof") else value
        for name, value in (parameters or {}).items()
    }


def tensor(one: Any) -> Tensor:
    """One input; bytes that came raw are read as they are."""
    data = one.data
    if one._raw_data is not None:
        data = tensors.unpack(one.datatype, one._raw_data)
    return Tensor(one.name, one.datatype, tuple(one.shape), data)


class _Output(InferOutput):
    """KServe's, in whose JSON a float32 had the digits of a double."""

    def set_data_from_numpy(self, output_tensor: np.ndarray, binary_data: bool = True) -> None:
        """See there; called when it is sent."""
        super().set_data_from_numpy(output_tensor, binary_data)
        if not binary_data and output_tensor.dtype == np.float32:
            self._data = wire.listed(output_tensor)


def output(tensor: Tensor, payload: Any) -> Any:
    """One output of the answer to `payload`."""
    data = tensor.data
    if not isinstance(data, np.ndarray):
        data = np.array(data, dtype=object).reshape(tensor.shape)
    output = _Output(tensor.name, list(tensor.shape), tensor.datatype, data)
    if payload.from_grpc is True:  # where KServe 0.21 fails on arrays
        output.set_data_from_numpy(data, binary_data=payload.use_binary_outputs)
    return output


def described(tensor: Tensor) -> dict[str, Any]:
    """A tensor's description, for a model's metadata."""
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
