"""Fitting to an endpoint: in calls that it takes, each with its own time, tried again, with progress."""

from __future__ import annotations

import numpy as np
import pytest
from oip_servers import GrpcServer, Model, Output, Refusal, RestServer
from toys import SHAPE, Counting, rowwise, weights

from explainer_runtime import Counterfactual, CounterfactualProto, Neighbours
from explainer_runtime.errors import PredictorTimeout
from explainer_runtime.explainers import fit
from explainer_runtime.predictors.base import answered
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Endpoint, Inputs

W = weights(seed=4)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
TRAIN = np.random.default_rng(0).uniform(0, 1, (90, *SHAPE)).astype("f")
SPECS = {
    "surrogate": Counterfactual(gradient="surrogate"),
    "prototypes": CounterfactualProto(theta=1.0, gradient="random"),
    "neighbours": Neighbours(),
}
SERVERS = {
    "rest": lambda model: RestServer(model),
    "grpc": lambda model: GrpcServer(model, max_message=1500),
}


@pytest.mark.parametrize("wire", SERVERS)
@pytest.mark.parametrize("spec", SPECS)
def test_an_endpoint_of_small_messages_that_is_away_now_and_then_can_be_fitted_to(wire, spec):
    asked = []

    def respond(x):
        asked.append(len(x))
        if len(asked) % 4 == 2:
            raise Refusal(503, "busy")
        scores = rowwise(W)(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    told = []
    with SERVERS[wire](Model(respond, most=4000)) as server:
        model = RemotePredictor(Endpoint(url=server.url, model="m", binary=False))
        fitted = fit(SPECS[spec], TRAIN, predictor=model, inputs=INPUTS, progress=told.append)
        model.close()
    here = fit(SPECS[spec], TRAIN, predictor=Counting(rowwise(W)), inputs=INPUTS)
    assert {name: array.tobytes() for name, array in fitted.arrays.items()} == {
        name: array.tobytes() for name, array in here.arrays.items()
    }
    assert max(asked) < 30  # of 90 rows and more
    assert told == sorted(told)
    assert len(told) > 3
    assert told[-1] == 1


def test_a_model_that_is_too_slow_for_many_rows_is_asked_about_fewer():
    class Slow(Counting):
        def __call__(self, x, *, timeout=None):
            if len(x) > 5:
                self.calls += 1
                raise PredictorTimeout("did not answer in time")
            return super().__call__(x)

    model, told = Slow(rowwise(W), most=80), []
    np.testing.assert_array_equal(answered(model, TRAIN, told.append), rowwise(W)(TRAIN))
    assert model.calls == 2 + 90  # of 80 rows, of 10, then one by one
    assert told[-1] == 1

    class Gone(Counting):
        def __call__(self, x, *, timeout=None):
            self.calls += 1
            raise PredictorTimeout("did not answer in time")

    gone = Gone(rowwise(W), most=80)
    with pytest.raises(PredictorTimeout):
        answered(gone, TRAIN)
    assert gone.calls == 3
