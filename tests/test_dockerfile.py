"""The Dockerfile, without Docker: linted, and its steps taken in a fresh environment.

No daemon is asked to build an image. What is replayed are its own words: the files that it copies,
the wheel that it builds, what it installs, its variables, its user, its entry point and its health check.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helm_chart import ROOT
from oip_servers import Model, Output, RestServer
from servers import ask_rest, free_ports, running
from toys import rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.explainers import fit
from explainer_runtime.spec import AnchorImage, Grid, Inputs

LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
USER = 65532


def said(word: str) -> list[str]:
    """What follows an instruction, once for each time that it stands there."""
    return [line.removeprefix(word).strip() for line in LINES if line.startswith(word + " ")]


def test_the_linter_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_every_stage_ends_as_a_user_who_is_not_root_and_starts_without_a_shell():
    stages = re.split(r"^FROM .* AS (\S+)$", "\n".join(LINES), flags=re.MULTILINE)[1:]
    made = dict(zip(stages[::2], stages[1::2], strict=True))
    assert set(made) == {"wheel", "base", "mlserver", "kserve", "mlserver-tensorflow"}
    for name, stage in made.items():
        if name != "wheel":
            users = re.findall(r"^USER (.*)$", stage, flags=re.MULTILINE)
            assert users[-1] == f"{USER}:{USER}", name
    (entry,) = said("ENTRYPOINT")
    assert json.loads(entry) == ["explainer-runtime", "serve"]


def test_bases_are_given_by_an_argument_that_takes_a_digest():
    assert {line.split()[0] for line in said("FROM")} == {"${PYTHON}", "base", "mlserver"}
    assert said("ARG")[0].startswith("PYTHON=python:3.11-slim")


def test_the_context_holds_what_is_copied_and_little_else():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {word for line in said("COPY") for word in line.split()[:-1]}
    assert set(kept) == copied
    assert all((ROOT / name).exists() for name in kept)


def test_the_extras_that_are_installed_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {name for line in LINES for name in re.findall(r"explainer-runtime\[([a-z,]+)\] @", line)}
    assert {name for names in wanted for name in names.split(",")} <= set(extras)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in said("ARG")


# --- replayed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place():
    """A directory that other users may read: pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wheel(place):
    """What the first stage builds, of the files that it copies."""
    for line in said("COPY")[:2]:
        for name in line.split()[:-1]:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, place / "src" / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                (place / "src").mkdir(exist_ok=True)
                shutil.copy(ROOT / name, place / "src" / name)
    (build,) = (line for line in said("RUN") if "pip wheel" in line)
    words = [word.replace("/wheels", str(place / "wheels")) for word in build.split()]
    assert words[0] == "pip"
    command = [sys.executable, "-m", *words, "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, cwd=place / "src", check=True, timeout=300)
    (made,) = (place / "wheels").glob("*.whl")
    (version,) = (line.removeprefix("VERSION=") for line in said("ARG") if line.startswith("VERSION="))
    assert any(f"/{made.name.replace(version, '${VERSION}')}" in line for line in LINES)
    return made


@pytest.fixture(scope="module")
def environment(place, wheel):
    """A fresh environment with what the target `mlserver` installs."""
    home = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    (install,) = (line for line in said("RUN") if "[mlserver,superpixels]" in line)
    (wanted,) = re.findall(r'pip install --no-cache-dir "(.*)"', install)
    wanted = re.sub(r"file:///wheels/.*", wheel.as_uri(), wanted)
    # uv does the same as pip in a tenth of the time; `make` has it beside the interpreter.
    uv, python = Path(sys.executable).parent / "uv", home / "bin" / "python"
    pip = [uv, "pip"] if uv.exists() else [sys.executable, "-m", "pip"]
    where = ["install", "--python", python] if uv.exists() else ["--python", python, "install"]
    subprocess.run([*pip, *where, "--quiet", wanted], check=True, timeout=600)
    return home


@pytest.fixture(scope="module")
def explainer(place):
    """An artifact that nobody may write."""
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant", threshold=0.6)
    made = artifact.save(fit(spec, inputs=Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)), place / "boots")
    for path in [*made.iterdir(), made]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield made
    made.chmod(0o755)


def image_env(place):
    """The variables of the image, with the folder that it copies where it is here."""
    pairs = [pair for line in said("ENV") for pair in re.findall(r"(\w+)=(\S+)", line)]
    env = {name: value.replace("/opt/image", str(ROOT / "deploy" / "image")) for name, value in pairs}
    env.pop("EXPLAINER_RUNTIME_SERVER")  # of the other host's target
    return {**env, "HOME": str(place / "tmp"), "TMPDIR": str(place / "tmp"), "MLSERVER_HOST": "127.0.0.1"}


CONFINED = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift &&
exec unshare --user --map-user={user} --map-group={user} "$@"
"""


def confined(writable, command):
    """A command as the image's user on a read-only root, in namespaces of its own; only `writable` is not.

    Where the machine does not allow that, the command itself.
    """
    outer = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", CONFINED.format(user=USER), "sh"]
    attempt = [
        *outer,
        str(writable),
        "sh",
        "-c",
        f'test "$(id -u)" = {USER} && ! touch "$0"',
        f"{writable}-no",
    ]
    allowed = shutil.which("unshare") and subprocess.run(attempt, capture_output=True, check=False)
    return [*outer, str(writable), *command] if allowed and allowed.returncode == 0 else command


def test_the_steps_of_the_image_make_a_server_that_explains_as_nobody(place, environment, explainer):
    (place / "tmp").mkdir(mode=0o777)
    (place / "tmp").chmod(0o777)
    classify = rowwise(weights())

    def respond(x):
        scores = classify(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    ports, log = free_ports(), place / "log"
    variables = {
        **image_env(place),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "MLSERVER_HTTP_PORT": str(ports.http),
        "MLSERVER_GRPC_PORT": str(ports.grpc),
        "MLSERVER_METRICS_PORT": str(ports.metrics),
    }
    entry = json.loads(said("ENTRYPOINT")[0])
    entry[0] = str(environment / "bin" / entry[0])
    with RestServer(Model(respond=respond)) as model, log.open("wb") as output:
        words = [str(explainer), "--predictor", f"http://127.0.0.1:{model.port}/cnn"]
        command = confined(place / "tmp", [*entry, *words])
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables, cwd=place / "tmp")
        with running(process, ports, log) as server:
            if command[0] == "unshare":
                assert Path(f"/proc/{process.pid}/uid_map").read_text().split()[0] == str(USER)
            image = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
            assert ask_rest(server, "boots", image, "explain").status == 200
            assert_healthy(variables, environment)


def assert_healthy(variables, environment):
    (check,) = said("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    words[0] = str(environment / "bin" / words[0])
    assert subprocess.run(words, env=variables, check=False, timeout=30).returncode == 0
    silent = {**variables, "MLSERVER_HTTP_PORT": "1"}
    done = subprocess.run(words, env=silent, check=False, timeout=30, capture_output=True)
    assert done.returncode == 1


def test_the_fresh_environment_runs_the_wheel_and_not_the_working_tree(environment):
    code = "import explainer_runtime, pathlib; print(pathlib.Path(explainer_runtime.__file__).parents[4])"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert Path(done.stdout.strip()) == environment
