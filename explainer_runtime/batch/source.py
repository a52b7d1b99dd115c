"""Records, block after block: an id and a row each, never more of them in memory than are worked on.

A source is parquet (a file, or a folder of them), a folder of pictures, or NumPy's arrays. It gives the same
blocks whenever it is read: block 7 holds the same records, so that what was done of them need not be done
again. A record that cannot be used stays one, with the reason; so does a file of which nothing can be read.

Source of the formats: https://parquet.apache.org/docs/file-format/, and `numpy.lib.format`.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from explainer_runtime import pictures
from explainer_runtime.batch.records import ID, REASON, id_of, row_column, tensors
from explainer_runtime.errors import InvalidInput

_PATH = "path"
"""The column of rows where they are files."""
_NAMELESS = "cannot be read: its name is not UTF-8"
_AHEAD = 256
"""Records that are read from a file at a time, at most."""


@dataclass
class Source:
    """Where records come from.

    Attributes:
        path: What was named.
        kind: `parquet`, `pictures` or `arrays`.
        said: What tells it from other sources, as JSON values: number of files, and a digest of what of
            them is cheap to read: names, sizes, and their last bytes, but of pictures.
        total: How many records there are.
        id, column: Columns of ids and rows, as `Reader` takes them.
    """

    path: Path
    kind: str
    said: Mapping[str, Any]
    total: int
    id: str
    column: str | None
    _batches: Callable[[Callable[[int, int], bool]], Iterator[pa.Table]] = field(repr=False)

    def blocks(self, size: int, done: Callable[[int], bool]) -> Iterator[tuple[int, pa.Table]]:
        """Blocks of `size` records, the last maybe smaller, each with its number; those that are `done` are
        passed over, and of their records the ids alone are read, if anything is.

        A record without an id, or with one that came before, has a reason why it will not be explained.
        """
        seen: dict[bytes, int] = {}
        waiting: list[pa.Table] = []
        held = start = 0

        def wanted(first: int, count: int) -> bool:
            return not all(done(number) for number in range(first // size, (first + count - 1) // size + 1))

        for table in self._batches(wanted):
            checked = _with_reasons(table, self, start, seen)
            start += len(table)
            waiting.append(checked)
            held += len(checked)
            while held >= size:
                together = pa.concat_tables(waiting, promote_options="default")
                number = (start - held) // size
                if not done(number):
                    yield number, together.slice(0, size).combine_chunks()
                waiting, held = [together.slice(size)], held - size
        if held and not done(number := (start - held) // size):
            yield number, pa.concat_tables(waiting, promote_options="default").combine_chunks()


def opened(path: Path, id: str | None = None, column: str | None = None) -> Source:
    """The source that `path` is.

    Args:
        path: A `.parquet` file, a folder of them or of pictures, at any depth; a `.npz` with `x`, and `id`
            where there are ids; a `.npy`.
        id: Column of ids in parquet; None is `id`.
        column: Column of rows in parquet; None is the only one that may be.

    Raises:
        InvalidInput: None of these, nothing in it, or no such columns.
    """
    if path.is_dir():
        names = sorted(
            os.path.relpath(os.path.join(folder, name), path)
            for folder, _, found in os.walk(path)
            for name in found
            if not name.startswith((".", "_"))
        )
        tables = [name for name in names if name.endswith(".parquet")]
        shown = [name for name in names if Path(name).suffix.lower() in pictures.SUFFIXES]
        if tables:
            return _parquet(path, tables, id or ID, column)
        if shown:
            return _pictures(path, shown)
        raise InvalidInput(f"{path}: there are neither .parquet files nor pictures in it", "data")
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", "data")
    if path.suffix == ".parquet":
        return _parquet(path.parent, [path.name], id or ID, column)
    if path.suffix in (".npz", ".npy"):
        return _arrays(path)
    raise InvalidInput(
        f"{path}: expected .parquet, .npz, .npy, or a folder of .parquet files or pictures", "data"
    )


# --- kinds of sources -----------------------------------------------------------------------------------


def _pictures(path: Path, names: Sequence[str]) -> Source:
    def batches(wanted: Callable[[int, int], bool]) -> Iterator[pa.Table]:
        for start in range(0, len(names), _AHEAD):
            some = names[start : start + _AHEAD]
            paths = [str(path / name) if _written(name) == name else None for name in some]
            reasons = [None if place else _NAMELESS for place in paths]
            yield pa.table({ID: [*map(_written, some)], _PATH: paths, REASON: reasons})

    lines = (f"{name} {(path / name).stat().st_size}" for name in names)
    return Source(path, "pictures", _said(len(names), lines), len(names), ID, _PATH, batches)


def _arrays(path: Path) -> Source:
    with _member(path, "x") as (stream, shape, dtype):
        del stream
    ids = None
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as held:
                ids = held["id"] if "id" in held.files else None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidInput(f"{path}: `id` cannot be read: {error}", "data") from None
    if ids is not None and ids.shape != shape[:1]:
        raise InvalidInput(f"{path}: expected `id` of shape {shape[:1]}, got {ids.shape}", "data")
    row = int(np.prod(shape[1:])) * dtype.itemsize

    def batches(wanted: Callable[[int, int], bool]) -> Iterator[pa.Table]:
        broken = ""
        with _member(path, "x") as (stream, _, _):
            for start in range(0, shape[0], _AHEAD):
                count = min(_AHEAD, shape[0] - start)
                some = range(start, start + count) if ids is None else ids[start : start + count]
                names = [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in some]
                try:
                    # Also what is not wanted: what is compressed has no places in it.
                    data = b"" if broken else stream.read(row * count)
                    broken = broken or "it ends too early" * (len(data) < row * count)
                except (OSError, zlib.error, zipfile.BadZipFile, EOFError) as error:
                    broken = str(error)
                if broken:
                    yield pa.table({ID: names, REASON: [f"{path.name}: cannot be read: {broken}"] * count})
                elif wanted(start, count):
                    x = np.frombuffer(data, dtype).reshape(count, *shape[1:])
                    yield pa.table({ID: names, "x": tensors(x)})
                else:
                    yield pa.table({ID: names})

    said = _said(1, [f"{path.stat().st_size} {_footer(path)}"])
    return Source(path, "arrays", said, shape[0], ID, "x", batches)


def _parquet(path: Path, names: Sequence[str], id: str, column: str | None) -> Source:
    files: dict[str, pq.FileMetaData | str] = {}
    rows: str | None = None
    kind: pa.DataType | None = None
    for name in names:
        if (shown := _written(name)) != name:
            files[shown] = f"{shown}: {_NAMELESS}"
            continue
        try:
            schema = pq.read_schema(path / name)
            files[name] = pq.read_metadata(path / name)
        except (OSError, pa.ArrowException) as error:
            files[name] = f"{name}: cannot be read: {' '.join(str(error).split())}"
            continue
        found = row_column(schema, id, column)
        if rows not in (None, found):
            raise InvalidInput(f"{path / name}: holds rows in {found!r}, others in {rows!r}", "column")
        rows, own = found, schema.field(found).type
        kind = kind or own
        if own != kind:  # one number may be a pixel here and the value of an input there
            raise InvalidInput(f"{path / name}: holds rows as {own}, others as {kind}", "column")
    if rows is None:
        raise InvalidInput(f"{path / names[0]}: {next(iter(files.values()))}", "data")

    def batches(wanted: Callable[[int, int], bool]) -> Iterator[pa.Table]:
        start = 0
        for name, held in files.items():
            if isinstance(held, str):
                yield pa.table({id: [name], REASON: [held]})
                start += 1
                continue
            for group in range(held.num_row_groups):
                count, came = held.row_group(group).num_rows, 0
                columns = [id, rows] if wanted(start, count) else [id]
                try:
                    with pq.ParquetFile(path / name) as file:
                        for batch in file.iter_batches(_AHEAD, row_groups=[group], columns=columns):
                            yield pa.Table.from_batches([batch])
                            came += len(batch)
                except (OSError, pa.ArrowException) as error:
                    why = f"{name}: cannot be read: {' '.join(str(error).split())}"
                    lost = [f"{name} {at}" for at in range(came, count)]
                    yield pa.table({id: lost, REASON: [why] * len(lost)})
                start += count

    lines = (f"{name} {(path / name).stat().st_size} {_footer(path / name)}" for name in names)
    total = sum(1 if isinstance(held, str) else held.num_rows for held in files.values())
    return Source(path, "parquet", _said(len(names), lines), total, id, rows, batches)


# --- helpers --------------------------------------------------------------------------------------------


def _with_reasons(table: pa.Table, source: Source, start: int, seen: dict[bytes, int]) -> pa.Table:
    """`table` with ids as text, reasons where there were none (no id, or one that came before), and a column
    of rows, empty where none of them can be read."""
    id = source.id
    names = [id_of(one) for one in table.column(id)]
    given = table.column(REASON).to_pylist() if REASON in table.column_names else [None] * len(names)
    reasons: list[str | None] = []
    for place, (name, reason) in enumerate(zip(names, given, strict=True), start):
        if reason is None and name is None:
            reason = f"row {place:,} has no id"
        elif name is not None:
            first = seen.setdefault(hashlib.blake2b(name.encode(), digest_size=16).digest(), place)
            if first != place:
                reason = reason or f"the id of row {place:,} is that of row {first:,}, too"
        reasons.append(reason)
    rest = {one: table.column(one) for one in table.column_names if one not in (id, REASON)}
    rest.setdefault(str(source.column), pa.nulls(len(names)))
    return pa.table({id: pa.array(names, pa.string()), REASON: pa.array(reasons, pa.string()), **rest})


def _said(files: int, lines: Iterable[str]) -> dict[str, Any]:
    found = hashlib.sha256()
    for line in lines:
        found.update(line.encode(errors="surrogateescape") + b"\n")
    return {"files": files, "sha256": found.hexdigest()}


def _written(name: str) -> str:
    """The name of a file as text that can be written, also where it is none."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _footer(path: Path) -> str:
    """SHA-256 of the last bytes of a file: in parquet they say where everything else is, in a `.npz` they
    hold checksums."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16))
        return hashlib.sha256(file.read()).hexdigest()


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """The array `name` of a `.npz`, or the one of a `.npy`, as a stream of its numbers, with what they are.

    Raises:
        InvalidInput: There is none, or it is not of numbers in C order.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                yield (stream, *_header(stream, path))
            return
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                held = ", ".join(one.removesuffix(".npy") for one in archive.namelist())
                raise InvalidInput(f"{path}: expected an array {name}, it has {held or 'nothing'}", "data")
            with archive.open(f"{name}.npy") as stream:
                yield (stream, *_header(stream, path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"{path}: cannot be read as NumPy arrays: {error}", "data") from None


def _header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran or dtype.kind not in "fiu" or dtype.itemsize > 8 or len(shape) < 2 or min(shape) < 0:
        raise InvalidInput(
            f"{path}: expected rows of numbers (N, ...) in C order, got {dtype} of shape {shape}"
            + " in Fortran's" * fortran,
            "data",
        )
    return shape, dtype
