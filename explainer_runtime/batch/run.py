"""What is done with a block of records: each is read, explained, and told as one row of a table.

`Explains` is made once in whatever does the work, from words alone, and called with block after block. Rows
are strangers: each record is explained by itself, so that its answer has the bytes which a server gives for a
request with that row alone, whatever block it falls into. Searches by gradients take several times less of
the processor where rows are explained together; that is asked for (`together`), because what a network says
of a row depends on the rows beside it in its last bits, and what a search finds on those.

What cannot be explained is a row with its reason. What would be no better for the next record (the model is
down, an option is wrong) is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from explainer_runtime import cache, explainers, render
from explainer_runtime.artifact import load, verify
from explainer_runtime.artifact.provenance import digest
from explainer_runtime.batch.records import ID, Reader, table_of
from explainer_runtime.errors import (
    ExplainerError,
    InvalidInput,
    InvalidOption,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.pictures import Sent
from explainer_runtime.predictors import Predictor, connect, served
from explainer_runtime.predictors.base import Around
from explainer_runtime.predictors.fingerprint import identity
from explainer_runtime.predictors.tally import add, tally
from explainer_runtime.spec import Inputs, Limits, Spec, parse, parse_options

INVALID, FAILED = "invalid", "failed"
"""Status of a record that cannot be read as a row, and of one for which the model, or the search, failed."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),  # ok, not_found, budget_exhausted; invalid, failed
        ("reason", pa.string()),  # of the last two
        ("found", pa.bool_()),
        ("class_before", pa.int64()),  # what the model says of the row,
        ("proba_before", pa.float32()),  # and the probability, or score, that it gives that class
        ("class_after", pa.int64()),  # the same of the row as it was changed, where a change was found
        ("proba_after", pa.float32()),
        ("distance_l1", pa.float32()),  # of the change, in input units
        ("distance_l2", pa.float32()),
        ("distance_linf", pa.float32()),
        ("changed", pa.int64()),  # how many of the row's numbers
        ("change_index", pa.list_(pa.int32())),  # which, in C order,
        ("change_value", pa.list_(pa.float32())),  # and what they are in the answer
        ("fields", pa.string()),  # everything else of the answer that is small, as JSON
        ("warnings", pa.list_(pa.string())),
        ("row_digest", pa.string()),  # as the audit record has it of a request with this row,
        ("answer_digest", pa.string()),  # and of its answer
        (
            "answer",
            pa.large_string(),
        ),  # the whole answer as JSON, where asked for: what `answer_digest` is of
        ("picture", pa.large_binary()),  # PNG, where asked for, and of some
        ("cached", pa.bool_()),  # whether the answer was kept from earlier; see `cache.py`
        ("together", pa.int32()),  # how many rows were explained at once: what follows is of all of them
        ("calls", pa.int64()),  # of the model
        ("rows", pa.int64()),
        ("steps", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""What is said of each record."""
COSTS = ("cached", "together", "calls", "rows", "steps", "seconds")
"""Columns of it that tell how an answer was come by; all others are the same whenever it is made again."""

_SMALL = 32
"""Numbers of an answer's field that is told beside the columns."""
_LETTERS = 4096
"""Of an entry of what has no fixed shape, as JSON, that is told likewise."""
_FREE = Limits(max_batch=10**6, max_rows=10**12, max_calls=10**12, max_seconds=10**8)
"""Nobody else waits: only what the caller asks for limits the work."""


class Explains:
    """A function from a block of records to a block of answers, `SCHEMA`.

    Args:
        artifact: Directory of a fitted explainer.
        model: The model: whatever `predictors.connect` takes.
        options: As of a request, the same for every row.
        digest: What the artifact must have; None takes any.
        id: The column of ids.
        column: The column of rows; None is the only one that may be.
        resize: What is done with pictures of another size; None is as the artifact says.
        together: Rows that are explained at once.
        dense: Whether whole answers are told.
        pictures: Whether each answer is drawn.
        kept: Where answers are kept between runs, as `cache.of` takes it; None keeps none.
        turn: Called before each message to a served model with the rows in it; returns when they may go.

    Raises:
        InvalidArtifact, InvalidSpec, InvalidOption, MissingExtra: Something in these must be changed.
        PredictorError: The model failed, or cannot be reached.
    """

    def __init__(
        self,
        artifact: str | Path,
        model: Any,
        options: Mapping[str, Any] | None = None,
        *,
        digest: str | None = None,
        id: str = ID,
        column: str | None = None,
        resize: str | None = None,
        together: int = 1,
        dense: bool = False,
        pictures: bool = False,
        kept: str | None = None,
        turn: Callable[[int], None] | None = None,
    ) -> None:
        self._digest = digest or verify(artifact).digest
        fitted = load(artifact, digest=self._digest)
        check_options(fitted.spec, options)
        predictor = connect(model, shape=fitted.inputs.shape)
        if turn is not None and served(predictor) is not None:
            predictor = Paced(predictor, turn)
        self.prepared = explainers.prepare(fitted, predictor, steady=True)
        # Here and not with the first row, which would cost more than it does elsewhere.
        self.prepared.strangeness.meet(predictor, predictor)
        self._options, self._together, self._kept = dict(options or {}), together, cache.of(kept)
        self._dense, self._pictures = dense, pictures
        self._read = Reader(with_resize(fitted.inputs, resize), id, column)

    @property
    def model(self) -> dict[str, str]:
        """Who the model says it is, now; see `fingerprint.identity`."""
        return identity(self.prepared.predictor)

    def __call__(self, records: pa.Table | pa.RecordBatch | Mapping[str, Any], drawn: int = 0) -> pa.Table:
        """The answers to `records`, one each, in their order.

        Args:
            records: A table with the column of ids and that of rows: encoded pictures, paths of pictures, or
                numbers; a column `reason`, where there is one, says of a record why it is not to be read.
            drawn: How many of those that can be read are drawn at any rate.

        Raises:
            InvalidInput: It has no such columns.
            PredictorUnavailable, PredictorTimeout: Trying again may help.
            InvalidOption: An option does not go with this explainer.
        """
        told, readable = [], []
        for place, (name, row) in enumerate(self._read(table_of(records))):
            told.append({"id": name} | ({"status": INVALID, "reason": row} if isinstance(row, str) else {}))
            if not isinstance(row, str):
                readable.append((place, row))
        for start in range(0, len(readable), self._together):
            group = readable[start : start + self._together]
            answers = self._answers([row for _, row in group], drawn - start)
            for (place, _), said in zip(group, answers, strict=True):
                told[place] |= said
        return pa.Table.from_pylist(told, SCHEMA)

    def _answers(self, rows: Sequence[Sent | np.ndarray], drawn: int) -> Iterator[dict[str, Any]]:
        x, begun = np.stack([row.row if isinstance(row, Sent) else row for row in rows]), time.perf_counter()
        try:
            if self._kept is None:
                answer = self.prepared(x, self._options, limits=_FREE)
            else:
                answer = self._kept.explain(self.prepared, self._digest, x, self._options, limits=_FREE)
        except (PredictorUnavailable, PredictorTimeout, InvalidOption):
            raise
        except Exception as error:  # of one row: the others, and those after them, are none the worse for it
            if len(rows) > 1:
                for place, row in enumerate(rows):
                    yield from self._answers([row], drawn - place)
                return
            known = isinstance(error, ExplainerError)
            words = str(error) if known else f"internal error: {type(error).__name__}: {error}"
            yield {"status": FAILED, "reason": words, "row_digest": digest(x)}
            return
        cost, seconds = answer.cost, time.perf_counter() - begun
        for place, row in enumerate(rows):
            one = _one(answer, place)
            said = told(one, x[place], self.prepared.fitted.inputs)
            if self._dense:
                said["answer"] = one.to_json().decode()
            if self._pictures or place < drawn:
                said["picture"] = self._drawn(one, row, x[place])
            spent = {"calls": cost.calls, "rows": cost.rows, "steps": cost.steps, "seconds": seconds}
            yield said | spent | {"together": len(rows), "cached": "cached" in answer.meta}

    def _drawn(self, one: Explanation, row: Sent | np.ndarray, x: np.ndarray) -> bytes | None:
        sent = (row,) if isinstance(row, Sent) else ()
        try:
            return render.png(one, x[None], self.prepared.fitted.inputs, sent=sent)
        except InvalidInput:  # these rows are no images
            return None


class Paced(Around):
    """A served model that is asked when it is the rows' turn; what was sent again is paid for with the next.

    Args:
        predictor: The model.
        turn: See `Explains`.
    """

    def __init__(self, predictor: Predictor, turn: Callable[[int], None]) -> None:
        super().__init__(predictor)
        self._turn, self._owed = turn, 0

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`; its time begins with its turn."""
        rows, self._owed = len(x) + self._owed, 0
        self._turn(rows)
        try:
            with tally() as more:
                return self._predictor(x, timeout=timeout)
        finally:
            self._owed = more.rows
            add(more.rows, more.calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)


def told(one: Explanation, row: np.ndarray, inputs: Inputs) -> dict[str, Any]:
    """What the columns say of the answer to one row `(*S)`, but for what it cost."""
    said: dict[str, Any] = {
        "status": str(one["status"][0]),
        "found": bool(one["found"][0]),
        "warnings": list(one.meta.get("warnings", ())),
        "row_digest": digest(row[None]),
        "answer_digest": one.digest(),
    }
    own = one.arrays.get("original_class", one.arrays.get("prediction"))
    if own is not None and own[0] >= 0 and "original_proba" in one.arrays:
        before = int(own[0])
        said |= {"class_before": before, "proba_before": float(one["original_proba"][0, before])}
    name = changing(one, inputs)
    if name is not None and said["found"]:
        after, away = int(one[f"{name}_class"][0]), one[name][0] - row
        where = np.flatnonzero(away)
        said |= {
            "class_after": after,
            "proba_after": float(one[f"{name}_proba"][0, after]),
            "distance_l1": float(np.abs(away).sum(dtype=np.float64)),
            "distance_l2": float(np.sqrt((away.astype(np.float64) ** 2).sum())),
            "distance_linf": float(np.abs(away).max()),
            "changed": len(where),
            "change_index": where.astype(np.int32),
            "change_value": one[name][0].ravel()[where],
        }
    return said | {"fields": _fields(one)}


def changing(one: Explanation, inputs: Inputs) -> str | None:
    """The field of an answer that is the row, changed: the one that has a class and its probabilities; None
    for a method that changes nothing."""
    return next(
        (
            name
            for name, array in one.arrays.items()
            if array.shape[1:] == inputs.shape and {f"{name}_class", f"{name}_proba"} <= set(one.arrays)
        ),
        None,
    )


def check_options(spec: Spec, options: Mapping[str, Any] | None) -> None:
    """Refuse options that are not the explainer's, and an end by the clock.

    Raises:
        InvalidOption: One of them.
    """
    if parse_options(spec, options).max_seconds is not None:
        raise InvalidOption(
            "answers that end by the clock are not the same when they are made again; say max_rows",
            "max_seconds",
        )


def with_resize(inputs: Inputs, resize: str | None) -> Inputs:
    """The input contract, where pictures of another size are treated as was said.

    Raises:
        InvalidSpec: No such word.
    """
    return inputs if resize is None else parse(Inputs, {**dict(inputs), "resize": resize}, "inputs")


def _one(answer: Explanation, place: int) -> Explanation:
    """The answer to one of the rows, as it would be alone."""
    arrays = {name: array[place : place + 1] for name, array in answer.arrays.items()}
    meta = {name: value for name, value in answer.meta.items() if name != "cached"}
    raw = answer.raw[place : place + 1]
    return replace(answer, arrays=arrays, raw=raw, meta=meta, cost=Cost(), shown=None)


def _fields(one: Explanation) -> str:
    """What is small: numbers, masks as runs, and of what has no fixed shape the entries that are short."""
    few = {
        name: array
        for name, array in one.arrays.items()
        if (array.ndim <= 2 and array[0].size <= _SMALL) or (array.ndim > 2 and array.dtype.kind == "b")
    }
    document = orjson.loads(replace(one, arrays=few).to_json())["data"]
    said = {name: rows[0] for name, rows in document.items() if name not in ("found", "status", "raw")}
    for raw in document.get("raw", ()):
        said |= {name: value for name, value in raw.items() if len(orjson.dumps(value)) <= _LETTERS}
    return orjson.dumps(said).decode()
