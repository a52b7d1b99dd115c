"""Small Keras models without code: layers as JSON from a closed list, weights as safetensors.

Keras' own `.keras` file is a zip with an HDF5 file inside. Zips inflate, HDF5 can refer to other files and
is a large parser in C, and `safe_mode` has been bypassed more than once by names that Keras was willing to
import. So a model is taken apart here: its configuration, in which every class is one of those below and
nothing is registered or imported by name, and its weights in the order that Keras gives them.

Names of variables would be a better key than their order, but they depend on how a nested model was first
called, and change when it is rebuilt.
"""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.artifact import strict_json, tensors
from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.predictors.backends import import_keras

_LAYERS = """
    Activation Add Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization CenterCrop
    Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D
    Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU Flatten GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Identity InputLayer LayerNormalization LeakyReLU
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum Multiply PReLU Permute ReLU RepeatVector Rescaling
    Reshape Resizing SeparableConv1D SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D
    SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
"""
_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones Orthogonal
    OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
ALLOWED: dict[str | None, frozenset[str]] = {
    "keras": frozenset({"Sequential", "DTypePolicy"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.layers": frozenset(_LAYERS.split()),
    "keras.initializers": frozenset(_INITIALIZERS.split()),
    "keras.regularizers": frozenset({"L1", "L2", "L1L2"}),
    "keras.constraints": frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"}),
    None: frozenset({"__keras_tensor__"}),
}
"""Every class an artifact's model may be made of, by the module Keras gives for it."""


class Network(NamedTuple):
    """A model in parts: the configuration Keras rebuilds it from, and its weights in Keras' order."""

    config: dict[str, Any]
    weights: list[np.ndarray]


_MOST = 2**22
"""Numbers that one layer may make of a row: VGG's largest makes 3.2 million of a 224x224 image."""
_MOST_TOGETHER = 2**26
"""Numbers that all layers together may make of a row."""

_NAMING = frozenset({"module", "class_name", "registered_name", "spec_name"})
_TRAINING = "compile_config"


def dump(model: Any, name: str) -> tuple[bytes, bytes]:
    """A Keras model as `(architecture, weights)`: the bytes of a JSON and of a safetensors file.

    Args:
        model: A built functional or Sequential model of built-in layers. Optimiser, loss and metrics are
            left out.
        name: What to call it in messages.

    Raises:
        InvalidArtifact: It has a layer outside `ALLOWED` (a Lambda, a class of your own), weights that are
            not finite numbers, or is not built.
    """
    keras = import_keras()

    if not (isinstance(model, keras.Model) and model.built):
        raise InvalidArtifact(f"{name}: expected a built Keras model, got {type(model).__name__}")
    _check_layers(model, name)
    config = _without_training(keras.saving.serialize_keras_object(model))
    architecture = strict_json.dump(config, name)
    _check_classes(config, name)
    weights = {_key(index): value for index, value in enumerate(model.get_weights())}
    return architecture, tensors.dump(weights, name)


def parse(architecture: bytes, weights: bytes, name: str) -> Network:
    """The network in these bytes, checked; nothing is built and Keras is not imported.

    Raises:
        InvalidArtifact: The configuration names a class outside `ALLOWED`, or one of the two is malformed.
    """
    config = strict_json.parse(architecture, f"{name}.json")
    _check_classes(config, f"{name}.json")
    arrays = tensors.parse(weights, f"{name}.safetensors")
    if sorted(arrays) != [_key(index) for index in range(len(arrays))]:
        raise InvalidArtifact(f"{name}.safetensors: expected arrays named 0000, 0001, ... and no other")
    return Network(config, [arrays[key] for key in sorted(arrays)])


def build(network: Network, name: str, shape: tuple[int, ...]) -> Any:
    """The Keras model, not compiled for training.

    Args:
        network: Its parts.
        name: What to call it in messages.
        shape: Of one row that it will be given, for models that leave it open.

    Raises:
        InvalidArtifact: Keras cannot build it, its layers take weights of other shapes, or one of them would
            make more of a row than `_MOST` numbers.
        MissingExtra: Keras, or its back end, is not installed.
    """
    import_keras()
    given = [(value.shape, value.dtype.name) for value in network.weights]
    if (wanted := _outline(network, name, shape)) != given:
        raise InvalidArtifact(
            f"{name}.safetensors: the layers take {_count(wanted)}, it has {_count(given)}, or shapes "
            "or dtypes differ; fit and save again"
        )
    model = _deserialize(network, name)
    model.set_weights(network.weights)
    return model


def _outline(network: Network, name: str, shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each weight, found without allocating any: a kilobyte may ask for a terabyte."""
    import keras

    def outline() -> list[tuple[tuple[int, ...], str]]:
        with keras.StatelessScope(initialize_variables=False):
            model = _deserialize(network, name)
            _check_sizes(model, shape, name)
            return [(tuple(weight.shape), weight.dtype) for weight in model.weights]

    # Keras keeps, for each thread, a list of variables still to be allocated. This list must be forgotten.
    with ThreadPoolExecutor(1) as own_thread:
        return own_thread.submit(outline).result()


def _check_sizes(model: Any, shape: tuple[int, ...], name: str) -> None:
    """Refuse a model that makes too much of a row somewhere inside.

    Layers without weights cost nothing in the files and anything when they run, and what they make depends on
    how they are joined. So shapes are followed through the graph, through models in it, too.
    """
    import keras

    total = 0

    def measured(layer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal total
        if isinstance(layer, keras.Model):
            made = follow(layer, keras.tree.flatten(args))
        else:
            made = layer.compute_output_spec(*args, **kwargs)
        for tensor in keras.tree.flatten(made):
            sizes = tensor.shape[1:]
            joins_rows = type(layer).__name__ == "Concatenate" and layer.axis % len(tensor.shape) == 0
            if tensor.shape[0] is not None or joins_rows:
                raise InvalidArtifact(f"{name}.json: the layer {short(layer.name)} mixes rows")
            if None in sizes:
                raise InvalidArtifact(
                    f"{name}.json: the layer {short(layer.name)} leaves the size of what it makes open"
                )
            total += math.prod(sizes)
            if math.prod(sizes) > _MOST or total > _MOST_TOGETHER:
                raise InvalidArtifact(
                    f"{name}.json: the layer {short(layer.name)} makes {math.prod(sizes)} numbers of a row; "
                    f"at most {_MOST} are allowed, and {_MOST_TOGETHER} in all layers together"
                )
        return made

    def follow(model: Any, inputs: list[Any]) -> Any:
        # Keras has no public way to walk a graph; a test walks one with each kind of layer.
        graph = getattr(model, "_functional", None) or model
        return graph._run_through_graph(inputs, call_fn=measured)

    given = []
    for tensor in model.inputs:
        sizes = tensor.shape[1:]
        if len(sizes) == len(shape):
            sizes = [own or size for own, size in zip(sizes, shape, strict=True)]
        given.append(keras.KerasTensor((None, *sizes), tensor.dtype))
    try:
        follow(model, given)
    except InvalidArtifact:
        raise
    except Exception as error:
        raise InvalidArtifact(f"{name}.json: Keras cannot follow it: {short(str(error))}") from error


def _deserialize(network: Network, name: str) -> Any:
    import keras

    config = copy.deepcopy(network.config)  # Keras takes it apart while it builds
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for one cause: this is not a model
        raise InvalidArtifact(f"{name}.json: Keras cannot build it: {short(str(error))}") from error
    if not isinstance(model, keras.Model):
        raise InvalidArtifact(f"{name}.json: expected a Keras model, got {type(model).__name__}")
    return model


def _check_layers(model: Any, name: str) -> None:
    """Refuse a layer before Keras is asked to serialise it, which for code means to marshal it."""
    for layer in [model, *getattr(model, "layers", [])]:
        kind = type(layer).__name__
        own = not type(layer).__module__.startswith("keras.")
        if own or not any(kind in names for names in ALLOWED.values()):
            raise _refusal(name, f"{type(layer).__module__}.{kind}")
        if layer is not model and hasattr(layer, "layers"):
            _check_layers(layer, name)


def _check_classes(value: Any, name: str) -> None:
    if isinstance(value, list):
        for item in value:
            _check_classes(item, name)
    elif isinstance(value, dict):
        if value.keys() & _NAMING:
            _check_class(value, name)
        if _TRAINING in value:
            raise InvalidArtifact(f"{name}: has a {_TRAINING}; an artifact's models are not for training")
        for item in value.values():
            _check_classes(item, name)


def _check_class(value: dict[str, Any], name: str) -> None:
    module, kind, registered = (value.get(key) for key in ("module", "class_name", "registered_name"))
    known = isinstance(module, str | None) and isinstance(kind, str) and kind in ALLOWED.get(module, ())
    if not known or registered not in (None, "Functional") or "spec_name" in value:
        raise _refusal(name, f"{module}.{kind}" + (f" registered as {registered}" if registered else ""))


def _refusal(name: str, what: str) -> InvalidArtifact:
    return InvalidArtifact(
        f"{name}: {short(what)} is not among the Keras classes an artifact may hold; use a "
        "functional or Sequential model of built-in layers, without Lambda or layers of your own"
    )


def _without_training(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_training(item) for key, item in value.items() if key != _TRAINING}
    if isinstance(value, list | tuple):
        return [_without_training(item) for item in value]
    return value


def _key(index: int) -> str:
    return f"{index:04d}"


def _count(weights: list[Any]) -> str:
    return f"{len(weights)} weights ({sum(math.prod(shape) for shape, _ in weights)} numbers)"
