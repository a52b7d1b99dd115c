"""White boxes by JAX: Keras models on its back end, and functions of one's own, on whatever JAX computes on.

A function is compiled for a number of rows, so rows are filled up to the next power of four: few programs
serve all batches (the way back of a small CNN takes seconds to compile). The way back starts from what the
way forward has kept. As with TensorFlow, a softmax or sigmoid at the end is found in the traced function and
cut off, so that slopes do not vanish where scores do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from explainer_runtime.errors import ExplainerError, InvalidSpec, MissingExtra, PredictorError
from explainer_runtime.predictors import forms, meaning, tally
from explainer_runtime.predictors.forms import Form, FormPredictor
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.predictors.white_box import Back, Differentiable, Engine, Slopes

_HOST = 16
"""Rows together on a processor, where activations should stay in its cache,"""
_DEVICE = 1024
"""and on an accelerator, where a call of one row takes about as long as one of some hundred."""
_HANDS_ON = ("reshape", "convert_element_type", "copy", "squeeze", "expand_dims")


def import_jax() -> Any:
    """JAX.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import jax
        import jax.extend.core
    except ImportError:
        raise MissingExtra("JAX is not installed; pip install 'explainer-runtime[jax]'") from None
    return jax


class JaxScores(FormPredictor):
    """A model that JAX computes and that is asked for scores only. Safe to call from several threads.

    Args:
        form: How it is called, with arrays of JAX; see `forms.py`.
        contract: What its numbers mean.

    Raises:
        InvalidSpec: It cannot be called as the form says.
        MissingExtra: JAX is not installed.
    """

    def __init__(self, form: Form, contract: ModelContract | None = None) -> None:
        jax, contract = import_jax(), contract or ModelContract()
        rows = _rows(jax, form, contract, smooth=False)
        width = None
        if None not in form.shape:
            made = _called(
                form.name, jax.eval_shape, rows, np.zeros((form.batch or 2, *form.shape), np.float32)
            )
            width = 1 if made.ndim == 1 else made.shape[-1]
        self._compute = _Compiled(jax, rows, form.name, form.batch)
        super().__init__(form, contract, self._computed, width)
        self.abreast = self._compute.engine.most

    def _computed(self, x: np.ndarray) -> np.ndarray:
        tally.add(rows=-len(x) % (self.form.batch or 1))
        return self._compute(x)


class JaxPredictor(Differentiable, JaxScores):
    """A model that JAX computes and differentiates: a `WhiteBox`.

    Args:
        function: Differentiable function from rows `(N, *S)`, an array of JAX, to the model's numbers, each
            row on its own; it is traced, and must have no effects. Or a `Form`, which says the rest as well.
        shape: Shape of one row, without the batch; None where an axis may have any size.
        name: What to call it in messages.
        contract: What its numbers mean.

    Attributes:
        abreast: Rows that are best computed together.
    """

    def __init__(
        self,
        function: Callable[[Any], Any] | Form,
        shape: Sequence[int | None] = (),
        name: str | None = None,
        *,
        contract: ModelContract | None = None,
    ) -> None:
        if not isinstance(function, Form):
            called = name or f"the function {getattr(function, '__name__', '')!r}"
            function = Form(function, tuple(shape), called, smooth=function)
        super().__init__(function, contract)
        jax, smooth = import_jax(), _rows(import_jax(), self.form, self.contract, smooth=True)
        self._end = ""

        def before(x: Any) -> Any:
            if self.contract.output == "logits":
                return smooth(x)
            self._end, numbers = _cut(jax, smooth, x)
            return numbers

        self._slopes = _Compiled(jax, before, self.name, self.form.batch)

    def smooth(self) -> tuple[Slopes, Callable[[], str]]:
        """See `Differentiable`."""
        return self._slopes, lambda: self._end

    def compiled(self, form: Form) -> Slopes:
        """See `Differentiable`."""
        jax = import_jax()
        return _Compiled(jax, _rows(jax, form, self.contract, smooth=False), self.name)

    def like(self, form: Form, contract: ModelContract) -> JaxPredictor:
        """See `Differentiable`."""
        return JaxPredictor(form, contract=contract)


class JaxNetwork(Slopes):
    """A fitted Keras network on the JAX back end, such as an autoencoder, as functions of arrays."""

    def __init__(self, model: Any) -> None:
        jax = import_jax()
        super().__init__(_Compiled(jax, lambda x: model(x, training=False), model.name).engine)


def of_keras(
    model: Any, contract: ModelContract, *, shape: Sequence[int] | None = None, name: str | None = None
) -> JaxScores:
    """A predictor over a Keras model on the JAX back end: a `JaxPredictor` where it can be differentiated.

    Raises:
        InvalidSpec: It does not fit the contract.
    """
    jax = import_jax()
    form = forms.of_keras(_Like(jax), model, contract, shape=shape, name=name, slope=_sloped(jax))
    if contract.output == "labels" or form.smooth is None:
        return JaxScores(form, contract)
    return JaxPredictor(form, contract=contract)


# --- helpers --------------------------------------------------------------------------------------------


class _Compiled(Slopes):
    """A function of rows, compiled for each power of four, or for the one number of rows that it takes."""

    def __init__(self, jax: Any, function: Callable[[Any], Any], name: str, batch: int | None = None) -> None:
        def value(x: Any) -> Any:
            # An accelerator's own idea of float32 has 10 bits, and a step needs all 24.
            with jax.default_matmul_precision("highest"):
                return function(x).astype("float32")

        values, forward = jax.jit(value), jax.jit(lambda x: jax.vjp(value, x))
        backward = jax.jit(lambda back, w: back(w)[0])

        def ahead(x: np.ndarray) -> tuple[np.ndarray, Back]:
            y, back = _called(name, forward, x)
            return np.asarray(y), lambda w: np.asarray(_called(name, backward, back, w))

        host = jax.default_backend() == "cpu"
        self.engine = Engine(
            lambda x: np.asarray(_called(name, values, x)),
            ahead,
            batch or (_HOST if host else _DEVICE),
            lambda count: batch or 4 ** (((count - 1).bit_length() + 1) // 2),
        )
        super().__init__(self.engine)


def _called(name: str, function: Any, *arrays: Any) -> Any:
    import jax

    try:
        return function(*arrays)
    except ExplainerError:
        raise
    except jax.errors.JaxRuntimeError as error:
        raise PredictorError(f"{name} failed: {one_line(str(error))}") from error
    except Exception as error:  # as it is traced, of whatever a model's own code raises
        raise InvalidSpec(f"{name}: cannot be called: {one_line(str(error))}; {meaning.PAGE}") from error


def _rows(jax: Any, form: Form, contract: ModelContract, *, smooth: bool) -> Callable[[Any], Any]:
    """The model as a function of float32 rows in input units; see `forms.rows_for`."""
    call = form.smooth if smooth and form.smooth is not None else form.call
    exact = not (smooth and form.whole)

    def rows(x: Any) -> Any:
        x = jax.numpy.asarray(x)
        if not meaning.unscaled(contract):
            scale, offset = meaning.affine(contract, form.shape, form.name)
            x = x * scale + offset
        if form.whole and exact:
            x = jax.numpy.clip(jax.numpy.round(x), *form.whole)
        return call(x.astype(form.dtype) if exact else x)

    return rows


def _cut(jax: Any, function: Callable[[Any], Any], x: Any) -> tuple[str, Any]:
    """What a function ends in, `softmax` or `sigmoid`, and what goes into that, shaped like its values;
    else an empty word, and its values."""
    core, closed = jax.extend.core, jax.make_jaxpr(function)(x)

    def until(outputs: Sequence[Any]) -> Callable[[Any], Sequence[Any]]:
        part = closed.jaxpr.replace(outvars=[*outputs])
        ahead: Callable[[Any], Sequence[Any]] = core.jaxpr_as_fun(core.ClosedJaxpr(part, closed.consts))
        return ahead

    made: dict[Any, Any] = {variable: step for step in closed.jaxpr.eqns for variable in step.outvars}
    raw: Any = closed.jaxpr.outvars[0]
    last = raw
    step: Any = made.get(raw)
    while step is not None and step.primitive.name in _HANDS_ON:
        last = step.invars[0]
        step = made.get(last)
    kind, end, numbers = "" if step is None else step.primitive.name, "", raw
    if kind in ("jit", "pjit"):  # what is compiled on its own is looked into
        inner, given = core.jaxpr_as_fun(step.params["jaxpr"]), until(step.invars)
        end, numbers = _cut(jax, lambda x: inner(*given(x))[step.outvars.index(last)], x)
    elif kind == "logistic":
        end, numbers = "sigmoid", until(step.invars)(x)[0]
    elif kind == "div" and (before := _softened(jax, closed.jaxpr, made, step)) is not None:
        end, numbers = "softmax", until([before])(x)[0]
    if not end or (end == "softmax" and raw.aval.shape[1:] in ((), (1,))):
        return "", until([raw])(x)[0]
    return end, numbers.reshape(raw.aval.shape)


def _softened(jax: Any, jaxpr: Any, made: dict[Any, Any], division: Any) -> Any:
    """What goes into the softmax over the last axis that ends in this division; None where it is none.

    That is told by comparing the steps with those of `jax.nn.softmax` itself.
    """
    last = division.invars[0]
    for kind in ("exp", "sub"):
        if (step := made.get(last)) is None or step.primitive.name != kind:
            return None
        last = step.invars[0]
    steps, wanted = [], {*division.outvars}
    for step in reversed(jaxpr.eqns):
        if wanted.intersection(step.outvars):
            steps.append(step)
            wanted.difference_update(step.outvars)
            wanted.update(one for one in step.invars if isinstance(one, jax.extend.core.Var) and one != last)
    own = jaxpr.replace(constvars=[], invars=[last], outvars=division.outvars, eqns=steps[::-1])
    point = jax.ShapeDtypeStruct(last.aval.shape, last.aval.dtype)
    known = jax.make_jaxpr(jax.nn.softmax)(point).jaxpr
    return last if not wanted and str(own) == str(known) else None


def _sloped(jax: Any) -> Callable[[Callable[[Any], Any], Any], tuple[Any, Any]]:
    def slope(function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
        own, back = jax.vjp(function, point)
        return own, back(jax.numpy.ones_like(own))[0]

    return slope


class _Like:
    """What `forms.py` asks of TensorFlow, by JAX."""

    def __init__(self, jax: Any) -> None:
        self.repeat, self.shape = jax.numpy.repeat, jax.numpy.shape
        self._array = jax.numpy.asarray

    def constant(self, value: Any, dtype: str | None = None) -> Any:
        """An array of this datatype, which has to hold the value."""
        array = np.asarray(value)
        if dtype and not (array.astype(dtype) == array).all():
            raise ValueError(f"{dtype} does not hold it")
        return self._array(array if dtype is None else array.astype(dtype))

    @staticmethod
    def cast(x: Any, dtype: str) -> Any:
        """The same numbers in another datatype."""
        return x.astype(dtype)
