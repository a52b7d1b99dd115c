"""Where the files lie that a platform has put into the container.

A platform says it with one address. KServe and Seldon download what it names to `/mnt/models` before the
container starts, so by then it is a directory, whatever was asked for; nothing is downloaded here.

Kubernetes mounts a ConfigMap or Secret as links into a hidden directory (`..data`), which it swaps when the
object changes. An artifact may hold no links (what is checked must be what is read), so such a mount is
copied once, when the server starts, and the copy is checked like any artifact.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from explainer_runtime.artifact.directory import MANIFEST
from explainer_runtime.errors import InvalidSpec

MOUNT = Path("/mnt/models")
"""Where KServe's and Seldon's initialisers put what they have downloaded."""
MOST_MOUNTED = 64 * 2**20
"""Bytes of a mount that is copied; a ConfigMap or Secret holds 1 MiB, several of them may be projected."""


def locate(uri: str, mount: Path = MOUNT) -> Path:
    """The directory that a storage address stands for.

    Args:
        uri: A path, `file://` and a path, or an address that an initialiser has downloaded to `mount`.
        mount: Where initialisers download to.

    Raises:
        InvalidSpec: There is nothing there.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path)) if parts.scheme else Path(uri)
        if not path.is_dir():
            raise InvalidSpec(f"STORAGE_URI: {uri} is not a directory")
        return path
    if mount.is_dir() and any(mount.iterdir()):
        return mount
    raise InvalidSpec(
        f"STORAGE_URI: {uri} has not been downloaded to {mount}; this server downloads nothing: let the "
        "platform's storage initialiser do it, mount it, or give a path"
    )


def explainers_in(path: Path) -> list[Path]:
    """The explainers in a directory: itself, or those of its subdirectories, by name.

    Raises:
        InvalidSpec: There is none.
    """
    if (path / MANIFEST).is_file():
        return [path]
    found = sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}"))
    found = [one for one in found if not one.name.startswith("..")]
    if not found:
        raise InvalidSpec(f"{path}: no {MANIFEST} in it or in a directory of it; expected a fitted explainer")
    return found


def model_in(path: Path) -> Path | None:
    """The Keras model at a path: a `.keras` file, a SavedModel, or the one that a directory holds.

    Servers of TensorFlow keep versions in numbered directories; the highest is taken. Other formats are
    not for this package to open: None.
    """
    if path.suffix == ".keras" or (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        return None
    files = sorted(path.glob("*.keras"))
    if len(files) == 1:
        return files[0]
    versions = [one.parent for one in path.glob("*/saved_model.pb") if one.parent.name.isdigit()]
    return max(versions, key=lambda one: int(one.name), default=None)


def settle(path: Path, scratch: Path) -> Path:
    """`path`, or a copy of it under `scratch` where it is a mounted ConfigMap or Secret.

    Raises:
        InvalidSpec: A link leads out of the mount, or it is larger than any ConfigMap can be.
    """
    if not (path / "..data").is_symlink():
        return path
    copy = Path(tempfile.mkdtemp(prefix="mounted-", dir=scratch))
    left = MOST_MOUNTED
    for entry in sorted(path.iterdir()):
        if not entry.name.startswith(".."):
            left = _copy(entry, path.resolve(), copy / entry.name, left)
    return copy


def _copy(source: Path, root: Path, to: Path, left: int) -> int:
    """Copy a file or a directory, through links that stay under `root`; the bytes left of the allowance."""
    target = source.resolve()
    if not target.is_relative_to(root):
        raise InvalidSpec(f"{source}: is a link out of the directory that is mounted")
    if target.is_dir():
        if source.parent.resolve().is_relative_to(target):
            raise InvalidSpec(f"{source}: is a link to a directory that it is in")
        for entry in sorted(target.iterdir()):
            left = _copy(entry, root, to / entry.name, left)
        return left
    left -= target.stat().st_size
    if left < 0:
        raise InvalidSpec(f"{source}: more than {MOST_MOUNTED} bytes in links; mount the files themselves")
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(target, to)
    return left
