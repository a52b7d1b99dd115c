"""Put a set of files in place of a directory, so that a reader sees the old ones or the new ones.

The files are written to a hidden sibling, flushed to the disk, and renamed into place. POSIX renames one
directory over another only when that is empty, so an artifact that is replaced is first renamed away: for
a moment there is none at its path, and never half of one. Whoever has the old directory open keeps
reading the old one until it is removed, and is told when that happens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import BESIDE, MANIFEST, Directory
from explainer_runtime.artifact.manifest import FORMAT
from explainer_runtime.errors import InvalidArtifact


def replace(path: Path, files: Mapping[str, bytes]) -> None:
    """Make `path` a directory of exactly these files, and of the server's settings that lay there.

    Args:
        path: Where; its parent must exist. What is there must be nothing, an empty directory, or an
            artifact, damaged or not.
        files: Content by relative path, with `/` between folder and file. Permissions follow the umask.

    Raises:
        InvalidArtifact: There is something else at `path`.
        OSError: The disk is full, permission is missing, ...; what was there is still there.
    """
    settings = kept(path)
    fresh = _sibling(path)
    try:
        _write(fresh, {**files, **settings})
        _swap(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # it is gone already when all went well


def put(path: Path, data: bytes) -> None:
    """Write one file into a directory, or replace it there: a reader sees all of it or none.

    Raises:
        OSError: The disk is full, permission is missing, ...; what was there is still there.
    """
    fresh = _sibling(path.parent)  # a file more in the directory would not be an artifact's
    try:
        with open(fresh, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(path)
        _flush(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def kept(path: Path) -> dict[str, bytes]:
    """What stays of an artifact that is replaced, of nothing where there is none.

    Raises:
        InvalidArtifact: What is at `path` is something else, and will not be replaced.
    """
    if not os.path.lexists(path):
        return {}
    if path.is_symlink():
        raise InvalidArtifact("is a symbolic link; name the directory it leads to, or remove it first")
    refusal = "will not be replaced, because it is not an artifact"
    try:
        with Directory(path) as earlier:
            names = earlier.names()
            if not names:
                return {}
            manifest = strict_json.parse(earlier.read(MANIFEST, strict_json.LIMIT), MANIFEST)
            settings = {BESIDE: earlier.read(BESIDE, strict_json.LIMIT)} if BESIDE in names else {}
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{refusal}: {error}") from None
    if manifest.get("format") != FORMAT:
        raise InvalidArtifact(f"{refusal}: its {MANIFEST} is of another format")
    return settings


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    folders = {root, *((root / name).parent for name in files)}
    for folder in sorted(folders):
        folder.mkdir()
    for name, data in files.items():
        with open(root / name, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    for folder in folders:
        _flush(folder)


def _swap(fresh: Path, path: Path) -> None:
    old = _sibling(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(old)
    try:
        fresh.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            old.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
