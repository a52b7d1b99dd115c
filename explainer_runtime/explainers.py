"""Fit, prepare, explain.

An explainer is three values: a spec, what was fitted, and a predictor. `fit` makes a `Fitted` of the first
two; `prepare` closes it over a predictor, compiles, and returns a function.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from explainer_runtime import methods
from explainer_runtime.artifact import provenance
from explainer_runtime.driver import Budget, Progress, estimated, explain, shard_of, solve
from explainer_runtime.driver.solve import TINY
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.fitted import Fitted, check_rows
from explainer_runtime.methods import teaching
from explainer_runtime.methods.ground import Given, Ground, Segmenter, numbered
from explainer_runtime.predictors import Predictor, WhiteBox, connect, served
from explainer_runtime.predictors.backends import network as asked_of
from explainer_runtime.predictors.base import LocalPredictor, named, told
from explainer_runtime.predictors.canary import Canary
from explainer_runtime.predictors.checking import Strangeness, examine, introduced
from explainer_runtime.predictors.layers import up_to
from explainer_runtime.predictors.merging import Merging
from explainer_runtime.predictors.tally import Tally
from explainer_runtime.search.asks import Ask, Search
from explainer_runtime.search.networks import Network, Networks
from explainer_runtime.spec import Inputs, Limits, Spec, parse, parse_options, with_options

_VANISHED = (
    "nothing was found for some rows, and the model gives some class a probability of 0: where float32 ends, "
    "nothing says how far away that class is; have the model answer with logits, and say output 'logits'"
)


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
    spec = _numbered(spec, contract)
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
    _check(fitted)
    return fitted


class Prepared:
    """A fitted explainer closed over a predictor. Safe to call from many threads.

    Calls that run at the same time share nothing but round trips to a served model.

    Attributes:
        fitted: What was fitted.
        predictor: The model.
        merging: What merges their asks; None for a model that is not served. Its `asked` and `sent` say how
            many calls that saved.
        strangeness: Whether the model is the one that the explainer was fitted to.
    """

    def __init__(self, fitted: Fitted, predictor: Predictor, segment: Segmenter | None = None) -> None:
        self.fitted, self.predictor, self._segment = fitted, predictor, segment
        model = served(predictor)
        self.merging = Merging(predictor, wait=model.settings.coalesce) if model else None
        self._road = _road(fitted, predictor)
        self.strangeness = Strangeness(fitted.inputs, fitted.model, fitted.arrays)
        self._networks = {name: asked_of(model) for name, model in fitted.models.items() if name != "student"}
        self._shard = None
        if self._road == "exact" and isinstance(predictor, WhiteBox):
            self._shard = shard_of(predictor, _made_up(fitted.inputs))
        self._guide = teaching.guide(fitted) if self._road == "surrogate" else None

    def __call__(
        self,
        x: Any,
        options: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        cancel: Callable[[], bool] | None = None,
        progress: Callable[[Progress], None] | None = None,
        watch: Callable[[Ask, Any], None] | None = None,
    ) -> Explanation:
        """Explain every row of `x`.

        Args:
            x: Rows `(N, *S)` in the units and range of the input contract. Not changed.
            options: What this request changes; those settings of the spec that are `Requestable`.
            limits: What the operator allows; a request's own budget can only be smaller.
            cancel: Asked now and then; true stops the search.
            progress: Told how far the search is.
            watch: Shown everything the search asks, with the answer; see `search/asks.py`.

        Returns:
            One answer a row. Not finding one is an answer: `found` is false there.

        Raises:
            InvalidInput: The rows break the contract.
            InvalidOption: An option is unknown or out of range.
            Cancelled: `cancel` said so.
            PredictorError: The model failed.
        """
        limits = limits or Limits()
        rows = check_rows(x, self.fitted.inputs, limits.max_batch)
        asked = parse_options(self.fitted.spec, options)
        spec = numbered(with_options(self.fitted.spec, asked), self.fitted.inputs)
        if given := asked.model_dump(exclude_none=True):
            methods.of(spec.kind).check(dataclasses.replace(self.fitted, spec=spec), given)
        budget = Budget(
            min(limits.max_rows, asked.max_rows or limits.max_rows),
            min(limits.max_calls, asked.max_calls or limits.max_calls),
            min(limits.max_seconds, asked.max_seconds or limits.max_seconds),
        )
        estimator = estimated.of(spec, self._road, self.fitted.inputs)
        met = Tally()
        if self.strangeness.price(self.predictor) <= budget.rows:
            met = self.strangeness.meet(self.merging or self.predictor, self.predictor)
            budget = dataclasses.replace(budget, rows=budget.rows - met.rows, calls=budget.calls - met.calls)
        else:  # nothing is said about a model that there was no way to meet
            budget = dataclasses.replace(budget, rows=0)
        with self._asking() as predictor:
            answer = explain(
                rows,
                lambda part: self._search(part, spec, predictor),
                predictor,
                budget,
                estimator=estimator,
                cancel=cancel,
                progress=progress,
                watch=watch,
                shard=self._shard,
            )
        meta: dict[str, Any] = {"spec": spec.model_dump(mode="json")}
        warnings = [self.strangeness.warning, _VANISHED if self._vanished(answer) else ""]
        if any(warnings):
            meta["warnings"] = [one for one in warnings if one]
        if self.fitted.inputs.class_names:
            meta["class_names"] = list(self.fitted.inputs.class_names)
        if self._road:
            arrays = {**answer.arrays, "gradient_source": np.full(len(answer), self._road)}
            answer = dataclasses.replace(answer, arrays=arrays)
        cost = answer.cost + Cost(met.calls, met.rows)
        shown = partial(_shown, rows, self.fitted.inputs)
        return dataclasses.replace(answer, meta=meta, cost=cost, shown=shown)

    def _search(self, rows: np.ndarray, spec: Spec, predictor: Predictor) -> Search[Explanation]:
        ground = Ground(
            self.fitted.inputs,
            self.fitted.arrays,
            self._networks,
            exclusive=predictor.exclusive,
            snap=predictor.snap,
            road=self._road or "",
            guide=self._guide,
            segment=self._segment,
        )
        return methods.of(spec.kind).search(rows, spec, ground)

    def _vanished(self, answer: Explanation) -> bool:
        """Whether a search may have failed because probabilities ended before it could follow them."""
        if self._road in (None, "exact") or answer["found"].all() or (answer["original_class"] < 0).any():
            return False
        return bool(answer["original_proba"].min() < 2 * TINY)  # what is less was taken for as much

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Predictor]:
        """The predictor for the length of one explanation."""
        if isinstance(self.predictor, LocalPredictor | WhiteBox):
            yield self.predictor
            return
        # What we cannot see into must stay one model, and keep rows in order.
        canary = Canary(self.merging or self.predictor, self.predictor, self.fitted.inputs.classes)
        with self.merging.running() if self.merging else contextlib.nullcontext():
            yield canary

    @property
    def dear(self) -> str:
        """What makes answers dear that need not be, in a sentence; nothing where nothing does."""
        return teaching.missed(self.fitted.spec) if self._road == "random" else ""

    @property
    def coalescer(self) -> Merging | None:
        """What `merging` was called; to be gone in 0.3.0."""
        warnings.warn("coalescer is called merging now", DeprecationWarning, stacklevel=2)
        return self.merging

    def close(self) -> None:
        """Let go of the predictor's connections and of the threads that share them; a later call reopens."""
        (self.merging or self.predictor).close()

    def warm(self) -> None:
        """Explain one made-up row, so that what is compiled on first use is compiled now.

        A remote model is not disturbed: its surrogate, if there is one, answers in its place.
        """
        row = _made_up(self.fitted.inputs)
        if self._guide is not None:
            solve(self._search(row, self.fitted.spec, self._guide.surrogate), self._guide.surrogate)
        elif isinstance(self.predictor, WhiteBox):
            self(row)


def prepare(
    fitted: Fitted, predictor: Any, *, segment: Segmenter | None = None, warm: bool = True
) -> Prepared:
    """Close a fitted explainer over a predictor.

    Args:
        fitted: What `fit` or `artifact.load` returned.
        predictor: The model, or anything that `predictors.connect` takes.
        segment: Cuts images into superpixels `(H, W, C) -> (H, W)` in place of an anchor's `segmentation`;
            it is code, so no artifact holds it.
        warm: Explain one made-up row now, so that what is compiled on first use is compiled before the
            first request. A remote predictor is not disturbed.

    Raises:
        InvalidSpec: exact slopes of a predictor that has no graph in this process; or explainer and
            model do not go together.
        InvalidPrediction: A model in this process is not what was said of it, or answers by chance; or it is
            another than the explainer was fitted to, and `strict` was said.
        MissingExtra: A fitted network needs TensorFlow, and it is not installed.
        PredictorError: The model failed on the made-up row.
    """
    spec, predictor = _numbered(fitted.spec, fitted.inputs), connect(predictor, shape=fitted.inputs.shape)
    fitted = fitted if spec == fitted.spec else dataclasses.replace(fitted, spec=spec)
    examine(predictor, fitted.inputs)
    if spec.slopes == "exact" and not isinstance(predictor, WhiteBox):
        raise InvalidSpec(
            f"{spec.kind}: these settings need the model in this process, with its gradient; an endpoint "
            "does for gradient 'auto', and for algorithms that ask for rows only"
        )
    _check(fitted)
    if told(predictor).output == "labels" and spec.slopes:
        raise InvalidSpec(
            f"{named(predictor)} answers with labels only; {spec.kind} needs probabilities or logits"
        )
    prepared = Prepared(fitted, predictor, segment)
    if served(predictor) is None:  # an endpoint is met when it is first asked
        prepared.strangeness.meet(predictor, predictor)
    if warm:
        prepared.warm()
    return prepared


# --- helpers --------------------------------------------------------------------------------------------


def _code(decoder: Any) -> tuple[int, ...]:
    """The shape of a decoder's codes."""
    shape = getattr(decoder, "input_shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape[1:]):
        raise InvalidSpec("decoder: expected a Keras model of one input, whose shape is known")
    return shape[1:]


def _check_autoencoder(network: Network, contract: Inputs) -> None:
    shape = network(_made_up(contract)).shape[1:]
    if shape != contract.shape:
        raise InvalidSpec(f"autoencoder: expected a model that gives rows {contract.shape} back, got {shape}")


def _road(fitted: Fitted, predictor: Predictor) -> str | None:
    """Where slopes come from, once `auto` is settled; None for a method without any."""
    spec: Any = fitted.spec
    if spec.slopes != "auto":
        return spec.slopes
    if isinstance(predictor, WhiteBox):
        return "exact"
    return "surrogate" if spec.schedule == "fast" and teaching.taught(fitted) else "random"


def _shown(rows: np.ndarray, inputs: Inputs, answer: Explanation) -> str | None:
    from explainer_runtime import render  # nobody looks at most answers

    return render.snippet(answer, rows, inputs)


def _made_up(inputs: Inputs) -> np.ndarray:
    """One row of nothing in particular `(1, *S)`."""
    rng = np.random.default_rng(0)
    return rng.uniform(inputs.low, inputs.high, (1, *inputs.shape)).astype(np.float32)


def _numbered(spec: Spec, inputs: Inputs) -> Spec:
    """See `numbered`; whoever fits or deploys has said it."""
    try:
        return numbered(spec, inputs)
    except InvalidOption as error:
        raise InvalidSpec(str(error)) from None


def _check(fitted: Fitted) -> None:
    """Refuse an explainer that cannot explain; whatever is wrong with it, it is the spec's or the fit's."""
    try:
        methods.of(fitted.spec.kind).check(fitted)
    except InvalidOption as error:
        raise InvalidSpec(str(error)) from None


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
