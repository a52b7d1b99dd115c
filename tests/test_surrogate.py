"""A surrogate: its slopes, how it comes to agree with its model, what an artifact holds of it."""

from __future__ import annotations

import numpy as np
import pytest
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.artifact import Fitted
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods import teaching
from explainer_runtime.predictors import WhiteBox
from explainer_runtime.search import surrogate
from explainer_runtime.search.surrogate import Surrogate
from explainer_runtime.spec import Counterfactual, Inputs

W = weights(seed=3)
TRAIN = np.random.default_rng(4).uniform(0, 1, (400, *SHAPE)).astype("f")
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
SHAPES = {"row": (9,), "small image": (4, 4, 1), "image": (10, 11, 2), "channels first": (2, 10, 11)}


def random_surrogate(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Surrogate:
    """One that nobody has taught, with biases: the slope of a network is its own whatever it knows."""
    first = shape == SHAPES["channels first"]
    found = Surrogate([], low, high, first)
    rng = np.random.default_rng(0)
    seen = found._seen(np.zeros((1, *shape), "f")).shape[1:]
    found.weights = [
        (kernel, rng.normal(0, 0.1, bias.shape).astype("f"))
        for kernel, bias in surrogate._start(seen, CLASSES, rng)
    ]
    return found


# --- slopes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_slopes_are_finite_differences_of_log_scores(kind, scale):
    found = random_surrogate(SHAPES[kind], 0.0, scale)
    rng = np.random.default_rng(1)
    x = rng.uniform(0, scale, (3, *SHAPES[kind])).astype("f")
    pull = rng.normal(size=(3, CLASSES)).astype("f")
    said, slope = found.slope(x, lambda _: pull)
    np.testing.assert_array_equal(said, found.log_scores(x))
    double = Surrogate([(k.astype("d"), b.astype("d")) for k, b in found.weights], 0.0, scale)
    double.channels_first = found.channels_first
    nudge = 1e-6 * scale  # so small that no unit of ReLU switches; in float64 that leaves nine digits

    def pulled(rows: np.ndarray) -> np.ndarray:
        logits = surrogate.TEMPERATURE * surrogate._forward(double.weights, double._seen(rows))[0]
        return ((logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)) * pull).sum(axis=1)

    for _ in range(5):
        direction = rng.normal(size=x.shape)
        rise = (pulled(x + nudge * direction) - pulled(x - nudge * direction)) / (2 * nudge)
        along = (slope * direction).reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(along, rise, rtol=1e-4, atol=1e-5 / scale)


def test_log_scores_are_a_distribution_and_do_not_end_where_probabilities_do():
    found = random_surrogate((9,))
    found.weights[-1] = (found.weights[-1][0] * 200, found.weights[-1][1])
    said = found.log_scores(np.random.default_rng(2).uniform(0, 1, (20, 9)).astype("f"))
    np.testing.assert_allclose(np.logaddexp.reduce(said, axis=1), 0, atol=1e-4)
    assert said.min() < -100
    assert np.isfinite(said).all()


@pytest.mark.parametrize("kind", SHAPES)
def test_rows_are_strangers_to_the_last_bit(kind):
    found = random_surrogate(SHAPES[kind])
    x = np.random.default_rng(3).uniform(0, 1, (17, *SHAPES[kind])).astype("f")
    said, slope = found.slope(x, np.exp)
    for size in (1, 2, 5, 16):
        ours = found.slope(x[:size], np.exp)
        assert ours[0].tobytes() == said[:size].tobytes() == found.log_scores(x[:size]).tobytes()
        assert ours[1].tobytes() == slope[:size].tobytes()


def test_channels_first_is_the_same_network_seen_otherwise():
    last = random_surrogate((10, 11, 2))
    first = Surrogate(last.weights, 0.0, 1.0, channels_first=True)
    x = np.random.default_rng(3).uniform(0, 1, (4, 10, 11, 2)).astype("f")
    moved = np.moveaxis(x, -1, 1)
    np.testing.assert_array_equal(first.log_scores(moved), last.log_scores(x))
    ours, theirs = (net.slope(rows, np.exp)[1] for net, rows in ((first, moved), (last, x)))
    np.testing.assert_array_equal(ours, np.moveaxis(theirs, -1, 1))


def test_it_can_be_asked_wherever_a_model_in_this_process_can():
    assert isinstance(random_surrogate((9,)), WhiteBox)


# --- teaching -------------------------------------------------------------------------------------------


def test_softened_probabilities_keep_their_order_and_sum_to_one():
    scores = np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.1), 50).astype("f")
    soft = surrogate.soften(scores)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(soft.argmax(axis=1), scores.argmax(axis=1))
    assert soft.min() > 0


def test_softening_divides_the_log_odds_of_two_classes_by_the_temperature():
    p = np.linspace(0.01, 0.99, 20)
    soft = surrogate.soften(np.stack([p, 1 - p], axis=1).astype("f")).astype(float)
    odds = np.log(soft[:, 0] / soft[:, 1])
    np.testing.assert_allclose(odds, np.log(p / (1 - p)) / surrogate.TEMPERATURE, atol=1e-5)


def test_mixtures_lie_between_the_rows_they_are_made_of():
    x = np.random.default_rng(0).choice([0.0, 1.0], (10, *SHAPE)).astype("f")
    mixed = surrogate.mixtures(x, 30, np.random.default_rng(1))
    assert mixed.shape == (30, *SHAPE)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    whole = np.isin(mixed, [0, 1]).reshape(30, -1).all(axis=1)
    assert whole[1::2].all()  # every second one takes whole features


@pytest.mark.parametrize("channels_first", [False, True])
def test_it_comes_to_agree_with_a_linear_model(channels_first):
    shape = (1, 8, 8) if channels_first else (8, 8, 1)
    w = weights(seed=6, features=64) / 8  # log-odds of a few: what 3,000 lessons of eight epochs can tell
    rng = np.random.default_rng(7)
    x, fresh = rng.uniform(0, 1, (3000, *shape)).astype("f"), rng.uniform(0, 1, (500, *shape)).astype("f")
    model = Linear(w)
    told = []
    found = surrogate.teach(x, model(x), 0, 1, channels_first=channels_first, progress=told.append)
    same = found(fresh).argmax(axis=1) == model(fresh).argmax(axis=1)
    # A class chosen by chance agrees for a third; rows near a border are lost by any network of 3,000 rows.
    assert same.mean() > 0.9
    ours, theirs = ((said[:, 1] - said[:, 0]) for said in (found.log_scores(fresh), model.log_scores(fresh)))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9  # sharpened again by as much as it was softened:
    assert np.polyfit(theirs, ours, 1)[0] == pytest.approx(1, abs=0.3)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_teaching_twice_gives_the_same_surrogate_and_another_seed_another():
    scores = rowwise(W)(TRAIN[:100])
    one, again, other = (surrogate.teach(TRAIN[:100], scores, 0, 1, seed=seed).arrays() for seed in (5, 5, 6))
    for name, array in one.items():
        assert array.tobytes() == again[name].tobytes()
    assert any(array.tobytes() != other[name].tobytes() for name, array in one.items())


@pytest.mark.parametrize(("side", "halvings"), [(4, 0), (8, 2), (28, 2), (60, 3), (224, 5)])
def test_images_are_halved_by_convolutions_until_they_are_small(side, halvings):
    kernels = [kernel for kernel, _ in surrogate._start((side, side, 3), 2, np.random.default_rng(0))]
    assert [kernel.ndim for kernel in kernels] == [4] * halvings + [2, 2]
    logits, _ = surrogate._forward(
        [(kernel, np.zeros(kernel.shape[-1], "f")) for kernel in kernels], np.ones((1, side, side, 3), "f")
    )
    assert logits.shape == (1, 2)


# --- what an artifact holds -----------------------------------------------------------------------------


def test_its_arrays_are_all_of_it():
    found = random_surrogate((10, 11, 2))
    x = np.random.default_rng(3).uniform(0, 1, (4, 10, 11, 2)).astype("f")
    again = Surrogate.of(found.arrays(), 0.0, 1.0, channels_first=False)
    assert again.log_scores(x).tobytes() == found.log_scores(x).tobytes()


def test_fitting_asks_for_no_more_rows_than_it_says():
    teacher = Counting(rowwise(W), 4096)
    arrays = fit(Counterfactual(gradient="surrogate"), TRAIN, predictor=teacher, inputs=CONTRACT).arrays
    assert arrays["surrogate_rows"][0] <= teaching.MOST < 10_000
    assert 0 <= teacher.rows - arrays["surrogate_rows"][0] <= 64  # a few by which the model is known again
    assert arrays["surrogate_agreement"][0] > 0.8
    np.testing.assert_allclose(arrays["reference_scores"], rowwise(W)(arrays["reference_rows"]), atol=1e-6)


def test_a_student_of_the_first_version_answers_as_it_did():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    student = keras.Sequential(
        [
            keras.Input((9, 10, 1)),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="relu", bias_initializer="normal"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="relu", bias_initializer="normal"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(4, activation="softmax", bias_initializer="normal"),
        ]
    )
    # Of images in [0, 255]: the first version's students saw them as they were.
    inputs = Inputs(shape=(9, 10, 1), low=0, high=255, classes=4)
    x = np.random.default_rng(5).uniform(0, 2, (6, 9, 10, 1)).astype("f")
    rows = {"reference_rows": x, "reference_scores": np.full((6, 4), 0.25, "f")}
    found = teaching.guide(Fitted(Counterfactual(gradient="surrogate"), inputs, rows, {"student": student}))
    logits = np.log(student(x).numpy().astype("d"))
    sharp = surrogate.TEMPERATURE * logits
    expected = sharp - np.logaddexp.reduce(sharp, axis=1, keepdims=True)
    np.testing.assert_allclose(found.surrogate.log_scores(x), expected, atol=1e-4)


def test_an_artifact_of_the_first_version_is_explained_by_its_student():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    student = keras.Sequential(
        [
            keras.Input(SHAPE), layers.Flatten(), layers.Dense(64, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )  # fmt: skip
    student.compile(keras.optimizers.Adam(0.01), "kl_divergence")
    student.fit(TRAIN, surrogate.soften(rowwise(W)(TRAIN)), epochs=10, verbose=0)
    rows = {"reference_rows": TRAIN[:100], "reference_scores": rowwise(W)(TRAIN[:100])}
    fitted = Fitted(Counterfactual(), CONTRACT, rows, {"student": student})
    x = np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype("f")
    answer = prepare(fitted, Counting(rowwise(W), 4096))(x)
    assert answer["found"].all()
    assert set(answer["gradient_source"]) == {"surrogate"}
    again = rowwise(W)(answer["counterfactual"])[np.arange(4), answer["target_class"]]
    assert (again >= 0.95).all()


def test_a_surrogate_is_taught_wherever_the_model_is_and_searched_only_where_it_has_no_slopes():
    there = fit(Counterfactual(), TRAIN[:60], predictor=Counting(rowwise(W)), inputs=CONTRACT)
    here = fit(Counterfactual(), TRAIN[:60], predictor=Linear(W), inputs=CONTRACT)
    bare = fit(Counterfactual(), TRAIN[:60], predictor=Linear(W), inputs=CONTRACT, surrogate=False)
    assert [teaching.taught(fitted) for fitted in (there, here, bare)] == [True, True, False]
    row = TRAIN[:1]
    black = Counting(rowwise(W), 4096)
    roads = [
        (there, black, "surrogate"),
        (here, black, "surrogate"),
        (there, Linear(W), "exact"),
        (bare, black, "random"),
    ]
    for fitted, predictor, road in roads:
        assert prepare(fitted, predictor, warm=False)(row)["gradient_source"] == road
