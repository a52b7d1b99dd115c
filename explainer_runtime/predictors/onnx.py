"""Models for ONNX Runtime: `.onnx` files, and Keras graphs whose rows it computes faster.

It goes forward only: a file is a black box. Of a graph that is in this process anyway it takes the rows,
and slopes stay with the graph; since conversions have been wrong before, its numbers are compared with the
graph's own first. (A small CNN: 1 row 0.08 ms for 0.4, 32 rows 1.5 for 2.9.)
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidSpec, MissingExtra, PredictorError
from explainer_runtime.predictors import meaning, tally
from explainer_runtime.predictors.base import InProcess
from explainer_runtime.predictors.forms import chosen_output, row_input, whole_of
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract

_log = logging.getLogger("explainer_runtime.model")
_MICRO_BATCH = 64
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "tensor(bool)": "bool",
}
_CLOSE = 1e-4
"""Relative difference of numbers that two runtimes may make of one graph in float32."""


class OnnxScores(InProcess):
    """An `.onnx` file that is asked for scores. Safe to call from several threads.

    Args:
        path: The file.
        contract: Which of its inputs and outputs are meant, and what the numbers are.

    Attributes:
        shape: Shape of one row, without the batch; None where an axis may have any size.
        classes: How many classes it scores; None where that shows in its answers only.
        name: What to call it in messages.

    Raises:
        InvalidSpec: It cannot be loaded, or does not fit the contract.
        MissingExtra: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, contract: ModelContract) -> None:
        self.contract, self.name = contract, str(path)
        try:
            self._file = Path(path).read_bytes()
        except OSError as error:
            raise InvalidSpec(f"{path}: cannot be read: {error.strerror}") from error
        self._session = _session(self._file, self.name)
        inputs = {one.name: one for one in self._session.get_inputs()}
        kinds = {
            name: (_sizes(one.shape[1:]), _DTYPES.get(one.type, "string")) for name, one in inputs.items()
        }
        self._rows = row_input(self.name, kinds, contract)
        self.shape, self._dtype = kinds[self._rows]
        if self._dtype == "string":
            raise InvalidSpec(f"{path}: input {self._rows!r} takes no numbers; {meaning.PAGE}")
        (self._batch,) = _sizes(inputs[self._rows].shape[:1])
        self.whole = whole_of(self._dtype)
        self._held = {name: self._value(name, kinds[name]) for name in kinds if name != self._rows}
        outputs = {one.name: np.empty(_sizes(one.shape, 0)) for one in self._session.get_outputs()}
        width = chosen_output(self.name, outputs, (), contract).shape[1:2] or (1,)
        two = contract.label is not None or width == (1,)
        self.classes: int | None = contract.classes or (2 if two else width[0] or None)

    def identity(self) -> dict[str, str]:
        """The digest of the file; see `fingerprint.py`."""
        return {"digest": self._digest}

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self._file).hexdigest()

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`."""
        x = self.checked(x)
        if not len(x):
            return np.empty((0, self.classes or 2), np.float32)
        size = self._batch or _MICRO_BATCH
        parts = [self._numbers(x[start : start + size]) for start in range(0, len(x), size)]
        return meaning.scores(np.concatenate(parts), len(x), self.contract, self.name)

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        given, count = self.contract, len(rows)
        more = -count % (self._batch or 1)
        tally.add(rows=more)
        rows = np.concatenate([rows, np.repeat(rows[-1:], more, axis=0)])
        values = meaning.units(rows, given, self.name)
        if self.whole:
            values = np.rint(values).clip(*self.whole)
        feeds = {self._rows: np.asarray(values, self._dtype)}
        feeds |= {name: np.repeat(value[None], len(rows), axis=0) for name, value in self._held.items()}
        names = [one.name for one in self._session.get_outputs()]
        try:
            answers = self._session.run(names, feeds)
        except Exception as error:  # ONNX Runtime has a class of its own for each kind of failure
            raise PredictorError(f"{self.name} failed: {one_line(str(error))}") from error
        found = chosen_output(self.name, dict(zip(names, answers, strict=True)), (), given)
        return np.asarray(found)[:count]

    def _value(self, name: str, kind: tuple[tuple[int | None, ...], str]) -> np.ndarray:
        shape, dtype = kind
        if name not in self.contract.hold:
            raise InvalidSpec(
                f"{self.name}: say the value of input {name!r} {shape} in `hold`; {meaning.PAGE}"
            )
        try:
            value = np.asarray(self.contract.hold[name], dtype)
            return value if None in shape else np.broadcast_to(value, [size or 1 for size in shape])
        except (ValueError, TypeError):
            raise InvalidSpec(
                f"{self.name}: `hold`: expected a value for {name!r} of shape {shape}"
            ) from None


def converted(
    tf: Any,
    function: Callable[[Any], Any],
    shape: tuple[int | None, ...],
    name: str,
    sample: np.ndarray | None,
) -> Callable[[np.ndarray], np.ndarray] | None:
    """A TensorFlow function of float32 rows, by ONNX Runtime; None, and a warning, where it does not say
    the same.

    Args:
        tf: TensorFlow.
        function: Rows `(N, *S)` -> the model's numbers.
        shape: `S`.
        name: What to call it in messages.
        sample: Rows on which both are compared; None compares nothing and converts nothing.

    Raises:
        MissingExtra: ONNX Runtime or the converter is not installed.
    """
    try:
        import tf2onnx
    except ImportError:
        raise _missing() from None
    if sample is None:
        _log.warning("%s: rows of any size are not converted; TensorFlow computes them", name)
        return None
    rows = tf.TensorSpec((None, *shape), tf.float32, name="rows")
    try:
        traced = tf.function(function, autograph=False)
        proto, _ = tf2onnx.convert.from_function(traced, input_signature=[rows])
        session = _session(proto.SerializeToString(), name)
        known, found = np.asarray(function(tf.constant(sample))), session.run(None, {"rows": sample})[0]
        same = known.shape == found.shape and np.allclose(found, known, rtol=_CLOSE, atol=_CLOSE / 100)
        why = "its numbers differ from the graph's own"
    except MissingExtra:
        raise
    except Exception as error:  # a converter fails in as many ways as there are operations
        same, why = False, one_line(str(error))
    if not same:
        _log.warning("%s: cannot be converted for ONNX Runtime: %s; TensorFlow computes its rows", name, why)
        return None

    def run(x: np.ndarray) -> np.ndarray:
        parts = range(0, len(x), _MICRO_BATCH)
        found = [session.run(None, {"rows": x[start : start + _MICRO_BATCH]})[0] for start in parts]
        return np.concatenate(found)

    return run


def _session(model: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise _missing() from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads := os.environ.get("OMP_NUM_THREADS", ""):
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of failure
        raise InvalidSpec(f"{name}: cannot be loaded as an ONNX model: {one_line(str(error))}") from error


def _missing() -> MissingExtra:
    return MissingExtra("ONNX Runtime is not installed; pip install 'explainer-runtime[onnx]'")


def _sizes(shape: Any, unknown: int | None = None) -> tuple[Any, ...]:
    """Sizes of axes; what is a name or nothing may be anything."""
    return tuple(size if isinstance(size, int) and size > 0 else unknown for size in shape)
