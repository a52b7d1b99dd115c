"""A Keras model cut in two at a layer: one half makes feature maps, the other is a model of them.

With that, what is asked of slopes with respect to rows can be asked with respect to feature maps as well, by
the same means and whatever computes it.
"""

from __future__ import annotations

from typing import Any

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors.forms import Form, chosen_output
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract


def halves(form: Form, contract: ModelContract, layer: str | None) -> tuple[Form, Form]:
    """The forms of both halves; feature maps are `(N, h, w, c)`.

    Args:
        form: Of the model.
        contract: Which of its outputs is meant.
        layer: Where it is cut; None is the last convolution, with what follows it and changes no shape, such
            as its activation.

    Raises:
        InvalidSpec: It is no Keras model of one input, there is no such layer, its output has no places, or
            something leads past it.
    """
    model = form.keep
    if len(getattr(model, "inputs", None) or ()) != 1 or not hasattr(model, "layers") or form.batch:
        raise InvalidSpec(f"{form.name}: is cut at a layer only where it is a Keras model of one input")
    import keras

    found = _named(form, model, layer) if layer else _last(form, model)
    if len(_shape(found)) != 4 or None in _shape(found)[1:]:
        raise InvalidSpec(f"{form.name}: layer {found.name!r} has no feature maps of a known size")
    try:
        front = keras.Model(model.inputs[0], found.output)
        ends = model.outputs[0] if len(model.outputs) == 1 else model.output
        back = keras.Model(found.output, ends)
    except ValueError as error:
        raise InvalidSpec(f"{form.name}: cannot be cut at {found.name!r}: {one_line(str(error))}") from None
    first, shape = _channels_first(found), _shape(found)[1:]

    def maps(x: Any) -> Any:
        made = front(x, training=False)
        return keras.ops.moveaxis(made, 1, -1) if first else made

    def rest(x: Any) -> Any:
        answer = back(keras.ops.moveaxis(x, -1, 1) if first else x, training=False)
        return chosen_output(form.name, answer, getattr(model, "output_names", ()), contract)

    return form._replace(call=maps, smooth=None), Form(
        rest, (*shape[1:], shape[0]) if first else shape, form.name, smooth=rest, keep=(form.keep, back)
    )


def _named(form: Form, model: Any, layer: str) -> Any:
    for one in model.layers:
        if one.name == layer:
            return one
    known = ", ".join(one.name for one in model.layers if len(_shape(one)) == 4) or "none with places"
    raise InvalidSpec(f"{form.name}: has no layer {layer!r}; expected one of {known}")


def _last(form: Form, model: Any) -> Any:
    places = [index for index, one in enumerate(model.layers) if _convolves(one)]
    if not places:
        raise InvalidSpec(f"{form.name}: has no convolution whose feature maps could be looked at")
    found = model.layers[places[-1]]
    for one in model.layers[places[-1] + 1 :]:
        if _shape(one) != _shape(found):
            break
        found = one
    return found


def _convolves(layer: Any) -> bool:
    """Whether it is a convolution, or a model in the model that ends in places and holds one."""
    if hasattr(layer, "layers"):
        return len(_shape(layer)) == 4 and any(map(_convolves, layer.layers))
    return "Conv" in type(layer).__name__


def _shape(layer: Any) -> tuple[Any, ...]:
    """Of its output; empty where it has several."""
    return tuple(getattr(layer.output, "shape", ()))


def _channels_first(layer: Any) -> bool:
    import keras

    return getattr(layer, "data_format", keras.config.image_data_format()) == "channels_first"
