"""Every command and every example of README and docs, word for word, in an empty folder, from a wheel.

The wheel is installed in an environment of its own that borrows its dependencies from this one, and a small
network takes the place of the demo's. `make fresh` installs everything anew instead, for each Python there
is, and runs the demo. Ports are exchanged for free ones; names of hosts for this one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from oip_servers import GrpcServer, Model, Output
from servers import free_ports

from explainer_runtime import data

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FRESH = os.environ.get("EXPLAINER_RUNTIME_FRESH", "").split()
"""Pythons for which everything is installed anew; nothing borrows what is here."""
ELSEWHERE = {
    "make ": "test_demo, test_bundle",
    "pip install": "from a wheel, here",
    "--model_name|--storage_uri|MLSERVER_": "test_launcher_arguments",
    "explainer-runtime serve --server kserve": "test_kserve",
    "explainer-runtime serve --repository": "test_launcher",
    "explainer-runtime demo": "test_demo; here where all is fresh",
    "openssl |explainer-runtime (sign|verify) |.* --require-signature": "test_signing",
    "explainer-runtime replay": "test_audit",
    "explainer-runtime jobs |.* --jobs |.* --async": "test_jobs_rest",
    ".* --page$": "test_page",
    "explainer-runtime batch": "test_batch",
    "curl .*(--data-binary|-F image)": "test_pictured",
    "explainer-runtime pack|skopeo ": "test_oci",
    ".*\\.\\.\\.": "stands for what is the reader's",
    "fashion-cf/$| +[a-z-]+[./]": "a listing",
}
"""Commands that are not run here, by how they begin, and what runs them."""
CLUSTER = re.compile(r"^(docker|kubectl|helm) ", re.MULTILINE)
"""Of a block that needs a cluster or a registry; test_chart and test_dockerfile have those."""
UNTRIED = {
    "docs/batch_machines.md: from explainer_runtime.batch.spark": "make test-spark",
    "docs/models.md: explain = prepare(fitted, jax.jit": "test_jax, test_torch",
    "docs/methods/counterfactual.md: answer = explain(photographs": "test_smooth",
    'docs/methods/region.md: spec = Region(change="paste")': "test_paste",
    "docs/serving.md: from explainer_runtime.hosts.launcher import": "test_launcher",
}
"""Examples that are not run here."""
NOISE = re.compile(r" *\d+\.\d s  |INFO:|$")
"""What a command may say on stderr: its steps."""


def fences(page: Path, *languages: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for language, block in blocks if language in languages]


def commands(page: Path) -> list[str]:
    """The commands of a page, each on one line, without comments; what runs elsewhere is left out."""
    blocks = [_whole(block) for block in fences(page, "", "bash") if not CLUSTER.search(block)]
    lines = [line for block in blocks for line in block.splitlines()]
    lines = [re.sub(r"\s+#.*", "", line).rstrip() for line in lines]
    return [line for line in lines if line and not any(re.match(start, line) for start in ELSEWHERE)]


def _whole(block: str) -> str:
    block = re.sub(r"\\\n\s*", "", block)
    return re.sub(r"'\{\n(?:[^'\n]*\n)*?\}'", "'{...}'", block)  # a body, whose numbers are left out


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run([*uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=FRESH or [sys.executable])
def reader(request, wheel, tmp_path_factory):
    """A reader: an empty folder, and the package as a wheel brings it."""
    folder = tmp_path_factory.mktemp("reader")
    uv, python = Path(sys.executable).with_name("uv"), folder / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", request.param, folder / "env"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python]
    if FRESH:
        subprocess.run([*install, f"{wheel}[all]"], check=True, timeout=900)
    else:
        subprocess.run([*install, "--no-deps", wheel], check=True)
        (own,) = (folder / "env").glob("lib/*/site-packages")
        (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    home = folder / "home"
    home.mkdir()
    reader = Reader(home, python.parent)
    if FRESH:
        reader.run("explainer-runtime demo")
    else:
        network(home)
    (spec,) = fences(ROOT / "README.md", "yaml")
    (home / "cf.yaml").write_text(spec)
    return reader


class Reader:
    """Runs what a page says, in the reader's folder."""

    def __init__(self, home: Path, bin: Path) -> None:
        self.home, self.bin = home, bin
        ports = [*free_ports(), *free_ports()]
        self.ports = dict(zip(("8080", "8081", "8082", "9080", "9081", "9082"), map(str, ports), strict=True))

    @property
    def environment(self) -> Mapping[str, str]:
        own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        default = {"HTTP": "8080", "GRPC": "8081", "METRICS": "8082"}
        chosen = {f"MLSERVER_{name}_PORT": self.ports[port] for name, port in default.items()}
        return own | chosen | {"PATH": f"{self.bin}:{own['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}

    def here(self, text: str) -> str:
        text = re.sub(r"\b[89]08[0-2]\b", lambda port: self.ports[port[0]], text)
        return re.sub(r"(?<=grpc://)[a-z-]+(?=:)", "localhost", text)

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        noise = [line for line in done.stderr.splitlines() if not NOISE.match(line)]
        assert noise == [], command
        return done.stdout

    @contextmanager
    def serving(self, command: str) -> Iterator[Path]:
        """A server that is ready, and its log."""
        words = self.here(command.removesuffix("&"))
        said = re.search(r"--http-port (\d+)", words)
        url = f"http://localhost:{said[1] if said else self.ports['8080']}/v2/health/ready"
        log = self.home.parent / f"{len(list(self.home.parent.iterdir()))}.log"
        with log.open("w") as out:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {words}"], cwd=self.home, env=self.environment, stdout=out, stderr=out
            )
        try:
            while not ready(url):
                assert server.poll() is None, f"{command}\n{log.read_text()}"
                time.sleep(0.1)
            yield log
        finally:
            server.terminate()
            server.wait(60)


def ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def network(home: Path) -> None:
    """A network and a request as the demo leaves them, in a second."""
    images = data.load("fashion_mnist", sample=True)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.MaxPooling2D(2), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images.x_train[:2000], images.y_train[:2000], verbose=0)
    (home / "demo").mkdir()
    model.save(home / "demo" / "fashion-cnn.keras")
    row = images.x_test[0].ravel().tolist()
    boot = {"name": "image", "shape": [1, 28, 28, 1], "datatype": "FP32", "data": row}
    (home / "demo" / "request.json").write_text(json.dumps({"inputs": [boot]}))


def follow(reader: Reader, lines: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Run the commands of a page in order; what they have printed, and what servers have logged."""
    printed, logs = {}, {}
    servers = ExitStack()
    with servers:
        for line in lines:
            if "explainer-runtime serve" not in line:
                printed[line] = reader.run(line)
                continue
            if not line.endswith("&"):
                servers.close()  # of those before
            logs[line] = servers.enter_context(reader.serving(line))
    return printed, {line: log.read_text() for line, log in logs.items()}


def test_the_readme_leads_from_an_empty_folder_to_an_answer_on_the_cheap_road(reader):
    lines = commands(ROOT / "README.md")
    printed, logs = follow(reader, lines)
    kinds = [re.match(r"explainer-runtime \w+|\w+", line)[0].split()[-1] for line in lines]
    assert kinds == ["fit", "inspect", "explain", "serve", "serve", "curl", "serve"]
    assert "8,500 answers of the model" in printed[lines[1]].replace("\n", " ")
    assert "<html" in (reader.home / "boot.html").read_text()
    answer = json.loads(printed[lines[5]])
    outputs = {one["name"]: one["data"] for one in answer["outputs"]}
    assert outputs["found"] == [True]
    assert outputs["gradient_source"] == ["surrogate"]
    assert not any("no surrogate" in log or "absl" in log for log in logs.values())


def test_the_page_on_models_is_true_of_one_that_answers_with_logits(reader):
    images = data.load("fashion_mnist", sample=True)
    model = keras.saving.load_model(reader.home / "demo" / "fashion-cnn.keras", compile=False)
    model.layers[-1].activation = keras.activations.linear
    model.save(reader.home / "cnn.keras")
    shutil.copy(reader.home / "cf.yaml", reader.home / "spec.yaml")
    np.savez(reader.home / "train.npz", x=images.x_train[:500], y=images.y_train[:500])
    pixels = np.round((images.x_test[0, ..., 0] + 0.5) * 255).astype(np.uint8)
    keras.utils.save_img(reader.home / "x.png", pixels[..., None], scale=False)
    said = {"kind": "v2", "url": "grpc://localhost:8081", "model": "cnn", "output": "logits"}
    (reader.home / "model.json").write_text(reader.here(json.dumps(said)))
    lines = commands(ROOT / "docs" / "models.md")
    answering = GrpcServer(Model(lambda x: [Output("logits", "FP32", (len(x), 10), model(x).numpy())]))
    answering.port = int(reader.ports["8081"])
    with answering:
        printed, _ = follow(reader, [*lines[:2], f"{lines[2]} --grpc-port 9081"])
    assert "found 1 of 1" in printed[lines[1]]


def test_every_command_is_run_somewhere(reader):
    """Of the other pages those are left that need what the README has made."""
    rest = [line for page in PAGES[1:] if page.stem != "models" for line in commands(page)]
    follow(reader, rest)
    assert rest == ["explainer-runtime serve fashion-cf/ --predictor grpc://cnn-predictor:8081/fashion-cnn"]


PRELUDE = """
import json, sys
import keras
import numpy as np
from explainer_runtime import *
from explainer_runtime import CallablePredictor, Counterfactual, alibi, connect, data, fit, prepare

keras.utils.set_random_seed(0)
images = data.load("fashion_mnist", sample=True)
x_train, x_test = images.x_train[:300], images.x_test
model = cnn = keras.saving.load_model("demo/fashion-cnn.keras", compile=False)
encoder = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(8)])
layers = [keras.layers.Dense(784, "tanh"), keras.layers.Rescaling(0.5), keras.layers.Reshape((28, 28, 1))]
decoder = keras.Sequential([keras.Input((8,)), *layers])
shape, fitted = (1, 28, 28, 1), fit(Counterfactual(), x_train, predictor=cnn, surrogate=False)
photographs = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype("f")

def efficientnet(x):
    bright = 1 / (1 + np.exp(-x.mean(axis=(1, 2, 3))))
    return np.stack([bright, 1 - bright] + 998 * [0 * bright], axis=1)

for number, (page, source) in enumerate(json.load(open(sys.argv[1]))):
    exec(compile(source, f"{page}, example {number}", "exec"), globals().copy())
"""
STANDS_FOR = {'"grpc://triton:8001/efficientnet"': "efficientnet"}


def test_examples_in_python_run(reader):
    examples = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for source in fences(page, "python"):
            for words, own in STANDS_FOR.items():
                source = source.replace(words, own)
            examples += [(name, source)]
    examples = [one for one in examples if not any(": ".join(one).startswith(start) for start in UNTRIED)]
    assert len(examples) > 10
    (reader.home / "prelude.py").write_text(PRELUDE)
    (reader.home / "examples.json").write_text(json.dumps(examples))
    done = subprocess.run(
        [reader.bin / "python", "prelude.py", "examples.json"],
        cwd=reader.home, env=reader.environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[ True  True  True  True]" in done.stdout


def test_every_link_leads_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target
