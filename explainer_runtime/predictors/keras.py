"""Models in this process: scores, and slopes of their logarithms through the graph.

`keras.Model.predict` costs tens of milliseconds a call whatever the batch, so a model is called through
compiled functions, each traced once for batches of any size. What a model may be is in `forms.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from explainer_runtime.errors import ExplainerError, InvalidSpec, PredictorError
from explainer_runtime.predictors import meaning, tally
from explainer_runtime.predictors.backends import import_tensorflow, load
from explainer_runtime.predictors.forms import Form, FormPredictor, cut, of_keras, rows_for, sample
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.predictors.white_box import Differentiable

_MICRO_BATCH = 64
"""Convolutions of small images are cheapest in batches whose activations stay in the cache."""
_STEEP = 32
"""The same for gradients, which keep the activations."""


class KerasScores(FormPredictor):
    """A model that TensorFlow computes and that is asked for scores only. Safe to call from several threads.

    Args:
        form: How it is called; see `forms.py`.
        contract: What its numbers mean.

    Raises:
        InvalidSpec: It cannot be called as the form says.
    """

    def __init__(self, form: Form, contract: ModelContract | None = None) -> None:
        contract = contract or ModelContract()
        self._faster: Callable[[np.ndarray], np.ndarray] | None = None
        self._tf = import_tensorflow()
        self._raw = _compiled(self._tf, rows_for(form, contract), form.shape, form.name)
        shape = self._raw.structured_outputs.shape
        super().__init__(form, contract, self._computed, 1 if shape.rank == 1 else shape[-1])

    def _computed(self, x: np.ndarray) -> np.ndarray:
        if batch := self.form.batch:
            starts = range(0, len(x), _MICRO_BATCH)
            tally.add(rows=sum(-len(x[start : start + _MICRO_BATCH]) % batch for start in starts))
        if self._faster is not None:
            return self._faster(x)
        return _by_parts(self._tf, self._raw, x, _MICRO_BATCH, self.name)

    def hurry(self) -> None:
        """Let ONNX Runtime compute rows from now on, if it says the same.

        Raises:
            MissingExtra: It is not installed.
        """
        from explainer_runtime.predictors.onnx import converted

        function = rows_for(self.form, self.contract)
        self._faster = converted(self._tf, function, self.shape, self.name, sample(self.form))


class KerasPredictor(Differentiable, KerasScores):
    """A model that TensorFlow computes and differentiates: a `WhiteBox`.

    Args:
        graph: Differentiable function from a `(N, *S)` tensor to the model's numbers, in inference mode; or
            a `Form`, which says the rest as well.
        shape: Shape of one row, without the batch; None where an axis may have any size.
        classes: How many classes it scores, where that is known beforehand.
        name: What to call it in messages.
        keep: Anything that has to live as long as the graph.
        contract: What its numbers mean.
    """

    def __init__(
        self,
        graph: Callable[[Any], Any] | Form,
        shape: Sequence[int | None] = (),
        classes: int | None = None,
        name: str = "the Keras model",
        keep: Any = None,
        *,
        contract: ModelContract | None = None,
    ) -> None:
        form = graph if isinstance(graph, Form) else Form(graph, tuple(shape), name, smooth=graph, keep=keep)
        super().__init__(form, contract)
        self.classes = self.classes or classes

    @classmethod
    def of(cls, model: Any, contract: ModelContract | None = None, *, logits: bool = False) -> KerasPredictor:
        """A predictor over a Keras model object.

        Args:
            model: A Keras model, of any number of inputs and outputs.
            contract: Which of them are meant, and what the numbers are.
            logits: Short for a contract of `logits`.

        Raises:
            InvalidSpec: It does not fit the contract, or has no gradient; `local` takes such a model.
        """
        given = contract or ModelContract(output="logits" if logits else "probabilities")
        return _white(local(of_keras(import_tensorflow(), model, given), given))

    @classmethod
    def load(
        cls, path: str | Path, contract: ModelContract | None = None, *, logits: bool = False
    ) -> KerasPredictor:
        """The same over a `.keras` file (in safe mode) or the directory of a SavedModel.

        Raises:
            InvalidSpec: As `of`; there is no such file, it is another format, or it holds code.
        """
        given = contract or ModelContract(output="logits" if logits else "probabilities")
        return _white(load(path, given))

    _end = ""

    def smooth(self) -> tuple[Slopes, Callable[[], str]]:
        """See `Differentiable`."""
        return self._slopes, lambda: self._end

    def compiled(self, form: Form) -> Slopes:
        """See `Differentiable`."""
        return Slopes(rows_for(form, self.contract), self.shape, self.name)

    def like(self, form: Form, contract: ModelContract) -> KerasPredictor:
        """See `Differentiable`."""
        return KerasPredictor(form, contract=contract)

    @cached_property
    def _slopes(self) -> Slopes:
        def before(raw: Any) -> Any:
            self._end, numbers = cut(self._tf, raw, self.contract)  # as it is traced
            return numbers

        return Slopes(rows_for(self.form, self.contract, before, smooth=True), self.shape, self.name)


class Slopes:
    """A differentiable function of rows, and where its values would be pulled. Safe to share by threads.

    Between the way forward and the way back the caller is asked, in NumPy, where to: one compiled function
    with a call of Python in its middle. (A small CNN on 1 and 32 rows: 0.8 and 8 ms; a tape around a compiled
    way forward 1.8 and 17; a gradient that is compiled as a whole 0.7 and 10. The machine was busy.)

    Args:
        function: `(N, *S)` tensor -> `(N, *T)` tensor of float32, each row on its own.
        shape: `S`; None where an axis may have any size, or where it is not known.
        name: What to call it in messages.
    """

    def __init__(self, function: Callable[[Any], Any], shape: Sequence[int | None] | None, name: str) -> None:
        tf = self._tf = import_tensorflow()
        self._name = name

        def value(x: Any) -> Any:
            return tf.cast(function(x), tf.float32)

        def pulled(x: Any, w: Any) -> Any:
            y = value(x)
            return y, _sloping(tf.gradients(y, x, grad_ys=tf.ensure_shape(w, y.shape)), name)

        def asked(x: Any, key: Any) -> Any:
            y = value(x)
            w = tf.numpy_function(_pull, [key, y], tf.float32)
            w.set_shape(y.shape)
            return y, _sloping(tf.gradients(y, x, grad_ys=w), name)

        def compiled(made: Callable[..., Any], *more: Any) -> Any:
            if shape is None:  # for the shapes that come
                return tf.function(made, autograph=False, reduce_retracing=True)
            rows = tf.TensorSpec((None, *shape), tf.float32)
            return tf.function(made, autograph=False, input_signature=[rows, *more])

        self._value = compiled(value)
        self._pulled = compiled(pulled, tf.TensorSpec(None, tf.float32))
        self._asked = compiled(asked, tf.TensorSpec((), tf.int64))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The values `(N, *T)`, float32, of rows `(N, *S)`; N is not 0."""
        return _by_parts(self._tf, self._value, np.ascontiguousarray(x, np.float32), _STEEP, self._name)

    def slope(self, x: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Values `(N, *T)`, and the gradient `(N, *S)` with respect to `x` of the sum of `w` times them,
        where `w = pull(values)` `(N, *T)`; all float32, N not 0."""
        x = np.ascontiguousarray(x, np.float32)
        if len(x) > _STEEP:  # all values first, so that `pull` is called once
            w = np.asarray(pull(self(x)), np.float32)
            parts = [slice(start, start + _STEEP) for start in range(0, len(x), _STEEP)]
            answers = [_ran(self._tf, self._name, self._pulled, x[part], w[part]) for part in parts]
            return np.concatenate([y for y, _ in answers]), np.concatenate([g for _, g in answers])
        key, box = next(_KEYS), _Pull(pull)
        _PULLS[key] = box
        try:
            y, gradient = _ran(self._tf, self._name, self._asked, x, np.int64(key))
        finally:
            del _PULLS[key]
        if box.failed is not None:
            raise box.failed
        return y, gradient


class KerasNetwork(Slopes):
    """A fitted Keras network, such as an autoencoder or an encoder, as functions of arrays."""

    def __init__(self, model: Any) -> None:
        shape = getattr(model, "input_shape", None)  # a subclassed model does not say
        super().__init__(lambda x: model(x, training=False), shape and shape[1:], model.name)


def local(form: Form, contract: ModelContract) -> KerasScores:
    """A predictor over a model of this form: a `KerasPredictor` where it can be differentiated."""
    if contract.output == "labels" or form.smooth is None:
        return KerasScores(form, contract)
    return KerasPredictor(form, contract=contract)


# --- helpers --------------------------------------------------------------------------------------------


class _Pull:
    """What a caller makes of values, and how it failed if it did: TensorFlow would hide that."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function
        self.failed: BaseException | None = None

    def __call__(self, y: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._function(y), np.float32).reshape(y.shape)
        except BaseException as error:
            self.failed = error
            return np.zeros_like(y)


_KEYS = itertools.count()
_PULLS: dict[int, _Pull] = {}


def _pull(key: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _PULLS[int(key)](y)


def _sloping(gradients: list[Any], name: str) -> Any:
    (gradient,) = gradients
    if gradient is None:
        raise InvalidSpec(f"{name}: its graph has no gradient with respect to the rows; {meaning.PAGE}")
    return gradient


def _white(predictor: FormPredictor) -> KerasPredictor:
    if isinstance(predictor, KerasPredictor):
        return predictor
    raise InvalidSpec(f"{predictor.name}: has no gradient; `connect` takes it as a black box; {meaning.PAGE}")


def _compiled(tf: Any, function: Callable[[Any], Any], shape: Sequence[int | None], name: str) -> Any:
    rows = tf.TensorSpec((None, *shape), tf.float32)
    try:
        return tf.function(function, autograph=False, input_signature=[rows]).get_concrete_function()
    except ExplainerError:
        raise
    except Exception as error:  # whatever a model's own code raises
        raise InvalidSpec(
            f"{name}: cannot be called with rows of shape {tuple(shape)}: {one_line(str(error))}; "
            f"{meaning.PAGE}"
        ) from error


def _by_parts(tf: Any, function: Any, x: np.ndarray, size: int, name: str) -> np.ndarray:
    parts = range(0, len(x), size)
    return np.concatenate([_ran(tf, name, function, x[start : start + size]) for start in parts])


def _ran(tf: Any, name: str, function: Any, *arrays: Any) -> Any:
    try:
        return tf.nest.map_structure(np.asarray, function(*map(tf.constant, arrays)))
    except tf.errors.OpError as error:
        raise PredictorError(f"{name} failed: {_reason(error.message)}") from error
    except (TypeError, ValueError) as error:  # as it is traced, of whatever a model's own code raises
        raise InvalidSpec(f"{name}: cannot be called: {one_line(str(error))}; {meaning.PAGE}") from error


def _reason(message: str) -> str:
    """What went wrong, of a message of TensorFlow that tells where, line by line, as well."""
    where = ("Graph execution", "Detected at", "Stack trace", "<stack", "[[")
    lines = (line for line in message.splitlines() if line[:1].strip() and not line.startswith(where))
    return one_line(re.sub(r"\[Op:\w+\]", "", " ".join(lines))) or "no reason given"
