"""What a platform has mounted: addresses, folders of explainers, ConfigMaps, models beside them."""

from __future__ import annotations

import pytest

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidArtifact, InvalidSpec
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.platform import storage
from explainer_runtime.spec import AnchorImage, Grid, Inputs

CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)


@pytest.fixture(scope="module")
def anchor(tmp_path_factory):
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant")
    return artifact.save(fit(spec, inputs=CONTRACT), tmp_path_factory.mktemp("anchor") / "anchor")


def as_config_map(source, mount):
    """`source` as Kubernetes mounts a ConfigMap: links into a hidden directory that is swapped at once."""
    hidden = mount / "..2026_11_22_03_00_00.1"
    hidden.mkdir(parents=True)
    for file in source.iterdir():
        (hidden / file.name).write_bytes(file.read_bytes())
        (mount / file.name).symlink_to(f"..data/{file.name}")
    (mount / "..data").symlink_to(hidden.name)
    return mount


def test_an_address_is_the_directory_that_it_names(tmp_path):
    spaced = tmp_path / "a b"
    spaced.mkdir()
    assert storage.locate(str(spaced)) == spaced
    assert storage.locate(f"file://{tmp_path}/a%20b") == spaced


@pytest.mark.parametrize("uri", ["s3://bucket/cf", "gs://bucket/cf", "pvc://claim/cf", "oci://registry/cf:1"])
def test_an_address_elsewhere_is_where_the_platform_has_downloaded_it(anchor, tmp_path, uri):
    assert storage.locate(uri, mount=anchor) == anchor
    (tmp_path / "empty").mkdir()
    for mount in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InvalidSpec, match=r"STORAGE_URI: .* downloads nothing"):
            storage.locate(uri, mount=mount)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match=r"STORAGE_URI: .* is not a directory"):
        storage.locate(str(tmp_path / "none"))


def test_a_directory_is_an_explainer_or_holds_some(anchor, tmp_path):
    assert storage.explainers_in(anchor) == [anchor]
    for name in ("b", "a", "..hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "explainer.json").write_text("{}")
    assert storage.explainers_in(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InvalidSpec, match="expected a fitted explainer"):
        storage.explainers_in(tmp_path / "a" / "none")


def test_a_mounted_config_map_becomes_an_artifact_by_being_copied(anchor, tmp_path):
    mount = as_config_map(anchor, tmp_path / "mount")
    with pytest.raises(InvalidArtifact, match="symbolic link"):
        artifact.verify(mount)
    copy = storage.settle(mount, tmp_path)
    assert artifact.verify(copy).digest == artifact.verify(anchor).digest
    assert not any(path.is_symlink() for path in copy.rglob("*"))


def test_folders_within_a_mount_are_copied_too(tmp_path):
    mount = tmp_path / "mount"
    (mount / "..1" / "models").mkdir(parents=True)
    (mount / "..1" / "models" / "encoder.json").write_text("{}")
    (mount / "..data").symlink_to("..1")
    (mount / "models").symlink_to("..data/models")
    copy = storage.settle(mount, tmp_path)
    assert (copy / "models" / "encoder.json").read_text() == "{}"


def test_an_ordinary_directory_is_not_copied(anchor, tmp_path):
    assert storage.settle(anchor, tmp_path) == anchor


def test_links_out_of_a_mount_are_refused(anchor, tmp_path):
    mount = as_config_map(anchor, tmp_path / "mount")
    (tmp_path / "secret").write_text("sesame")
    (mount / "arrays.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidSpec, match="out of the directory"):
        storage.settle(mount, tmp_path)


def test_a_mount_larger_than_any_config_map_is_refused(anchor, tmp_path):
    mount = as_config_map(anchor, tmp_path / "mount")
    with (mount / "..data" / "explainer.json").open("wb") as file:
        file.truncate(storage.MOST_MOUNTED + 1)
    with pytest.raises(InvalidSpec, match="bytes in links"):
        storage.settle(mount, tmp_path)


def test_a_model_is_a_file_a_saved_model_or_the_latest_of_numbered_ones(tmp_path):
    for version in ("2", "10", "old"):
        (tmp_path / "tf" / version).mkdir(parents=True)
        (tmp_path / "tf" / version / "saved_model.pb").touch()
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "cnn.keras").touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    assert storage.model_in(tmp_path / "keras" / "cnn.keras") == tmp_path / "keras" / "cnn.keras"
    assert storage.model_in(tmp_path / "keras") == tmp_path / "keras" / "cnn.keras"
    assert storage.model_in(tmp_path / "tf" / "2") == tmp_path / "tf" / "2"
    assert storage.model_in(tmp_path / "tf") == tmp_path / "tf" / "10"
    assert storage.model_in(tmp_path / "onnx") is None
    (tmp_path / "keras" / "second.keras").touch()
    assert storage.model_in(tmp_path / "keras") is None


def test_a_mount_that_links_to_itself_is_refused(anchor, tmp_path):
    mounted = as_config_map(anchor, tmp_path / "mount")
    (mounted / "models").symlink_to(".")
    with pytest.raises(InvalidSpec, match="is a link to a directory that it is in"):
        storage.settle(mounted, tmp_path)
