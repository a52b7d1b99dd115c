"""The bundle for sites without a network, made small and installed where there is none."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helm_chart import ROOT, TOOLS

sys.path.insert(0, str(ROOT / "scripts"))
import make_bundle

WHERE = "import explainer_runtime; print(explainer_runtime.__file__)"
SMALL = r"(typing-extensions|typer|click|rich|shellingham|markdown-it-py|mdurl|pygments|annotated-doc)=="


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of the package and the few others that its command line takes to say what it can."""
    folder = tmp_path_factory.mktemp("bundle")
    text = (ROOT / "deploy" / "image" / "requirements" / "mlserver.txt").read_text()
    blocks = re.split(r"\n(?=[a-z])", text)
    small = folder / "small.txt"
    small.write_text("\n".join(block for block in blocks if re.match(SMALL, block)) + "\n")
    try:
        make_bundle.build(folder / "bundle", "mlserver", small)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no packages to be had here: {error}")
    return folder / "bundle"


def test_every_file_is_there_as_the_sums_say(bundle):
    lines = [line.split("  ") for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert set(listed) == found - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    assert {"Dockerfile", "pyproject.toml"} <= {path.name for path in (bundle / "image").iterdir()}


def test_the_bill_names_every_wheel_with_its_digest(bundle):
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (bundle / "wheels").iterdir()}
    assert {one["hashes"][0]["content"] for one in bill["components"]} == digests
    assert "explainer-runtime" in {one["name"] for one in bill["components"]}
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9-]+@\S+", one["purl"]) for one in bill["components"])


@pytest.mark.skipif(not (TOOLS / "helm3").exists(), reason="no .tools with helm; `make test` fetches them")
def test_the_chart_in_it_renders(bundle):
    (chart,) = (bundle / "charts").iterdir()
    values = ROOT / "charts/explainer-runtime/ci/deployment-values.yaml"
    done = subprocess.run(
        [TOOLS / "helm3", "template", "fashion", chart, "-f", values], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_installs_without_a_network_and_works(bundle, tmp_path):
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    pip = [home / "bin" / "pip", "--isolated", "install", "--quiet", "--disable-pip-version-check"]
    words = [
        "--no-index",
        "--find-links",
        "wheels",
        "--no-deps",
        "--require-hashes",
        "-r",
        "requirements.txt",
    ]
    done = alone([*pip, *words], bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    done = alone([home / "bin" / "explainer-runtime", "--help"], bundle)
    assert "serve" in done.stdout, done.stderr
    assert Path(alone([home / "bin" / "python", "-c", WHERE], tmp_path).stdout.strip()).is_relative_to(home)


def alone(command, folder):
    """A command in a network namespace of its own; elsewhere with proxies that lead nowhere."""
    nowhere = "http://127.0.0.1:9"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    outer = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare"):
        tried = subprocess.run([*outer, "true"], check=False, stderr=subprocess.DEVNULL)
        command = [*(outer if tried.returncode == 0 else ()), *command]
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
    )


def test_metadata_is_that_of_the_wheel_itself_and_not_of_one_inside(tmp_path):
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n")
        archive.writestr("a/vendor/b-2.dist-info/METADATA", "Name: b\nVersion: 2\n")
    assert make_bundle.metadata(wheel)["Name"] == "a"
