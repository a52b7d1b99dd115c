"""What a method answers: named arrays, rows first, every number finite.

An `Explanation` knows nothing of wires. `wire.py` turns its arrays into V2 tensors, `to_json` into the
document that clients of explainers know: `{"meta": ..., "data": ...}`, `data` holding one list a field
with one entry for each row that was explained.

A document says each thing once. Where its fields travel beside it as tensors it is short: what it leaves out
is named in `meta.tensors`. Labels of pixels, truths or numbers, are told as runs of equal ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson

OK = "ok"
NOT_FOUND = "not_found"
BUDGET_EXHAUSTED = "budget_exhausted"

Fields = dict[str, tuple[str, tuple[int, ...]]]
"""Datatype (as V2 names it) and shape of one row of each field of an answer, by its name."""
_FEW = 32
"""Numbers of a row that a short document repeats, and names of classes: some hundred bytes."""
_LIKELY = 5
"""Classes of a row whose names are told where there are many."""
COMMON: Fields = {"found": ("BOOL", ()), "status": ("BYTES", ())}
"""What every answer has."""


@dataclass(frozen=True)
class Cost:
    """What an explanation took: calls, rows and seconds of the model; gradient steps of all its lanes; and
    whether a limit `cut` it anywhere, so that with another limit it might be another."""

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    steps: int = 0
    cut: bool = False

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.rows + other.rows,
            self.seconds + other.seconds,
            self.steps + other.steps,
            self.cut or other.cut,
        )


@dataclass(frozen=True, repr=False)
class Explanation:
    """The answer for a batch of N rows.

    Attributes:
        kind: Which method, as in its spec.
        arrays: Field name -> array `(N, ...)`; floats are float32 and finite, counts and classes int64,
            truths bool, words a fixed-width unicode array. `found` and `status` are always there.
        raw: One mapping a row of what has no fixed shape (ragged lists, examples); JSON values and arrays.
        meta: The spec in force, with the options of the request; class names and warnings, if any.
        cost: What the model was asked for all rows together.
        shown: Makes its picture as HTML, for notebooks; None where the rows are not known.
    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    raw: tuple[Mapping[str, Any], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()
    shown: Callable[[Explanation], str | None] | None = field(default=None, compare=False)

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

    def __repr__(self) -> str:
        found = f"found {int(self['found'].sum())} of {len(self)}"
        return f"<Explanation by {self.kind}: {found}; {self.cost.calls} calls, {self.cost.rows} rows>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the picture, or nothing where there is none, and then it shows the words."""
        return self.shown(self) if self.shown else None

    def to_json(self, *, short: bool = False) -> bytes:
        """The answer as one JSON document, `{"meta": {...}, "data": {...}}`.

        The seconds it cost are left out: the same seed gives the same bytes. Labels of pixels, `(H, W)`
        truths or whole numbers a row, are runs of equal ones: `{"shape": ..., "values": ..., "runs": ...}`.

        Args:
            short: Whether fields stand beside it as tensors: those of more than a few numbers a row are
                left out and named in `meta.tensors`, as are settings of as many; of many classes only those
                have names that the answer speaks of, in `meta.names`.
        """
        meta = {**self.meta, **(self._said_shortly() if short else {})}
        left = meta.get("tensors", ())
        data: dict[str, Any] = {
            name: [_runs(row) for row in array] if _labels(array) else jsonable(array)
            for name, array in self.arrays.items()
            if name not in left
        }
        if self.raw:
            data["raw"] = list(self.raw)
        if short and len(meta.get("class_names", ())) > _FEW:
            del meta["class_names"]
        cost = {"calls": self.cost.calls, "rows": self.cost.rows, "steps": self.cost.steps}
        document = {"meta": {"name": self.kind, **meta, "cost": cost}, "data": data}
        return orjson.dumps(document, default=jsonable, option=orjson.OPT_SERIALIZE_NUMPY)

    def digest(self) -> str:
        """SHA-256 of the whole answer as `/explain` sends it, without `cached` and with a cost of 0.

        What a request cost depends on what was asked before it: a model is met once, an answer may be kept.
        """
        meta = {name: one for name, one in self.meta.items() if name != "cached"}
        return hashlib.sha256(replace(self, meta=meta, cost=Cost()).to_json()).hexdigest()

    def _said_shortly(self) -> dict[str, Any]:
        """What `meta` says in a short document."""
        said: dict[str, Any] = {
            "tensors": [name for name, one in self.arrays.items() if one[0].size > _FEW],
        }
        if "spec" in self.meta:
            said["spec"] = {name: one for name, one in self.meta["spec"].items() if np.size(one) <= _FEW}
        names = self.meta.get("class_names", ())
        if len(names) > _FEW:
            said["names"] = {str(one): names[one] for one in sorted(self._spoken_of(len(names)))}
        return said

    def _spoken_of(self, classes: int) -> set[int]:
        """The classes that the answer gives, and the likeliest."""
        spoken: set[int] = set()
        for name, array in self.arrays.items():
            if (
                array.ndim == 1
                and array.dtype.kind == "i"
                and (name.endswith("class") or name == "prediction")
            ):
                spoken |= set(array[array >= 0].tolist())
            if array.shape[1:] == (classes,):
                spoken |= set(np.argsort(-array, axis=1)[:, :_LIKELY].ravel().tolist())
        return spoken

    @classmethod
    def from_json(cls, text: str | bytes, arrays: Mapping[str, np.ndarray] | None = None) -> Explanation:
        """The answer that `to_json` wrote, and the `arrays` that stood beside it, by name."""
        document = orjson.loads(text)
        meta, data = document["meta"], document["data"]
        raw = tuple(data.pop("raw", ()))
        missing = set(meta.pop("tensors", ())) - set(arrays or ())
        if missing:
            raise ValueError(f"the document is short, and these tensors are not beside it: {sorted(missing)}")
        fields = {name: _array(rows) for name, rows in data.items()} | dict(arrays or {})
        return cls(meta.pop("name"), fields, raw, meta, Cost(**meta.pop("cost")))


def _labels(array: np.ndarray) -> bool:
    return array.ndim > 2 and array.dtype.kind in "bi"


def _runs(labels: np.ndarray) -> dict[str, Any]:
    """Labels of any shape, in the order in which they are written, as runs of equal ones."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(starts, append=flat.size)
    return {"shape": labels.shape, "values": flat[starts], "runs": lengths}


def _array(rows: list[Any]) -> np.ndarray:
    """A field of a document."""
    if rows and isinstance(rows[0], dict):
        return np.stack([np.repeat(one["values"], one["runs"]).reshape(one["shape"]) for one in rows])
    array = np.array(rows)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def jsonable(value: Any) -> Any:
    """What JSON takes in place of an array or a number of NumPy's, as `orjson.dumps` asks for it."""
    if isinstance(value, np.ndarray):
        # orjson writes contiguous numeric arrays itself, and float32 in its shortest form.
        return np.ascontiguousarray(value) if value.dtype.kind in "fiub" else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
