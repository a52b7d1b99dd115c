"""Parts of the demo: its checks catch what they are there to catch. `make demo` runs the whole."""

import os
from dataclasses import replace

import numpy as np
import pytest

from explainer_runtime import data, methods
from explainer_runtime.demo import asking, checks, choose, network, report, story
from explainer_runtime.demo.questions import ENOUGH, NEAREST, QUESTIONS, SPECS
from explainer_runtime.demo.report import Network, Outcome
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
        "question": NEAREST,
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


def test_of_the_images_chosen_the_last_is_one_that_the_model_gets_wrong():
    dataset = data.load("fashion_mnist", sample=True)
    said = np.where(np.arange(len(dataset.y_test)) % 3, dataset.y_test, 0)
    model = CallablePredictor(lambda x: np.eye(10)[said])
    *right, wrong = choose(model, dataset)
    assert len(set(dataset.y_test[right])) == len(right) == 7
    np.testing.assert_array_equal(said[right], dataset.y_test[right])
    assert (np.diff(right) > 0).all()
    assert said[wrong] != dataset.y_test[wrong]


def test_the_second_network_is_another_one():
    one, other = network.build(), network.build_second()
    assert other.count_params() < one.count_params() / 3


# --- the questions --------------------------------------------------------------------------------------


def test_every_method_is_asked_and_every_explainer_has_a_question():
    assert {SPECS[one.explainer].kind for one in QUESTIONS} == set(methods.METHODS)
    assert {one.explainer for one in QUESTIONS} == set(SPECS)


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
    # 5,000 coins of 0.7: five standard deviations are 0.033.
    assert precision(tiles) == pytest.approx(0.7, abs=0.033)


def test_something_else_where_it_was_hidden_has_a_precision_of_its_own():
    # The corner is hidden seven times of ten by what is as bright, and by black.
    for instead, expected in ((np.full_like(image(), 0.5), 1.0), (np.full_like(image(), -0.5), 0.7)):
        share = checks.anchor_precision(anchor([1]), image(), corner, SPEC, instead=instead)
        assert share[0] == pytest.approx(expected, abs=0.033)  # 5,000 coins of 0.7, five deviations


def made(kind, **arrays):
    """An answer that shows images: the bright one, of class 1, and a dark one."""
    dark = np.full_like(image(), -0.5)
    common = {"found": np.array([True]), "status": np.array(["ok"]), "original_class": np.array([1])}
    return Explanation(kind, {**common, **{name: dark if a is None else a for name, a in arrays.items()}})


def test_whatever_class_is_said_of_an_image_is_asked_about():
    region = made("region", hidden=None, hidden_class=np.array([0]))
    assert checks.confirmed(region, corner, CONTRACT).tolist() == [True]
    assert checks.confirmed(made("region", hidden=image(), hidden_class=np.array([0])), corner, CONTRACT) == [
        False
    ]
    known = {"like": image(), "unlike": None, "unlike_class": np.array([0])}
    assert checks.confirmed(made("neighbours", **known), corner, CONTRACT).tolist() == [True]
    assert not checks.confirmed(made("neighbours", **known | {"like": None}), corner, CONTRACT).any()


def test_a_pertinent_positive_keeps_the_class_and_a_negative_does_not():
    kept = made("cem", pertinent=image(), pertinent_class=np.array([1]))
    for mode, expected in (("PP", True), ("PN", False)):
        said = replace(kept, meta={"spec": {"mode": mode}})
        assert checks.confirmed(said, corner, CONTRACT).tolist() == [expected]


def test_attributions_have_to_add_up_to_the_score_of_the_model():
    segments = (np.arange(16).reshape(1, 4, 4) > 7).astype(np.int64)
    added = np.where(segments == 0, 0.75, -0.25)

    def holds(value, base):
        numbers = {"value": np.array([value]), "base_value": np.array([base])}
        arrays = {"attribution": added, "segments": segments, "target_class": np.array([1]), **numbers}
        return bool(checks.added_up(made("attribution", **arrays), image(), corner)[0])

    assert holds(1.0, 0.5)
    assert not holds(1.0, 0.25)  # does not add up
    assert not holds(0.5, 0.0)  # is not the score


# --- what failed ----------------------------------------------------------------------------------------


def several(explanation, count):
    arrays = {name: np.repeat(a, count, axis=0) for name, a in explanation.arrays.items()}
    return replace(explanation, arrays=arrays)


def eight(explanation):
    return several(explanation, 8)


def twice(explanation):
    return several(explanation, 2)


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
    told = list(failures([road(explanation, question=ENOUGH, valid=short, precision=np.ones(8))]))
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
        roads=[
            road(twice(counterfactual(0.0)), second=np.array([0, 1])),
            road(
                twice(anchor([0])),
                question=ENOUGH,
                precision=np.array([0.98, 0.97]),
                elsewhere={"black": np.array([0.25, 0.5])},
            ),
        ],
        x=np.repeat(image(), 2, axis=0),
        indices=[17, 23],
        labels=["bright", "dark"],
        inputs=CONTRACT,
        network=Network(0.85, 1000, 6000, "ab" * 32),
        second=Network(0.9, 1000, 6000, "cd" * 32),
        agrees=1,
        digests={"fashion-cf": "ab" * 32},
        seconds=12.3,
        failures=faults,
    )


def test_the_report_shows_every_image_of_every_explainer(tmp_path):
    text = story.html(outcome(), tmp_path)
    assert text.count("<img") == 12
    assert "bright → dark" in text
    assert "://" not in text


def test_the_report_says_how_sure_to_be_before_it_shows_anything(tmp_path):
    lead, _, _ = story.html(outcome(), tmp_path).partition("<img")
    assert "right about 850 of 1,000 test images" in lead
    assert "gives 1 of the 2 images the same class" in lead
    assert "it follows 1 of 2" in lead
    assert "with black in its place, between 0.25 and 0.50" in lead


def test_the_report_says_of_each_card_what_a_second_network_sees(tmp_path):
    text = story.html(outcome(), tmp_path)
    assert text.count("A second network agrees: it sees dark.") == 1
    assert text.count("A second network does not agree: it sees bright.") == 1


def test_the_report_says_which_image_the_network_gets_wrong(tmp_path):
    assert "test image 23, labelled dark; the network says bright" in story.html(outcome(), tmp_path)


def test_precisions_of_the_report_are_those_of_the_second_look(tmp_path):
    text = story.html(outcome(), tmp_path)
    assert "precision 0.98 " in text
    assert "precision 1.00" not in text


def test_the_report_says_where_it_comes_from(tmp_path):
    text = story.html(outcome(), tmp_path)
    for part in ("made on", "explainer_runtime 0.", "ab" * 32, "cd" * 32, "Fashion-MNIST", "Settings of"):
        assert part in text


def test_the_report_says_what_failed(tmp_path):
    assert "Failed: the &lt;roof&gt; fell in." in story.html(outcome("the <roof> fell in"), tmp_path)


def test_the_summary_has_a_row_for_every_image(tmp_path):
    said = report.summary(outcome())
    assert said["ok"]
    assert not report.summary(outcome("x"))["ok"]
    for method in said["methods"]:
        assert method["found"] == method["valid"] == len(method["rows"]) == 2
        assert method["rows"][0]["test_image"] == 17
    assert said["methods"][0]["l1_median"] == 0.5
    assert said["methods"][0]["rows"][1]["second_network_class"] == 1
    assert said["methods"][1]["rows"][0]["precision_rechecked"] == 0.98
    assert said["methods"][1]["rows"][0]["precision_with_black"] == 0.25
