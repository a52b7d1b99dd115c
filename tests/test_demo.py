"""Parts of the demo: its checks catch what they are there to catch. `make demo` runs the whole."""

import os
from dataclasses import replace

import numpy as np
import pytest

from explainer_runtime import data
from explainer_runtime.demo import asking, checks, choose, network, report
from explainer_runtime.demo.report import Outcome
from explainer_runtime.demo.roads import Road, failures
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.errors import ExplainerError
from explainer_runtime.explanation import Explanation
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs

CONTRACT = Inputs(shape=(4, 4, 1), low=-0.5, high=0.5, classes=2, class_names=("dark", "bright"))
SPEC = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="image_mean", p_sample=0.3)


@CallablePredictor
def corner(x):
    """Class 1, for sure, where the first pixel is bright."""
    bright = (x[:, 0, 0, 0] > 0.2).astype(np.float32)
    return np.stack([1 - bright, bright], axis=1)


def image():
    """The first pixel is bright; the mean of the whole is not."""
    x = np.full((1, 4, 4, 1), -0.5, np.float32)
    x[0, 0, 0, 0] = 0.5
    return x


def counterfactual(pixel, found=True, **changes):
    x = image()
    x[0, 0, 0, 0] = pixel
    arrays = {
        "found": np.array([found]),
        "status": np.array(["ok" if found else "not_found"]),
        "counterfactual": x,
        "original_class": np.array([1]),
        "original_proba": np.array([[0, 1]], np.float32),
        "counterfactual_class": np.array([0]),
        "counterfactual_proba": np.array([[1, 0]], np.float32),
        "distance_l1": np.abs(x - image()).reshape(1, -1).sum(axis=1),
        "target_proba": np.ones(1, np.float32),
    }
    return Explanation("counterfactual", {**arrays, **changes})


def anchor(tiles):
    segments = (np.arange(4)[:, None] // 2 * 2 + np.arange(4)[None] // 2)[None]
    return Explanation(
        "anchor_image",
        {
            "found": np.array([True]),
            "status": np.array(["ok"]),
            "segments": segments,
            "anchor_mask": np.isin(segments, tiles),
            "prediction": np.array([1]),
            "precision": np.ones(1, np.float32),
            "coverage": np.ones(1, np.float32),
            "size": np.array([len(tiles)]),
        },
    )


def road(explanation, **changes):
    said = {
        "name": report.NEAREST,
        "explanation": explanation,
        "seconds_rest": 1.0,
        "seconds_grpc": 2.0,
        "differing": (),
        "valid": explanation["found"],
    }
    return Road(**{**said, **changes})


# --- the network ----------------------------------------------------------------------------------------


def test_the_network_is_the_one_of_the_literature():
    assert network.build().count_params() == 412_778


def test_images_are_chosen_one_a_class_and_only_where_the_model_is_right():
    dataset = data.load("fashion_mnist", sample=True)
    said = np.where(np.arange(len(dataset.y_test)) % 3, dataset.y_test, 0)
    model = CallablePredictor(lambda x: np.eye(10)[said])
    chosen = choose(model, dataset)
    assert len(set(dataset.y_test[chosen])) == len(chosen) == 8
    np.testing.assert_array_equal(said[chosen], dataset.y_test[chosen])
    assert (np.diff(chosen) > 0).all()


# --- checks ---------------------------------------------------------------------------------------------


def valid(explanation):
    return checks.valid_counterfactuals(explanation, corner, Counterfactual(), CONTRACT).tolist()


def test_a_counterfactual_that_holds_is_valid():
    assert valid(counterfactual(0.0)) == [True]


def test_a_counterfactual_that_was_not_found_is_not_valid():
    assert valid(counterfactual(0.0, found=False)) == [False]


def test_a_counterfactual_that_the_model_does_not_confirm_is_not_valid():
    assert valid(counterfactual(0.3)) == [False]


def test_a_counterfactual_outside_the_range_is_not_valid():
    assert valid(counterfactual(-0.6)) == [False]


def test_a_counterfactual_of_another_class_than_it_says_is_not_valid():
    assert valid(counterfactual(0.0, counterfactual_class=np.array([1]))) == [False]


def test_a_counterfactual_that_the_model_doubts_is_not_valid():
    doubtful = CallablePredictor(lambda x: np.array([[0.6, 0.4]]))
    assert not checks.valid_counterfactuals(counterfactual(0.0), doubtful, Counterfactual(), CONTRACT).any()


def precision(tiles):
    (found,) = checks.anchor_precision(anchor(tiles), image(), corner, SPEC)
    return found


def test_the_tile_that_decides_is_a_perfect_anchor():
    assert precision([0]) == 1


@pytest.mark.parametrize("tiles", [[], [1], [1, 2, 3]])
def test_without_that_tile_the_precision_is_how_often_it_is_shown(tiles):
    # 10,000 coins of 0.7: five standard deviations are 0.023.
    assert precision(tiles) == pytest.approx(0.7, abs=0.023)


# --- what failed ----------------------------------------------------------------------------------------


def eight(explanation):
    return replace(
        explanation, arrays={name: np.repeat(a, 8, axis=0) for name, a in explanation.arrays.items()}
    )


def test_nothing_has_failed_where_everything_holds():
    assert list(failures([road(eight(counterfactual(0.0)))])) == []


def test_one_counterfactual_of_eight_may_be_missing_but_not_two():
    for missing, expected in ((1, 0), (2, 1)):
        explanation = eight(counterfactual(0.0))
        explanation["found"][:missing] = False
        assert len(list(failures([road(explanation)]))) == expected


def test_every_anchor_must_hold():
    explanation = eight(anchor([0]))
    short = np.array([False] + 7 * [True])
    told = list(failures([road(explanation, valid=short, precision=np.ones(8))]))
    assert any("do not hold" in line for line in told)


def test_what_was_found_and_does_not_hold_is_a_failure():
    (told,) = failures([road(eight(counterfactual(0.0)), valid=np.array([False] + 7 * [True]))])
    assert "1 of 8 found do not hold" in told


def test_transports_that_differ_are_a_failure():
    (told,) = failures([road(eight(counterfactual(0.0)), differing=("lam",))])
    assert "REST and gRPC differ in lam" in told


def test_answers_differ_in_any_bit_of_any_field():
    one, other = counterfactual(0.0), counterfactual(np.nextafter(np.float32(0), np.float32(1)))
    assert asking.differences(one, one) == []
    assert asking.differences(one, other) == ["counterfactual"]


# --- servers --------------------------------------------------------------------------------------------


def test_a_server_that_does_not_come_up_says_why_and_is_gone(tmp_path):
    log, ports = tmp_path / "server.log", free_ports(3)
    words = [str(tmp_path / "nowhere"), "--predictor", "grpc://127.0.0.1:1/m"]
    with (
        pytest.raises(ExplainerError, match="stopped with status 2") as caught,
        serving([(log, words)], ports),
    ):
        pass
    assert "nowhere" in str(caught.value)


def test_servers_are_stopped_when_what_they_serve_for_fails(tmp_path, monkeypatch):
    running = []
    monkeypatch.setattr("explainer_runtime.demo.servers._wait_until_ready", running.append)
    with pytest.raises(ZeroDivisionError), serving([(tmp_path / "log", ["x"])], free_ports(3)):
        raise ZeroDivisionError
    assert running[0].process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(running[0].process.pid, 0)


# --- the report -----------------------------------------------------------------------------------------


def outcome(*faults):
    return Outcome(
        roads=[road(counterfactual(0.0)), road(anchor([0]), name=report.ENOUGH, precision=np.array([0.98]))],
        x=image(),
        indices=[17],
        labels=["bright"],
        inputs=CONTRACT,
        accuracy=0.85,
        digests={"fashion-cf": "ab" * 32},
        seconds=12.3,
        failures=faults,
    )


def test_the_report_shows_every_image_of_every_explainer(tmp_path):
    text = report.html(outcome(), tmp_path)
    assert text.count("<img") == 6
    assert "bright → dark" in text
    assert "://" not in text


def test_the_report_says_what_failed(tmp_path):
    assert "Failed: the &lt;roof&gt; fell in." in report.html(outcome("the <roof> fell in"), tmp_path)


def test_the_summary_has_a_row_for_every_image(tmp_path):
    said = report.summary(outcome())
    assert said["ok"]
    assert not report.summary(outcome("x"))["ok"]
    for method in said["methods"]:
        assert method["found"] == method["valid"] == len(method["rows"]) == 1
        assert method["rows"][0]["test_image"] == 17
    assert said["methods"][0]["l1_median"] == 0.5
    assert said["methods"][1]["rows"][0]["precision_rechecked"] == 0.98
