"""A canary in each call finds rows in another order and models that have been exchanged; a version, too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oip_servers import GrpcServer, Model, Output, RestServer
from toys import rowwise, weights

from explainer_runtime import fit, prepare
from explainer_runtime.errors import InvalidPrediction, InvalidSpec, PredictorChanged
from explainer_runtime.predictors import CallablePredictor, served
from explainer_runtime.predictors.canary import Canary
from explainer_runtime.predictors.merging import Merging
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import AnchorImage, Counterfactual, Endpoint, Grid, Inputs

FEATURES, CLASSES = 16, 3
# Spread out, so that scores of any two rows differ by more than the tolerance.
ROWS = np.random.default_rng(0).uniform(-1, 1, size=(64, FEATURES)).astype(np.float32)
EXACT = rowwise(weights() / 6)


class Served:
    """A model in this process that claims to be behind an endpoint."""

    name = "m"

    def __init__(self, function, most=1000, **settings):
        self.settings = Endpoint(url="http://h", model="m", **settings)
        self.function, self.most, self.changes, self.asked = function, most, 0, []

    def __call__(self, x, *, timeout=None):
        self.asked.append(len(x))
        return self.function(x)

    def rows_per_call(self, shape):
        return self.most

    def close(self):
        pass


def watched(model):
    return Canary(model, model, CLASSES)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_answers_are_the_models_own_and_each_call_costs_one_row_more(sizes):
    model = Served(EXACT)
    predictor = watched(model)
    for size in sizes:
        np.testing.assert_array_equal(predictor(ROWS[:size]), EXACT(ROWS[:size]))
    assert model.asked == [size + predictor.extra_rows for size in sizes]


def test_the_canary_finds_room_in_the_message():
    assert watched(Served(EXACT, most=10)).rows_per_call((FEATURES,)) == 9
    assert watched(Served(EXACT, most=1)).rows_per_call((FEATURES,)) == 1


@given(st.integers(2, 40), st.integers(0, 9), st.integers(0, 40))
def test_rows_answered_in_reverse_or_rolled_are_found_whatever_came_before(size, before, by):
    model = Served(EXACT)
    predictor = watched(model)
    batches = [ROWS[start : start + size] for start in range(before + 1)]
    for batch in batches[:-1]:
        predictor(batch)
    model.function = lambda x: np.roll(EXACT(x), by % size, axis=0) if by % size else EXACT(x)[::-1]
    with pytest.raises(InvalidPrediction, match="order"):
        predictor(batches[-1])


def test_two_rows_that_keep_changing_places_are_found_before_long():
    def swapped(x):
        scores = EXACT(x)
        return scores[[*range(4), 5, 4, *range(6, len(x))]]

    predictor = watched(Served(swapped))

    def ask_again_and_again():
        for start in range(20):
            predictor(ROWS[start : start + 12])

    with pytest.raises(InvalidPrediction, match="order"):
        ask_again_and_again()


def test_another_model_is_found_in_the_next_call():
    model = Served(EXACT)
    predictor = watched(model)
    predictor(ROWS[:5])
    model.function = rowwise(weights(seed=1))
    with pytest.raises(PredictorChanged, match="another model"):
        predictor(ROWS[5:9])


def test_the_last_bits_may_depend_on_the_batch_within_the_tolerance():
    model = Served(lambda x: EXACT(x) + np.float32(len(x) * 1e-6))
    predictor = watched(model)
    for size in (1, 5, 64):
        predictor(ROWS[:size])
    loose = Served(lambda x: EXACT(x) + np.float32(len(x) * 1e-3), canary=0.1)
    predictor = watched(loose)
    for size in (1, 5, 64):
        predictor(ROWS[:size])


def test_without_a_canary_nothing_goes_along():
    model = Served(EXACT, canary=None)
    predictor = watched(model)
    np.testing.assert_array_equal(predictor(ROWS[:5]), EXACT(ROWS[:5]))
    assert model.asked == [5]
    assert predictor.extra_rows == 0
    assert predictor.rows_per_call((FEATURES,)) == 1000


def test_a_change_before_the_explanation_began_does_not_concern_it():
    model = Served(EXACT)
    predictor = watched(model)
    model.changes += 1
    predictor(ROWS[:5])
    model.changes += 1
    with pytest.raises(PredictorChanged, match="version"):
        predictor(ROWS[:5])


def test_another_width_than_the_contracts_is_refused():
    with pytest.raises(InvalidPrediction, match="expected 3 class scores, got 4"):
        watched(Served(rowwise(weights(classes=4))))(ROWS[:5])


def test_explanations_that_share_calls_each_find_rows_in_another_order():
    model = Served(lambda x: EXACT(x)[::-1])
    shared = Merging(model)

    def explain(start):
        view = Canary(shared, model, CLASSES)
        rows = ROWS[start : start + 7]
        with shared.running():
            try:
                return np.array_equal(view(rows), EXACT(rows))
            except (InvalidPrediction, PredictorChanged):
                return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(explain, range(24)))
    shared.close()


# --- in place ---------------------------------------------------------------------------------------------

CONTRACT = Inputs(shape=(4, 4, 1), low=-1, high=1, classes=CLASSES)
ANCHOR = AnchorImage(segmentation=Grid(rows=2, columns=2))


def linear(x):
    scores = EXACT(x)
    return [Output("scores", "FP32", scores.shape, scores)]


@pytest.mark.parametrize("kind", [RestServer, GrpcServer])
def test_a_version_that_changes_from_call_to_call_ends_the_explanation(kind):
    versions = iter("1112222222")
    model = Model()

    def respond(x):
        model.version = next(versions)
        return linear(x)

    model.respond = respond
    with kind(model) as server:
        predictor = RemotePredictor(Endpoint(url=server.url, model="m"))
        view = Canary(predictor, predictor, CLASSES)
        for _ in range(3):
            view(ROWS[:5])
        with pytest.raises(PredictorChanged, match="version"):
            view(ROWS[:5])
        Canary(predictor, predictor, CLASSES)(ROWS[:5])  # the next explanation begins anew
        predictor.close()


def test_versions_that_differ_between_messages_of_one_call_are_refused():
    model = Model()

    def respond(x):
        model.version += "1"
        return linear(x)

    model.respond = respond
    with GrpcServer(model) as server:
        predictor = RemotePredictor(Endpoint(url=server.url, model="m", max_message=1024))
        with pytest.raises(PredictorChanged, match="message"):
            predictor(ROWS)
        predictor.close()


def test_the_rows_that_an_explanation_reports_are_those_that_the_server_saw():
    model = Model(respond=linear)
    with GrpcServer(model) as server:
        predictor = RemotePredictor(Endpoint(url=server.url, model="m"))
        answer = prepare(fit(ANCHOR, inputs=CONTRACT), predictor)(ROWS[:2].reshape(2, 4, 4, 1))
        predictor.close()
    assert answer.cost.rows == sum(seen.shape[0] for seen in model.seen)
    assert answer.cost.calls == len(model.seen)


def test_labels_are_enough_for_anchors_and_refused_where_a_gradient_is_needed():
    settings = {"model": "m", "output": "labels", "classes": CLASSES}

    def respond(x):
        labels = EXACT(x).argmax(axis=1)
        return [Output("labels", "INT64", labels.shape, labels)]

    with GrpcServer(Model(respond=respond)) as server:
        predictor = RemotePredictor(Endpoint(url=server.url, **settings))
        answer = prepare(fit(ANCHOR, inputs=CONTRACT), predictor)(ROWS[:1].reshape(1, 4, 4, 1))
        assert answer["found"].all()
        with pytest.raises(InvalidSpec, match="labels only"):
            prepare(fit(Counterfactual(), inputs=CONTRACT), predictor)
        predictor.close()


def test_only_what_is_behind_an_endpoint_is_served():
    assert served(RemotePredictor(Endpoint(url="grpc://h", model="m"))) is not None
    assert served(CallablePredictor(EXACT)) is None
