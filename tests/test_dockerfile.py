"""The Dockerfile: linted, built by Buildah where that is allowed, and its steps taken afresh.

Most machines may build no image. What is replayed there are its own words: the files that it copies, the
wheel that it builds, what it installs and takes out, its variables, user, entry point and health check.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helm_chart import ROOT
from oip_servers import Model, Output, RestServer
from packaging.requirements import Requirement
from servers import ask_rest, free_ports, running
from toys import rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.explainers import fit
from explainer_runtime.spec import AnchorImage, Grid, Inputs

TARGETS = ("mlserver", "mlserver-tensorflow", "kserve")
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
    packages = {f"packages-{target}" for target in TARGETS}
    assert set(made) == {"build", "base", *packages, *TARGETS}
    assert re.findall(r"^USER (.*)$", made["base"], flags=re.MULTILINE) == [f"{USER}:{USER}"]
    for target in TARGETS:
        assert re.search(rf"^FROM base AS {target}$", "\n".join(LINES), flags=re.MULTILINE)
        assert not re.findall(r"^(USER|RUN) ", made[target], flags=re.MULTILINE)
    (entry,) = said("ENTRYPOINT")
    assert json.loads(entry) == ["explainer-runtime", "serve"]


def test_bases_are_given_by_an_argument_that_takes_a_digest():
    assert {line.split()[0] for line in said("FROM")} == {"${PYTHON}", "build", "base"}
    assert said("ARG")[0].startswith("PYTHON=python:3.11-slim")


def test_the_context_holds_what_is_copied_and_little_else():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {word for line in said("COPY") for word in line.split()[:-1] if not line.startswith("--from")}
    assert set(kept) == copied - {"deploy/image/mlserver_alibi_explain"}
    assert all((ROOT / name).exists() for name in kept)


def test_nothing_is_asked_of_a_builder_that_only_buildkit_has():
    assert not [line for line in said("RUN") if "--mount" in line]
    used = {name for line in LINES for name in re.findall(r"\$\{(\w+)\}", line)}
    # An argument is not seen in the stages after its own by Buildah 1.28.
    for name in used - {"PYTHON"}:
        (declared,) = (at for at, line in enumerate(LINES) if line.startswith(f"ARG {name}="))
        ends = [at for at, line in enumerate(LINES) if line.startswith("FROM ") and at > declared]
        assert all(at < ends[0] for at, line in enumerate(LINES) if f"${{{name}}}" in line)


def test_the_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"VERSION={project['version']}" in said("ARG")


@pytest.mark.parametrize("target", [*TARGETS, "build"])
def test_every_package_is_pinned_with_its_digests(target):
    for line in locked(target):
        assert re.match(r"[a-z0-9-]+==[\w.!]+( ; .*)?( --hash=sha256:[0-9a-f]{64})+$", line), line


@pytest.mark.parametrize("target", TARGETS)
def test_the_pins_are_what_the_package_asks_for(target):
    """Otherwise: `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"kserve": ["kserve"], "mlserver": ["mlserver"], "mlserver-tensorflow": ["mlserver"]}[target]
    wanted = [*project["dependencies"]]
    for extra in (*extras, "superpixels"):
        wanted += project["optional-dependencies"][extra]
    pinned = {}
    for line in locked(target):
        name, _, rest = line.partition("==")
        pinned.setdefault(name, []).append(rest.split()[0])
    if target == "mlserver-tensorflow":
        wanted += [
            one.replace("tensorflow>", "tensorflow-cpu>")
            for one in project["optional-dependencies"]["tensorflow"]
        ]
    for one in map(Requirement, wanted):
        assert pinned.get(one.name), one.name
        assert all(one.specifier.contains(version) for version in pinned[one.name]), one


def locked(target):
    text = (ROOT / "deploy" / "image" / "requirements" / f"{target}.txt").read_text().replace("\\\n", "")
    return [re.sub(r" +", " ", line).strip() for line in text.splitlines() if not line.startswith("#")]


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
    for line in said("COPY")[1:3]:
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
    assert words[0] == "/opt/build/bin/pip"
    words.remove("--no-build-isolation")  # the build's own environment is the stage's
    command = [sys.executable, "-m", "pip", *words[1:], "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, cwd=place / "src", check=True, timeout=300)
    (made,) = (place / "wheels").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(place, wheel):
    """A fresh environment with what the target `mlserver` installs."""
    home = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    (steps,) = (line for line in said("RUN") if line.endswith("/image/imports.py mlserver"))
    steps = [step.strip() for step in steps.split("&&")]
    assert [step.split()[0] for step in steps] == [
        "/opt/build/bin/pip", "/opt/build/bin/pip", "sh", "/opt/explainer/bin/python",
    ]  # fmt: skip
    # uv does the same as pip in a tenth of the time; `make` has it beside the interpreter.
    uv, python = Path(sys.executable).parent / "uv", home / "bin" / "python"
    pip = [uv, "pip", "install", "--python", python, "--quiet", "--no-deps"]
    if not uv.exists():
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    lock = re.search(r"-r /image/(\S+)", steps[0])[1]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "deploy/image" / lock], check=True, timeout=600)
    subprocess.run([*pip, wheel], check=True, timeout=600)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for step in steps[2:]:
        step = step.replace("/opt/explainer", str(home)).replace("/image/", f"{ROOT}/deploy/image/")
        subprocess.run(step.split(), check=True, timeout=300, env=clean, stdout=subprocess.DEVNULL)
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
    for name in ("PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"):  # of the build
        env.pop(name)
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


def test_the_image_is_as_small_as_is_said(environment):
    """Megabytes on a base of 130 (python:3.11-slim); an image of `mlserver` then has less than 460."""
    size = sum(path.lstat().st_size for path in environment.rglob("*") if not path.is_dir())
    assert size < 330e6


def test_the_fresh_environment_runs_the_wheel_and_not_the_working_tree(environment):
    code = "import explainer_runtime, pathlib; print(pathlib.Path(explainer_runtime.__file__).parents[4])"
    command = [environment / "bin" / "python", "-c", code]
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/", env=clean)
    assert Path(done.stdout.strip()) == environment


# --- built ------------------------------------------------------------------------------------------------

BASE = ROOT / ".image-base" / "rootfs.tar"


def buildah(*words, check=True):
    """Buildah in a place of its own, without a daemon and without layers of the host's."""
    command = ["buildah", *map(str, words)]
    env = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0 or not check, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(place):
    """The target `mlserver`, on a Debian of debootstrap's making; its name."""
    if not BASE.exists():
        pytest.skip("no base to build on; `make image-base` makes one, as root, with buildah and debootstrap")
    names = "localhost/explainer-runtime-base", "localhost/explainer-runtime-test"
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, BASE, "/")
    buildah("commit", "--quiet", "--rm", "--format", "docker", container, names[0])
    words = [
        "--format",
        "docker",
        "--layers=false",
        "--build-arg",
        f"PYTHON={names[0]}",
        "--target",
        "mlserver",
    ]
    buildah("bud", "--quiet", *words, "--tag", names[1], ROOT)
    yield names[1]
    buildah("rmi", "--force", *names, check=False)


def test_buildah_builds_the_image_with_everything_that_it_says(built, explainer):
    config = json.loads(buildah("inspect", "--type", "image", built))["Docker"]["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == json.loads(said("ENTRYPOINT")[0])
    assert config["Healthcheck"]["Test"][0] == "CMD"
    (version,) = (line.removeprefix("VERSION=") for line in said("ARG") if line.startswith("VERSION="))
    assert config["Labels"]["org.opencontainers.image.version"] == version
    container = buildah("from", built)
    try:
        told = buildah("run", container, "--", "explainer-runtime", "--help")
        assert "serve" in told
        assert buildah("run", container, "--", "id", "-u") == str(USER)
        told = buildah("run", "--volume", f"{explainer}:/mnt/models:ro", container, "--",
                       "explainer-runtime", "inspect", "--needs", "--json", "/mnt/models")  # fmt: skip
        assert json.loads(told)["image"]["target"] == "mlserver"
    finally:
        buildah("rm", container)
