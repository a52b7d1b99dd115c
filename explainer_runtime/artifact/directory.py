"""A directory that is read as if someone hostile had filled it.

Names come from a closed pattern, everything is a regular file, nothing is followed, and each file is
opened relative to the directory's descriptor and read once: the bytes whose SHA-256 is checked are the
bytes that are parsed, whatever happens to the file meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidArtifact

MANIFEST = "explainer.json"
ARRAYS = "arrays.safetensors"
MODELS = "models"
BESIDE = "model-settings.json"
"""Model servers keep their own settings beside the artifact; see `beside.py`."""
SIGNATURE = "model.sig"
"""Who vouches for all the other files; see `signing.py`."""
PROVENANCE = "provenance.json"
"""What it was made of; see `provenance.py`."""
UNLISTED = {MANIFEST, BESIDE, SIGNATURE, PROVENANCE}
"""What may lie there without being listed in the manifest."""

WORD = re.compile(r"[a-z0-9_]{1,64}")
"""What an array or a model may be called."""
_FILE = re.compile(rf"{re.escape(ARRAYS)}|{MODELS}/{WORD.pattern}\.(json|safetensors)")
_MOST_ENTRIES = 4096
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Directory:
    """An open artifact directory; use it in a `with` statement.

    The path itself is the operator's and may lead through links (mounted models do); nothing inside may.

    Raises:
        InvalidArtifact: There is no directory at `path`, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidArtifact(f"expected the directory of an artifact: {reason}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def names(self) -> set[str]:
        """The path, relative to the directory, of every file in it.

        Raises:
            InvalidArtifact: An entry that no artifact has: another name, a link, a device, a pipe, a
                folder other than `models`.
        """
        found = set()
        try:
            for name, mode in self._entries(self._root):
                if name == MODELS and stat.S_ISDIR(mode):
                    found |= self._model_names()
                else:
                    found.add(_checked(name, mode))
        except OSError as error:
            raise InvalidArtifact(f"cannot be listed: {error.strerror}") from None
        return found

    def has(self, name: str) -> bool:
        """Whether there is anything of this name, whatever it is."""
        try:
            os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return False
        return True

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a file.

        Raises:
            InvalidArtifact: It is missing, not a regular file, or has more than `limit` bytes.
        """
        try:
            file = self._open(name)
            with os.fdopen(file, "rb") as stream:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    raise InvalidArtifact(f"{name}: is not a regular file")
                # One byte more is asked for than it has, so that a file that grows meanwhile is noticed.
                data = stream.read(status.st_size + 1) if status.st_size <= limit else b""
        except OSError as error:
            raise InvalidArtifact(f"{name}: cannot be read: {error.strerror}") from None
        if status.st_size > limit or len(data) > limit:
            raise InvalidArtifact(f"{name}: has more than the {limit} bytes it may have")
        return data

    def read_pinned(self, name: str, size: int, sha256: str) -> bytes:
        """All bytes of a file of known size and SHA-256.

        Raises:
            InvalidArtifact: It is not that file.
        """
        data = self.read(name, size)
        if len(data) != size:
            raise InvalidArtifact(f"{name}: expected {size} bytes, got {len(data)}; copy the artifact again")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InvalidArtifact(
                f"{name}: its SHA-256 is not the one in {MANIFEST}; copy the artifact again"
            )
        return data

    def _open(self, name: str) -> int:
        # Not to wait: opening a pipe that nobody writes to would block before it can be refused.
        flags = _OPEN | os.O_NONBLOCK
        folder, _, base = name.rpartition("/")
        if not folder:
            return os.open(base, flags, dir_fd=self._root)
        parent = os.open(folder, _OPEN | os.O_DIRECTORY, dir_fd=self._root)
        try:
            return os.open(base, flags, dir_fd=parent)
        finally:
            os.close(parent)

    def _model_names(self) -> set[str]:
        folder = os.open(MODELS, _OPEN | os.O_DIRECTORY, dir_fd=self._root)
        try:
            return {_checked(f"{MODELS}/{name}", mode) for name, mode in self._entries(folder)}
        finally:
            os.close(folder)

    def _entries(self, folder: int) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count == _MOST_ENTRIES:
                    raise InvalidArtifact(f"more than {_MOST_ENTRIES} files; this is not an artifact")
                yield entry.name, entry.stat(follow_symlinks=False).st_mode


def check_listed(listed: set[str], found: set[str]) -> None:
    """Refuse a directory whose files are not the ones its manifest lists.

    Raises:
        InvalidArtifact: A listed name that no artifact has, a file that is not listed, one that is missing.
    """
    for name in sorted(listed):
        if not _FILE.fullmatch(name):
            raise InvalidArtifact(f"{MANIFEST}: lists {short(name)}, which is no file of an artifact")
    for name in sorted(found - listed - UNLISTED):
        raise InvalidArtifact(f"{name}: is not listed in {MANIFEST}; remove it or copy the artifact again")
    for name in sorted(listed - found):
        raise InvalidArtifact(f"{name}: is listed in {MANIFEST} but missing; copy the artifact again")


def _checked(name: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        raise InvalidArtifact(f"{short(name)}: is a symbolic link; an artifact holds the files themselves")
    if stat.S_ISDIR(mode):
        raise InvalidArtifact(f"{short(name)}: is a folder; an artifact has none but {MODELS}")
    if not stat.S_ISREG(mode):
        raise InvalidArtifact(f"{short(name)}: is not a regular file")
    if name not in UNLISTED and not _FILE.fullmatch(name):
        raise InvalidArtifact(
            f"{short(name)}: an artifact has no such file; it holds {MANIFEST}, {ARRAYS} and "
            f"{MODELS}/<name>.json with .safetensors, never h5, pickles, npy, archives or code"
        )
    return name
