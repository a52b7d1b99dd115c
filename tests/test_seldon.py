"""Seldon's ways to start an explainer and ask it: Core 1 by variables and by arguments, Core 2 by an agent.

Where Seldon names a host, a port or `/mnt/models`, those of this machine stand in; every other word is as its
operator or agent writes it. All values are strings.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from servers import ask_grpc, ask_rest
from test_launcher import CLASSIFY, CONTRACT, launched

from explainer_runtime import artifact
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import AnchorImage, Grid

ROOT = Path(__file__).parents[1]
SHIM = ROOT / "deploy" / "image"
SELDON = ROOT / ".venv-seldon" / "bin" / "python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seldon")


@pytest.fixture(scope="module")
def anchor(folder):
    spec = AnchorImage(segmentation=Grid(rows=4, columns=2), fill="constant", threshold=0.9)
    return artifact.save(fit(spec, inputs=CONTRACT), folder / "boots")


@pytest.fixture(scope="module")
def model():
    def respond(x):
        scores = CLASSIFY(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    with RestServer(Model(respond=respond)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).uniform(size=(2, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(anchor, images):
    explained = prepare(artifact.load(anchor), CallablePredictor(CLASSIFY))(images)
    return json.loads(explained.to_json())["data"]


# --- Core 1, protocol v2: variables -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_variables(folder, anchor, model):
    """The operator overwrites the container's environment with this block, and gives no arguments."""
    extra = {
        "explainer_type": "anchor_image",
        "infer_uri": f"http://{model}/v2/models/fashion/infer",
        "init_parameters": {"threshold": "0.95"},
    }
    block = {
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_alibi_explain.AlibiExplainRuntime",
        "MLSERVER_MODEL_NAME": "fashion-explainer",
        "MLSERVER_MODEL_URI": str(anchor),
        "MLSERVER_MODEL_EXTRA": json.dumps(extra),
    }
    with launched([], folder / "variables", PYTHONPATH=f"{SHIM}:{ROOT}", **block) as server:
        yield server


def test_the_variables_of_core_1_start_a_server_that_explains(by_variables, images, expected):
    answer = ask_rest(by_variables, "fashion-explainer", images, "explain")
    assert json.loads(answer.body["outputs"][0]["data"][0])["data"] == expected
    over_grpc = ask_grpc(by_variables, "fashion-explainer", images)
    assert over_grpc.tensors == answer.tensors


@pytest.mark.parametrize("route", ["/explain", "/api/v1.0/explain", "/api/v0.1/explain"])
@pytest.mark.parametrize("kind", ["tensor", "ndarray"])
def test_the_call_that_seldons_client_makes_is_answered(by_variables, images, expected, route, kind):
    """As `SeldonClient.explain` of seldon-core 1.19 sends it: a SeldonMessage as JSON."""
    values = {"tensor": {"shape": list(images.shape), "values": images.ravel().tolist()}}
    body = {"data": values if kind == "tensor" else {"ndarray": images.tolist()}}
    answer = httpx.post(by_variables.rest(route), json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == expected
    assert set(answer.json()) == {"meta", "data"}


@pytest.mark.skipif(not SELDON.exists(), reason="no Python 3.12, which seldon-core needs")
def test_seldons_own_client_gets_the_explanation(by_variables, images, expected):
    gateway = f"127.0.0.1:{by_variables.ports.http}"
    command = [SELDON, ROOT / "tests" / "seldon_client.py", gateway, json.dumps(images.tolist())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for answer in json.loads(done.stdout).values():
        assert answer["data"] == expected


# --- Core 1, protocol tensorflow: arguments -----------------------------------------------------------------


@pytest.fixture(scope="module")
def by_arguments(folder, anchor, model):
    words = [
        "--model_name=fashion",
        f"--predictor_host={model}",
        "--protocol=tensorflow.http",
        "--http_port={}",
        f"--storage_uri={anchor}",
        "AnchorImages",
        "--tf_data_type=float32",
        "--p_sample=0.5",
    ]
    at = words.index("--http_port={}")
    with launched(words[:at] + words[at + 1 :], folder / "arguments", port_flag=words[at]) as server:
        yield server


def test_the_arguments_of_core_1_start_a_server_that_explains(by_arguments, images, expected):
    answer = httpx.post(
        by_arguments.rest("/v1/models/fashion:explain"), json={"instances": images.tolist()}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == expected


# --- the import shim ----------------------------------------------------------------------------------------


@pytest.fixture
def runtime(anchor, monkeypatch):
    monkeypatch.syspath_prepend(str(SHIM))
    from mlserver import ModelSettings
    from mlserver_alibi_explain import AlibiExplainRuntime

    def make(**extra):
        parameters = {"uri": str(anchor), "extra": {"infer_uri": "http://a/v2/models/m/infer", **extra}}
        return AlibiExplainRuntime(
            ModelSettings(name="m", implementation=AlibiExplainRuntime, parameters=parameters)
        )

    return make


@pytest.mark.parametrize("tag", ["anchor_image", "AnchorImages", None])
def test_the_shim_loads_an_artifact_of_the_type_it_was_told(runtime, tag):
    assert asyncio.run(runtime(**({"explainer_type": tag} if tag else {})).load())


@pytest.mark.parametrize("tag", ["counterfactuals", "contrastive", "cem", "anchor_tabular"])
def test_the_shim_refuses_an_artifact_of_another_type(runtime, tag):
    from mlserver.errors import MLServerError

    with pytest.raises(MLServerError, match=f"explainer_type: {tag} was asked for"):
        asyncio.run(runtime(explainer_type=tag).load())


def test_every_string_that_seldon_may_send_is_understood(runtime):
    strings = {"init_parameters": '{"p": "0.1"}', "threads": "3", "limits": '{"max_batch": 4}'}
    assert asyncio.run(runtime(explainer_type="anchor_image", **strings).load())


# --- Core 2: the agent --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(folder):
    (folder / "repository").mkdir()
    return folder / "repository"


@pytest.fixture(scope="module")
def agents_server(folder, repository):
    words = ["--repository", repository, "--guard", '{"management": true}']
    with launched(words, folder / "agent", MLSERVER_LOAD_MODELS_AT_STARTUP="false") as server:
        yield server


def rewrite(settings, name, version, infer_uri):
    """What the agent makes of a `model-settings.json`: a name with a suffix, and strings in `extra`."""
    parameters = settings.setdefault("parameters", {})
    extra = {
        "infer_uri": infer_uri,
        "explainer_type": "anchor_image",
        "ssl_verify_path": "/mnt/certs/ca.crt",
        "threads": "2",
        "limits": '{"max_batch": 4}',
    }
    parameters["extra"] = {**parameters.get("extra", {}), **extra}
    return {**settings, "name": name, "parallel_workers": 0, "parameters": {**parameters, "version": version}}


def test_what_the_agent_of_core_2_puts_into_its_repository_is_served(
    agents_server, repository, anchor, model, images, expected
):
    home = repository / "boots_1" / "1"
    shutil.copytree(anchor, home)
    written = {
        "name": "boots",
        "implementation": "explainer_runtime.ExplainerRuntime",
        "parameters": {"uri": "."},
    }
    settings = rewrite(written, "boots_1", "1", f"http://{model}/v2/models/fashion/infer")
    (home / "model-settings.json").write_text(json.dumps(settings))

    assert httpx.post(agents_server.rest("/v2/repository/models/boots_1/load"), timeout=60).status_code == 200
    answer = ask_rest(agents_server, "boots_1", images)
    assert json.loads(answer.body["outputs"][0]["data"][0])["data"] == expected
    assert answer.tensors == ask_grpc(agents_server, "boots_1", images).tensors
    too_many = np.repeat(images, 3, axis=0)
    assert ask_rest(agents_server, "boots_1", too_many).status == 422
    assert (
        ask_rest(agents_server, "boots_1", images, parameters={"explain_parameters": {"a": 1}}).status == 422
    )

    assert (
        httpx.post(agents_server.rest("/v2/repository/models/boots_1/unload"), timeout=60).status_code == 200
    )
    assert ask_rest(agents_server, "boots_1", images).status == 404
