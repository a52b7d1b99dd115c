"""White boxes by PyTorch, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from explainer_runtime.errors import InvalidSpec  # noqa: E402
from explainer_runtime.explainers import fit, prepare  # noqa: E402
from explainer_runtime.predictors import WhiteBox, connect  # noqa: E402
from explainer_runtime.spec import Counterfactual, Inputs  # noqa: E402

SHAPE = (1, 4, 4)
WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def module(*head, steep=1.0):
    dense = torch.nn.Linear(16, 3, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(WEIGHTS.T * steep))
    return torch.nn.Sequential(torch.nn.Flatten(), dense, *head).eval()


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(-1, 1, (40, *SHAPE)).astype(np.float32)


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


ENDINGS = {
    "softmax": ((torch.nn.Softmax(dim=1),), {}, log_softmax),
    "logits": ((), {"output": "logits"}, log_softmax),
    "sigmoids": ((torch.nn.Sigmoid(),), {"output": "scores"}, lambda z: -np.logaddexp(0, -z)),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("steep", [1.0, 100.0])
def test_log_scores_are_exact_where_scores_vanish(x, ending, steep):
    head, contract, closed = ENDINGS[ending]
    predictor = connect(module(*head, steep=steep), shape=SHAPE, **contract)
    assert isinstance(predictor, WhiteBox)
    exact = closed(x.reshape(-1, 16).astype(np.float64) @ WEIGHTS * steep)
    np.testing.assert_allclose(predictor.log_scores(x), exact, rtol=1e-5, atol=2e-5 * steep)
    np.testing.assert_allclose(predictor(x), np.exp(exact), rtol=1e-2 if steep > 1 else 1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_slope_is_the_derivative_of_what_is_pulled_and_nothing_else_is_changed(x, ending):
    head, contract, closed = ENDINGS[ending]
    model = module(*head)
    predictor = connect(model, shape=SHAPE, **contract)
    w = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    asked = []
    _, gradient = predictor.slope(x, lambda logs: asked.append(len(logs)) or w)
    assert asked == [40]
    z, step = x.reshape(-1, 16).astype(np.float64) @ WEIGHTS, 1e-4
    around = [(w * (closed(z + step * one) - closed(z - step * one))).sum(axis=1) for one in np.eye(3)]
    np.testing.assert_allclose(
        gradient.reshape(-1, 16), np.stack(around, axis=1) / (2 * step) @ WEIGHTS.T, atol=1e-4
    )
    assert all(one.grad is None for one in model.parameters())


def test_a_module_is_explained_by_its_own_slopes(x):
    fitted = fit(Counterfactual(), inputs=Inputs(shape=SHAPE, low=-1, high=1, classes=3))
    answer = prepare(fitted, module(torch.nn.Softmax(dim=1)))(x[:4])
    assert answer["found"].all()
    assert {*answer["gradient_source"]} == {"exact"}


def test_a_module_in_training_or_of_other_rows_is_refused():
    with pytest.raises(InvalidSpec, match="training mode"):
        connect(module().train(), shape=SHAPE)
    with pytest.raises(InvalidSpec, match="cannot be called"):
        connect(module(), shape=(3, 3))
