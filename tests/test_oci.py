"""The OCI image of an artifact: the same bytes each time, and what strangers' tools read is the artifact."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pki
import pytest
from typer.testing import CliRunner

from explainer_runtime import artifact
from explainer_runtime.artifact import Fitted, oci
from explainer_runtime.cli import app
from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.platform import storage
from explainer_runtime.spec import AnchorImage, Grid, Inputs

INPUTS = Inputs(shape=(4, 4, 1), low=-0.5, high=0.5, classes=3)
FITTED = Fitted(AnchorImage(segmentation=Grid()), INPUTS, {"background": np.arange(6, dtype="float32")})
SKOPEO, BUILDAH = shutil.which("skopeo"), shutil.which("buildah")


@pytest.fixture
def place(tmp_path) -> Path:
    """A signed artifact."""
    artifact.save(FITTED, tmp_path / "one")
    pki.private(tmp_path / "key.pem")
    artifact.sign(tmp_path / "one", tmp_path / "key.pem")
    return tmp_path


def pack(place: Path, *words: object) -> dict:
    done = CliRunner().invoke(app, ["pack", str(place / "one"), *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def blob(layout: Path, descriptor: dict) -> bytes:
    """What a descriptor names, held to its digest and size."""
    algorithm, digits = descriptor["digest"].split(":")
    data = (layout / "blobs" / algorithm / digits).read_bytes()
    assert hashlib.new(algorithm, data).hexdigest() == digits
    assert len(data) == descriptor["size"]
    return data


def unpacked(layout: Path, to: Path) -> dict:
    """The manifest of a layout's image, whose layers are put into `to`, as the specification says."""
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (only,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(layout, only))
    config = json.loads(blob(layout, manifest["config"]))
    layers = [blob(layout, one) for one in manifest["layers"]]
    plain = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    assert config["rootfs"] == {"type": "layers", "diff_ids": plain}
    for data in layers:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert all((one.mtime, one.uid, one.gid, one.uname) == (0, 0, 0, "") for one in tar)
            tar.extractall(to, filter="data")
    return manifest


def test_the_layer_is_the_artifact_and_the_annotations_say_which(place):
    said = pack(place, "--oci", place / "layout")
    manifest = unpacked(place / "layout", place / "root")
    assert storage.explainers_in(place / "root") == [place / "root" / "models"]  # mounted as a volume
    report = artifact.verify(place / "root" / "models", trust=artifact.trusted(place / "key.pub"))
    assert report.signature.startswith("key ")
    assert report.digest == said["digest"]
    names = {name.rpartition(".")[2]: value for name, value in manifest["annotations"].items()}
    assert names["digest"] == f"sha256:{report.digest}"
    assert names["signature"] == (place / "one" / "model.sig").read_text()
    (only,) = json.loads((place / "layout" / "index.json").read_bytes())["manifests"]
    assert said["image"] == only["digest"]


def test_the_same_artifact_gives_the_same_bytes_whenever_and_wherever(place):
    shutil.copytree(place / "one", place / "there" / "another-name")
    for path in (place / "there").rglob("*"):
        os.utime(path, (0, 0))
    files = [oci.image(artifact.contents(place / name)) for name in ("one", "there/another-name")]
    assert files[0] == files[1]
    assert oci.archive(files[0]) == oci.archive(files[1])


def test_the_tar_holds_the_layout(place):
    pack(place, "--oci", place / "layout")
    pack(place, "--tar", place / "one.tar")
    with tarfile.open(place / "one.tar") as tar:
        tar.extractall(place / "again", filter="data")
    for path in (place / "layout").rglob("*"):
        if path.is_file():
            assert (place / "again" / path.relative_to(place / "layout")).read_bytes() == path.read_bytes()


def test_a_layer_lies_on_its_base(place):
    """As a modelcar needs it: a base with a shell, here any image, below the artifact."""
    image = oci.image({"explainer.json": b"{}"})
    below = json.loads(json.dumps({name: data.decode("latin-1") for name, data in image.items()}))
    for name, data in below.items():
        (place / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "base" / name).write_bytes(data.encode("latin-1"))
    pack(place, "--oci", place / "layout", "--base", place / "base")
    manifest = unpacked(place / "layout", place / "root")
    assert len(manifest["layers"]) == 2
    artifact.verify(place / "root" / "models")
    (first,) = [
        one for one in (place / "base" / "blobs" / "sha256").iterdir() if b"ustar" in one.read_bytes()
    ]
    first.write_bytes(first.read_bytes() + b"\0")
    with pytest.raises(InvalidInput, match="is another file"):
        oci.image(artifact.contents(place / "one"), base=place / "base")
    (place / "base" / "index.json").write_bytes(b"[" * 200_000)
    with pytest.raises(InvalidInput, match="expected an OCI image layout"):
        oci.image(artifact.contents(place / "one"), base=place / "base")


def test_what_is_there_is_not_written_over_and_what_is_damaged_not_packed(place):
    pack(place, "--oci", place / "layout")
    for words in (["--oci", place / "layout"], [], ["--oci", place / "x", "--tar", place / "y"]):
        assert CliRunner().invoke(app, ["pack", str(place / "one"), *map(str, words)]).exit_code == 2
    (place / "one" / "arrays.safetensors").write_bytes(b"other")
    done = CliRunner().invoke(app, ["pack", str(place / "one"), "--oci", str(place / "new")])
    assert done.exit_code == 2
    assert not (place / "new").exists()


@pytest.mark.parametrize("words", [["--oci", "one/layout"], ["--tar", "one/models/x.tar"], ["--oci", "one"]])
def test_nothing_is_packed_into_the_artifact_itself(place, words):
    before = artifact.contents(place / "one")
    done = CliRunner().invoke(app, ["pack", str(place / "one"), words[0], str(place / words[1])])
    assert done.exit_code == 2
    assert artifact.contents(place / "one") == before


def test_what_is_no_signature_is_not_packed_as_one(place):
    (place / "one" / "model.sig").write_bytes(b"\xff\xfe")
    done = CliRunner().invoke(app, ["pack", str(place / "one"), "--tar", str(place / "one.tar")])
    assert (done.exit_code, (place / "one.tar").exists()) == (2, False)
    assert "model.sig: is not the JSON it should be" in done.stderr


@pytest.mark.skipif(SKOPEO is None, reason="no skopeo (Debian has it)")
@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_skopeo_reads_it_and_writes_the_same_image(place, form):
    said = pack(place, "--oci" if form == "oci" else "--tar", place / "packed")
    to = place / "copied"
    words = ["--insecure-policy", "copy", "--quiet", "--preserve-digests"]  # it would compress the layer
    subprocess.run(
        [SKOPEO, *words, f"{form}:{place / 'packed'}", f"oci:{to}:latest"], check=True, timeout=120
    )
    (only,) = json.loads((to / "index.json").read_bytes())["manifests"]
    assert only["digest"] == said["image"]
    told = subprocess.run(
        [SKOPEO, "inspect", f"oci:{to}:latest"], check=True, capture_output=True, timeout=120
    )
    assert json.loads(told.stdout)["Digest"] == only["digest"]


@pytest.mark.skipif(
    BUILDAH is None or os.getuid() != 0 or "EXPLAINER_RUNTIME_BUILDAH" not in os.environ,
    reason="mounts by buildah, as root, are asked for by EXPLAINER_RUNTIME_BUILDAH=1",
)
def test_buildah_mounts_it_and_finds_the_artifact(place):
    pack(place, "--oci", place / "layout")
    own = ["--root", place / "storage", "--runroot", place / "run", "--storage-driver", "vfs"]

    def buildah(*words: object) -> str:
        line, env = [BUILDAH, *map(str, own), *map(str, words)], {**os.environ, "TMPDIR": str(place)}
        done = subprocess.run(line, capture_output=True, timeout=300, env=env)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    container = buildah("from", "--quiet", f"oci:{place / 'layout'}:latest")
    try:
        mounted = Path(buildah("mount", container))
        report = artifact.verify(mounted / "models", trust=artifact.trusted(place / "key.pub"))
        assert report.digest == artifact.verify(place / "one").digest
    finally:
        buildah("umount", container)
        buildah("rm", container)
