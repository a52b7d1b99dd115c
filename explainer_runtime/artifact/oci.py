"""An artifact as an OCI image: what clusters mount as a volume, or run beside a server, from any registry.

One layer holds the directory as `/models`, which is where KServe's modelcars and `oci+native` volumes look.
It is a plain tar without times, owners or compression: the same artifact gives the same bytes, so the digest
of the image says as much as that of the artifact. A modelcar's image is run, as `sh`, so for those the layer
goes on top of a base that has one; a volume needs none.

Source: https://github.com/opencontainers/image-spec, v1.1: image-layout, manifest, config, layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import MANIFEST, SIGNATURE
from explainer_runtime.artifact.manifest import digest_of
from explainer_runtime.errors import InvalidInput

ROOT = "models"
_VENDOR = "application/vnd.oci.image"
_OURS = "io.github.explainer-runtime.artifact"
_BLOBS = "blobs/sha256/"


def image(
    files: Mapping[str, bytes], *, architecture: str = "amd64", base: Path | None = None
) -> dict[str, bytes]:
    """The files of an OCI image layout, content by path; one image, one layer more than its base.

    Args:
        files: Content by path of what is to lie in `/models`; `explainer.json` among them.
        architecture: Of the nodes, as Go names it; that of the base where there is one.
        base: Directory of an image layout with one image, which the layer is to lie on.

    Raises:
        InvalidInput: `base` is not that.
        InvalidArtifact: What should be its signature is none.
    """
    layer = _tar({f"{ROOT}/{path}": data for path, data in files.items()})
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    layers: list[Any] = []
    blobs: dict[str, bytes] = {}
    if base is not None:
        config, layers, blobs = _based(base)
    config["rootfs"]["diff_ids"].append(f"sha256:{_sha(layer)}")
    if config.get("history"):  # one entry for each layer, or none at all
        config["history"].append({"created_by": "explainer-runtime pack"})
    annotations = {f"{_OURS}.digest": f"sha256:{digest_of(files[MANIFEST])}"}
    if SIGNATURE in files:
        strict_json.parse(files[SIGNATURE], SIGNATURE)
        annotations[f"{_OURS}.signature"] = files[SIGNATURE].decode()
    written = _json(config)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_VENDOR}.manifest.v1+json",
            "config": _descriptor(f"{_VENDOR}.config.v1+json", written),
            "layers": [*layers, _descriptor(f"{_VENDOR}.layer.v1.tar", layer)],
            "annotations": annotations,
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_VENDOR}.index.v1+json",
        "manifests": [
            {
                **_descriptor(f"{_VENDOR}.manifest.v1+json", manifest),
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
        ],
    }
    blobs |= {_BLOBS + _sha(data): data for data in (layer, written, manifest)}
    return {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index), **blobs}


def digest(layout: Mapping[str, bytes]) -> str:
    """The digest of the image in a layout, as registries and clusters name it."""
    return str(json.loads(layout["index.json"])["manifests"][0]["digest"])


def archive(layout: Mapping[str, bytes]) -> bytes:
    """The layout as one tar, as `oci-archive:` means it."""
    return _tar(layout)


def _based(base: Path) -> tuple[dict[str, Any], list[Any], dict[str, bytes]]:
    """Configuration, layers and their blobs of the only image in a layout."""

    def blob(descriptor: Any) -> bytes:
        algorithm, _, digits = str(descriptor["digest"]).partition(":")
        data = (base / _BLOBS / PurePosixPath(digits).name).read_bytes()
        if algorithm != "sha256" or _sha(data) != digits:
            raise ValueError(f"{descriptor['digest']} is another file")
        return data

    try:
        (only,) = json.loads((base / "index.json").read_bytes())["manifests"]
        manifest = json.loads(blob(only))
        config, layers = json.loads(blob(manifest["config"])), manifest["layers"]
        config["rootfs"]["diff_ids"] = list(config["rootfs"]["diff_ids"])
        return config, layers, {_BLOBS + _sha(data): data for data in map(blob, layers)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{base}: expected an OCI image layout with one image: {error}", "base") from None


def _tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files and their folders, in order, with nothing in it that differs by machine."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents if folder.name}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted({*files, *folders}):
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755 if path in folders else 0o644
            entry.type = tarfile.DIRTYPE if path in folders else tarfile.REGTYPE
            entry.size = 0 if path in folders else len(files[path])
            tar.addfile(entry, None if path in folders else io.BytesIO(files[path]))
    return buffer.getvalue()


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{_sha(data)}", "size": len(data)}


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
