"""An artifact holds what its spec needs, its networks make no more of a row than is allowed, and what lies
beside it asks for no more than that either."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from explainer_runtime import artifact
from explainer_runtime.artifact import Fitted, beside
from explainer_runtime.errors import InvalidArtifact, InvalidSpec
from explainer_runtime.hosts.platform import arguments, deployment
from explainer_runtime.hosts.service.names import check_name
from explainer_runtime.hosts.service.settings import lowered
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Grid, Inputs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

CONTRACT = Inputs(shape=(8, 8, 1), low=0, high=1, classes=3)
ROWS = np.zeros((5, 8, 8, 1), np.float32)
CODES = {
    "codes": np.zeros((5, 4), np.float32),
    "classes": np.zeros(5, np.int64),
    "means": np.zeros((3, 4), np.float32),
}

# --- arrays and networks that a spec needs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "arrays", "said"),
    [
        (CEM(), {}, "array 'no_info': is missing"),
        (
            CEM(),
            {"no_info": np.zeros((7, 7, 1), np.float32)},
            r"'no_info': expected floats of shape \(8, 8, 1\)",
        ),
        (CEM(), {"no_info": np.zeros((8, 8, 1), np.int32)}, "'no_info': expected floats"),
        (CEM(gamma=1.0), {"no_info": ROWS[0]}, "model 'autoencoder': is missing, and gamma needs it"),
        (CounterfactualProto(gamma=1.0), {}, "model 'autoencoder': is missing"),
        (CounterfactualProto(theta=1.0), {}, "array 'codes': is missing, and theta"),
        (CounterfactualProto(theta=1.0), {"codes": CODES["codes"]}, "array 'classes': is missing"),
        (
            CounterfactualProto(theta=1.0),
            {**CODES, "codes": np.zeros((5, 4), np.int16)},
            "'codes': expected floats or bytes",
        ),
        (
            CounterfactualProto(theta=1.0),
            {**CODES, "means": np.zeros((2, 4), np.float32)},
            "'means': expected",
        ),
        (CounterfactualProto(), {"curvature": np.zeros(3, np.float32)}, "'curvature': expected floats"),
        (Counterfactual(gradient="student"), {}, "needs a surrogate"),
        (AnchorImage(fill="background"), {}, "array 'background': is missing"),
        (AnchorImage(fill="background"), {"background": ROWS[:0]}, "'background': expected floats"),
        (AnchorImage(fill="background"), {"background": ROWS[:, :4]}, "'background': expected floats"),
    ],
)
def test_what_a_spec_needs_and_does_not_find_is_named(tmp_path, spec, arrays, said):
    with pytest.raises(InvalidArtifact, match=said):
        artifact.save(Fitted(spec, CONTRACT, arrays), tmp_path / "a")


@pytest.mark.parametrize(
    ("spec", "arrays"),
    [
        (CEM(), {"no_info": ROWS[0]}),
        (CounterfactualProto(theta=1.0), {**CODES, "curvature": np.ones(2, np.float32)}),
        (CounterfactualProto(), {}),
        (Counterfactual(), {}),
        (AnchorImage(fill="background"), {"background": ROWS}),
    ],
)
def test_what_has_all_that_it_needs_can_be_saved_and_loaded(tmp_path, spec, arrays):
    assert artifact.load(artifact.save(Fitted(spec, CONTRACT, arrays), tmp_path / "a")).spec == spec


# --- layers without weights -------------------------------------------------------------------------------


def network(make, shape=(8, 8, 1)):
    import keras

    start = keras.Input(shape)
    return keras.Model(start, make(start, keras.layers))


def doubled(start, layers, axis):
    for _ in range(34):
        start = layers.Concatenate(axis=axis)([start, start])
    return layers.GlobalAveragePooling2D()(start)


def shared(start, layers):
    twice = layers.Concatenate(axis=1)
    for _ in range(34):
        start = twice([start, start])
    return layers.GlobalAveragePooling2D()(start)


def nested(start, layers):
    inner = network(lambda one, inside: inside.UpSampling2D(100)(one), (None, None, 1))
    return layers.GlobalAveragePooling2D()(inner(inner(start)))


BOMBS = {
    "upsampling": lambda x, layers: layers.GlobalAveragePooling2D()(layers.UpSampling2D(20_000)(x)),
    "repetition": lambda x, layers: layers.GlobalAveragePooling1D()(
        layers.RepeatVector(10**9)(layers.Flatten()(x))
    ),
    "padding": lambda x, layers: layers.GlobalAveragePooling2D()(layers.ZeroPadding2D(10**5)(x)),
    "resizing": lambda x, layers: layers.GlobalAveragePooling2D()(layers.Resizing(10**5, 10**5)(x)),
    "doubling": lambda x, layers: doubled(x, layers, 1),
    "one layer, doubling": shared,
    "a model in a model": nested,
    "many middling ones": lambda x, layers: layers.Add()(
        [layers.GlobalAveragePooling2D()(layers.UpSampling2D(240)(x)) for _ in range(20)]
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_layers_that_make_too_much_of_a_row_are_refused_before_they_are_built(tmp_path, bomb):
    with pytest.raises(
        InvalidArtifact, match=r"models/autoencoder\.json: the layer '.*' makes \d+ numbers of a row"
    ):
        artifact.save(
            Fitted(Counterfactual(), CONTRACT, {}, {"autoencoder": network(BOMBS[bomb])}), tmp_path / "a"
        )


def test_layers_that_join_rows_are_refused(tmp_path):
    model = network(lambda x, layers: doubled(x, layers, 0))
    with pytest.raises(InvalidArtifact, match="mixes rows"):
        artifact.save(Fitted(Counterfactual(), CONTRACT, {}, {"autoencoder": model}), tmp_path / "a")


def test_a_network_that_leaves_its_size_open_is_measured_at_the_contracts(tmp_path):
    model = network(lambda x, layers: layers.Conv2D(1, 3, padding="same")(x), (None, None, 1))
    path = artifact.save(Fitted(Counterfactual(), CONTRACT, {}, {"autoencoder": model}), tmp_path / "a")
    assert artifact.load(path).models["autoencoder"](ROWS).shape == ROWS.shape


# --- settings beside an artifact --------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant")
    return artifact.save(Fitted(spec, CONTRACT), tmp_path / "boots")


def planned(directory, tmp_path, **more):
    line = arguments.read([str(directory)])
    return deployment.plan(line, scratch=tmp_path, predictor="http://a/m", **more)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (sparse, "has more than the"),
        (lambda path: path.write_text("[" * 200_000), "lists and objects inside one another"),
        (lambda path: path.write_text('{"a":' * 5000 + "1" + "}" * 5000), "lists and objects inside"),
        (lambda path: path.write_text("[1]"), "expected a JSON object"),
        (lambda path: path.write_text('{"parameters": [1]}'), "parameters"),
        (lambda path: path.write_text('{"name": {"a": 1}}'), "name"),
        (lambda path: path.write_text('{"name": 7}'), "name"),
        (lambda path: path.write_text('{"parameters": {"version": 7}}'), "parameters.version"),
        (lambda path: path.write_text('{"parameters": {"extra": "x"}}'), "parameters.extra"),
        (lambda path: path.write_text('{"name": "../../v2/health/live"}'), "cannot be a part of a path"),
        (lambda path: path.write_text('{"name": "a\\nb"}'), "cannot be a part of a path"),
        (lambda path: path.write_text('{"parameters": {"version": "../1"}}'), "cannot be a part of a path"),
        (lambda path: path.write_text('{"parameters": {"extra": {"threads": "many"}}}'), "threads"),
        (lambda path: path.symlink_to("/etc/passwd"), "cannot be read|symbolic"),
        (os.mkfifo, "not a regular file"),
    ],
)
def test_settings_beside_an_artifact_are_as_untrusted_as_the_rest(directory, tmp_path, write, said):
    write(directory / "model-settings.json")
    with pytest.raises((InvalidSpec, InvalidArtifact), match=said):
        planned(directory, tmp_path)


def test_what_a_server_writes_there_beside_is_left_alone(directory):
    said = {
        "name": "x",
        "implementation": "os.system",
        "versions": [1],
        "parameters": {"uri": ".", "format": None},
    }
    (directory / "model-settings.json").write_text(json.dumps(said))
    assert beside.settings(directory).name == "x"
    assert beside.settings(directory).extra == {}


def test_the_operators_settings_are_a_ceiling(directory, tmp_path):
    greedy = {
        "limits": {"max_rows": 10**9, "max_seconds": 1e5, "max_batch": 2},
        "threads": 64,
        "queue": 10_000,
    }
    (directory / "model-settings.json").write_text(json.dumps({"parameters": {"extra": greedy}}))
    (model,) = planned(directory, tmp_path)
    extra = model["parameters"]["extra"]
    assert (extra["threads"], extra["queue"]) == (2, 32)
    assert extra["limits"] == {"max_rows": 200_000, "max_seconds": 30.0, "max_batch": 2, "max_calls": 20_000}
    (model,) = planned(directory, tmp_path, extra={"threads": 8, "limits": {"max_seconds": 60}})
    extra = model["parameters"]["extra"]
    assert (extra["threads"], extra["limits"]["max_seconds"], extra["limits"]["max_batch"]) == (8, 60.0, 2)


def test_an_artifact_may_ask_for_less():
    assert lowered({"threads": "1", "limits": '{"max_seconds": 5}'}, {"threads": 4}) == {
        "threads": 1,
        "limits": {"max_rows": 200_000, "max_seconds": 5.0, "max_batch": 16, "max_calls": 20_000},
    }


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x00", " a", "{a}", "a?b", "a%2f", "a:b", "x" * 201]
)
def test_names_that_are_no_part_of_a_path_are_none(name):
    with pytest.raises(InvalidSpec, match="cannot be a part of a path"):
        check_name(name)


@pytest.mark.parametrize("name", ["fashion-cf_1", "small (2)", "v1.0", "Stiefel-größe"])
def test_names_that_a_path_can_hold_are_names(name):
    assert check_name(name) == name
