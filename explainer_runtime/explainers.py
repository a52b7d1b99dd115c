"""Fit, prepare, explain: the one place that takes the four kinds apart.

An explainer is three values: a spec, what was fitted, and a predictor. `fit` makes a `Fitted` of the first
two; `prepare` closes it over a predictor, compiles, and returns a function.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from explainer_runtime.artifact import Fitted
from explainer_runtime.driver import Budget, Progress, solve
from explainer_runtime.driver.estimated import CentralDifferences, Estimator, RandomDirections
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.methods import teaching
from explainer_runtime.methods.common import Ground
from explainer_runtime.predictors import Predictor, connect, served
from explainer_runtime.predictors.base import WhiteBox, named, told
from explainer_runtime.predictors.checking import Strangeness, examine, introduced
from explainer_runtime.predictors.coalescer import Coalescer
from explainer_runtime.predictors.keras import KerasNetwork, KerasScores
from explainer_runtime.predictors.watched import Watched
from explainer_runtime.search.asks import Ask, Search
from explainer_runtime.search.networks import Networks
from explainer_runtime.spec import (
    CEM,
    AnchorImage,
    Counterfactual,
    CounterfactualProto,
    ElasticNet,
    Inputs,
    Limits,
    Options,
    Spec,
    parse,
    parse_options,
    with_options,
)

if TYPE_CHECKING:  # methods are imported when they are used
    from explainer_runtime.methods.anchor import Segmenter

_BACKGROUNDS = 100
"""Background images kept in an artifact; they only have to be various."""


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
            learn how many classes it has, where `classes` is not given, and to know it again. A surrogate is
            taught by it, from at most 8,500 rows: with `gradient='surrogate'`, and with `'auto'` if it is not
            in this process and there are rows `x`.
        inputs: The whole input contract, instead of one taken from `x`.
        classes: How many class scores the model answers with.
        class_names: A name for each class.
        background: Images for `fill='background'` `(B, H, W, C)`; at most 100 are kept, evenly spaced.
            None takes them from `x`.
        autoencoder: Keras model that rebuilds rows; what `gamma` weighs, and what tells the plausibility of
            an answer.
        encoder: Keras model that places rows; in whose space `theta` weighs the distance to a prototype.
        force: Whether a model is taken however often it is wrong about `y`.
        progress: Told the share of the training rows that is encoded.

    Raises:
        InvalidInput: `x` is not a batch of finite numbers.
        InvalidSpec: Something needed is missing; spec, contract and model do not go together; or the model is
            wrong about `y` as often as chance, or far more often than on rows in another usual range.
        PredictorError: The predictor failed.
    """
    model = None if predictor is None else connect(predictor, shape=_row_shape(x, inputs))
    contract = inputs or _contract(x, model, classes, class_names)
    _check_spec(spec, contract)
    known = introduced(model, contract, x, y, force=force)
    fitted = _fitted(spec, contract, x, model, background, autoencoder, encoder, progress)
    return dataclasses.replace(fitted, arrays={**fitted.arrays, **known.arrays}, model=known.words)


def _fitted(
    spec: Spec,
    contract: Inputs,
    x: np.ndarray | None,
    predictor: Predictor | None,
    background: np.ndarray | None,
    autoencoder: Any | None,
    encoder: Any | None,
    progress: Callable[[float], None] | None,
) -> Fitted:
    match spec:
        case Counterfactual() | CounterfactualProto() | CEM():
            models = {"autoencoder": autoencoder, "encoder": encoder}
            given = {name: model for name, model in models.items() if model is not None}
            arrays = _taught(spec, contract, x, predictor, progress)
            arrays |= _learn(spec, contract, x, predictor, given, progress)
            fitted = Fitted(spec, contract, arrays, given)
            check_fitted(fitted)
            return fitted
        case AnchorImage():
            return Fitted(
                spec, contract, _backgrounds(spec, contract, x if background is None else background)
            )
        case _:
            assert_never(spec)


class Prepared:
    """A fitted explainer closed over a predictor. Safe to call from many threads.

    Calls that run at the same time share nothing but round trips to a served model.

    Attributes:
        fitted: What was fitted.
        predictor: The model.
        coalescer: What merges their asks; None for a model that is not served. Its `asked` and `sent` say how
            many calls that saved.
        strangeness: Whether the model is the one that the explainer was fitted to.
    """

    def __init__(self, fitted: Fitted, predictor: Predictor, segment: Segmenter | None = None) -> None:
        self.fitted, self.predictor, self._segment = fitted, predictor, segment
        model = served(predictor)
        self.coalescer = Coalescer(predictor, wait=model.settings.coalesce) if model else None
        self._road = _road(fitted.spec, fitted, predictor)
        self.strangeness = Strangeness(fitted.inputs, fitted.model, fitted.arrays)
        self._networks = {
            name: KerasNetwork(model) for name, model in fitted.models.items() if name != "student"
        }
        self._guide = None
        if self._road == "surrogate":
            self._guide = teaching.guide(fitted)

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
            options: What this request changes; see `spec.OPTIONS`.
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
        spec = with_options(self.fitted.spec, asked)
        _check_options(spec, self.fitted.inputs)
        _check_prototypes(asked, self.fitted)
        budget = Budget(
            min(limits.max_rows, asked.max_rows or limits.max_rows),
            min(limits.max_calls, asked.max_calls or limits.max_calls),
            min(limits.max_seconds, asked.max_seconds or limits.max_seconds),
        )
        estimator = _estimator(spec, self._road, self.fitted.inputs)
        with self._asking() as predictor:
            answer, cost = solve(
                self._search(rows, spec, predictor),
                predictor,
                budget,
                estimator=estimator,
                cancel=cancel,
                progress=progress,
                watch=watch,
            )
        meta: dict[str, Any] = {"spec": spec.model_dump(mode="json")}
        if self.strangeness.warning:
            meta["warnings"] = [self.strangeness.warning]
        if self.fitted.inputs.class_names:
            meta["class_names"] = list(self.fitted.inputs.class_names)
        if self._road:
            arrays = {**answer.arrays, "gradient_source": np.full(len(answer), self._road)}
            answer = dataclasses.replace(answer, arrays=arrays)
        return dataclasses.replace(answer, meta=meta, cost=cost)

    def _search(self, rows: np.ndarray, spec: Spec, predictor: Predictor) -> Search[Explanation]:
        ground = Ground(
            self.fitted.inputs,
            self.fitted.arrays,
            self._networks,
            exclusive=predictor.exclusive,
            snap=predictor.snap if predictor.integers else None,
            road=self._road or "",
            guide=self._guide,
        )
        return _search(spec, rows, ground, self._segment)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Predictor]:
        """The predictor for the length of one explanation."""
        self.strangeness.meet(self.coalescer or self.predictor, self.predictor)
        if isinstance(self.predictor, KerasScores):
            yield self.predictor
            return
        # What we cannot see into must stay one model, and keep rows in order.
        watched = Watched(self.coalescer or self.predictor, self.predictor, self.fitted.inputs.classes)
        with self.coalescer.running() if self.coalescer else contextlib.nullcontext():
            yield watched

    def close(self) -> None:
        """Let go of the predictor's connections and of the threads that share them; a later call reopens."""
        (self.coalescer or self.predictor).close()

    def warm(self) -> None:
        """Explain one made-up row, so that what is compiled on first use is compiled now.

        A remote model is not disturbed: its surrogate, if there is one, answers in its place.
        """
        inputs = self.fitted.inputs
        rng = np.random.default_rng(0)
        row = rng.uniform(inputs.low, inputs.high, (1, *inputs.shape)).astype(np.float32)
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
        InvalidSpec: `gradient='exact'` with a predictor that has no graph in this process; or explainer and
            model do not go together.
        InvalidPrediction: A model in this process is not what was said of it, or answers by chance; or it is
            another than the explainer was fitted to, and `strict` was said.
        MissingExtra: The method needs TensorFlow, and it is not installed.
        PredictorError: The model failed on the made-up row.
    """
    spec, predictor = fitted.spec, connect(predictor, shape=fitted.inputs.shape)
    examine(predictor, fitted.inputs)
    if getattr(spec, "gradient", None) == "exact" and not isinstance(predictor, WhiteBox):
        raise InvalidSpec("gradient='exact' needs the model in this process; 'auto' does with an endpoint")
    check_fitted(fitted)
    if told(predictor).output == "labels" and not isinstance(spec, AnchorImage):
        raise InvalidSpec(
            f"{named(predictor)} answers with labels only, which is enough for anchor_image; "
            f"{spec.kind} needs probabilities or logits"
        )
    prepared = Prepared(fitted, predictor, segment)
    if isinstance(predictor, KerasScores):
        prepared.strangeness.meet(predictor, predictor)
    if warm:
        prepared.warm()
    return prepared


def check_rows(x: Any, contract: Inputs, most: int) -> np.ndarray:
    """`x` as float32 rows that keep the input contract; always a copy.

    Raises:
        InvalidInput: What was expected, and what came.
    """
    try:
        rows = np.array(x)
    except ValueError:
        raise InvalidInput("expected rows of one shape, got a ragged list") from None
    if rows.dtype.kind not in "fiu":
        raise InvalidInput(f"expected numbers, got data of type {rows.dtype}")
    shape = ", ".join(str(size) for size in contract.shape)
    if rows.shape[1:] != contract.shape or rows.ndim == 0:
        raise InvalidInput(f"expected rows of shape (N, {shape}), got {rows.shape}")
    if not 1 <= len(rows) <= most:
        raise InvalidInput(f"expected 1 to {most} rows, got {len(rows)}")
    rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise InvalidInput("expected finite values, got NaN or infinity")
    # A float32 near the bound is the bound: clients round.
    slack = 1e-5 * (contract.high - contract.low)
    if rows.min() < contract.low - slack or rows.max() > contract.high + slack:
        raise InvalidInput(
            f"expected values in [{contract.low:g}, {contract.high:g}], "
            f"got [{rows.min():.4g}, {rows.max():.4g}]"
        )
    return rows


# --- helpers --------------------------------------------------------------------------------------------


def _search(spec: Spec, x: np.ndarray, ground: Ground, segment: Segmenter | None) -> Search[Explanation]:
    contract = ground.inputs
    match spec:
        case Counterfactual():
            from explainer_runtime.methods import counterfactual

            return counterfactual.search(x, spec, ground, *_bounds(spec, contract, x))
        case CounterfactualProto():
            from explainer_runtime.methods import prototype

            return prototype.search(x, spec, ground, *_bounds(spec, contract, x))
        case CEM():
            from explainer_runtime.methods import cem

            return cem.search(x, spec, ground, *_bounds(spec, contract, x))
        case AnchorImage():
            from explainer_runtime.methods import anchor

            return anchor.search(
                x,
                spec,
                low=contract.low,
                high=contract.high,
                classes=contract.classes,
                layout=contract.layout,
                segment=segment,
                background=ground.arrays.get("background"),
            )
        case _:
            assert_never(spec)


def _road(spec: Spec, fitted: Fitted, predictor: Predictor) -> str | None:
    """Where slopes come from, once `auto` is settled; None for a method without any."""
    if not isinstance(spec, Counterfactual | CounterfactualProto | CEM):
        return None
    if spec.gradient != "auto":
        return spec.gradient
    if isinstance(predictor, WhiteBox):
        return "exact"
    taught = spec.schedule == "fast" and teaching.taught(fitted)
    return "surrogate" if taught else "random"


def _estimator(spec: Spec, road: str | None, contract: Inputs) -> Estimator | None:
    """What infers slopes from answers; None where they are exact or none are needed."""
    if not isinstance(spec, Counterfactual | CounterfactualProto | CEM) or road not in ("full", "random"):
        return None
    eps = spec.eps if spec.schedule == "reference" else spec.eps * (contract.high - contract.low)
    low, high = np.float32(contract.low), np.float32(contract.high)
    if road == "full":
        return CentralDifferences(eps, low, high)
    first = contract.layout == "channels_first"
    return RandomDirections(eps, low, high, seed=spec.seed, channels_first=first)


def check_fitted(fitted: Fitted) -> None:
    """Refuse an explainer that lacks what its spec needs.

    Raises:
        InvalidSpec: What is missing, and how to have it.
    """
    spec, inputs = fitted.spec, fitted.inputs
    _check_spec(spec, inputs)
    if isinstance(spec, ElasticNet) and spec.gamma and "autoencoder" not in fitted.models:
        raise InvalidSpec("gamma: the autoencoder's loss needs an `autoencoder` at fit")
    if getattr(spec, "gradient", None) == "surrogate" and not teaching.taught(fitted):
        raise InvalidSpec("gradient='surrogate' needs a surrogate: fit with training rows and a predictor")
    if isinstance(spec, CEM) and fitted.arrays.get("no_info", np.empty(0)).shape != inputs.shape:
        raise InvalidSpec(f"no_info: expected an array of shape {inputs.shape} from fit; fit it again")
    if isinstance(spec, AnchorImage) and spec.fill == "background" and "background" not in fitted.arrays:
        raise InvalidSpec("fill='background' needs `background` images, or `x`, at fit")


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


def _check_spec(spec: Spec, contract: Inputs) -> None:
    try:
        _check_options(spec, contract)
    except InvalidOption as error:
        raise InvalidSpec(str(error)) from None
    match spec:
        case Counterfactual() | CounterfactualProto() | CEM():
            low, high = _bounds(spec, contract, np.zeros((1, *contract.shape), np.float32))
            if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
                raise InvalidSpec(
                    "feature_range: expected finite bounds, every lower one at or below its upper one"
                )
        case AnchorImage():
            if contract.layout is None:
                raise InvalidSpec(
                    f"anchor_image: expected images (height, width, channels), got {contract.shape}; if it "
                    "is one, its `layout` has to be said: 'channels_last' or 'channels_first'"
                )
        case _:
            assert_never(spec)


def _check_options(spec: Spec, contract: Inputs) -> None:
    if isinstance(spec, CounterfactualProto):
        for wanted in spec.target_class or ():
            if wanted >= contract.classes:
                raise InvalidOption(
                    f"target_class: expected classes from 0 to {contract.classes - 1}, got {wanted}",
                    "target_class",
                )
        return
    target = getattr(spec, "target_class", "other")
    if isinstance(target, int) and target >= contract.classes:
        raise InvalidOption(
            f"target_class: expected 'other', 'same' or a class from 0 to {contract.classes - 1}, "
            f"got {target}",
            "target_class",
        )


def _check_prototypes(asked: Options, fitted: Fitted) -> None:
    """Options of a request that speak of prototypes need some."""
    if isinstance(fitted.spec, CounterfactualProto) and "codes" not in fitted.arrays:
        for name in ("threshold", "k", "k_type"):
            if getattr(asked, name):
                raise InvalidOption(
                    f"{name}: this explainer was fitted without prototypes; fit it with theta or threshold",
                    name,
                )


def _bounds(
    spec: Counterfactual | CounterfactualProto | CEM, contract: Inputs, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of rows `(N, *S)`; both the row itself where it may not change."""
    low, high = (
        np.broadcast_to(_broadcast(bound, contract, "feature_range"), x.shape)
        for bound in spec.feature_range or (contract.low, contract.high)
    )
    if spec.region is None:
        return low, high
    free = _broadcast(spec.region, contract, "region").astype(bool)
    return np.where(free, low, x), np.where(free, high, x)


def _broadcast(value: Any, contract: Inputs, name: str) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(value, np.float32), contract.shape)
    except ValueError:
        raise InvalidSpec(f"{name}: expected numbers or lists that broadcast to {contract.shape}") from None


def _learn(
    spec: Counterfactual | CounterfactualProto | CEM,
    contract: Inputs,
    x: np.ndarray | None,
    predictor: Predictor | None,
    models: Mapping[str, Any],
    progress: Callable[[float], None] | None,
) -> dict[str, np.ndarray]:
    """The arrays of an elastic-net explainer, from its training rows and networks."""
    from explainer_runtime.methods import cem, prototype

    if isinstance(spec, Counterfactual):
        return {}
    rows = None if x is None else check_rows(x, contract, len(x))
    named = {name: KerasNetwork(model) for name, model in models.items()}
    networks = Networks(named.get("autoencoder"), named.get("encoder"), contract.high - contract.low)
    if isinstance(spec, CEM):
        if rows is None and spec.no_info_val is None:
            raise InvalidSpec("no_info_val: give it, or training rows `x` at fit to take it from")
        try:
            return cem.fit(rows, spec, networks, contract.shape)
        except ValueError:
            raise InvalidSpec(
                f"no_info_val: expected numbers or lists that broadcast to {contract.shape}"
            ) from None
    guided = spec.theta or spec.threshold
    if guided and (rows is None or predictor is None):
        raise InvalidSpec("theta, threshold: prototypes need training rows `x` and a `predictor` at fit")
    if rows is None:
        return {}
    return prototype.fit(rows, predictor if guided else None, networks, contract.classes, progress)


def _taught(
    spec: Counterfactual | CounterfactualProto | CEM,
    contract: Inputs,
    x: np.ndarray | None,
    predictor: Predictor | None,
    progress: Callable[[float], None] | None,
) -> dict[str, np.ndarray]:
    """A surrogate and its reference rows, where they are of use."""
    asked_for = spec.gradient == "surrogate"
    black = predictor is not None and not isinstance(predictor, WhiteBox)
    if not (asked_for or ((spec.gradient, spec.schedule) == ("auto", "fast") and black)):
        return {}
    if predictor is None or x is None or len(x) < teaching.LEAST:
        if asked_for:
            raise InvalidSpec(
                f"gradient='surrogate' needs a `predictor` and {teaching.LEAST} or more rows `x` at fit"
            )
        return {}
    return teaching.fit(check_rows(x, contract, len(x)), predictor, contract, spec.seed, progress)


def _backgrounds(spec: AnchorImage, contract: Inputs, images: np.ndarray | None) -> dict[str, np.ndarray]:
    if spec.fill != "background":
        return {}
    if images is None:
        raise InvalidSpec("fill='background' needs `background` images, or `x`, at fit")
    chosen = np.linspace(0, len(images) - 1, min(len(images), _BACKGROUNDS)).round().astype(int)
    return {"background": check_rows(np.asarray(images)[chosen], contract, _BACKGROUNDS)}
