"""Keras models in an artifact: the same function comes back, and nothing that could be code does."""

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from explainer_runtime.artifact import Fitted, load, manifest, networks, pack, save, unpack, verify
from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.predictors.keras import import_tensorflow
from explainer_runtime.spec import Counterfactual, Inputs

pytest.importorskip("tensorflow", reason="models need the tensorflow extra")
import_tensorflow()
keras = pytest.importorskip("keras")
layers = keras.layers

SHAPE = (8, 8, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)


def fitted(**models) -> Fitted:
    return Fitted(Counterfactual(), INPUTS, {}, models)


def classifier():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
            layers.MaxPooling2D(),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(0).random((16, *SHAPE), "float32")
    model.train_on_batch(
        x, np.arange(16) % 3
    )  # so that the optimiser, metrics and moving averages hold something
    return model


def encoder():
    return keras.Sequential(
        [layers.Conv2D(4, 3, strides=2, padding="same", activation="leaky_relu")], name="enc"
    )


def autoencoder():
    x = keras.Input(SHAPE)
    return keras.Model(x, layers.Conv2DTranspose(1, 3, strides=2, padding="same")(encoder()(x)))


def shared_and_nested():
    x = keras.Input(SHAPE)
    twice = layers.Dense(4)
    left, right = twice(layers.Flatten()(x)), twice(layers.Flatten()(autoencoder()(x)))
    return keras.Model(x, [layers.Concatenate()([left, right]), layers.Dense(2)(left)])


def resampler():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.SeparableConv2D(3, 3, depthwise_initializer="he_normal"),
            layers.LayerNormalization(),
            layers.PReLU(),
            layers.UpSampling2D(),
            layers.Rescaling(0.5),
        ]
    )


def half_precision():
    return keras.Sequential([keras.Input((64,), dtype="float16"), layers.Dense(3, dtype="float16")])


def weightless():
    return keras.Sequential([keras.Input(SHAPE), layers.GlobalAveragePooling2D()])


def outputs(model, x) -> list[bytes]:
    return [np.asarray(output).tobytes() for output in keras.tree.flatten(model(x, training=False))]


def architecture(change=lambda config: None) -> bytes:
    """The configuration of a Dense model, with a change."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    config = json.loads(networks.dump(model, "m")[0])
    change(config["config"]["layers"][1])
    return json.dumps(config).encode()


def rewrite(root: Path, name: str, data: bytes) -> None:
    """Change a model's file as someone would who also mends sizes, digests and checksum."""
    value = json.loads((root / "explainer.json").read_bytes())
    value["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (root / name).write_bytes(data)
    (root / "explainer.json").write_bytes(manifest.dump(value))


@pytest.fixture
def saved(tmp_path) -> Path:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    return save(fitted(m=model), tmp_path / "artifact")


@pytest.mark.parametrize(
    "make", [classifier, autoencoder, shared_and_nested, resampler, half_precision, weightless]
)
def test_a_model_comes_back_with_the_same_outputs_bit_for_bit(make, tmp_path):
    model = make()
    back = load(save(fitted(m=model), tmp_path / "artifact")).models["m"]
    x = np.random.default_rng(1).random((5, *model.input_shape[1:])).astype(model.inputs[0].dtype)
    assert outputs(back, x) == outputs(model, x)


def test_several_models_keep_their_names(tmp_path):
    models = {"encoder": encoder_built(), "autoencoder_0": autoencoder()}
    back = load(save(fitted(**models), tmp_path / "artifact")).models
    assert {name: model.count_params() for name, model in back.items()} == {
        name: model.count_params() for name, model in models.items()
    }


def encoder_built():
    model = encoder()
    model.build((None, *SHAPE))
    return model


def test_saving_a_loaded_model_again_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = pack(fitted(m=shared_and_nested()))
    assert pack(unpack(first)) == first


def test_without_tensorflow_a_model_is_checked_and_asks_for_the_extra(saved):
    code = f"""
import sys
sys.modules["tensorflow"] = None
from explainer_runtime import load, verify
from explainer_runtime.errors import MissingExtra
verify({str(saved)!r})
try:
    load({str(saved)!r})
except MissingExtra as error:
    sys.exit("explainer-runtime[tensorflow]" not in str(error))
sys.exit("loaded")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_training_state_is_kept(saved):
    model = load(saved).models["m"]
    assert not model.compiled
    assert "compile_config" not in (saved / "models/m.json").read_text()


class Doubling(layers.Layer):
    def call(self, x):
        return 2 * x


class Dense(layers.Dense):
    """A class of one's own under the name of a built-in one."""


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    return model


def squared(x):
    return x * x


def of(*more):
    return keras.Sequential([keras.Input((8,)), *more])


def with_nan():
    model = of(layers.Dense(2))
    model.set_weights([np.full((8, 2), np.nan), np.zeros(2)])
    return model


def with_operation():
    x = keras.Input((8,))
    return keras.Model(x, keras.ops.sin(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(layers.Lambda(squared)), r"Lambda' is not among the Keras classes"),
        (lambda: of(of(layers.Lambda(squared))), r"Lambda' is not among"),
        (lambda: of(Doubling()), r"Doubling' is not among"),
        (lambda: of(Dense(2)), r"test_artifact_models\.Dense' is not among"),
        (lambda: of(layers.Dense(2, activation=squared)), "function.* is not among"),
        (lambda: of(layers.Dense(2, kernel_initializer=squared_initializer)), "function.* is not among"),
        (subclassed, "Subclassed' is not among"),
        (with_operation, "Sin.* is not among"),
        (lambda: keras.Sequential([layers.Dense(2)]), "expected a built Keras model"),
        (lambda: "model.keras", "expected a built Keras model, got str"),
        (with_nan, "'0000' has NaN"),
    ],
)
def test_a_model_that_is_more_than_built_in_layers_cannot_be_saved(tmp_path, make, message):
    with pytest.raises(InvalidArtifact, match=f"models/m: .*{message}|models/m: {message}"):
        save(fitted(m=make()), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


def squared_initializer(shape, dtype=None):
    return keras.ops.ones(shape, dtype)


def _class(**changes):
    return lambda layer: layer.update(changes)


def _inside(**changes):
    return lambda layer: layer["config"].update(changes)


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
CRAFTED = {
    "a Lambda": _class(class_name="Lambda"),
    "a Lambda as in Keras 2": lambda layer: (layer.pop("module"), layer.update(class_name="Lambda")),
    "a layer that runs a saved graph": _class(class_name="TFSMLayer", config={"filepath": "/etc"}),
    "a layer that unpickles": _class(class_name="TorchModuleWrapper"),
    "a layer that reads a file": _class(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
    "a function that fetches": _class(module="keras.utils", class_name="get_file"),
    "a module by name": _class(module="os", class_name="system"),
    "an unexported class of Keras": _class(module="keras.src.layers.core.lambda_layer", class_name="Lambda"),
    "a registered name": _class(registered_name="theirs>Dense"),
    "a class that is no text": _class(class_name=["Dense"]),
    "a module that is no text": _class(module={"keras": 1}),
    "a lambda for an activation": _inside(activation=LAMBDA),
    "a function for an activation": _inside(
        activation={
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "eval",
        }
    ),
    "a type for an input": _inside(
        x={"class_name": "__typespec__", "spec_name": "x", "module": "tensorflow"}
    ),
    "a spec name alone": _inside(x={"spec_name": "x"}),
    "a quantizer": _inside(
        quantization_config={"module": "keras.quantizers", "class_name": "AbsMaxQuantizer"}
    ),
    "an optimiser": _class(compile_config={"optimizer": "adam"}),
}


@pytest.mark.parametrize("check", [load, verify])
@pytest.mark.parametrize("change", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_class_is_refused_before_keras_sees_it(saved, change, check):
    rewrite(saved, "models/m.json", architecture(change))
    with pytest.raises(InvalidArtifact, match=r"models/m\.json: .*(is not among|compile_config)"):
        check(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_inside(units=-1), r"models/m\.json: Keras cannot build it"),
        (_inside(activation="nothing"), r"models/m\.json: Keras cannot build it"),
        (_inside(x=1), r"models/m\.json: Keras cannot build it"),
        (
            _inside(units=5),
            r"models/m\.safetensors: the layers take 2 weights \(45 numbers\), it has 2 .*\(36",
        ),
        (_inside(use_bias=False), r"models/m\.safetensors: the layers take 1 weights \(32 numbers\)"),
        (_inside(dtype="float64"), r"models/m\.safetensors: .* shapes or dtypes differ"),
    ],
)
def test_layers_that_do_not_fit_their_weights_are_refused(saved, change, message):
    rewrite(saved, "models/m.json", architecture(change))
    with pytest.raises(InvalidArtifact, match=message):
        load(saved)


def test_a_layer_of_petabytes_is_refused_without_allocating_it(saved):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(saved, "models/m.json", architecture(_inside(units=2**48)))
    with pytest.raises(
        InvalidArtifact, match=r"models/m\.json: the layer .* makes 281474976710656 numbers of a row"
    ):
        load(saved)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
    assert after - before < 2**18


def test_a_refused_layer_leaves_nothing_for_keras_to_allocate_later(saved):
    rewrite(saved, "models/m.json", architecture(_inside(units=2**48)))
    with pytest.raises(InvalidArtifact):
        load(saved)
    with keras.StatelessScope():  # on leaving, Keras allocates what this thread has left to allocate
        pass


@pytest.mark.parametrize("part", ["models/m.json", "models/m.safetensors"])
def test_half_a_model_is_refused(saved, part):
    value = json.loads((saved / "explainer.json").read_bytes())
    (saved / part).unlink()
    del value["files"][part]
    (saved / "explainer.json").write_bytes(manifest.dump(value))
    with pytest.raises(InvalidArtifact, match=rf"{part}: is missing; a model is"):
        verify(saved)


def test_weights_out_of_order_are_refused(saved):
    data = (saved / "models/m.safetensors").read_bytes()
    rewrite(saved, "models/m.safetensors", data.replace(b'"0001"', b'"0002"'))
    with pytest.raises(InvalidArtifact, match=r"models/m\.safetensors: expected arrays named 0000, 0001"):
        verify(saved)


def test_a_change_of_any_byte_of_a_model_is_refused(saved):
    rng = np.random.default_rng(0)
    for path in (saved / "models").iterdir():
        content = path.read_bytes()
        for place in rng.integers(0, len(content), 20):
            changed = bytearray(content)
            changed[place] ^= rng.integers(1, 256)
            path.write_bytes(changed)
            with pytest.raises(InvalidArtifact, match=f"models/{path.name}: its SHA-256"):
                verify(saved)
        path.write_bytes(content)
