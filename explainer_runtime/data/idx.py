"""IDX, the format of the MNIST files: a magic number, the length of each axis, then bytes.

Source: the format as described on the MNIST page (LeCun, Cortes, Burges). Only unsigned bytes are read,
which is all that MNIST and its relatives use.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from explainer_runtime.errors import InvalidInput

_MOST_BYTES = 2**30
_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The array in an IDX file, gzipped where its name ends in `.gz`.

    Args:
        path: The file.
        axes: How many axes it must have: 3 for images, 1 for labels.

    Returns:
        uint8, of the shape in the file's header.

    Raises:
        InvalidInput: It cannot be read, has another magic number, or more or fewer bytes than its header
            promises; the message names the file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _read(stream, path, axes)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}", "data") from None


def _read(stream: io.BufferedIOBase, path: Path, axes: int) -> np.ndarray:
    header = stream.read(4 * (1 + axes))
    expected = struct.pack(">HBB", 0, _UNSIGNED_BYTES, axes)
    if header[:4] != expected:
        raise InvalidInput(
            f"{path}: expected the magic number {expected.hex()} of IDX bytes with {axes} axes, "
            f"got {header[:4].hex()}",
            "data",
        )
    if len(header) < 4 * (1 + axes):
        raise InvalidInput(f"{path}: ends within its header", "data")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = int(np.prod(shape, dtype=object))
    if size > _MOST_BYTES:
        raise InvalidInput(
            f"{path}: its header promises {size} bytes, at most {_MOST_BYTES} are read", "data"
        )
    content = stream.read(size + 1)  # one more, so that a file that goes on is noticed
    if len(content) != size:
        found = "more" if len(content) > size else str(len(content))
        raise InvalidInput(f"{path}: its header promises {size} bytes of data, it has {found}", "data")
    return np.frombuffer(content, np.uint8).reshape(shape)
