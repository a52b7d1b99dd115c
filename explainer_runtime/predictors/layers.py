"""A part of the model as a network of its own: from its rows to what one of its layers makes of them.

Rows that a classifier sees alike lie near each other there, which is what an encoder is for, and nothing has
to be trained. It takes rows as the contract says; its layers are those of the model and share its weights.
"""

from __future__ import annotations

from typing import Any

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.backends import import_keras
from explainer_runtime.predictors.base import Predictor, named, told

AUTO = "auto"
"""In place of a layer's name: what the last layer with weights is given."""


def up_to(predictor: Predictor | None, layer: str) -> Any:
    """The Keras model of a predictor as far as a layer of this name, in models inside the model, too.

    Args:
        predictor: A Keras model in this process.
        layer: The name; `auto` for what the last layer with weights is given, which must be a vector.

    Raises:
        InvalidSpec: The model is not a Keras model of one input, or there is no such layer in it.
    """
    model: Any = getattr(getattr(predictor, "form", None), "keep", None)
    if predictor is None or not hasattr(_graph(model), _NODES):
        which = "" if predictor is None else f", and {named(predictor)} is none"
        raise InvalidSpec(
            f"encoder: {layer!r} would be a layer of a Keras model in this process{which}; fit with the "
            "model's file, or give a network"
        )
    if len(model.inputs) != 1:
        raise InvalidSpec(
            f"encoder: expected a model of one input, {named(predictor)} has {len(model.inputs)}"
        )
    if layer == AUTO:
        weighed = [one for one in _flat(model) if one.weights]
        layer = weighed[-1].name if weighed else layer
        part = _cut(model, layer, before=True)
        if part is not None and len(part.output_shape) != 2:
            raise InvalidSpec(
                f"encoder: {layer!r}, the last layer with weights, is given no vector; name a layer"
            )
    else:
        part = _cut(model, layer)
    if part is None:
        some = ", ".join(one.name for one in _flat(model)[-6:])
        raise InvalidSpec(f"encoder: expected a file, {AUTO!r}, or a layer such as {some}; got {layer!r}")
    contract, shape = told(predictor), tuple(model.inputs[0].shape[1:])
    if meaning.unscaled(contract):
        return part
    scale, offset = meaning.affine(contract, shape, named(predictor))
    keras = import_keras()
    rows = keras.Input(shape)
    return keras.Model(rows, part(keras.layers.Rescaling(scale, offset)(rows)))


_NODES = "_nodes_by_depth"
"""Keras has no public way to ask where a layer stands in a graph."""


def _graph(model: Any) -> Any:
    return getattr(model, "_functional", None) or model


def _flat(model: Any) -> list[Any]:
    """All layers, those of models inside it, too, in order."""
    return [one for layer in model.layers for one in (_flat(layer) if _is_model(layer) else [layer])]


def _cut(model: Any, name: str, before: bool = False) -> Any:
    """From the input of a model to what the layer of this name makes, or is given; None without one. Of a
    layer that is used more than once, the last time."""
    graph = _graph(model)
    by_depth = getattr(graph, _NODES)
    for node in (node for depth in sorted(by_depth) for node in by_depth[depth]):
        layer, part = node.operation, None
        if layer.name == name:
            part = node.input_tensors[0] if before else node.output_tensors[0]
        elif _is_model(layer) and (inner := _cut(layer, name, before)) is not None:
            part = inner(node.input_tensors[0])
        if part is not None:
            return import_keras().Model(graph.inputs[0], part)
    return None


def _is_model(layer: Any) -> bool:
    return hasattr(layer, "layers")
