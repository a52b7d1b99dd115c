"""The command lines of KServe and Seldon, taken apart, and what they come to with the environment."""

from __future__ import annotations

import json

import pytest

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.platform import arguments, deployment
from explainer_runtime.spec import AnchorImage, Grid, Inputs, parse_predictor

FASHION = {"kind": "v2", "url": "http://fashion-predictor.models", "model": "fashion"}
CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
KSERVE = "--model_name fashion --predictor_host fashion-predictor.models --http_port 8080 --workers 4"
SELDON = (
    "--model_name=fashion --predictor_host=fashion-default.models:8000 --protocol=tensorflow.http "
    "--http_port=9000 --storage_uri=/mnt/models AnchorImages --tf_data_type=float32 --threshold=0.9"
)


@pytest.fixture(scope="module")
def anchor(tmp_path_factory):
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant")
    return artifact.save(fit(spec, inputs=CONTRACT), tmp_path_factory.mktemp("anchor") / "boots")


def planned(words, tmp_path, **more):
    line = arguments.read([str(word) for word in words])
    return deployment.plan(line, scratch=tmp_path, **more)


# --- one line ---------------------------------------------------------------------------------------------


def test_kserves_line_says_name_model_port_and_concurrency():
    line = arguments.read(KSERVE.split())
    assert line.flags["model_name"] == "fashion"
    assert arguments.predictor(line.flags) == FASHION
    assert arguments.port(line.flags, "http_port") == 8080
    assert arguments.number(line.flags, "workers", 1) == 4
    assert not line.paths
    assert not line.ignored


def test_seldons_line_says_name_model_port_storage_and_type():
    line = arguments.read(SELDON.split())
    told = {"kind": "v1", "url": "http://fashion-default.models:8000", "model": "fashion"}
    assert arguments.predictor(line.flags) == told
    assert line.flags["http_port"] == "9000"
    assert line.flags["storage_uri"] == "/mnt/models"
    assert line.kind == "AnchorImages"
    assert line.settings == {"tf_data_type": "float32", "threshold": "0.9"}
    assert not line.ignored


def test_of_repeated_flags_the_last_counts():
    line = arguments.read(["--http_port", "1", "--model-name=a", *KSERVE.split(), "--http_port=2"])
    assert line.flags["http_port"] == "2"
    assert line.flags["model_name"] == "fashion"


def test_unknown_flags_are_kept_aside_with_their_values(anchor):
    line = arguments.read(["--a", "1", "--b=2", "--c", str(anchor), "--d"])
    assert line.ignored == ("--a", "1", "--b=2", "--c", "--d")
    assert line.paths == (anchor,)


def test_a_flag_without_its_value_is_refused():
    with pytest.raises(InvalidInput, match="http_port"):
        arguments.read(["--http_port"])


@pytest.mark.parametrize("value", ["0", "-1", "many", ""])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(InvalidInput, match="--workers: expected a number from 1 on"):
        arguments.number({"workers": value}, "workers", 1)


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ({"predictor_host": "a.b:81"}, "http://a.b:81/m"),
        ({"predictor_host": "http://a.b/"}, "http://a.b/m"),
        ({"predictor_host": "https://a.b"}, "https://a.b/m"),
        ({"predictor_host": "a.b", "predictor_use_ssl": "True"}, "https://a.b/m"),
        ({"predictor_host": "a.b", "predictor_protocol": "v1"}, "v1+http://a.b/m"),
        ({"predictor_host": "a.b:9000", "protocol": "grpc-v2"}, "grpc://a.b:9000/m"),
        ({"predictor_host": "a.b/serving/ns/m"}, "http://a.b/serving/ns/m/v2/models/m/infer"),
        ({"predictor_host": "a.b/ns/v2/models/m/infer"}, "http://a.b/ns/v2/models/m/infer"),
        (
            {"predictor_host": "https://a.b/serving/ns/m", "predictor_protocol": "v1"},
            "https://a.b/serving/ns/m/v1/models/m:predict",
        ),
    ],
)
def test_hosts_and_protocols_make_the_address_of_the_model(flags, address):
    made = parse_predictor(arguments.predictor({"model_name": "m", **flags}))
    assert made == parse_predictor(address)
    assert made.model == "m"


def test_how_long_and_how_often_kserve_asks_is_how_we_ask():
    flags = {"predictor_request_timeout_seconds": "20", "predictor_request_retries": "0"}
    assert arguments.predictor(flags) == {"timeout": 20, "attempts": 1}
    assert arguments.predictor({**flags, "predictor_request_retries": "3"})["attempts"] == 4
    with pytest.raises(
        InvalidInput, match="--predictor_request_retries: expected a number from 0 on, got 'x'"
    ):
        arguments.predictor({"predictor_request_retries": "x"})


def test_what_a_platform_does_not_say_stays_as_it_was_known():
    flags = {"model_name": "m", "predictor_host": "a.b"}
    known = {"kind": "v1", "url": "http://old", "model": "old", "output": "logits", "scale": 255}
    assert arguments.predictor({}, known) == known
    told = arguments.predictor(flags, known)
    assert told == {**known, "url": "http://a.b", "model": "m"}
    assert arguments.predictor({**flags, "predictor_protocol": "v2"}, known)["kind"] == "v2"


def test_what_no_predictor_speaks_is_refused():
    flags = {"model_name": "m", "predictor_host": "a", "protocol": "seldon.grpc"}
    with pytest.raises(InvalidSpec, match=r"protocol: seldon.grpc .* expected one of"):
        arguments.predictor(flags)
    with pytest.raises(InvalidSpec, match="model_name"):
        arguments.predictor({"predictor_host": "a"})
    with pytest.raises(InvalidSpec, match="predictor_host: a/b has a path, which gRPC has no use for"):
        arguments.predictor({**flags, "predictor_host": "a/b", "protocol": "grpc-v2"})


@pytest.mark.parametrize("value", ["0", "65536", "-1", "many", "", "tcp://10.0.0.1:80"])
def test_a_port_that_is_none_is_refused(value):
    with pytest.raises(InvalidInput, match="--http_port: expected a port, a number from 1 to 65535"):
        arguments.port({"http_port": value}, "http_port")


# --- what is served ---------------------------------------------------------------------------------------


def test_kserves_storage_and_line_serve_the_explainer_under_the_services_name(anchor, tmp_path):
    (model,) = planned(KSERVE.split(), tmp_path, environment={"STORAGE_URI": str(anchor)})
    assert model["name"] == "fashion"
    assert model["parameters"]["uri"] == str(anchor)
    assert model["parameters"]["extra"] == {"predictor": FASHION}


@pytest.mark.parametrize("words", [KSERVE.split(), SELDON.split()])
def test_a_platform_without_an_address_means_what_it_has_mounted(anchor, tmp_path, words):
    words = [word for word in words if not word.startswith("--storage_uri")]
    (model,) = planned(words, tmp_path, mount=anchor)
    assert model["parameters"]["uri"] == str(anchor)


def test_what_the_platform_says_goes_before_what_the_command_says(anchor, tmp_path):
    (model,) = planned([anchor, *KSERVE.split()], tmp_path, predictor="grpc://elsewhere/m")
    assert model["parameters"]["extra"]["predictor"] == FASHION


def test_a_type_other_than_the_artifacts_is_refused(anchor, tmp_path):
    with pytest.raises(InvalidSpec, match=r"explainer_type: Contrastive .* is of kind anchor_image"):
        planned([anchor, "Contrastive", *KSERVE.split()], tmp_path)


@pytest.mark.parametrize("kind", ["AnchorImages", "anchor_image", None, ""])
def test_seldons_types_and_ours_name_our_artifacts(kind):
    arguments.check_kind(kind, "anchor_image")


def test_the_environment_alone_describes_a_model(anchor, tmp_path):
    environment = {
        "MLSERVER_MODEL_NAME": "fashion-explainer",
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_alibi_explain.AlibiExplainRuntime",
        "MLSERVER_MODEL_URI": str(anchor),
        "MLSERVER_MODEL_EXTRA": json.dumps({"explainer_type": "anchor_image", "infer_uri": "http://a/v2"}),
    }
    (model,) = planned([], tmp_path, environment=environment)
    assert model["name"] == "fashion-explainer"
    assert model["implementation"] == "mlserver_alibi_explain.AlibiExplainRuntime"
    assert model["parameters"]["extra"]["infer_uri"] == "http://a/v2"
    with pytest.raises(InvalidSpec, match="MLSERVER_MODEL_EXTRA"):
        planned([], tmp_path, environment={**environment, "MLSERVER_MODEL_EXTRA": "[]"})


def test_settings_beside_an_explainer_are_used_but_name_no_code(anchor, tmp_path):
    folder = tmp_path / "explainers" / "boots"
    folder.mkdir(parents=True)
    for file in anchor.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    beside = {
        "name": "shoes",
        "implementation": "os.system",
        "parameters": {"version": "v3", "extra": {"infer_uri": "http://a/v2/models/m/infer", "threads": "1"}},
    }
    (folder / "model-settings.json").write_text(json.dumps(beside))
    (model,) = planned([folder.parent], tmp_path)
    assert model["name"] == "shoes"
    assert model["implementation"] == "explainer_runtime.ExplainerRuntime"
    assert model["parameters"]["version"] == "v3"
    assert model["parameters"]["extra"] == {"infer_uri": "http://a/v2/models/m/infer", "threads": 1}
    (model,) = planned([folder], tmp_path, predictor="http://b/m", names=["hats"], extra={"threads": 1})
    assert model["name"] == "hats"
    told = {"kind": "v2", "url": "http://b", "model": "m"}
    assert model["parameters"]["extra"] == {"predictor": told, "threads": 1}


def test_of_the_model_the_platform_counts_most_then_the_command_then_what_is_beside(anchor, tmp_path):
    folder = tmp_path / "boots"
    folder.mkdir()
    for file in anchor.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    known = {"url": "http://old", "model": "old", "output": "logits", "scale": 255, "timeout": 5}
    beside = {"parameters": {"extra": {"predictor": known}}}
    (folder / "model-settings.json").write_text(json.dumps(beside))
    command = '{"timeout": 7, "output_name": "logits"}'
    (model,) = planned([folder, *KSERVE.split()], tmp_path, predictor=command)
    told = {**FASHION, "output": "logits", "scale": 255, "timeout": 7, "output_name": "logits"}
    assert model["parameters"]["extra"]["predictor"] == told
    (model,) = planned([folder], tmp_path, predictor=command)  # no platform: where the file says
    assert model["parameters"]["extra"]["predictor"] == {
        "kind": "v2",
        **known,
        "timeout": 7,
        "output_name": "logits",
    }
    here = '{"kind": "keras", "path": "/m.keras"}'
    (model,) = planned([folder], tmp_path, predictor=here)
    assert model["parameters"]["extra"]["predictor"] == json.loads(here)
    (model,) = planned([folder, *KSERVE.split()], tmp_path, predictor=here)
    assert model["parameters"]["extra"]["predictor"] == FASHION
    with pytest.raises(InvalidSpec, match="predictor: expected a JSON object"):
        planned([folder, *KSERVE.split()], tmp_path, predictor="{")
    with pytest.raises(InvalidSpec, match="outptu"):
        planned([folder, *KSERVE.split()], tmp_path, predictor='{"outptu": "logits"}')


def test_a_directory_of_several_is_served_whole_and_the_first_has_the_name(anchor, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "many" / name).mkdir(parents=True)
        for file in anchor.iterdir():
            (tmp_path / "many" / name / file.name).write_bytes(file.read_bytes())
    environment = {
        "MLSERVER_MODEL_NAME": "fashion",
        "MLSERVER_MODEL_URI": str(tmp_path / "many"),
        "MLSERVER_MODEL_EXTRA": json.dumps({"predictor": FASHION}),
    }
    models = planned([], tmp_path, environment=environment)
    assert [model["name"] for model in models] == ["fashion", "b"]
    assert {model["parameters"]["extra"]["predictor"]["url"] for model in models} == {FASHION["url"]}


def test_a_service_of_the_namespace_describes_no_model(anchor, tmp_path):
    environment = {"MLSERVER_MODEL_PORT": "tcp://10.0.0.1:80", "MLSERVER_MODEL_SERVICE_HOST": "10.0.0.1"}
    (model,) = planned(KSERVE.split(), tmp_path, mount=anchor, environment=environment)
    assert model["name"] == "fashion"


def test_a_sidecar_runs_keras_models_itself_and_asks_for_others(anchor, tmp_path):
    (tmp_path / "tf" / "1").mkdir(parents=True)
    (tmp_path / "tf" / "1" / "saved_model.pb").touch()
    words = [anchor, "--model_name=m", "--predictor_host=localhost:8085"]
    (model,) = planned(words, tmp_path, model=str(tmp_path / "tf"), sidecar=True)
    assert model["parameters"]["extra"]["predictor"] == str(tmp_path / "tf" / "1")
    (model,) = planned([anchor, words[2]], tmp_path, model=str(tmp_path / "tf"), sidecar=True)
    assert model["parameters"]["extra"]["predictor"] == str(tmp_path / "tf" / "1")
    (tmp_path / "onnx").mkdir()
    (model,) = planned(words, tmp_path, model=str(tmp_path / "onnx"), sidecar=True)
    told = {"kind": "v2", "url": "http://localhost:8085", "model": "m"}
    assert model["parameters"]["extra"]["predictor"] == told
