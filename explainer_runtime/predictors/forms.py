"""How a model in this process is called: which input takes rows, what others are held at, which output.

Models come with one input or several, named or not, of floats or whole numbers, with a batch of their own,
and with a softmax at their end or without. A `Form` is what is left of all that: one function of rows. What
cannot be brought into this form is refused here, in a sentence that says what was found and what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.base import InProcess
from explainer_runtime.predictors.meaning import PAGE, affine, unscaled
from explainer_runtime.predictors.settings import ModelContract

_EXACT = 2**24
"""Whole numbers up to here are float32."""


class Form(NamedTuple):
    """A model as one function of rows.

    Attributes:
        call: Rows `(B, *S)` in the model's own datatype -> its numbers.
        shape: `S`; None where an axis may have any size.
        name: What to call it in messages.
        dtype: TensorFlow's name of that datatype.
        batch: How many rows it takes at a time; None is any number.
        smooth: The same function of float32 rows, differentiable; None where there is none.
        weights: What it has learnt, for a fingerprint.
        keep: Anything that has to live as long as the function.
    """

    call: Callable[[Any], Any]
    shape: tuple[int | None, ...]
    name: str = "the model"
    dtype: str = "float32"
    batch: int | None = None
    smooth: Callable[[Any], Any] | None = None
    weights: Callable[[], Iterable[np.ndarray]] = tuple
    keep: Any = None

    @property
    def whole(self) -> tuple[float, float] | None:
        """Lowest and highest whole number that it takes; None where it takes fractions."""
        return whole_of(self.dtype)

    def digest(self) -> str | None:
        """SHA-256 of the weights, in hexadecimal; None where there are none to be seen."""
        found, any_ = hashlib.sha256(), False
        for array in self.weights():
            any_ = True
            found.update(f"{array.dtype.name}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest() if any_ else None


def whole_of(dtype: str) -> tuple[float, float] | None:
    """Lowest and highest whole number of a datatype, as far as float32 holds them; None of one of
    fractions."""
    if "int" not in dtype:
        return None
    limits = np.iinfo(dtype)
    return float(max(limits.min, -_EXACT)), float(min(limits.max, _EXACT))


class FormPredictor(InProcess):
    """A model of a form that is asked for scores. Safe to call from several threads.

    Args:
        form: How it is called.
        contract: What its numbers mean.
        numbers: Rows `(N, *S)`, float32, N not 0 -> the model's numbers.
        width: How many numbers it gives of a row; None where that shows in its answers only.

    Attributes:
        shape: Shape of one row, without the batch; None where an axis may have any size.
        classes: How many classes it scores; None where that shows in its answers only.
        name: What to call it in messages.
    """

    def __init__(
        self,
        form: Form,
        contract: ModelContract,
        numbers: Callable[[np.ndarray], np.ndarray],
        width: int | None,
    ) -> None:
        self.form, self.contract, self.name, self._numbers = form, contract, form.name, numbers
        self.shape, self.whole = form.shape, form.whole
        two = contract.label is not None or width == 1
        self.classes: int | None = contract.classes or (2 if two else width)

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`."""
        x = self.checked(x)
        if not len(x):
            return np.empty((0, self.classes or 2), np.float32)
        return meaning.scores(self._numbers(x), len(x), self.contract, self.name)

    def identity(self) -> dict[str, str | None]:
        """The digest of its weights; see `fingerprint.py`."""
        return {"digest": self._digest}

    @cached_property
    def _digest(self) -> str | None:
        return self.form.digest()


def rows_for(
    form: Form,
    contract: ModelContract,
    then: Callable[[Any], Any] | None = None,
    *,
    smooth: bool = False,
) -> Callable[[Any], Any]:
    """The model as a function of float32 rows in input units, any number of them.

    Args:
        form: How it is called.
        contract: Its scale and offset.
        then: What is made of its numbers, in the same graph; None leaves them as they are.
        smooth: Whether it is to be differentiable, and takes fractions for that.
    """
    import tensorflow as tf

    call = form.smooth if smooth and form.smooth is not None else form.call
    exact = not (smooth and form.whole)

    def rows(x: Any) -> Any:
        if not unscaled(contract):
            scale, offset = affine(contract, form.shape, form.name)
            x = x * scale + offset
        if form.whole and exact:
            x = tf.clip_by_value(tf.round(x), *form.whole)
        raw = call(tf.cast(x, form.dtype) if exact else x)
        raw = tf.cast(raw, tf.float32) if getattr(raw.dtype, "is_floating", False) else raw
        return raw if then is None else then(raw)

    return rows if form.batch is None else _in_batches(tf, rows, form.batch, form.shape)


def _in_batches(
    tf: Any, function: Callable[[Any], Any], batch: int, shape: Sequence[int | None]
) -> Callable[[Any], Any]:
    """`function` of exactly `batch` rows, as one of any number: the last batch is filled with its last."""
    traced = tf.function(function, autograph=False)
    made = traced.get_concrete_function(tf.TensorSpec((batch, *shape), tf.float32)).structured_outputs
    spec = tf.TensorSpec(made.shape, made.dtype)

    def rows(x: Any) -> Any:
        count = tf.shape(x)[0]
        full = tf.concat([x, tf.repeat(x[-1:], -count % batch, axis=0)], 0)
        batches = tf.reshape(full, tf.concat([[-1, batch], tf.shape(x)[1:]], 0))
        answers = tf.map_fn(function, batches, fn_output_signature=spec)
        flat = tf.reshape(answers, tf.concat([[-1], tf.shape(answers)[2:]], 0))[:count]
        flat.set_shape((None, *spec.shape[1:]))
        return flat

    return rows


# --- Keras ----------------------------------------------------------------------------------------------


def of_keras(
    tf: Any,
    model: Any,
    contract: ModelContract,
    *,
    shape: Sequence[int] | None = None,
    name: str | None = None,
    slope: Callable[[Callable[[Any], Any], Any], tuple[Any, Any]] | None = None,
) -> Form:
    """The form of a Keras model object.

    Args:
        tf: TensorFlow, or what has its `constant`, `repeat`, `shape` and `cast`.
        model: Functional, Sequential or subclassed.
        contract: Which of its inputs and outputs are meant.
        shape: Of one row, for a subclassed model, which does not say.
        name: What to call it in messages; None takes the model's own.
        slope: `(function, point)` -> value and gradient there, or None where there is none; TensorFlow's
            where it is not given.

    Raises:
        InvalidSpec: The contract leaves open which input or output is meant, or names one that is not there.
    """
    called = name or f"the Keras model {getattr(model, 'name', '')!r}"
    inputs = {one.name: one for one in getattr(model, "inputs", None) or ()}
    if not inputs:
        if shape is None:
            raise InvalidSpec(
                f"{called}: does not say the shape of its rows, as subclassed models; give `shape`; {PAGE}"
            )

        def plain(x: Any) -> Any:
            return chosen_output(called, model(x, training=False), (), contract)

        return Form(plain, tuple(shape), called, smooth=plain, weights=_weights(model), keep=model)
    # Of Keras 2 a datatype is an object of TensorFlow's.
    kinds = {k: (tuple(it.shape[1:]), getattr(it.dtype, "name", it.dtype)) for k, it in inputs.items()}
    rows = row_input(called, kinds, contract)
    held = held_values(tf, called, kinds, rows, contract)
    names = getattr(model, "output_names", ())

    def through(model: Any) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            given = _structured(model, {rows: x, **repeated(tf, held, x)})
            return chosen_output(called, model(given, training=False), names, contract)

        return call

    size, dtype = kinds[rows]
    known = {"dtype": dtype, "batch": inputs[rows].shape[0], "weights": _weights(model), "keep": model}
    form = Form(through(model), size, called, **known)
    if form.whole is None:
        return form._replace(smooth=form.call)
    return form._replace(smooth=_of_floats(tf, model, rows, through, form, slope or partial(_taped, tf)))


def _structured(model: Any, values: Mapping[str, Any]) -> Any:
    """`values` by name of input, in the structure that the model is called with."""
    import keras

    return keras.tree.map_structure(lambda one: values[one.name], _structure(model))


def _structure(model: Any) -> Any:
    """The inputs of a model as it takes them: one, a list, a mapping."""
    return model.inputs[0] if type(model).__name__ == "Sequential" else model.input


def _weights(model: Any) -> Callable[[], Iterable[np.ndarray]]:
    return lambda: (np.asarray(one) for one in model.weights)


def _of_floats(
    tf: Any,
    model: Any,
    rows: str,
    through: Callable[[Any], Callable[[Any], Any]],
    form: Form,
    slope: Callable[[Callable[[Any], Any], Any], tuple[Any, Any]],
) -> Callable[[Any], Any] | None:
    """A model of whole numbers as a function of floats, by the same layers; None where it is none.

    Where a model begins with a cast or a rescaling its layers take floats just as well. Whether this one does
    is seen by trying: on whole numbers both must say the same, and the gradient must exist.
    """
    import keras

    if sample(form) is None:
        return None
    point = tf.constant(sample(form))
    try:
        given = keras.tree.map_structure(
            lambda one: keras.Input(form.shape, dtype="float32", name=one.name) if one.name == rows else one,
            _structure(model),
        )
        smooth = through(
            keras.models.clone_model(model, input_tensors=given, clone_function=lambda layer: layer)
        )
        own, gradient = slope(smooth, point)
        same = np.allclose(own, form.call(tf.cast(point, form.dtype)), rtol=1e-3, atol=1e-5)
    except Exception:  # whatever layers say that do not take floats
        return None
    return smooth if same and gradient is not None else None


def _taped(tf: Any, function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(point)
        own = function(point)
    return own, tape.gradient(own, point)


def sample(form: Form) -> np.ndarray | None:
    """A few rows that a model of this form can take, float32; None where an axis may have any size."""
    if None in form.shape:
        return None
    low, high = form.whole or (-1, 1)
    rng, shape = np.random.default_rng(0), (form.batch or 4, *(size or 1 for size in form.shape))
    x = rng.uniform(max(low, 0) if form.whole else low, min(high, 255), shape)
    return np.asarray(np.rint(x) if form.whole else x, np.float32)


# --- names ----------------------------------------------------------------------------------------------

_Kinds = Mapping[str, tuple[tuple[int | None, ...], str]]
"""Name of each input -> shape of its row, datatype."""


def row_input(name: str, kinds: _Kinds, contract: ModelContract) -> str:
    """The input that takes the rows."""
    if unknown := sorted({*contract.hold} - {*kinds}):
        raise InvalidSpec(
            f"{name}: `hold` names {', '.join(unknown)}, its inputs are {_listed(kinds)}; {PAGE}"
        )
    if contract.input_name is not None:
        if contract.input_name not in kinds:
            raise InvalidSpec(
                f"{name}: has no input {contract.input_name!r}, its inputs are {_listed(kinds)}; {PAGE}"
            )
        return contract.input_name
    free = [one for one in kinds if one not in contract.hold]
    if len(free) != 1:
        raise InvalidSpec(
            f"{name}: has {len(kinds)} inputs, {_listed(kinds)}; say `input_name`, the one that takes the "
            f"rows, and `hold`, the values of the others; {PAGE}"
        )
    return free[0]


def held_values(tf: Any, name: str, kinds: _Kinds, rows: str, contract: ModelContract) -> dict[str, Any]:
    """The values of the other inputs, without the batch."""
    held = {}
    for one, (shape, dtype) in kinds.items():
        if one == rows:
            continue
        if one not in contract.hold:
            raise InvalidSpec(f"{name}: say the value of input {one!r} {shape} in `hold`; {PAGE}")
        try:
            value = np.asarray(contract.hold[one])
            full = value if None in shape else np.broadcast_to(value, tuple(map(int, shape)))  # type: ignore[arg-type]
            held[one] = tf.constant(full.tolist(), dtype)
        except (ValueError, TypeError):
            raise InvalidSpec(f"{name}: `hold`: expected a value for {one!r} of shape {shape}") from None
    return held


def repeated(tf: Any, held: Mapping[str, Any], x: Any) -> dict[str, Any]:
    """The values of the other inputs, once for each row."""
    return {name: tf.repeat(value[None], tf.shape(x)[0], axis=0) for name, value in held.items()}


def chosen_output(name: str, answer: Any, names: Sequence[str], contract: ModelContract) -> Any:
    """The output that the contract means, of what a model returned."""
    if isinstance(answer, Mapping):
        outputs = dict(answer)
    elif isinstance(answer, list | tuple):
        named = names if len(names) == len(answer) else range(len(answer))
        outputs = {str(one): value for one, value in zip(named, answer, strict=True)}
    else:
        return answer
    if contract.output_name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if contract.output_name not in outputs:
        listed = ", ".join(f"{one} {tuple(getattr(value, 'shape', ()))}" for one, value in outputs.items())
        raise InvalidSpec(f"{name}: has {len(outputs)} outputs, {listed}; say `output_name`; {PAGE}")
    return outputs[contract.output_name]


def _listed(kinds: _Kinds) -> str:
    return ", ".join(f"{name} {shape}" for name, (shape, _) in kinds.items())


# --- ends -----------------------------------------------------------------------------------------------


def cut(tf: Any, raw: Any, contract: ModelContract) -> tuple[str, Any]:
    """What `meaning.logarithms` takes of a model's numbers as they are traced: which function they end in,
    and what goes into that; an empty word, and the numbers, where none is to be seen or logits were said.

    Args:
        tf: TensorFlow.
        raw: What the model's graph ends in, `(N, L)` or `(N,)`.
        contract: What the numbers are.
    """
    end, before = ("", None) if contract.output == "logits" else _before(raw)
    if before is None or (end == "softmax" and (raw.shape.rank == 1 or raw.shape[-1] == 1)):
        return "", raw
    before = tf.reshape(tf.cast(before, tf.float32), tf.shape(raw))
    return end, tf.ensure_shape(before, raw.shape)


def _before(tensor: Any) -> tuple[str, Any]:
    """The softmax or sigmoid that a traced tensor comes from, and what goes into that; else an empty word.

    Nothing between may do more than hand on the elements in their order.
    """
    while (made := getattr(tensor, "op", None)) is not None:
        if made.type in ("Softmax", "Sigmoid"):
            return made.type.lower(), made.inputs[0]
        if made.type not in ("Identity", "Cast", "Reshape"):
            break
        tensor = made.inputs[0]
    return "", None
