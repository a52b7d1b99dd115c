"""Is the model that answers the one that an explainer was fitted to?

Explanations are made for one model. Beside another they may still be found, and be about nothing: prototypes,
surrogates and backgrounds were taken from what the first one said. So `fit` keeps what tells models apart: a
digest of the weights, where they can be seen; who the model said it is; and its answers to a few rows on
which it was in doubt, which is where two models disagree first. It is the answers that are compared: the same
network in another process, format or precision is the same model, and the same weights behind another scaling
or another reading of the output are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import orjson

from explainer_runtime.predictors import tally
from explainer_runtime.predictors.base import Predictor, answered, served, told
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.spec import Inputs

ROWS, SCORES = "model_rows", "model_scores"
"""Names of the arrays that are kept: rows `(R, *S)`, and what the model said of them `(R, K)`."""
_KEPT = 4
_CANDIDATES = 64
_SAME = 0.02
"""How far scores of one model may differ between formats and precisions, on rows of which it is in doubt."""


def taken(
    predictor: Predictor, inputs: Inputs, x: np.ndarray | None
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What tells this model from others: who it is, in words, and its answers to a few rows.

    Args:
        predictor: The model; asked about at most 64 rows.
        inputs: What rows are.
        x: Training rows `(M, *S)`; means of two of them are asked about, or noise where there are none.

    Raises:
        PredictorError: It failed.
    """
    rows = predictor.snap(_candidates(inputs, x))
    scores = answered(predictor, rows)
    chosen = np.sort(np.argsort(scores.max(axis=1), kind="stable")[:_KEPT])  # most in doubt
    return identity(predictor), {ROWS: rows[chosen], SCORES: scores[chosen]}


def identity(predictor: Predictor) -> dict[str, str]:
    """Who the model says it is: `digest` of its weights in this process; `name`, `version`, `platform` behind
    an endpoint; nothing of a function."""
    said: dict[str, str | None] = getattr(predictor, "identity", dict)()
    return {name: str(value) for name, value in said.items() if value}


def current(
    predictor: Predictor, arrays: Mapping[str, np.ndarray], x: np.ndarray, timeout: float
) -> tuple[str | None, np.ndarray]:
    """Who answers at this moment, as a digest: who it says it is, what was said of it, and every bit of its
    scores of the kept rows and of `x` `(N, *S)`, asked about in one call of at most `timeout` seconds.

    Weights alone would not do: two networks may have the same and differ in an activation.

    Returns:
        The digest, None where one is not to be told from another: it was exchanged meanwhile, its answers
        may depend on chance, or it answers with labels only. And the scores of `x` `(N, K)`.

    Raises:
        PredictorError: It failed.
    """
    changes, given = getattr(predictor, "changes", 0), told(predictor)
    scores = predictor(np.concatenate([arrays[ROWS], x]), timeout=timeout)
    own = scores[len(arrays[ROWS]) :]
    if changes != getattr(predictor, "changes", 0) or given.canary is None or given.output == "labels":
        return None, own
    kind = "" if served(predictor) else type(predictor).__qualname__
    contract = given.model_dump(mode="json", include=set(ModelContract.model_fields))
    bits = np.ascontiguousarray(scores, np.float32).tobytes()
    who = [kind, identity(predictor), contract, hashlib.sha256(bits).hexdigest()]
    return hashlib.sha256(orjson.dumps(who, option=orjson.OPT_SORT_KEYS)).hexdigest(), own


def difference(predictor: Predictor, kept: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str | None:
    """How this model differs from the one that `taken` saw, in a sentence; None if it does not, or nothing
    was kept.

    Raises:
        PredictorError: It failed.
    """
    if ROWS not in arrays:
        return None
    tally.add(rows=len(arrays[ROWS]), calls=1)
    scores, known = predictor(arrays[ROWS]), arrays[SCORES]
    if scores.shape == known.shape and (off := float(np.abs(scores - known).max())) <= _SAME:
        return None
    how = f"scores of kept rows differ by up to {off:.2g}" if scores.shape == known.shape else "other classes"
    now = identity(predictor)  # a served model has said it with its answer
    who = [" ".join(one.get(word, "") for word in ("name", "version")).strip() for one in (kept, now)]
    if "digest" in now and now["digest"] == kept.get("digest"):
        how += ", though its weights are the same: it is given other numbers, or its `output` is another"
    told = f"; fitted to {who[0]}, now {who[1]}" if all(who) and who[0] != who[1] else ""
    return f"the model is not the one that the explainer was fitted to: {how}{told}"


def _candidates(inputs: Inputs, x: np.ndarray | None) -> np.ndarray:
    rng = np.random.default_rng(0)
    if x is None or len(x) < 2:
        return rng.uniform(inputs.low, inputs.high, (_CANDIDATES, *inputs.shape)).astype(np.float32)
    one, other = rng.integers(0, len(x), (2, _CANDIDATES))
    return (np.asarray(x[one], np.float32) + np.asarray(x[other], np.float32)) / 2
