"""From what somebody calls a model to a predictor: an address, a path, a Keras model, a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors.base import CallablePredictor, Predictor
from explainer_runtime.predictors.colocated import colocated
from explainer_runtime.predictors.meaning import PAGE
from explainer_runtime.predictors.settings import (
    Colocated,
    Endpoint,
    KerasModel,
    ModelContract,
    parse_predictor,
)
from explainer_runtime.spec import parse

_KERAS = ("keras", "tf_keras")
_FORWARD = ("predict", "predict_on_batch", "__call__")


def connect(model: Any, *, shape: Sequence[int] | None = None, **contract: Any) -> Predictor:
    """The predictor over `model`. Opens no connection yet.

    Args:
        model: Predictor settings; a mapping or a string that `spec.parse_predictor` understands; a path; a
            Keras model, or its bound `predict`; a function of rows `(N, *S)`, which can be differentiated
            where `jax.jit` made it; a `torch.nn.Module`; or a predictor, which is returned.
        shape: Of one row `(*S)`, for a subclassed Keras model, a `tf.function`, a function of JAX or a
            module, which do not say.
        contract: What the model takes and what its numbers mean, as fields of `spec.ModelContract`, where
            `model` does not say so itself: `output="logits"`.

    Raises:
        InvalidSpec: It is none of these; an address that is none, a path without a model, a contract that the
            model does not fit.
        MissingExtra: A Keras model without its back end installed.
        PredictorUnavailable: A colocated model that is not loaded (yet).
    """
    match model:
        case str() | os.PathLike() | Mapping():
            said = os.fspath(model) if isinstance(model, os.PathLike) else model
            model = parse_predictor(said, **contract)
        case KerasModel() | Endpoint() | Colocated() if contract:
            model = parse_predictor(model.model_dump(exclude_unset=True) | {"kind": model.kind}, **contract)
    match model:
        case KerasModel() if model.path.endswith(".onnx"):
            from explainer_runtime.predictors.onnx import OnnxScores

            return OnnxScores(model.path, model)
        case KerasModel():
            from explainer_runtime.predictors import backends

            loaded = backends.load(model.path, model)
            if model.runtime == "onnx":
                from explainer_runtime.predictors.keras import KerasScores

                if not isinstance(loaded, KerasScores):
                    raise InvalidSpec(f"{model.path}: `runtime: onnx` goes with Keras on TensorFlow; {PAGE}")
                loaded.hurry()
            return loaded
        case Colocated():
            return colocated(model.model)
        case Endpoint():
            from explainer_runtime.predictors.remote.client import RemotePredictor

            return RemotePredictor(model)
    if (network := keras_model(model)) is not None:
        from explainer_runtime.predictors.backends import of_model

        return of_model(network, parse(ModelContract, contract, "model"), shape=shape)
    if isinstance(model, Predictor):
        if contract:
            raise InvalidSpec(f"{', '.join(contract)}: cannot be said of a predictor, which has its contract")
        return model
    if shape is not None and (framework := _differentiable(model)) and contract.get("output") != "labels":
        given = parse(ModelContract, contract, "model")
        if framework == "torch":
            from explainer_runtime.predictors.torch import TorchPredictor

            return TorchPredictor(model, shape, given)
        from explainer_runtime.predictors.jax import JaxPredictor

        return JaxPredictor(model, shape, contract=given)
    if callable(model) and not isinstance(model, type):
        return CallablePredictor(_traced_once(model, shape), parse(ModelContract, contract, "model"))
    raise InvalidSpec(
        "model: expected a Keras model, a function of rows, a module, an address, a path, or settings with "
        f"a `kind`, got {type(model).__name__}; {PAGE}"
    )


def keras_model(given: Any) -> Any | None:
    """The Keras model that `given` is, or whose own `predict` it is; else None."""
    if _is_keras(given):
        return given
    # A `predict` of the model's own class may do anything; only Keras' own is known to be the model.
    function, owner = getattr(given, "__func__", None), getattr(given, "__self__", None)
    if _is_keras(owner) and given.__name__ in _FORWARD and _module(function) in _KERAS:
        return owner
    return None


def _is_keras(value: Any) -> bool:
    # By name, so that neither Keras nor TensorFlow is imported for a function that needs neither.
    return any(cls.__name__ == "Model" and _module(cls) in _KERAS for cls in type(value).__mro__)


def _module(value: Any) -> str:
    return str(value.__module__).partition(".")[0]


def _differentiable(model: Any) -> str:
    """The framework that can differentiate this: `jax` what it compiles, `torch` a module; else nothing."""
    if type(model).__name__ == "PjitFunction" and _module(type(model)) == "jaxlib":
        return "jax"
    return (
        "torch"
        if any(str(cls.__module__) == "torch.nn.modules.module" for cls in type(model).__mro__)
        else ""
    )


def _traced_once(function: Any, shape: Sequence[int] | None) -> Callable[[Any], Any]:
    """`function`, or where it is a `tf.function` one that is not traced again for each number of rows."""
    if (
        shape is None
        or not hasattr(function, "get_concrete_function")
        or function.input_signature is not None
    ):
        return function
    from explainer_runtime.predictors.backends import import_tensorflow

    tf = import_tensorflow()
    rows = tf.TensorSpec((None, *shape), tf.float32)
    traced: Callable[[Any], Any] = tf.function(lambda x: function(x), autograph=False, input_signature=[rows])
    return traced
