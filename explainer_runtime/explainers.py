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
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.predictors import GradientPredictor, Predictor, WhiteBox, connect, served
from explainer_runtime.predictors.base import LocalPredictor, named, told
from explainer_runtime.predictors.checking import Strangeness, examine, introduced
from explainer_runtime.predictors.coalescer import Coalescer
from explainer_runtime.predictors.keras import import_tensorflow
from explainer_runtime.predictors.watched import Watched
from explainer_runtime.search.asks import Ask, Search
from explainer_runtime.search.gradients import CentralDifferences, Estimator, RandomDirections
from explainer_runtime.solve import Budget, Progress, solve
from explainer_runtime.spec import (
    CEM,
    AnchorImage,
    Counterfactual,
    CounterfactualProto,
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
    from explainer_runtime.search.ladder import Tutor

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
            learn how many classes it has, where `classes` is not given, and to know it again. A
            counterfactual's student is taught by it, from at most 8,500 rows: with
            `gradient='student'`, and with `'auto'` if it is not in this process and there are rows `x`.
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
        case Counterfactual():
            arrays, models = _taught(spec, contract, x, predictor, progress)
            judge = {} if autoencoder is None else {"autoencoder": autoencoder}
            return Fitted(spec, contract, arrays, {**models, **judge})
        case CounterfactualProto() | CEM():
            models = {"autoencoder": autoencoder, "encoder": encoder}
            given = {name: model for name, model in models.items() if model is not None}
            return Fitted(spec, contract, _learn(spec, contract, x, predictor, given, progress), given)
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
        self._tutor = _tutor(fitted) if self._road == "student" else None
        self.strangeness = Strangeness(fitted.inputs, fitted.model, fitted.arrays)

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
        estimator = _estimator(spec, self._road)
        met = self.strangeness.meet(self.coalescer or self.predictor, self.predictor)
        with self._asking() as predictor:
            answer, cost = solve(
                _search(spec, self.fitted, rows, estimator, self._segment, self._tutor),
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
            arrays = {**answer.arrays, "gradient": np.full(len(answer), self._road)}
            answer = dataclasses.replace(answer, arrays=arrays)
        cost = dataclasses.replace(cost, calls=cost.calls + met.calls, rows=cost.rows + met.rows)
        return dataclasses.replace(answer, meta=meta, cost=cost)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Predictor]:
        """The predictor for the length of one explanation."""
        if isinstance(self.predictor, LocalPredictor | WhiteBox):
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

        A remote model is not disturbed: its student, if there is one, answers in its place.
        """
        inputs = self.fitted.inputs
        rng = np.random.default_rng(0)
        row = rng.uniform(inputs.low, inputs.high, (1, *inputs.shape)).astype(np.float32)
        if self._tutor is not None:
            search = _search(self.fitted.spec, self.fitted, row, None, self._segment, self._tutor)
            solve(search, self._tutor.student)
        elif _has_graph(self.predictor):
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
    if getattr(spec, "gradient", None) == "exact" and not _has_graph(predictor):
        raise InvalidSpec("gradient='exact' needs the model in this process; 'auto' does with an endpoint")
    if getattr(spec, "gradient", None) == "student" and "student" not in fitted.models:
        raise InvalidSpec("gradient='student' needs a student: fit with training rows and a predictor")
    if told(predictor).output == "labels" and not isinstance(spec, AnchorImage):
        raise InvalidSpec(
            f"{named(predictor)} answers with labels only, which is enough for anchor_image; "
            f"{spec.kind} needs probabilities or logits"
        )
    if not isinstance(spec, AnchorImage):
        import_tensorflow()  # slow, or missing: better now than at the first request
    prepared = Prepared(fitted, predictor, segment)
    if isinstance(predictor, LocalPredictor):
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


def _search(
    spec: Spec,
    fitted: Fitted,
    x: np.ndarray,
    estimator: Estimator | None,
    segment: Segmenter | None,
    tutor: Tutor | None,
) -> Search[Explanation]:
    contract = fitted.inputs
    match spec:
        case Counterfactual():
            import_tensorflow()
            from explainer_runtime.methods import counterfactual

            return counterfactual.search(
                x,
                spec,
                *_bounds(spec, contract),
                classes=contract.classes,
                exact=estimator is None,
                tutor=tutor,
                autoencoder=fitted.models.get("autoencoder"),
            )
        case CounterfactualProto() | CEM():
            import_tensorflow()
            from explainer_runtime.methods import cem, prototype

            searches: Mapping[str, Callable[..., Search[Explanation]]]
            searches = {"cem": cem.search, "counterfactual_proto": prototype.search}
            return searches[spec.kind](
                x,
                spec,
                *_bounds(spec, contract),
                classes=contract.classes,
                exact=estimator is None,
                arrays=fitted.arrays,
                models=fitted.models,
            )
        case AnchorImage():
            from explainer_runtime.methods import anchor

            return anchor.search(
                x,
                spec,
                low=contract.low,
                high=contract.high,
                classes=contract.classes,
                segment=segment,
                background=fitted.arrays.get("background"),
            )
        case _:
            assert_never(spec)


def _road(spec: Spec, fitted: Fitted, predictor: Predictor) -> str | None:
    """Where gradients come from, once `auto` is settled; None for a method without any."""
    if not isinstance(spec, Counterfactual | CounterfactualProto | CEM):
        return None
    if spec.gradient != "auto":
        return spec.gradient
    if _has_graph(predictor):
        return "exact"
    taught = isinstance(spec, Counterfactual) and spec.schedule == "fast" and "student" in fitted.models
    return "student" if taught else "random"


def _estimator(spec: Spec, road: str | None) -> Estimator | None:
    """What infers gradients from answers; None where they are exact or none are needed."""
    match spec, road:
        case Counterfactual() | CounterfactualProto() | CEM(), "full":
            return CentralDifferences(spec.eps)
        case Counterfactual() | CounterfactualProto() | CEM(), "random":
            return RandomDirections(spec.eps, seed=spec.seed)
        case _:
            return None


def _tutor(fitted: Fitted) -> Tutor:
    import_tensorflow()
    from explainer_runtime.methods import tutoring

    return tutoring.tutor(fitted.arrays, fitted.models)


def _has_graph(predictor: Predictor) -> bool:
    return isinstance(predictor, GradientPredictor)


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
            low, high = _bounds(spec, contract)
            if not (low < high).all():
                raise InvalidSpec("feature_range: expected every lower bound below its upper bound")
        case AnchorImage():
            if len(contract.shape) != 3:
                raise InvalidSpec(
                    f"anchor_image: expected images (height, width, channels), got {contract.shape}"
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
    spec: Counterfactual | CounterfactualProto | CEM, contract: Inputs
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds, `(1, ...)` where one number holds for all features, else `(*S)`."""
    given = spec.feature_range or (contract.low, contract.high)
    bounds = []
    for bound in given:
        try:
            array = np.asarray(bound, np.float32)
            bounds.append(
                array.reshape((1,) * len(contract.shape))
                if array.ndim == 0
                else np.ascontiguousarray(np.broadcast_to(array, contract.shape))
            )
        except ValueError:
            raise InvalidSpec(
                f"feature_range: expected numbers or lists that broadcast to {contract.shape}"
            ) from None
    return bounds[0], bounds[1]


def _learn(
    spec: CounterfactualProto | CEM,
    contract: Inputs,
    x: np.ndarray | None,
    predictor: Predictor | None,
    models: Mapping[str, Any],
    progress: Callable[[float], None] | None,
) -> dict[str, np.ndarray]:
    """The arrays of an elastic-net explainer, from its training rows and networks."""
    import_tensorflow()
    from explainer_runtime.methods import cem, prototype

    if spec.gamma and "autoencoder" not in models:
        raise InvalidSpec("gamma: the autoencoder's loss needs an `autoencoder` at fit")
    rows = None if x is None else check_rows(x, contract, len(x))
    if isinstance(spec, CEM):
        if rows is None and spec.no_info_val is None:
            raise InvalidSpec("no_info_val: give it, or training rows `x` at fit to take it from")
        try:
            return cem.fit(rows, spec, models, contract.shape)
        except ValueError:
            raise InvalidSpec(
                f"no_info_val: expected numbers or lists that broadcast to {contract.shape}"
            ) from None
    guided = spec.theta or spec.threshold
    if guided and (rows is None or predictor is None):
        raise InvalidSpec("theta, threshold: prototypes need training rows `x` and a `predictor` at fit")
    if rows is None:
        return {}
    return prototype.fit(rows, predictor if guided else None, models, contract.classes, progress)


def _taught(
    spec: Counterfactual,
    contract: Inputs,
    x: np.ndarray | None,
    predictor: Predictor | None,
    progress: Callable[[float], None] | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A student and its reference rows, where they are of use."""
    asked_for = spec.gradient == "student"
    useful = (spec.gradient, spec.schedule) == ("auto", "fast") and predictor and not _has_graph(predictor)
    if not (asked_for or useful):
        return {}, {}
    import_tensorflow()
    from explainer_runtime.methods import tutoring

    if predictor is None or x is None or len(x) < tutoring.LEAST:
        if asked_for:
            raise InvalidSpec(
                f"gradient='student' needs a `predictor` and {tutoring.LEAST} or more rows `x` at fit"
            )
        return {}, {}
    return tutoring.fit(check_rows(x, contract, len(x)), predictor, spec.seed, progress)


def _backgrounds(spec: AnchorImage, contract: Inputs, images: np.ndarray | None) -> dict[str, np.ndarray]:
    if spec.fill != "background":
        return {}
    if images is None:
        raise InvalidSpec("fill='background' needs `background` images, or `x`, at fit")
    chosen = np.linspace(0, len(images) - 1, min(len(images), _BACKGROUNDS)).round().astype(int)
    return {"background": check_rows(np.asarray(images)[chosen], contract, _BACKGROUNDS)}
