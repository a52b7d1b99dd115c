"""Many rows are explained a few at a time: the same answers, in bounded memory, and to each its share."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from toys import Counting, Linear, rowwise, weights

from explainer_runtime.driver import Budget, explain, parts
from explainer_runtime.errors import Cancelled
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.explanation import Explanation
from explainer_runtime.search.asks import Rows, Stop
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, Grid, Inputs, Limits, Region

SHAPE = (6, 6, 1)
W = weights(seed=3, features=36)
CELLS = {"segmentation": Grid(rows=3, columns=3)}
CASES = {
    "counterfactual": (Counterfactual(effort="quick", keep_path=True), Linear(W)),
    "directions": (Counterfactual(effort="quick"), Counting(rowwise(W))),
    "positive": (CEM(no_info_val=0.0, mode="PP", effort="quick"), Linear(W)),
    "anchor": (AnchorImage(**CELLS), Counting(rowwise(W))),
    "region": (Region(**CELLS), Counting(rowwise(W))),
}
PATIENT = Limits(max_seconds=3600, max_batch=64)


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (5, *SHAPE)).astype("f")


@pytest.mark.parametrize("case", CASES)
def test_rows_explained_a_few_at_a_time_get_what_they_get_together(case, x, monkeypatch):
    spec, model = CASES[case]
    run = prepare(fit(spec, inputs=Inputs(shape=SHAPE, low=0, high=1, classes=3)), model)
    together = run(x, limits=PATIENT)
    monkeypatch.setattr(parts, "FEATURES", 2 * x[0].size)
    apart = run(x, limits=PATIENT)
    for name, rows in together.arrays.items():
        assert rows.tobytes() == apart[name].astype(rows.dtype).tobytes(), name
    assert Explanation("", {"found": apart["found"]}, apart.raw).to_json() == (
        Explanation("", {"found": together["found"]}, together.raw).to_json()
    )
    assert apart.cost.steps == together.cost.steps


def asking(asks: int):
    """A search that asks about its rows so often, or until it is told to stop."""

    def answered(x, status):
        fields = {"found": np.full(len(x), status == "ok"), "status": np.full(len(x), status)}
        return Explanation("", fields)

    def search(x):
        for number in range(asks):
            try:
                yield Rows(x, (number + 1) / asks)
            except Stop as stop:
                return answered(x, stop.status)
        return answered(x, "ok")

    return search


def test_each_part_may_take_its_share_of_what_is_left(x, monkeypatch):
    monkeypatch.setattr(parts, "FEATURES", 2 * x[0].size)
    # Of 21 rows the first two may take 8, the next two 8 of what the first left, the last all the rest.
    answer = explain(x, asking(5), Counting(rowwise(W)), Budget(rows=21, seconds=3600))
    assert answer["found"].tolist() == [False, False, False, False, True]
    assert answer["status"].tolist() == ["budget_exhausted"] * 4 + ["ok"]
    assert answer.cost.rows <= 21
    answer = explain(x, asking(4), Counting(rowwise(W)), Budget(rows=20, calls=12, seconds=3600))
    assert answer["found"].all()
    assert answer.cost.rows == 20


def test_progress_is_that_of_all_rows_and_cancelling_ends_all(x, monkeypatch):
    monkeypatch.setattr(parts, "FEATURES", 2 * x[0].size)
    told = []
    answer = explain(x, asking(2), Counting(rowwise(W)), Budget(seconds=3600), progress=told.append)
    np.testing.assert_allclose([at.fraction for at in told], [0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
    assert [at.rows for at in told] == [2, 4, 6, 8, 9, 10]
    assert answer.cost.calls == told[-1].calls == 6
    with pytest.raises(Cancelled):
        explain(x, asking(2), Counting(rowwise(W)), Budget(), cancel=lambda: len(told) > 0)


def test_the_time_that_superpixels_take_is_that_of_the_explanation(x):
    def slow(image):
        time.sleep(0.2)
        return np.arange(36).reshape(6, 6) // 12

    model = Counting(rowwise(W))
    contract = Inputs(shape=SHAPE, low=0, high=1, classes=3)
    run = prepare(fit(Region(), inputs=contract), model, segment=slow, warm=False)
    answer = run(x[:1], limits=Limits(max_seconds=0.1))
    assert answer["status"].tolist() == ["budget_exhausted"]
    assert run(x[:1], limits=PATIENT)["status"].tolist() != ["budget_exhausted"]


LARGE = (64, 64, 3)


class Mean(Linear):
    """Two classes, by the mean of an image: of no size itself, so that what a search holds shows."""

    def _logs(self, x):
        logit = 40 * (np.stack([one.mean(dtype=np.float64) for one in x]) - 0.5)
        return -np.logaddexp(0, np.stack([logit, -logit], axis=1)).astype(np.float32)

    def slope(self, x, pull):
        said = self.log_scores(x)
        weight, scores = pull(said).astype(np.float64), np.exp(said.astype(np.float64))
        rise = (weight - scores * weight.sum(axis=1, keepdims=True)) @ [-40 / x[0].size, 40 / x[0].size]
        return said, np.ones_like(x) * rise.astype(np.float32).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    "spec",
    [CEM(no_info_val=0.5, mode="PP", effort="quick"), Region(segmentation=Grid(rows=2, columns=2))],
    ids=lambda spec: spec.kind,
)
def test_more_rows_take_hardly_more_memory(spec, monkeypatch):
    monkeypatch.setattr(parts, "FEATURES", 6 * np.prod(LARGE))  # as if there were many more pixels
    model = Mean(weights(classes=2))
    run = prepare(fit(spec, inputs=Inputs(shape=LARGE, low=0, high=1, classes=2)), model, warm=False)
    x = np.random.default_rng(0).uniform(0.3, 0.5, (24, 1, 1, 3)).astype("f") * np.ones(LARGE, "f")

    def most(rows):
        tracemalloc.start()
        run(rows, limits=PATIENT)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = most(x[:8]), most(x)
    # Beside the part that is searched, the rows and their answers are held: a few arrays like a row (measured
    # were 1 and 3), where all rows together hold 64 and 22 more of them each.
    assert many - few < (len(x) - 8) * 10 * x[0].nbytes
