"""The command line: two roads to the same answer, mistakes told in one line, results as one JSON object."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import explainer_runtime
from explainer_runtime import artifact, cli, pictures
from explainer_runtime.cli import app, models, requests, training
from explainer_runtime.errors import ExplainerError, InvalidInput
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.platform import arguments, deployment
from explainer_runtime.spec import AnchorImage, Inputs

SHAPE = (6, 4, 1)
ANCHOR = "kind: anchor_image\nsegmentation: {kind: grid, rows: 2, columns: 2}\nfill: image_mean\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a model, data, a fitted explainer `fitted` and inputs of many kinds."""
    import keras

    folder = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")], name="tiny"
    )
    model.save(folder / "tiny.keras")
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.5, 0.5, (12, *SHAPE)).astype(np.float32)
    pixels = rng.integers(0, 256, SHAPE, np.uint8)
    np.savez(folder / "train.npz", x_train=x, y_train=np.zeros(12))
    np.savez(folder / "bytes.npz", x=pixels[None])
    np.savez(folder / "x.npz", x=x[:3])
    np.savez(folder / "nan.npz", x=np.full((1, *SHAPE), np.nan))
    np.savez(folder / "outside.npz", x=x + 1)
    np.savez(folder / "square.npz", x=x[:, :4])
    np.savez(folder / "words.npz", x=np.array(["a"]))
    np.savez(folder / "empty.npz")
    np.savez(folder / "two.npz", a=x, b=x)
    np.savez(folder / "objects.npz", x=np.array([{}], object))
    np.save(folder / "one.npy", x[0, ..., 0])
    Image.fromarray(pixels[..., 0]).save(folder / "image.png")
    Image.fromarray(pixels[..., 0]).resize((9, 9)).save(folder / "large.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16)).save(folder / "deep.png")
    Image.new("RGBA", (4, 6), (1, 2, 3, 4)).save(folder / "glass.png")
    (folder / "broken.png").write_bytes((folder / "image.png").read_bytes()[:40])
    (folder / "broken.npz").write_bytes((folder / "x.npz").read_bytes()[:200])
    (folder / "anchor.yaml").write_text(ANCHOR)
    (folder / "torn.yaml").write_text("kind: [")
    (folder / "unknown.yaml").write_text("kind: guess\n")
    (folder / "far.yaml").write_text(ANCHOR + "threshold: 2\n")
    request = {"name": "input", "shape": [1, *SHAPE], "datatype": "FP32", "data": x[0].ravel().tolist()}
    (folder / "request.json").write_text(json.dumps({"inputs": [request], "parameters": {"seed": 3}}))
    (folder / "noise.json").write_text('{"inputs": 3}')
    done = run(folder, *FIT, "--out", "fitted")
    assert done.exit_code == 0, done.output
    return folder


FIT = ("fit", "@anchor.yaml", "--model", "@tiny.keras", "--data", "@train.npz", "--range", "-0.5", "0.5")
EXPLAIN = ("explain", "@fitted", "--model", "@tiny.keras", "--input")


def run(folder, *words):
    """A command; words that begin with @ are files in `folder`, as is the value of --out."""
    placed = [str(folder / word[1:]) if word.startswith("@") else word for word in words]
    if "--out" in placed:
        at = placed.index("--out") + 1
        placed[at] = str(folder / placed[at])
    return CliRunner().invoke(app, placed)


def document(folder, *words):
    done = run(folder, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# --- starting -------------------------------------------------------------------------------------------


def test_starting_imports_nothing_heavy():
    heavy = ["tensorflow", "keras", "pydantic", "numpy", "httpx", "grpc", "mlserver", "PIL", "yaml"]
    code = f"import sys, explainer_runtime.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_package(tmp_path):
    assert run(tmp_path, "--version").stdout == f"explainer-runtime {explainer_runtime.__version__}\n"


def test_help_lists_every_command(tmp_path):
    done = run(tmp_path, "--help")
    assert done.exit_code == 0
    for command in ("fit", "explain", "serve", "inspect", "verify", "demo"):
        assert command in done.stdout


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "explainer_runtime.cli", "--help"]
    assert "serve" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


# --- what is said about the model -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def logits(place):
    """A file of a model of logits that is right about its rows: is the first pixel brighter or the second?"""
    import keras

    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    kernel = np.zeros((24, 2), np.float32)
    kernel[0] = kernel[1, ::-1] = 9, -9
    model.set_weights([kernel, np.zeros(2, np.float32)])
    model.save(place / "logits.keras")
    x = np.random.default_rng(0).uniform(0, 1, (60, *SHAPE)).astype(np.float32)
    y = (x[:, 0, 0, 0] < x[:, 0, 1, 0]).astype(int)
    np.savez(place / "bright.npz", x_train=x, y_train=y, x=x[:2])
    np.savez(place / "shifted.npz", x_train=x - 0.5, y_train=1 - y)
    (place / "said.json").write_text(
        json.dumps({"kind": "keras", "path": str(place / "logits.keras"), "output": "logits"})
    )
    return place / "logits.keras"


FIT_BRIGHT = ("fit", "@anchor.yaml", "--data", "@bright.npz", "--range", "0", "1", "--out", "bright")


def test_logits_are_refused_until_they_are_said_and_that_is_no_passing_trouble(place, logits):
    done = run(place, *FIT_BRIGHT, "--model", str(logits), "--json")
    assert done.exit_code == 2
    assert "say output 'logits'" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("way", ["flag", "json", "file"])
def test_what_a_model_answers_is_said_by_a_flag_by_json_or_in_a_file(place, logits, way):
    said = (place / "said.json").read_text()
    words = {
        "flag": ("--model", str(logits), "--logits"),
        "json": (f"--predictor={said}",),
        "file": (f"--predictor=@{place / 'said.json'}",),
    }[way]
    fitted = document(place, *FIT_BRIGHT, *words)
    assert fitted["inputs"]["classes"] == 2
    assert fitted["model"]["accuracy"] == "1.000 of 60 rows"
    explained = document(place, "explain", "@bright", *words, "--input", "@bright.npz")
    assert explained["warnings"] == []
    truth = np.load(place / "bright.npz")["y_train"][:2].tolist()
    assert [row["prediction"] for row in explained["rows"]] == truth


def test_one_label_is_explained_alone(place, logits):
    fitted = document(place, *FIT_BRIGHT, "--model", str(logits), "--logits", "--label", "1")
    assert fitted["inputs"]["classes"] == 2
    done = run(place, *FIT_BRIGHT, "--model", str(logits), "--logits", "--label", "2")
    assert done.exit_code == 2
    assert "label 2 is to be explained" in done.output


def test_a_model_that_is_wrong_about_the_data_is_refused_unless_forced(place, logits):
    words = (
        "fit",
        "@anchor.yaml",
        "--data",
        "@shifted.npz",
        "--model",
        str(logits),
        "--logits",
        "--out",
        "wrong",
    )
    done = run(place, *words)
    assert done.exit_code == 2
    assert "no more than chance" in done.output
    assert document(place, *words, "--force")["model"]["accuracy"] == "0.000 of 60 rows"


def test_a_layout_that_cannot_be_guessed_is_said(place):
    words = (*FIT, "--layout", "channels_first", "--out", "first")
    assert document(place, *words)["inputs"]["layout"] == "channels_first"


def test_a_server_knows_what_its_model_answers(place):
    done = run(place, "explain", "@fitted", "--server", "http://h/m", "--logits", "--input", "@x.npz")
    assert done.exit_code == 2
    assert "a server knows its model" in done.output


def planned(paths, model, predictor, names, **more):
    line = arguments.read([str(path) for path in paths])
    return deployment.plan(line, scratch=None, model=model, predictor=predictor, names=names, **more)


def test_what_is_said_of_a_served_model_reaches_its_runtime(place, logits):
    plan = planned([place / "fitted"], str(logits), None, [], contract={"output": "logits"})
    model, explainer = (one["parameters"]["extra"] for one in plan)
    assert model == {"output": "logits"}
    assert explainer["predictor"].startswith("colocated:")


# --- results --------------------------------------------------------------------------------------------


def test_fit_inspect_and_verify_agree_on_what_was_fitted(place):
    fitted = document(place, *FIT, "--out", "agreed")
    inspected, verified = (document(place, command, "@agreed") for command in ("inspect", "verify"))
    assert fitted == verified
    assert sum(fitted["parts"].values()) == fitted["bytes"]
    assert inspected["manifest"]["spec"]["threshold"] == 0.95
    assert fitted["digest"] == artifact.verify(place / "agreed").digest
    assert fitted["inputs"] == {
        "shape": [*SHAPE],
        "low": -0.5,
        "high": 0.5,
        "layout": "channels_last",
        "classes": 3,
        "class_names": None,
        "resize": "none",
    }


def test_inspect_says_whether_there_is_a_surrogate_and_how_good_it_is(place):
    assert document(place, "inspect", "@fitted")["surrogate"] is None
    path = str(Path(__file__).parent / "artifacts" / "0.1.0" / "counterfactual_student")
    known = document(place, "inspect", path)["surrogate"]
    assert 0.5 < known["agreement"] <= 1
    words = " ".join(re.findall(r"[\w%.;,]+", run(place, "inspect", path).stdout))
    assert f"taught from {known['rows']:,} answers of the model; agrees on {known['agreement']:.1%}" in words


def test_inspect_says_which_image_an_artifact_needs(place):
    told = document(place, "inspect", "--needs", "@fitted")
    assert told["image"] == {"target": "mlserver", "tensorflow": False}
    words = run(place, "inspect", "--needs", "@fitted")
    assert words.exit_code == 0
    assert "target mlserver" in words.stdout


def test_verify_takes_the_digest_that_fit_printed_and_no_other(place):
    digest = document(place, "verify", "@fitted")["digest"]
    assert run(place, "verify", "@fitted", "--digest", digest).exit_code == 0
    assert run(place, "verify", "@fitted", "--digest", "0" * 64).exit_code == 2


def test_a_data_set_by_name_brings_its_range_and_names():
    rows = training.read_training("fashion_mnist", None)
    assert (rows.low, rows.high) == (rows.x.min(), rows.x.max()) == (-0.5, 0.5)
    assert rows.class_names[9] == "Ankle boot"


def test_names_of_classes_come_in_words_or_from_a_file(place):
    (place / "names.txt").write_text("a\nb, c\nd\n")
    file = f"@{place / 'names.txt'}"
    for text, expected in (("a,b c,d", ["a", "b c", "d"]), (file, ["a", "b, c", "d"])):
        words = (*FIT, "--out", "named", f"--class-names={text}")
        assert document(place, *words)["inputs"]["class_names"] == expected


def test_an_image_is_explained_as_the_array_that_it_holds(place):
    run(place, *EXPLAIN, "@image.png", "--out", "image.npz")
    run(place, *EXPLAIN, "@bytes.npz", "--out", "array.npz")
    with np.load(place / "image.npz") as image, np.load(place / "array.npz") as array:
        assert image.files == array.files
        for name in image.files:
            np.testing.assert_array_equal(image[name], array[name])


def test_rows_that_are_chosen_are_explained_as_alone(place):
    everything = document(place, *EXPLAIN, "@x.npz")["rows"]
    assert document(place, *EXPLAIN, "@x.npz", "--rows", "2,0:1")["rows"] == [everything[2], everything[0]]


def test_a_grey_image_needs_neither_batch_nor_channel(place):
    first = document(place, *EXPLAIN, "@x.npz", "--rows", "0")["rows"]
    assert document(place, *EXPLAIN, "@one.npy")["rows"] == first


def test_options_of_a_request_yield_to_those_of_the_command(place):
    run(place, *EXPLAIN, "@request.json", "--out", "a.json")
    run(place, *EXPLAIN, "@request.json", "--option", "seed=4", "--option", "delta=0.2", "--out", "b.json")
    specs = [json.loads((place / name).read_bytes())["meta"]["spec"] for name in ("a.json", "b.json")]
    assert [(spec["seed"], spec["delta"]) for spec in specs] == [(3, 0.1), (4, 0.2)]


def test_an_empty_anchor_is_told_from_one_in_the_table_and_in_json(place):
    # The network answers each image in one way, whatever little of it is masked.
    options = ("--option", "p_sample=0.01", "--option", "threshold=0.5")
    table = run(place, *EXPLAIN, "@x.npz", *options)
    assert "empty" in table.stdout
    assert "try" in table.stdout
    rows = document(place, *EXPLAIN, "@x.npz", *options)["rows"]
    assert all(row["vacuous"] and "the anchor is empty" in row["note"] for row in rows)


def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_computed(place, monkeypatch):
    from explainer_runtime import artifact, explainers
    from explainer_runtime.spec import Counterfactual

    table = explainers.fit(Counterfactual(), inputs=Inputs(shape=(24,), low=-1, high=1, classes=3))
    artifact.save(table, place / "table")
    np.save(place / "row.npy", np.zeros((1, 24), "f"))
    monkeypatch.setattr(explainers, "prepare", lambda *given, **more: pytest.fail("computed"))
    for name in ("answer.png", "answer.html"):
        done = run(place, "explain", "@table", "--model", "@tiny.keras", "--input", "@row.npy", "--out", name)
        assert done.exit_code == 2
        assert "pictures need images" in done.stderr


def test_every_kind_of_answer_is_what_its_name_says(place):
    for name in ("answer.html", "answer.PNG", "answer.json", "answer.npz"):
        assert document(place, *EXPLAIN, "@x.npz", "--out", name)["out"] == str(place / name)
    page = (place / "answer.html").read_text()
    assert page.startswith("<!doctype html>")
    for file in (place / "fitted" / "explainer.json", place / "x.npz"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page
    assert artifact.load(place / "fitted").model["digest"] in page
    assert (place / "answer.PNG").read_bytes().startswith(b"\x89PNG")
    data = json.loads((place / "answer.json").read_bytes())["data"]
    with np.load(place / "answer.npz") as arrays:
        assert set(arrays.files) <= set(data)
        np.testing.assert_allclose(arrays["precision"], data["precision"])


def test_people_are_told_in_words_on_stdout_alone(place):
    done = run(place, *EXPLAIN, "@x.npz")
    assert "found" in done.stdout
    assert done.stderr == ""


# --- mistakes -------------------------------------------------------------------------------------------

MISTAKES = [
    (("explain", "@nowhere", "--model", "@tiny.keras", "--input", "@x.npz"), "nowhere"),
    (("explain", "@fitted", "--input", "@x.npz"), "predictor"),
    (("explain", "@fitted", "--model", "@x.npz", "--input", "@x.npz"), "x.npz"),
    (("explain", "@fitted", "--predictor", "ftp://host/m", "--input", "@x.npz"), "predictor"),
    ((*EXPLAIN, "@missing.png"), "input"),
    ((*EXPLAIN, "@fitted"), "input"),
    ((*EXPLAIN, "@anchor.yaml"), "input"),
    ((*EXPLAIN, "@large.png"), "input"),
    ((*EXPLAIN, "@deep.png"), "input"),
    ((*EXPLAIN, "@glass.png"), "input"),
    ((*EXPLAIN, "@broken.png"), "input"),
    ((*EXPLAIN, "@broken.npz"), "input"),
    ((*EXPLAIN, "@nan.npz"), "input"),
    ((*EXPLAIN, "@outside.npz"), "inputs"),
    ((*EXPLAIN, "@square.npz"), "input"),
    ((*EXPLAIN, "@words.npz"), "input"),
    ((*EXPLAIN, "@empty.npz"), "input"),
    ((*EXPLAIN, "@two.npz"), "input"),
    ((*EXPLAIN, "@objects.npz"), "input"),
    ((*EXPLAIN, "@noise.json"), "input"),
    ((*EXPLAIN, "@x.npz", "--option", "seed"), "option"),
    ((*EXPLAIN, "@x.npz", "--option", "guess=1"), "guess"),
    ((*EXPLAIN, "@x.npz", "--option", "threshold=7"), "threshold"),
    ((*EXPLAIN, "@x.npz", "--option", "seed=1", "--option", "seed=2"), "seed"),
    ((*EXPLAIN, "@x.npz", "--rows", "3"), "rows"),
    ((*EXPLAIN, "@x.npz", "--rows", "one"), "rows"),
    ((*EXPLAIN, "@x.npz", "--out", "answer.gif"), "out"),
    ((*EXPLAIN, "@x.npz", "--out", "no/answer.png"), "out"),
    (("fit", "@none.yaml", *FIT[2:], "--out", "o"), "spec"),
    (("fit", "@torn.yaml", *FIT[2:], "--out", "o"), "torn.yaml"),
    (("fit", "@x.npz", *FIT[2:], "--out", "o"), "spec"),
    (("fit", "@unknown.yaml", *FIT[2:], "--out", "o"), "guess"),
    (("fit", "@far.yaml", *FIT[2:], "--out", "o"), "threshold"),
    ((*FIT[:5], "@bytes.npz", "--out", "o"), "--range"),
    ((*FIT[:5], "@outside.npz", *FIT[6:], "--out", "o"), "data"),
    ((*FIT[:5], "@nan.npz", "--out", "o"), "data"),
    ((*FIT[:7], "0.5", "-0.5", "--out", "o"), "range"),
    ((*FIT, "--class-names", "a,b", "--out", "o"), "class_names"),
    ((*FIT, "--out", "x.npz"), "x.npz"),
    (("verify", "@train.npz"), "train.npz"),
    (("serve",), "predictor"),
    (("serve", "@fitted", "--model", "@none.keras"), "model"),
    (("serve", "@fitted", "@fitted", "--model", "@tiny.keras"), "name"),
    (("serve", "--predictor", "grpc://127.0.0.1:1/m"), "ARTIFACT"),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_one_line_that_names_what_is_wrong(place, words, named, monkeypatch):
    if named != "class_names":  # of which there are to be as many as the model has classes
        for module in (models, cli):
            monkeypatch.setattr(module, "import_tensorflow_quietly", lambda: pytest.fail("costs seconds"))
    done = run(place, *words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    *steps, mistake = done.stderr.splitlines()
    assert all(re.match(r" *\d+\.\d s  ", step) for step in steps)  # what `fit` did until then
    assert steps == [] or words[0] == "fit"
    assert mistake.startswith("error: ")
    assert named in mistake


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((*EXPLAIN, "@x.npz", "--option", "threshold=7"), "threshold"),
        ((*EXPLAIN, "@missing.png"), "input"),
        (("fit", "@far.yaml", *FIT[2:], "--out", "o"), "anchor_image.threshold"),
        (("explain", "@fitted"), "input_path"),
    ],
)
def test_with_json_a_mistake_is_an_object_that_names_its_field(place, words, field):
    done = run(place, *words, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["field"] == field
    assert json.loads(done.stdout)["error"]


def test_a_model_that_is_down_is_not_the_callers_mistake(place):
    done = run(place, "explain", "@fitted", "--predictor", "grpc://127.0.0.1:1/m", "--input", "@x.npz")
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr


def test_a_traceback_is_shown_to_whoever_asks_for_it(place, monkeypatch):
    monkeypatch.setenv("EXPLAINER_RUNTIME_DEBUG", "1")
    assert isinstance(run(place, *EXPLAIN, "@missing.png").exception, ExplainerError)


# --- parts ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted), min_size=1, max_size=5))
def test_choosing_rows_is_indexing(spans):
    x = np.arange(11)
    chosen = requests.select(x, ",".join(f"{start}:{stop + 1}" for start, stop in spans))
    np.testing.assert_array_equal(chosen, np.concatenate([x[start : stop + 1] for start, stop in spans]))


def test_options_are_json_where_they_can_be_and_words_elsewhere():
    pairs = ["a=1", "b=0.5", "c=true", "d=other", "e=x=y", 'f="7"']
    expected = {"a": 1, "b": 0.5, "c": True, "d": "other", "e": "x=y", "f": "7"}
    assert requests.read_options(pairs) == expected


def test_an_option_in_a_file_is_the_option_in_words(place):
    labels = np.repeat([[0, 0, 1, 1]], 6, axis=0)
    np.save(place / "labels.npy", labels.astype(np.uint8))
    np.savez(place / "labels.npz", segments=labels)
    (place / "labels.json").write_text(json.dumps(labels.tolist()))
    forms = [json.dumps(labels.tolist()), *(f"@{place}/labels.{end}" for end in ("npy", "npz", "json"))]
    asked = [requests.read_options([f"segments={form}", "seed=1"]) for form in forms]
    assert asked == [{"segments": labels.tolist(), "seed": 1}] * 4
    told = document(
        place, *EXPLAIN, "@image.png", "--option", f"segments=@{place}/labels.npy", "--out", "a.npz"
    )
    assert told["rows"][0]["size"] <= 2
    np.testing.assert_array_equal(np.load(place / "a.npz")["segments"][0], labels)


def test_methods_that_need_no_rows_are_fitted_without(place):
    bare = ("fit", "@anchor.yaml", "--model", "@tiny.keras", "--range", "-0.5", "0.5")
    with_data, without = document(place, *FIT, "--out", "a"), document(place, *bare, "--out", "b")
    assert without["inputs"] == with_data["inputs"]
    (place / "near.yaml").write_text("kind: neighbours\n")
    missing = run(place, "fit", "@near.yaml", *bare[2:], "--out", "c")
    assert missing.exit_code == 2
    assert "needs training rows" in missing.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--range LOW HIGH"),
        (("--range", "1", "0"), "LOW below HIGH"),
        (("--range", "0", "1"), "--shape 224"),
    ],
)
def test_what_is_lacking_without_rows_is_said(place, words, named):
    model = ("--predictor", "grpc://127.0.0.1:9/tiny")
    done = run(place, "fit", "@anchor.yaml", *model, *words, "--out", "d")
    assert done.exit_code == 2
    assert named in done.stderr


def test_of_many_classes_a_handful_is_shown_and_the_count(place):
    names = [f"bird{number}" for number in range(1000)]
    many = Inputs(shape=(6, 4, 1), low=0, high=1, classes=1000, class_names=names)
    artifact.save(fit(AnchorImage(), inputs=many), place / "many")
    words = run(place, "inspect", "@many").stdout
    assert "1,000: bird0, bird1," in words
    assert words.count("bird") == 5
    assert document(place, "inspect", "@many")["inputs"]["class_names"] == names


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3), ("P", 1), ("1", 1)])
def test_images_of_any_kind_become_the_channels_asked_for(tmp_path, mode, channels):
    grey = Image.new("L", (4, 6), 255)
    grey.convert(mode).save(tmp_path / "image.png")
    contract = Inputs(shape=(6, 4, channels), low=-1, high=3, classes=2)
    row = pictures.read(tmp_path / "image.png", contract, "picture").row
    np.testing.assert_array_equal(row, np.full((6, 4, channels), 3, np.float32))


def test_a_picture_of_another_size_is_resized_as_the_operator_says_and_the_answer_tells(place):
    picture = {"size": [9, 9], "box": [1, 0, 7, 9], "resize": "centre_crop"}
    how = ("--resize", "centre_crop")
    told = document(place, *EXPLAIN, "@large.png", *how, "--out", "large.json")
    assert told["rows"][0]["picture"] == picture
    assert json.loads((place / "large.json").read_text())["meta"]["pictures"] == [picture]
    document(place, *FIT, *how, "--out", "cropping")
    assert artifact.load(place / "cropping").inputs.resize == "centre_crop"
    assert "the middle" in run(place, "inspect", "@cropping").stdout
    again = document(place, "explain", "@cropping", *EXPLAIN[2:], "@large.png", "--out", "large.html")
    assert again["rows"] == told["rows"]
    assert "What is hatched it did not see." in (place / "large.html").read_text()


def test_an_explainer_of_tables_takes_no_images(place):
    with pytest.raises(InvalidInput, match="not images"):
        pictures.read(place / "image.png", Inputs(shape=(5,), low=0, high=1, classes=2), "picture")


def test_serving_a_model_file_serves_it_beside_its_explainers(place):
    model, explainer = planned([place / "fitted"], str(place / "tiny.keras"), None, [])
    assert [model["name"], explainer["name"]] == ["tiny", "fitted"]
    assert explainer["parameters"]["extra"]["predictor"] == "colocated:tiny"


def test_serving_takes_names_for_explainers_in_order_and_then_the_model(place):
    paths = [place / "fitted", place / "fitted"]
    plan = planned(paths, str(place / "tiny.keras"), None, ["one", "two", "net"])
    assert [model["name"] for model in plan] == ["net", "one", "two"]


def test_explainers_alone_ask_the_address_they_were_given(place):
    (explainer,) = planned([place / "fitted"], None, "grpc://127.0.0.1:1/m", ["it"])
    assert explainer["name"] == "it"
    asked = explainer["parameters"]["extra"]["predictor"]
    assert asked == {"kind": "v2", "url": "grpc://127.0.0.1:1", "model": "m"}
