"""Records as rows: an id, and a row of the input contract, or why it is none.

A table may hold rows in whatever way such tables are written: as encoded pictures, as tensors, as lists. They
are read one by one, so that one which cannot be is the others' no concern.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from explainer_runtime import pictures
from explainer_runtime.errors import InvalidInput
from explainer_runtime.fitted import check_rows
from explainer_runtime.pictures import Sent
from explainer_runtime.search.kept import scaled
from explainer_runtime.spec import Inputs

ID, REASON = "id", "reason"
"""Columns of a block: who a record is, and why it cannot be read, if so."""
Rows = Sent | np.ndarray | str
"""A picture, or a row `(*S)`, as float32 that keeps the input contract; or why it is none."""


class Reader:
    """Records of a block as rows of an input contract, one by one.

    Bytes are pixels: uint8 and encoded pictures are scaled to the range of the contract; other numbers are
    taken as they are.

    Args:
        inputs: The contract.
        id: The column of ids.
        column: The column of rows; None is the only one that may be.
    """

    def __init__(self, inputs: Inputs, id: str = ID, column: str | None = None) -> None:
        self.inputs, self._id, self._column = inputs, id, column

    def __call__(self, records: pa.Table) -> Iterator[tuple[str | None, Rows]]:
        """Of each record its id, and its row.

        Raises:
            InvalidInput: There are no such columns.
        """
        column = records.column(row_column(records.schema, self._id, self._column))
        has = REASON in records.column_names and REASON not in (self._id, self._column)
        for place in range(len(records)):
            name = id_of(records.column(self._id)[place])
            reason = records.column(REASON)[place].as_py() if has else None
            if reason is None and name is None:
                reason = "has no id"
            yield name, reason or self._row(column[place], name)

    def _row(self, value: pa.Scalar, name: str | None) -> Rows:
        try:
            if not value.is_valid:
                return "has no row"
            if pa.types.is_struct(value.type):  # as data sets of pictures are written: bytes, and a path
                inner = value.as_py()
                held = inner.get("bytes") or inner.get("path")
            elif isinstance(value, pa.FixedShapeTensorScalar):
                held = value.to_numpy()
            elif _is_list(value.type):
                held = _numbers(value)
            else:
                held = value.as_py()
            if isinstance(held, str):
                return pictures.read(Path(held), self.inputs, Path(held).name)
            if isinstance(held, bytes):
                return pictures.read(io.BytesIO(held), self.inputs, str(name))
            if not isinstance(held, np.ndarray):
                return "has no row" if held is None else f"expected a picture or numbers, got {value.type}"
            return self._numbers(held)
        except InvalidInput as error:
            return str(error)
        except (ValueError, TypeError, OSError) as error:
            return f"cannot be read: {error}"

    def _numbers(self, held: np.ndarray) -> np.ndarray:
        shape = self.inputs.shape
        # Flat, or grey without an axis for it: one reading only.
        if held.size == np.prod(shape) and (held.ndim == 1 or _sides(held.shape) == _sides(shape)):
            held = held.reshape(shape)
        if held.shape != shape:
            raise InvalidInput(f"expected a row of shape {shape}, got {held.shape}")
        if held.dtype == np.uint8:
            held = scaled(held, self.inputs.low, self.inputs.high)
        return check_rows(held[None], self.inputs, 1)[0]


def row_column(schema: pa.Schema, id: str, column: str | None) -> str:
    """The column of rows: the one that is named, or the only one that may be.

    Raises:
        InvalidInput: There is no such column, none, or several; or none of ids.
    """
    held = ", ".join(schema.names) or "nothing"
    for name, word in ((id, "id"), (column, "column")):
        if name is not None and schema.names.count(name) != 1:
            raise InvalidInput(f"expected a column {name!r}, there are {held}", word)
    if column is not None:
        return column
    found = [one.name for one in schema if one.name not in (id, REASON) and _may_be_rows(one.type)]
    if len(found) != 1:
        raise InvalidInput(
            f"which column holds the rows: {', '.join(found) or 'none may'}, of {held}", "column"
        )
    return found[0]


def table_of(records: pa.Table | pa.RecordBatch | Mapping[str, Any]) -> pa.Table:
    """`records` as a table; in a mapping arrays `(N, ...)` are columns, by their names."""
    if isinstance(records, pa.Table):
        return records
    if isinstance(records, pa.RecordBatch):
        return pa.Table.from_batches([records])
    return pa.table(
        {
            name: tensors(array) if isinstance(array, np.ndarray) and array.ndim > 1 else pa.array(array)
            for name, array in records.items()
        }
    )


def id_of(value: pa.Scalar) -> str | None:
    """An id as text."""
    held = value.as_py()
    return None if held is None else held.decode(errors="replace") if isinstance(held, bytes) else str(held)


def tensors(x: np.ndarray) -> pa.ExtensionArray:
    """Arrays `(N, ...)` as a column of N."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x, x.dtype.newbyteorder("=")))


def _is_list(type: pa.DataType) -> bool:
    return pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)


def _may_be_rows(type: pa.DataType) -> bool:
    if isinstance(type, pa.BaseExtensionType) or _is_list(type):
        return True
    if pa.types.is_struct(type):
        return "bytes" in {one.name for one in type}
    return pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size > 1)


def _numbers(value: pa.Scalar) -> np.ndarray:
    """The numbers of a list, or of lists in it."""
    inner, values = value.type.value_type, value.values
    if values is None or values.null_count:
        raise InvalidInput("expected numbers, got a list with nulls in it")
    if _is_list(inner):
        parts = [_numbers(one) for one in values]
        if len({part.shape for part in parts}) != 1:
            raise InvalidInput("expected a row of one shape, got a ragged list")
        return np.stack(parts)
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        raise InvalidInput(f"expected numbers, got {inner}")
    return np.asarray(values)
