"""Answers on a disk: a run that was killed at any point goes on where it was, and nothing is there twice.

    DEST/batch.json                     what was asked; a run that asks for something else is refused
    DEST/answers/part-00000.parquet     the answers to the first records, in the order of the source
    DEST/costs/part-00000.parquet       how each of them was come by; see `run.COSTS`
    DEST/blocks/                        blocks that are done, of parts that are not; gone at the end

A block is kept as soon as it is done, and becomes a row group's worth of a part once all blocks of that part
are. Every file is written under another name, flushed to the disk and renamed, so that there is all of it or
none. Which records a part holds is known from its number, so the same run gives the same files, byte for
byte: all but the costs, in which there are seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from explainer_runtime.batch.run import COSTS, SCHEMA
from explainer_runtime.errors import InvalidInput

FORMAT = 1
ANSWERS, COST_PARTS, BLOCKS, MANIFEST = "answers", "costs", "blocks", "batch.json"
_ANSWERED = [name for name in SCHEMA.names if name not in COSTS]


class Store:
    """Where the answers of one run go; `opened` makes it.

    Args:
        folder: The directory.
        per_part: Blocks of one part.
    """

    def __init__(self, folder: Path, per_part: int) -> None:
        self.folder, self._per_part = folder, per_part
        for name in (ANSWERS, COST_PARTS, BLOCKS):
            (folder / name).mkdir(exist_ok=True)
            for torn in (folder / name).glob(".*"):  # of a run that was killed: this one has the lock
                torn.unlink()
        parts = (folder / ANSWERS).glob("part-*.parquet")
        self._parts = {int(path.stem.rpartition("-")[2]) for path in parts}
        self._blocks = {int(path.stem) for path in (folder / BLOCKS).glob("*.arrow")}
        for number in {number for number in self._blocks if number // per_part in self._parts}:
            self._drop(number)
        for part in {number // per_part for number in self._blocks}:
            self._join(part)

    def asked(self, said: Mapping[str, Any]) -> None:
        """Write down what is asked, or hold it to what was asked before.

        Raises:
            InvalidInput: As `check`.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            self._write(path, lambda file: file.write(_json({"format": FORMAT, "asked": said})))
            return
        self.check(said)

    def check(self, said: Mapping[str, Any]) -> None:
        """Hold what is asked, as far as it is `said`, to what was asked before, if anything was.

        Raises:
            InvalidInput: That was something else; what differs is named.
        """
        if not (self.folder / MANIFEST).exists():
            return
        before, after = read(self.folder)["asked"], json.loads(_json(said))
        if other := [name for name in sorted(after) if before.get(name) != after[name]]:
            differ = [f"{name} was {_short(before.get(name))}, is {_short(after[name])}" for name in other]
            told = "; ".join(differ)
            raise InvalidInput(f"{self.folder}: holds the answers to something else: {told}", "out")

    def done(self, number: int) -> bool:
        """Whether a block is kept."""
        return number in self._blocks or number // self._per_part in self._parts

    def keep(self, number: int, answers: pa.Table) -> None:
        """Keep a block; it is on the disk when this returns."""

        def write(file: IO[bytes]) -> None:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                writer.write_table(answers)

        self._write(self._block(number), write)
        self._blocks.add(number)
        self._join(number // self._per_part)

    def finish(self, blocks: int, said: Mapping[str, Any]) -> None:
        """Make the last part of what is left of `blocks`; write down that all is done, and what is `said`."""
        if self._blocks:
            self._join(max(self._blocks) // self._per_part, last=blocks - 1)
        (self.folder / BLOCKS).rmdir()
        manifest = read(self.folder) | {"finished": dict(said)}
        self._write(self.folder / MANIFEST, lambda file: file.write(_json(manifest)))

    def _join(self, part: int, last: int | None = None) -> None:
        """Make a part of its blocks, if they are all there; the `last` of all may end one early."""
        end = (part + 1) * self._per_part
        numbers = range(part * self._per_part, end if last is None else min(end, last + 1))
        if not all(number in self._blocks for number in numbers):
            return
        # Costs first: a part is there once its answers are.
        for folder, names in ((COST_PARTS, ["id", *COSTS]), (ANSWERS, _ANSWERED)):
            schema = pa.schema([SCHEMA.field(name) for name in names])

            def write(file: IO[bytes], schema: pa.Schema = schema) -> None:
                with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                    for table in self._gathered(numbers):
                        writer.write_table(table.select(schema.names))

            self._write(self.folder / folder / f"part-{part:05d}.parquet", write)
        self._parts.add(part)
        for number in numbers:
            self._drop(number)

    def _gathered(self, numbers: range) -> Iterator[pa.Table]:
        """Blocks, put together to row groups of some megabytes."""
        held: list[pa.Table] = []
        for number in numbers:
            with pa.OSFile(str(self._block(number))) as file:
                held.append(pa.ipc.open_file(file).read_all())
            if sum(table.nbytes for table in held) > _GROUP:
                yield pa.concat_tables(held)
                held = []
        if held:
            yield pa.concat_tables(held)

    def _drop(self, number: int) -> None:
        self._block(number).unlink()
        self._blocks.discard(number)

    def _block(self, number: int) -> Path:
        return self.folder / BLOCKS / f"{number:08d}.arrow"

    def _write(self, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
        fresh = path.with_name(f".{path.name}")
        with fresh.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_GROUP = 2**25
"""Bytes of blocks that become one row group."""


@contextmanager
def opened(folder: Path, per_part: int) -> Iterator[Store]:
    """The store in `folder`, which is made if it is not there. Nobody else writes there meanwhile.

    Raises:
        InvalidInput: There is something else in it, or another run writes there.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder}: is no directory", "out")
    if folder.is_dir() and not (folder / MANIFEST).exists():
        other = [
            one.name
            for one in folder.iterdir()
            if one.name not in (ANSWERS, COST_PARTS, BLOCKS, f".{MANIFEST}")
        ]
        if other:
            raise InvalidInput(f"{folder}: holds something else ({sorted(other)[0]}); name another", "out")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(f"{folder}: another run is writing there", "out") from None
        if (folder / MANIFEST).exists():
            read(folder)
        yield Store(folder, per_part)
    finally:
        os.close(descriptor)


def read(folder: Path) -> dict[str, Any]:
    """What `batch.json` says.

    Raises:
        InvalidInput: It is none.
    """
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']!r}")
        return dict(said)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{folder / MANIFEST}: is not of a batch that this release wrote: {error}", "out"
        ) from None


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
