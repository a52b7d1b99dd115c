"""Files as values: text, arrays, numbers; what cannot be read is refused with its name and the reason."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from explainer_runtime.errors import InvalidInput


def text(path: Path, field: str) -> str:
    """The text of a file; `field` is what a refusal is about."""
    check(path, field)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: is not text", field) from None


def write_new(folder: Path, content: Mapping[str, bytes], field: str) -> None:
    """Write files, by their paths, into a directory that is new or empty.

    Raises:
        InvalidInput: There is something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder}: is there already, and not empty", field)
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def array(path: Path, keys: Sequence[str], field: str, kinds: str = "fiu") -> np.ndarray:
    """The numbers in a `.npy`, or in a `.npz` under the first of these keys there is, or alone; `kinds` are
    those of NumPy that count as numbers.

    Raises:
        InvalidInput: About `field`: no such file, damaged, pickled, not numbers, or none of the keys.
    """
    check(path, field)
    try:
        # Opened here: np.load leaves the file of a damaged archive open.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return _numbers(loaded, path, field, kinds)
            names = loaded.files
            key = next((key for key in keys if key in names), names[0] if len(names) == 1 else None)
            if key is None:
                held = ", ".join(names) or "nothing"
                raise InvalidInput(f"{path}: expected an array {' or '.join(keys)}, it has {held}", field)
            return _numbers(loaded[key], path, field, kinds)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it would need pickle" if "pickle" in str(error) else str(error)
        raise InvalidInput(f"{path}: cannot be read as NumPy arrays: {reason}", field) from None


def labels(path: Path, keys: Sequence[str]) -> np.ndarray | None:
    """Class numbers `(M,)` in a `.npz` that has them under one of these keys, one a row or one-hot; else
    None."""
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        key = None if isinstance(loaded, np.ndarray) else next((k for k in keys if k in loaded.files), None)
        if key is None:
            return None
        found = np.asarray(loaded[key])
    if found.ndim == 2:
        found = found.argmax(axis=1) if found.shape[1] > 1 else found[:, 0]
    whole = found.ndim == 1 and found.dtype.kind in "iufb" and (found == np.rint(found)).all()
    return found.astype(np.int64) if whole else None


def finite(x: np.ndarray, field: str) -> np.ndarray:
    """`x` as float32; NaN, infinity and what float32 cannot hold are refused."""
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused here
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise InvalidInput("expected finite numbers, got NaN or infinity", field)
    return x


def check(path: Path, field: str) -> None:
    """Refuse what is not a file."""
    if not path.is_file():
        raise InvalidInput(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}", field)


def _numbers(array: np.ndarray, path: Path, field: str, kinds: str) -> np.ndarray:
    if array.dtype.kind not in kinds:
        raise InvalidInput(f"{path}: expected numbers, got {array.dtype}", field)
    return array
