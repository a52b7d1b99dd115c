"""Fitting: a spec and what is at hand become an explainer that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from explainer_runtime import methods
from explainer_runtime.artifact import provenance
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods.ground import Given, numbered
from explainer_runtime.predictors import Predictor, connect
from explainer_runtime.predictors.backends import network as asked_of
from explainer_runtime.predictors.checking import introduced
from explainer_runtime.predictors.layers import up_to
from explainer_runtime.search.networks import Network, Networks
from explainer_runtime.spec import Inputs, Spec, parse


def fit(
    spec: Spec,
    x: np.ndarray | None = None,
    *,
    y: np.ndarray | None = None,
    predictor: Any | None = None,
    inputs: Inputs | None = None,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    background: np.ndarray | None = None,
    autoencoder: Any | None = None,
    encoder: Any | None = None,
    decoder: Any | None = None,
    surrogate: bool = True,
    force: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Fit an explainer of this spec.

    Args:
        spec: What to fit.
        x: Training rows `(M, *S)`, from which the input contract is taken: shape, lowest, highest value.
        y: Class of each of these rows `(M,)`, where it is known: how often the model agrees is kept in
            `Fitted.model`, and a model that knows no better than chance is refused.
        predictor: The model, or anything that `predictors.connect` takes. It is asked about a few rows, to
            learn how many classes it has, where `classes` is not given, and to know it again.
        inputs: The whole input contract, instead of one taken from `x`.
        classes: How many class scores the model answers with.
        class_names: A name for each class.
        background: Images for `fill='background'` `(B, H, W, C)`; at most 100 are kept, evenly spaced.
            None takes them from `x`.
        autoencoder: Keras model that rebuilds rows; what `gamma` weighs, and what tells the plausibility of
            an answer.
        encoder: Keras model that places rows, in whose space `theta` weighs the distance to a prototype; or
            the name of a layer of `predictor`, a Keras model, which it then is up to there; `'auto'` is what
            the last layer with weights is given.
        decoder: Keras model that makes rows of codes; in whose codes a change lives with `space='latent'`. An
            `encoder` that gives such codes says where a row lies; without one that is searched for.
        surrogate: Whether a surrogate is taught where the method can use one (`gradient='auto'`, schedule
            `fast`) and there are 50 rows `x` or more: it answers in place of a model that is asked at an
            endpoint. It takes at most 8,500 rows of the model, and some seconds. Of rows of more than 16,384
            features it is taught only where the model is not in this process.
        force: Whether a model is taken however often it is wrong about `y`.
        progress: Told the share that is done of asking about training rows, and of encoding them.

    Raises:
        InvalidInput: `x` is not a batch of finite numbers.
        InvalidSpec: Something needed is missing; spec, contract and model do not go together; or the model is
            wrong about `y` as often as chance, or far more often than on rows in another usual range.
        PredictorError: The predictor failed.
    """
    model = None if predictor is None else connect(predictor, shape=_row_shape(x, inputs))
    contract = inputs or _contract(x, model, classes, class_names)
    spec = agreed(spec, contract)
    method = methods.of(spec.kind)
    known = introduced(model, contract, x, y, force=force)
    if isinstance(encoder, str):
        encoder = up_to(model, encoder)
    models = {"autoencoder": autoencoder, "encoder": encoder, "decoder": decoder}
    models = {name: network for name, network in models.items() if network is not None}
    for name in models:
        if name not in method.NETWORKS:
            raise InvalidSpec(f"{name}: {spec.kind} makes no use of one")
    code = () if decoder is None else _code(decoder)
    asked = {name: asked_of(model) for name, model in models.items()}
    networks = Networks(asked.get("autoencoder"), asked.get("encoder"), contract.high - contract.low)
    if networks.autoencoder is not None:
        _check_autoencoder(networks.autoencoder, contract)
    given = Given(
        spec, contract, x, model, networks, background, progress, asked.get("decoder"), code, surrogate
    )
    arrays = method.fit(given)
    made = provenance.made(spec, known.words, rows=x, labels=y, background=background)
    fitted = Fitted(spec, contract, {**arrays, **known.arrays}, models, known.words, made)
    sound(fitted)
    return fitted


def made_up(inputs: Inputs) -> np.ndarray:
    """One row of nothing in particular `(1, *S)`."""
    rng = np.random.default_rng(0)
    return rng.uniform(inputs.low, inputs.high, (1, *inputs.shape)).astype(np.float32)


def agreed(spec: Spec, inputs: Inputs) -> Spec:
    """See `numbered`; whoever fits or deploys has said it."""
    try:
        return numbered(spec, inputs)
    except InvalidOption as error:
        raise InvalidSpec(str(error)) from None


def sound(fitted: Fitted) -> None:
    """Refuse an explainer that cannot explain; whatever is wrong with it, it is the spec's or the fit's."""
    try:
        methods.of(fitted.spec.kind).check(fitted)
    except InvalidOption as error:
        raise InvalidSpec(str(error)) from None


def _code(decoder: Any) -> tuple[int, ...]:
    """The shape of a decoder's codes."""
    shape = getattr(decoder, "input_shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape[1:]):
        raise InvalidSpec("decoder: expected a Keras model of one input, whose shape is known")
    return shape[1:]


def _check_autoencoder(network: Network, contract: Inputs) -> None:
    shape = network(made_up(contract)).shape[1:]
    if shape != contract.shape:
        raise InvalidSpec(f"autoencoder: expected a model that gives rows {contract.shape} back, got {shape}")


def _row_shape(x: np.ndarray | None, inputs: Inputs | None) -> tuple[int, ...] | None:
    return inputs.shape if inputs else None if x is None else np.shape(x)[1:]


def _contract(
    x: np.ndarray | None,
    predictor: Predictor | None,
    classes: int | None,
    class_names: Sequence[str] | None,
) -> Inputs:
    if x is None:
        raise InvalidSpec("fit needs training rows `x`, or the input contract `inputs`")
    rows = np.asarray(x)
    if rows.dtype.kind not in "fiu" or rows.ndim < 2 or not len(rows) or not np.isfinite(rows).all():
        raise InvalidInput(f"x: expected finite numbers of shape (M, ...), got {rows.dtype} {rows.shape}")
    if classes is None and class_names is not None:
        classes = len(class_names)
    if classes is None:
        if predictor is None:
            raise InvalidSpec("fit needs `classes`, `class_names`, or a `predictor` to ask")
        classes = predictor(rows[:1].astype(np.float32)).shape[1]
    return parse(
        Inputs,
        {
            "shape": rows.shape[1:],
            "low": float(rows.min()),
            "high": float(rows.max()),
            "classes": classes,
            "class_names": None if class_names is None else tuple(class_names),
        },
        "inputs",
    )
