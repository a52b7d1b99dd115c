"""Explanations that run side by side share calls to the model, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_servers import GrpcServer, Model, Output, RestServer
from toys import CLASSES, SHAPE, Counting, rowwise, weights

from explainer_runtime.errors import InvalidPrediction, PredictorTimeout, PredictorUnavailable
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import connect
from explainer_runtime.predictors.merging import Merging
from explainer_runtime.spec import AnchorImage, Grid, Inputs, ModelContract

PREDICT = rowwise(weights())
LONG = {"wait": 60_000_000, "longest": 60_000_000}  # whoever waits, waits for the others, not for the clock


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, *SHAPE)).astype("f")


def together(merging, batches, timeouts=None):
    """What each of the batches is answered, asked at the same time by an explanation each."""
    timeouts = timeouts or [None] * len(batches)
    ready = threading.Barrier(len(batches))

    def explain(batch, timeout):
        with merging.running():
            ready.wait()
            try:
                return merging(batch, timeout=timeout)
            except Exception as error:
                return error

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(explain, batches, timeouts))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 40))
def test_everyone_gets_the_bytes_that_they_would_get_alone(sizes, most):
    batches = [rows(seed, size) for seed, size in enumerate(sizes)]
    predictor = Counting(PREDICT, most=4096)
    answers = together(Merging(predictor, **LONG, rows=most), batches)
    for batch, answer in zip(batches, answers, strict=True):
        assert answer.tobytes() == PREDICT(batch).tobytes()
    assert predictor.rows == sum(sizes)
    assert predictor.calls <= len(sizes)


def test_asks_of_the_same_moment_are_one_call():
    predictor = Counting(PREDICT)
    merging = Merging(predictor, **LONG, rows=1000)
    together(merging, [rows(seed, 3) for seed in range(8)])
    assert (merging.asked, merging.sent, predictor.calls) == (8, 1, 1)


def test_no_call_is_larger_than_a_message_unless_one_ask_is():
    sizes = []

    def predict(x):
        sizes.append(len(x))
        return PREDICT(x)

    together(Merging(Counting(predict, most=10), **LONG), [rows(0, n) for n in (4, 4, 4, 25)])
    assert sum(sizes) == 37
    assert all(size <= 10 or size == 25 for size in sizes)


def test_alone_nobody_waits_and_no_thread_is_started():
    merging = Merging(Counting(PREDICT), **LONG)
    before = threading.active_count()
    with merging.running():
        merging(rows(0, 3))
    assert threading.active_count() == before
    assert (merging.asked, merging.sent) == (1, 1)


def test_an_explanation_that_ends_is_not_waited_for():
    merging = Merging(Counting(PREDICT), **LONG)
    asked = threading.Event()

    def first():
        with merging.running():
            return merging(rows(0, 2))

    with ThreadPoolExecutor(1) as pool:
        with merging.running():
            pending = pool.submit(first)
            asked.wait(0.05)  # whether it waits by now or asks later, our leaving lets it go
        assert len(pending.result(timeout=30)) == 2


def test_rows_of_other_shapes_are_not_mixed():
    def predict(x):
        return np.stack([x.reshape(len(x), -1).sum(axis=1), np.ones(len(x))], axis=1)

    one, other = np.ones((2, 3), "f"), np.ones((2, 5), "f")
    counting = Counting(predict)
    counting.contract = ModelContract(output="scores")
    merging = Merging(counting, **LONG)
    a, b = together(merging, [one, other])
    np.testing.assert_array_equal(a[:, 0], 3)
    np.testing.assert_array_equal(b[:, 0], 5)
    assert merging.sent == 2


def test_what_one_does_wrong_the_others_do_not_feel():
    def predict(x):
        if (x > 2).any():
            raise InvalidPrediction("cannot say")
        return PREDICT(x)

    bad = np.full((1, *SHAPE), 3, "f")
    batches = [rows(0, 2), bad, rows(1, 4)]
    first, refused, last = together(Merging(Counting(predict), **LONG), batches)
    assert isinstance(refused, InvalidPrediction)
    assert first.tobytes() == PREDICT(batches[0]).tobytes()
    assert last.tobytes() == PREDICT(batches[2]).tobytes()


@pytest.mark.parametrize("failure", [PredictorUnavailable("gone"), PredictorTimeout("slow")])
def test_a_model_that_is_down_is_not_asked_again_for_each(failure):
    def predict(x):
        raise failure

    predictor = Counting(predict)
    answers = together(Merging(predictor, **LONG), [rows(seed, 1) for seed in range(6)])
    assert {type(answer) for answer in answers} == {type(failure)}
    assert len({id(answer) for answer in answers}) == 6  # a traceback of its own each
    assert predictor.calls == 1


def test_each_has_its_own_deadline():
    go = threading.Event()

    def predict(x):
        go.wait(30)
        return PREDICT(x)

    merging = Merging(Counting(predict), **LONG)
    outcome, both = {}, threading.Barrier(2)

    def explain(name, timeout):
        with merging.running():
            both.wait()
            try:
                outcome[name] = merging(rows(0, 1), timeout=timeout)
            except PredictorTimeout as error:
                outcome[name] = error
                go.set()  # only now may the model answer: the other one is still there to hear it

    with ThreadPoolExecutor(2) as pool:
        pool.submit(explain, "patient", 60.0)
        pool.submit(explain, "hasty", 0.2)
    assert isinstance(outcome["hasty"], PredictorTimeout)
    assert outcome["patient"].shape == (1, 3)


def test_it_can_be_used_again_after_it_was_closed():
    merging = Merging(Counting(PREDICT), **LONG)
    together(merging, [rows(0, 1), rows(1, 1)])
    merging.close()
    answers = together(merging, [rows(0, 1), rows(1, 1)])
    assert [answer.shape for answer in answers] == [(1, 3), (1, 3)]


def test_a_convolutional_network_answers_the_same_but_for_the_last_bits():
    pytest.importorskip("tensorflow")
    import keras

    from explainer_runtime.predictors.keras import KerasPredictor

    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ]
    network = KerasPredictor.of(keras.Sequential([keras.Input((12, 12, 1)), *layers]))
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, 1, (size, 12, 12, 1)).astype("f") for size in (1, 7, 30)]
    answers = together(Merging(network, **LONG), batches)
    for batch, answer in zip(batches, answers, strict=True):
        # float32 sums of a few hundred products, in another order.
        np.testing.assert_allclose(answer, network(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [GrpcServer, RestServer])
def test_explanations_of_a_served_model_share_calls_and_stay_what_they_were(kind):
    def respond(x):
        return [Output("scores", "FP32", (len(x), CLASSES), PREDICT(x))]

    images = rows(3, 6)
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2))
    with kind(Model(respond)) as server:
        fitted = fit(spec, inputs=Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES))
        explain = prepare(fitted, connect(f"{server.url}/m"))
        alone = [explain(image[None]).to_json() for image in images]
        asked, sent, seen = explain.merging.asked, explain.merging.sent, len(server.model.seen)
        assert asked == sent == seen
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda image: explain(image[None]).to_json(), images)) == alone
        assert len(server.model.seen) == explain.merging.sent
        assert explain.merging.asked == 2 * asked
        assert explain.merging.sent <= 2 * sent
        explain.close()


def test_the_name_it_had_is_good_for_one_more_release():
    inputs = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
    explain = prepare(
        fit(AnchorImage(segmentation=Grid(rows=2, columns=2)), inputs=inputs), Counting(PREDICT)
    )
    with pytest.warns(DeprecationWarning, match="coalescer is called merging now"):
        assert explain.coalescer is explain.merging
