"""What each mode renders really starts: its arguments and variables, with what the controllers add, explain.

The model is a convolutional network, served by a process of its own. Paths, hosts and ports of a cluster are
replaced by those of this machine; every other word reaches the server as the chart or a controller writes it,
in an environment that has nothing else. The question is the one that `helm test` asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys

import httpx
import pytest
import yaml
from helm_chart import CHART, MODES, ROOT, case, explainer_container, needs_tools, of_kind, rendered, text
from servers import free_ports, running

from explainer_runtime import artifact
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.spec import AnchorImage, Grid, Inputs

pytestmark = needs_tools
SERVE = [sys.executable, "-m", "explainer_runtime.cli", "serve"]
KSERVE = ROOT / ".venv-kserve" / "bin" / "python"
CONTRACT = Inputs(shape=(8, 8, 1), low=0, high=1, classes=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chart")


@pytest.fixture(scope="module")
def anchor(folder):
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant", threshold=0.6)
    return artifact.save(fit(spec, inputs=CONTRACT), folder / "artifact")


@pytest.fixture(scope="module")
def network(folder):
    """A directory with the model, as an initialiser leaves it."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    (folder / "network").mkdir()
    model.save(folder / "network" / "fashion.keras")
    return folder / "network"


@pytest.fixture(scope="module")
def served(folder, network):
    """The network behind V2, called `fashion`; the port of its REST."""
    words = ["--model", str(network / "fashion.keras"), "--name", "fashion"]
    with started(words, {}, folder / "network-server") as server:
        yield server.ports.http


def local(env, ports):
    """Where to listen here; in a pod it is all addresses, at the ports of the chart."""
    return {
        **env,
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(ports.http),
        "MLSERVER_GRPC_PORT": str(ports.grpc),
        "MLSERVER_METRICS_PORT": str(ports.metrics),
    }


@contextlib.contextmanager
def started(words, env, folder, probe="/v2/health/ready", trust=None):
    """The entry point of the image in an environment that has what a container has, and `env`."""
    folder.mkdir()
    ports, log = free_ports(), folder / "log"
    words = [word.replace("HTTP_PORT", str(ports.http)) for word in words]
    tensorflow = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **tensorflow}
    # The package is the one under test, wherever the environment has installed it from.
    env = {**env, "PYTHONPATH": f"{env.get('PYTHONPATH', '')}:{ROOT}".lstrip(":")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SERVE, *words], stdout=output, stderr=output, env={**clean, **local(env, ports)}, cwd=folder
        )
    with running(process, ports, log, probe=probe, trust=trust) as server:
        yield server


# --- what a controller makes of a container ---------------------------------------------------------------


def as_declared(container, objects, model):
    return container["args"], env_of(container)


def as_kserve_explains(container, objects, model):
    """Arguments are appended, and the storage address becomes the place where it has been downloaded to."""
    env = {**env_of(container), "STORAGE_URI": "/mnt/models"}
    injected = ["--model_name", "fashion", "--predictor_host", model, "--http_port", "HTTP_PORT"]
    return [*container["args"], *injected], env


def as_kserve_runs(container, objects, model):
    """The runtime's container, with the variables of the service."""
    service = of_kind(objects, "InferenceService")["spec"]["predictor"]["model"]
    return [*container["args"], *service.get("args", [])], {**env_of(container), **env_of(service)}


def as_seldon_1(container, objects, model):
    """The variables are overwritten by a block of the operator's."""
    explainer = of_kind(objects, "SeldonDeployment")["spec"]["predictors"][0]["explainer"]
    tag = {"AnchorImages": "anchor_image"}[explainer["type"]]
    extra = {
        "explainer_type": tag,
        "infer_uri": f"http://{model}/v2/models/fashion/infer",
        "init_parameters": {},
    }
    return container["args"], {
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_alibi_explain.AlibiExplainRuntime",
        "MLSERVER_MODEL_NAME": "fashion-default-explainer",
        "MLSERVER_MODEL_URI": "/mnt/models",
        "MLSERVER_MODEL_EXTRA": json.dumps(extra),
        "PYTHONPATH": str(ROOT / "deploy" / "image"),  # the image's
    }


def as_seldon_2(container, objects, model):
    """Merged into the container of the `mlserver` ServerConfig, whose variables stay."""
    config = {
        "MLSERVER_MODELS_DIR": "/mnt/agent/models",
        "MLSERVER_MODEL_PARALLEL_WORKERS": "1",
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
    }
    return container["args"], {**config, **env_of(container)}


CONTROLLERS = {
    "deployment": as_declared,
    "kserve-explainer": as_kserve_explains,
    "kserve-sidecar": as_declared,
    "kserve-runtime": as_kserve_runs,
    "seldon-v1": as_seldon_1,
    "seldon-v2": as_seldon_2,
}


def env_of(container):
    return {one["name"]: one["value"] for one in container.get("env", [])}


def place(mode, anchor, network, repository, model):
    """What of a cluster stands for what of this machine, the longest first."""
    models = network if mode == "kserve-sidecar" else anchor
    return {
        "http://fashion-predictor": f"http://{model}",
        "localhost:8085": model,
        "/mnt/agent/models": str(repository),
        "/mnt/explainer": str(anchor),
        "/mnt/models": str(models),
    }


def replaced(word, places):
    for theirs, ours in places.items():
        word = word.replace(theirs, ours)
    return word


def load_as_the_agent_does(server, repository, anchor, model):
    """Seldon Core 2's agent: a folder with settings that it has rewritten, then a call."""
    home = repository / "fashion"
    shutil.copytree(anchor, home)
    extra = {
        "infer_uri": f"http://{model}/v2/models/fashion/infer",
        "explainer_type": "anchor_image",
        "ssl_verify_path": "/mnt/certs/ca.crt",
    }
    settings = {
        "name": "fashion",
        "implementation": "explainer_runtime.ExplainerRuntime",
        "parallel_workers": 0,
        "parameters": {"uri": ".", "extra": extra},
    }
    (home / "model-settings.json").write_text(json.dumps(settings))
    done = httpx.post(server.rest("/v2/repository/models/fashion/load"), timeout=60)
    assert done.status_code == 200, done.text


@pytest.mark.parametrize("mode", MODES)
def test_what_a_mode_renders_starts_and_explains(mode, folder, anchor, network, served):
    values = CHART / "ci" / "kserve-sidecar-download-values.yaml" if mode == "kserve-sidecar" else case(mode)
    objects = rendered(values)
    repository, model = folder / f"repository-{mode}", f"127.0.0.1:{served}"
    repository.mkdir()
    container = explainer_container(objects)
    words, env = CONTROLLERS[mode](container, objects, model)
    places = place(mode, anchor, network, repository, model)
    words = [replaced(word, places) for word in words]
    env = {name: replaced(value, places) for name, value in env.items()}
    ready = container["readinessProbe"]["httpGet"]["path"]
    with started(words, env, folder / mode, probe=ready) as server:
        assert httpx.get(server.rest(container["livenessProbe"]["httpGet"]["path"])).status_code == 200
        if mode == "seldon-v2":
            load_as_the_agent_does(server, repository, anchor, model)
        assert asked_by_helm(objects, server) == f"{served_as(objects)}: explained one row: ok"
        if mode == "deployment":
            assert_names_are_exposed(server)


def test_container(objects):
    """The container of `helm test`."""
    (pod,) = (one for one in objects if one["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    return container


test_container.__test__ = False


def served_as(objects):
    return env_of(test_container(objects))["EXPLAINER"]


def asked_by_helm(objects, server, status=0, **variables):
    """What the pod of `helm test` says, run here with its own script and variables."""
    container = test_container(objects)
    env = {**env_of(container), "ADDRESS": server.rest(""), **variables}
    env["SHAPE"] = env["SHAPE"].replace("28,28", "8,8")
    done = subprocess.run(
        [sys.executable, "-c", *container["args"]], env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == status, done.stdout + server.log.read_text()
    return done.stdout.strip()


def test_each_explainer_of_a_directory_is_tested_and_refusals_are_the_servers_own(folder, anchor, served):
    for name in ("boots", "hats"):
        shutil.copytree(anchor, folder / "several" / name)
    objects = rendered(case("deployment"))
    places = place("deployment", folder / "several", None, None, f"127.0.0.1:{served}")
    env = env_of(explainer_container(objects))
    env = {name: replaced(value, places) for name, value in env.items()}
    with started(explainer_container(objects)["args"], env, folder / "several-server") as server:
        told = asked_by_helm(objects, server).splitlines()
        assert told == ["fashion: explained one row: ok", "hats: explained one row: ok"]
        told = asked_by_helm(objects, server, status=1, SHAPE="[3]").splitlines()
        assert len(told) == 2
        assert all(
            ": /v2/models/" in line and "answered 422: inputs: expected rows of shape" in line
            for line in told
        )
    told = asked_by_helm(objects, server, status=1)
    assert told.startswith("fashion: /v2/models/fashion at http://127.0.0.1:")


@pytest.fixture(scope="module")
def certificates(folder):
    """A Secret of type kubernetes.io/tls, as it is mounted: a certificate that is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    secret = folder / "tls"
    secret.mkdir()
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    words += " -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.crt"
    subprocess.run(["openssl", *words.split()], cwd=secret, check=True, capture_output=True)
    shutil.copy(secret / "tls.crt", secret / "ca.crt")
    return secret


@pytest.mark.skipif("tls_cert" not in Guard.model_fields, reason="this server has no TLS")
def test_with_certificates_helms_test_shows_its_own_and_others_are_refused(
    folder, anchor, served, certificates
):
    objects = rendered(case("deployment"), "--set", "tls.secret=explainer-tls,tls.clientCa=true")
    container = explainer_container(objects)
    places = place("deployment", anchor, None, None, f"127.0.0.1:{served}")
    places["/var/run/tls"] = str(certificates)
    words = [replaced(word, places) for word in container["args"]]
    env = {name: replaced(value, places) for name, value in env_of(container).items()}
    trust = ssl.create_default_context(cafile=certificates / "ca.crt")
    with started(words, env, folder / "certified", trust=trust) as server:
        probe = server.rest(container["readinessProbe"]["httpGet"]["path"]).replace("http:", "https:")
        assert httpx.get(probe, verify=trust).status_code == 200  # as the kubelet asks, with no certificate
        address = server.rest("").replace("http:", "https:")
        assert httpx.get(f"{address}/v2/models/fashion", verify=trust).status_code == 401
        variables = {"ADDRESS": address, "CERTIFICATES": str(certificates)}
        assert asked_by_helm(objects, server, **variables) == "fashion: explained one row: ok"


def test_a_signed_artifact_starts_and_its_explanations_are_recorded(folder, anchor, served):
    import pki

    pki.private(folder / "signer-key.pem")
    (folder / "signer").mkdir()
    shutil.copy(folder / "signer-key.pub", folder / "signer" / "signer.pem")
    signed = shutil.copytree(anchor, folder / "signed")
    artifact.sign(signed, folder / "signer-key.pem")
    objects = rendered(case("deployment"), "--set", "signature.secret=explainer-signer,audit.enabled=true")
    container = explainer_container(objects)
    places = place("deployment", signed, None, None, f"127.0.0.1:{served}")
    places["/var/run/signer"] = str(folder / "signer")
    words = [replaced(word, places) for word in container["args"]]
    env = {name: replaced(value, places) for name, value in env_of(container).items()}
    with started(words, env, folder / "signed-server") as server:
        assert asked_by_helm(objects, server) == "fashion: explained one row: ok"
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (record,) = [line for line in lines if "record" in line]
    assert record["signature"].startswith("key ")
    assert record["artifact"] == artifact.verify(signed).digest


def test_jobs_are_done_on_the_volume_of_the_chart_and_its_page_is_there(folder, anchor, served):
    objects = rendered(CHART / "ci" / "jobs-values.yaml", "--set", "page.enabled=true,page.samples=true")
    container = explainer_container(objects)
    places = place("deployment", anchor, None, None, f"127.0.0.1:{served}")
    places |= {"/var/lib/jobs": str(folder / "kept"), "/var/cache": str(folder / "cache")}
    words = [replaced(word, places) for word in container["args"]]
    env = {name: replaced(value, places) for name, value in env_of(container).items()}
    row = {"name": "image", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": [0.5] * 64}
    body = {"id": "1", "inputs": [row]}
    path = "/v2/models/fashion/explain"
    with (
        started(words, env, folder / "jobs-server") as server,
        httpx.Client(base_url=server.rest(""), timeout=120) as client,
    ):
        taken = client.post(path, json=body, headers={"prefer": "respond-async"})
        assert taken.status_code == 202, taken.text
        done = taken.json()
        while done["state"] in ("queued", "running"):
            done = client.get(taken.headers["location"]).json()
        assert done["state"] == "done", done
        kept, direct = client.get(done["links"]["result"]).json(), client.post(path, json=body).json()
        assert kept["outputs"] == direct["outputs"]
        page = client.get("/", headers={"accept": "text/html"}, follow_redirects=True)
        assert (page.url.path, page.status_code) == ("/page/", 200)
        about = client.get("/page/about.json").json()
        assert about["jobs"] is True
        assert client.get("/" + about["models"]).json()
        while not of_jobs() <= exposed(server):  # it tells how the queue stands every few seconds
            assert client.get("/v2/health/live").status_code == 200
    assert (folder / "kept" / "jobs.sqlite").exists()
    assert (folder / "cache" / "explanations").is_dir()


# --- the model's own traffic --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer(folder):
    """A model on KServe's own server, with everything that it offers."""
    if not KSERVE.exists():
        pytest.skip("no .venv-kserve; `make test` builds it")
    ports, log = free_ports(), folder / "peer.log"
    with log.open("wb") as output:
        words = [KSERVE, ROOT / "tests" / "kserve_model.py", ports.http, ports.grpc]
        process = subprocess.Popen([str(word) for word in words], stdout=output, stderr=output)
    with running(process, ports, log) as server:
        yield server


def suite(client, ports):
    """All that a peer's client can ask, and what it was answered."""
    python = sys.executable if client == "triton" else str(KSERVE)
    words = [client, f"127.0.0.1:{ports.http}", f"127.0.0.1:{ports.grpc}", "linear"]
    command = [python, str(ROOT / "tests" / "peers_suite.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_clients_of_other_makers_do_not_notice_the_sidecar(folder, anchor, peer):
    """In the words of the chart; the answers, refusals with them, are those of the model asked directly."""
    (folder / "no-network").mkdir()
    container = explainer_container(rendered(case("kserve-sidecar")))
    places = {
        "localhost:8085": f"127.0.0.1:{peer.ports.http}",
        "localhost:8086": f"127.0.0.1:{peer.ports.grpc}",
        "--model_name=fashion": "--model_name=linear",
        "/mnt/explainer": str(anchor),
        "/mnt/models": str(folder / "no-network"),
    }
    words = [replaced(word, places) for word in container["args"]]
    with started(words, {}, folder / "relay", probe="/explain/ready") as server:
        for client, least in (("triton", 20), ("kserve", 12)):
            direct = suite(client, peer.ports)
            assert len(direct) >= least
            assert sum("Error" in str(answer) or "Exception" in str(answer) for answer in direct.values()) < 8
            assert suite(client, server.ports) == direct


# --- metrics ----------------------------------------------------------------------------------------------


def exposed(server):
    """The names of a server's metrics."""
    told = httpx.get(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=60).text
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", told, flags=re.MULTILINE):
        names |= {name} if kind != "histogram" else {f"{name}_{end}" for end in ("bucket", "sum", "count")}
    return names


def assert_names_are_exposed(server):
    asked = metrics_asked_for() - of_jobs()
    assert len(asked) >= 10
    assert asked <= exposed(server)


def of_jobs():
    """Names of metrics that a server has where it has jobs."""
    asked = {name for name in metrics_asked_for() if name.startswith("explainer_jobs_")}
    assert len(asked) == 5
    return asked


def metrics_asked_for():
    """Every metric that a scaler, an alert or a panel names."""
    made = "".join(text(CHART / "ci" / f"{name}-values.yaml") for name in ("hpa", "keda", "alerts", "jobs"))
    panels = json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return set(re.findall(r"explainer_[a-z_]+", "\n".join([made, *queries])))


def test_labels_in_queries_are_those_of_the_metrics():
    from explainer_runtime.hosts.service.metrics import _metrics, _of_jobs

    labels = {}
    for metric in (*vars(_metrics()).values(), *vars(_of_jobs()).values()):
        labels[metric._name] = {*metric._labelnames, "namespace", "le"}
    rules = [one for name in ("alerts", "jobs") for one in rendered(CHART / "ci" / f"{name}-values.yaml")]
    queries = (
        yaml.safe_dump_all(rules, width=10_000)
        + (CHART / "files" / "dashboard.json").read_text()
        + text(CHART / "ci" / "keda-values.yaml")
    )
    found = re.findall(r"(explainer_[a-z_]+?)(?:_total|_bucket)?\{([^}]*)\}", queries)
    assert len(found) >= 15
    for name, selector in found:
        assert set(re.findall(r"(\w+)=", selector)) <= labels[name], (name, selector)
