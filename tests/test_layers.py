"""A layer of the model as encoder: what is cut out is the model itself, up to there."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from explainer_runtime import CounterfactualProto, Neighbours, artifact, connect
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.layers import up_to
from explainer_runtime.spec import Inputs, Limits

L = keras.layers
SHAPE = (8, 8, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
PATIENT = Limits(max_seconds=3600)


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(size=(40, *SHAPE)).astype("f")


def base():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(4, 3, activation="relu", name="edges"),
            L.GlobalAveragePooling2D(name="pool"),
        ],
        name="base",
    )


def functional(inside):
    rows = keras.Input(SHAPE)
    return keras.Model(rows, L.Dense(3, activation="softmax", name="scores")(inside(L.Rescaling(2.0)(rows))))


MODELS = {
    "sequential": lambda inside: keras.Sequential(
        [keras.Input(SHAPE), *inside.layers, L.Dense(3, activation="softmax")]
    ),
    "inside a sequential": lambda inside: keras.Sequential(
        [keras.Input(SHAPE), inside, L.Dense(3, activation="softmax")]
    ),
    "inside a functional": functional,
}


@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize("layer", ["auto", "pool", "edges"])
def test_a_layer_makes_what_it_makes_in_the_model(made, layer, x):
    inside = base()
    model = MODELS[made](inside)
    seen = 2 * x if made == "inside a functional" else x
    expected = inside.layers[0](seen) if layer == "edges" else inside(seen)
    np.testing.assert_allclose(up_to(connect(model), layer)(x), expected, rtol=1e-6)


def test_it_takes_rows_in_the_units_of_the_contract(x):
    model = connect(MODELS["sequential"](inside := base()), scale=(3.0,), offset=(-1.0,))
    np.testing.assert_allclose(up_to(model, "pool")(x), inside(3 * x - 1), rtol=1e-5)


@pytest.mark.parametrize("spec", [Neighbours(), CounterfactualProto(theta=0.1, effort="quick")])
def test_an_artifact_with_a_layer_of_the_model_gives_the_same_bytes(spec, x, tmp_path):
    inside = base()
    model = MODELS["inside a sequential"](inside)
    fitted = fit(spec, x, predictor=model, inputs=INPUTS, encoder="pool")
    given = fit(spec, x, predictor=model, inputs=INPUTS, encoder=inside)  # the same layers
    read = artifact.load(artifact.save(fitted, tmp_path / "a"))
    answers = [
        prepare(one, model, warm=False)(x[:2], limits=PATIENT).to_json() for one in (fitted, given, read)
    ]
    assert answers[0] == answers[1] == answers[2]


def test_what_cannot_be_cut_is_refused_with_what_can(x):
    model = MODELS["inside a functional"](base())
    with pytest.raises(InvalidSpec, match=r"a layer such as .*, pool, scores; got 'pol'"):
        fit(Neighbours(), x, predictor=model, inputs=INPUTS, encoder="pol")
    with pytest.raises(InvalidSpec, match="'auto' would be a layer of a Keras model in this"):
        fit(Neighbours(), x, predictor=lambda x: np.full((len(x), 3), 1 / 3), inputs=INPUTS, encoder="auto")
    with pytest.raises(InvalidSpec, match="'edges', the last layer with weights, is given no vector"):
        up_to(connect(keras.Sequential([keras.Input(SHAPE), *base().layers, L.Softmax()])), "auto")
    two = [keras.Input(SHAPE, name=name) for name in ("a", "b")]
    both = keras.Model(two, L.Dense(3, activation="softmax")(L.Flatten()(L.Add()(two))))
    with pytest.raises(InvalidSpec, match="expected a model of one input"):
        up_to(connect(both, input_name="a", hold={"b": np.zeros(SHAPE).tolist()}), "auto")
