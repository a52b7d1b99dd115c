"""Prepare, explain.

An explainer is three values: a spec, what was fitted, and a predictor. `fit` (`fitting.py`) makes a `Fitted`
of the first two; `prepare` closes it over a predictor, compiles, and returns a function.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from explainer_runtime import methods
from explainer_runtime.driver import Budget, Progress, estimated, explain, shard_of, solve
from explainer_runtime.driver.solve import TINY
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.fitted import Fitted, check_rows
from explainer_runtime.fitting import agreed, fit, made_up, sound
from explainer_runtime.methods import teaching
from explainer_runtime.methods.ground import Ground, Segmenter, numbered
from explainer_runtime.predictors import Predictor, WhiteBox, connect, served
from explainer_runtime.predictors.backends import network as asked_of
from explainer_runtime.predictors.base import LocalPredictor, named, told
from explainer_runtime.predictors.canary import Canary
from explainer_runtime.predictors.checking import Strangeness, examine
from explainer_runtime.predictors.merging import Merging
from explainer_runtime.predictors.tally import Tally
from explainer_runtime.search.asks import Ask, Search
from explainer_runtime.spec import Inputs, Limits, Spec, parse_options, with_options

__all__ = ["Prepared", "fit", "prepare"]

_VANISHED = (
    "nothing was found for some rows, and the model gives some class a probability of 0: where float32 ends, "
    "nothing says how far away that class is; have the model answer with logits, and say output 'logits'"
)


class Prepared:
    """A fitted explainer closed over a predictor. Safe to call from many threads.

    Calls that run at the same time share nothing but round trips to a served model.

    Attributes:
        fitted: What was fitted.
        predictor: The model.
        merging: What merges their asks; None for a model that is not served. Its `asked` and `sent` say how
            many calls that saved.
        road: Where slopes come from, once `auto` is settled; None for a method without any.
        segment: What cuts images, where that was said beside the artifact.
        strangeness: Whether the model is the one that the explainer was fitted to.
    """

    def __init__(
        self,
        fitted: Fitted,
        predictor: Predictor,
        segment: Segmenter | None = None,
        *,
        steady: bool = False,
    ) -> None:
        self.fitted, self.predictor, self.segment = fitted, predictor, segment
        model = served(predictor)
        self.merging = Merging(predictor, wait=model.settings.coalesce) if model else None
        self.road = _road(fitted, predictor)
        self.strangeness = Strangeness(fitted.inputs, fitted.model, fitted.arrays)
        self._networks = {name: asked_of(model) for name, model in fitted.models.items() if name != "student"}
        self._shard = None
        if self.road == "exact" and isinstance(predictor, WhiteBox) and not steady:
            self._shard = shard_of(predictor, made_up(fitted.inputs))
        self._guide = teaching.guide(fitted) if self.road == "surrogate" else None

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
        rows, spec, budget = check(self.fitted, x, options, limits or Limits())
        estimator = estimated.of(spec, self.road, self.fitted.inputs)
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
        if self.road:
            arrays = {**answer.arrays, "gradient_source": np.full(len(answer), self.road)}
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
            road=self.road or "",
            guide=self._guide,
            segment=self.segment,
        )
        return methods.of(spec.kind).search(rows, spec, ground)

    def _vanished(self, answer: Explanation) -> bool:
        """Whether a search may have failed because probabilities ended before it could follow them."""
        if self.road in (None, "exact") or answer["found"].all() or (answer["original_class"] < 0).any():
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
        return teaching.missed(self.fitted.spec) if self.road == "random" else ""

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
        row = made_up(self.fitted.inputs)
        if self._guide is not None:
            solve(self._search(row, self.fitted.spec, self._guide.surrogate), self._guide.surrogate)
        elif isinstance(self.predictor, WhiteBox):
            self(row)


def check(
    fitted: Fitted, x: Any, options: Mapping[str, Any] | None, limits: Limits
) -> tuple[np.ndarray, Spec, Budget]:
    """What a request asks of a fitted explainer, with everything checked that can be without the model.

    Returns:
        The rows `(N, *S)`, float32; the spec in force; the most that may be spent.

    Raises:
        InvalidInput: The rows break the contract, or are too many.
        InvalidOption: An option is unknown or out of range.
    """
    rows = check_rows(x, fitted.inputs, limits.max_batch)
    asked = parse_options(fitted.spec, options)
    spec = numbered(with_options(fitted.spec, asked), fitted.inputs)
    if given := asked.model_dump(exclude_none=True):
        methods.of(spec.kind).check(dataclasses.replace(fitted, spec=spec), given)
    budget = Budget(
        min(limits.max_rows, asked.max_rows or limits.max_rows),
        min(limits.max_calls, asked.max_calls or limits.max_calls),
        min(limits.max_seconds, asked.max_seconds or limits.max_seconds),
    )
    return rows, spec, budget


def prepare(
    fitted: Fitted,
    predictor: Any,
    *,
    segment: Segmenter | None = None,
    warm: bool = True,
    steady: bool = False,
) -> Prepared:
    """Close a fitted explainer over a predictor.

    Args:
        fitted: What `fit` or `artifact.load` returned.
        predictor: The model, or anything that `predictors.connect` takes.
        segment: Cuts images into superpixels `(H, W, C) -> (H, W)` in place of an anchor's `segmentation`;
            it is code, so no artifact holds it.
        warm: Explain one made-up row now, so that what is compiled on first use is compiled before the
            first request. A remote predictor is not disturbed.
        steady: Ask a model in this process for as many slopes at a time as the size of a row says, whatever
            they take here: cancellation may be late, and the same seed gives the same bytes in processes that
            are not equally fast.

    Raises:
        InvalidSpec: exact slopes of a predictor that has no graph in this process; or explainer and
            model do not go together.
        InvalidPrediction: A model in this process is not what was said of it, or answers by chance; or it is
            another than the explainer was fitted to, and `strict` was said.
        MissingExtra: A fitted network needs TensorFlow, and it is not installed.
        PredictorError: The model failed on the made-up row.
    """
    spec, predictor = agreed(fitted.spec, fitted.inputs), connect(predictor, shape=fitted.inputs.shape)
    fitted = fitted if spec == fitted.spec else dataclasses.replace(fitted, spec=spec)
    examine(predictor, fitted.inputs)
    if spec.slopes == "exact" and not isinstance(predictor, WhiteBox):
        raise InvalidSpec(
            f"{spec.kind}: exact slopes need the model in this process, with its gradient; an endpoint does "
            "for gradient 'auto', and for algorithms that ask for rows only"
        )
    sound(fitted)
    if told(predictor).output == "labels" and spec.slopes:
        raise InvalidSpec(
            f"{named(predictor)} answers with labels only; {spec.kind} needs probabilities or logits"
        )
    prepared = Prepared(fitted, predictor, segment, steady=steady)
    if served(predictor) is None:  # an endpoint is met when it is first asked
        prepared.strangeness.meet(predictor, predictor)
    if warm:
        prepared.warm()
    return prepared


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
