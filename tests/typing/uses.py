"""What users write, for type checkers: right uses are right, wrong ones are noticed (see `test_typing.py`).

This file is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np

import explainer_runtime
from explainer_runtime import (
    CEM,
    AnchorImage,
    Counterfactual,
    CounterfactualProto,
    Explanation,
    Fitted,
    Grid,
    Inputs,
    Limits,
    connect,
    fit,
    load,
    prepare,
    save,
)
from explainer_runtime.explainers import Prepared
from explainer_runtime.predictors import Predictor
from explainer_runtime.spec import Spec


def right(x: np.ndarray, path: Path) -> None:
    inputs = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
    specs: list[Spec] = [
        Counterfactual(target_class="other", tol=0.01),
        Counterfactual(target_class=3),
        CounterfactualProto(theta=1.0, target_class=(1, 2)),
        CEM(mode="PP", no_info_val=0.0),
        AnchorImage(segmentation=Grid(rows=4, columns=7)),
    ]
    model = connect("grpc://localhost:8081/cnn")
    assert_type(model, Predictor)
    fitted = fit(specs[0], x, predictor=model, inputs=inputs)
    assert_type(fitted, Fitted)
    assert_type(save(fitted, path), Path)
    explain = prepare(load(path), model)
    assert_type(explain, Prepared)
    answer = explain(x, {"seed": 1}, limits=Limits(max_seconds=5))
    assert_type(answer, Explanation)
    assert_type(answer.to_json(), bytes)
    assert_type(answer.cost.rows, int)
    assert_type(explainer_runtime.__version__, str)


def wrong(x: np.ndarray, fitted: Fitted) -> None:
    Counterfactual(objective="largest")  # wrong
    AnchorImage(segmentation=4)  # wrong
    Inputs(shape=(28, 28), low=0, high=1)  # wrong
    fit(x)  # wrong
    prepare(fitted)  # wrong
    prepare(fitted, "model.keras")(x, seed=1)  # wrong
    save(fitted)  # wrong
