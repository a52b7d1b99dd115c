"""What a method answers: named arrays, rows first, every number finite.

An `Explanation` knows nothing of wires. `wire.py` turns its arrays into V2 tensors, `to_json` into the
document that clients of explainers know: `{"meta": ..., "data": ...}`, `data` holding one list a field
with one entry for each row that was explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

OK = "ok"
NOT_FOUND = "not_found"
BUDGET_EXHAUSTED = "budget_exhausted"

Fields = dict[str, tuple[str, tuple[int, ...]]]
"""Datatype (as V2 names it) and shape of one row of each field of an answer, by its name."""
COMMON: Fields = {"found": ("BOOL", ()), "status": ("BYTES", ())}
"""What every answer has."""


@dataclass(frozen=True)
class Cost:
    """What an explanation took: calls, rows and seconds of the model; gradient steps of all its lanes."""

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Explanation:
    """The answer for a batch of N rows.

    Attributes:
        kind: Which method, as in its spec.
        arrays: Field name -> array `(N, ...)`; floats are float32 and finite, counts and classes int64,
            truths bool, words a fixed-width unicode array. `found` and `status` are always there.
        raw: One mapping a row of what has no fixed shape (ragged lists, examples); JSON values and arrays.
        meta: The spec in force, with the options of the request; class names and warnings, if any.
        cost: What the model was asked for all rows together.
    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    raw: tuple[Mapping[str, Any], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields of one explanation differ in rows: {lengths}")
        for name, array in self.arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"field {name} is not finite")

    def __len__(self) -> int:
        return len(self.arrays["found"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def to_json(self) -> bytes:
        """The whole answer as one JSON document, `{"meta": {...}, "data": {...}}`.

        The seconds it cost are left out: the same seed gives the same bytes.
        """
        data: dict[str, Any] = {name: jsonable(array) for name, array in self.arrays.items()}
        if self.raw:
            data["raw"] = list(self.raw)
        meta = {
            "name": self.kind,
            **self.meta,
            "cost": {"calls": self.cost.calls, "rows": self.cost.rows, "steps": self.cost.steps},
        }
        return orjson.dumps({"meta": meta, "data": data}, default=jsonable, option=orjson.OPT_SERIALIZE_NUMPY)


def jsonable(value: Any) -> Any:
    """What JSON takes in place of an array or a number of NumPy's, as `orjson.dumps` asks for it."""
    if isinstance(value, np.ndarray):
        # orjson writes contiguous numeric arrays itself, and float32 in its shortest form.
        return np.ascontiguousarray(value) if value.dtype.kind in "fiub" else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
