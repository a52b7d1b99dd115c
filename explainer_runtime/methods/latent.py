"""Where a change lives: in the features of a row, in the cells of a grid over an image, or in the codes of a
decoder that was fitted with it.

In a latent space the distances of a method are those of codes, in shares of their range, and the squared
distance of the row from what it was counts with them: a short step of a code may lead far.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.fitted import Fitted, need
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.search.latent import Coder, Latent, inverted
from explainer_runtime.search.least_change import Problem, Space
from explainer_runtime.search.networks import Networks, Penalty, steepest
from explainer_runtime.search.spaces import Smooth

_ROWS = 500
"""Training rows at most whose codes say what range codes have."""
_PROBES = 32
"""Of these, those at which the decoder's curvature is measured."""
_BATCH = 100


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """Refuse a smooth space of what is no image, and a latent one without a decoder, or with one of other
    codes; see `Method.check`."""
    spec: Any = fitted.spec
    space = getattr(spec, "space", "features")
    if space == "smooth" and fitted.inputs.layout is None:
        raise InvalidOption(
            f"space: a smooth one is of images, got rows {fitted.inputs.shape} without a `layout`", "space"
        )
    if space != "latent":
        return
    if "space" in asked and "decoder" not in fitted.models:
        raise InvalidOption("space: this explainer was fitted without a decoder", "space")
    need("model", "decoder", fitted.models, "space 'latent'")
    for name in ("code_low", "code_high", "code_curvature"):
        need("array", name, fitted.arrays, "space 'latent'")
        if fitted.arrays[name].dtype.kind != "f" or not np.isfinite(fitted.arrays[name]).all():
            raise InvalidSpec(f"array {name!r}: expected finite floats; fit and save again")
    low, high = fitted.arrays["code_low"], fitted.arrays["code_high"]
    takes = getattr(fitted.models["decoder"], "input_shape", (None, *low.shape))[1:]
    if low.shape != high.shape or low.shape != tuple(takes) or fitted.arrays["code_curvature"].size != 1:
        raise InvalidSpec(
            f"arrays 'code_low' and 'code_high': expected shape {tuple(takes)}, that of the decoder's codes, "
            f"got {low.shape} and {high.shape}; fit and save again"
        )
    curvature = fitted.arrays["code_curvature"]
    if curvature.shape != (1,) or curvature[0] < 0 or not (low <= high).all():
        raise InvalidSpec(
            "arrays 'code_low', 'code_high', 'code_curvature': out of order; fit and save again"
        )


def fit(given: Given) -> dict[str, np.ndarray]:
    """What is kept of a decoder's codes of the training rows.

    Returns:
        Their range, `code_low` and `code_high` `(*Z)`, and the largest squared singular value of the
        decoder's Jacobian, `code_curvature` `(1,)`, in ranges of a feature for each range of a code; nothing
        without a decoder.

    Raises:
        InvalidSpec: There are no training rows, or decoder, encoder and rows do not go together.
    """
    if given.decoder is None:
        return {}
    x = given.rows()
    if x is None:
        raise InvalidSpec("decoder: needs training rows `x` at fit, whose codes say how far codes may go")
    x = x[np.linspace(0, len(x) - 1, min(len(x), _ROWS)).round().astype(int)]
    decoder, encoder, shape = given.decoder, given.networks.encoder, given.code
    made = decoder(np.zeros((1, *shape), np.float32)).shape[1:]
    if made != given.inputs.shape:
        raise InvalidSpec(f"decoder: expected a model that makes rows {given.inputs.shape}, got {made}")

    def encoded(rows: np.ndarray) -> np.ndarray:
        if encoder is None:
            return inverted(decoder, rows, np.zeros((len(rows), *shape), np.float32), -np.inf, np.inf)
        codes = np.asarray(encoder(rows), np.float32)
        if codes[0].size != np.prod(shape):
            raise InvalidSpec(
                f"encoder: the decoder takes codes of shape {shape}, the encoder gives {codes.shape[1:]}"
            )
        return codes.reshape(len(rows), *shape)

    codes = np.concatenate([encoded(x[start : start + _BATCH]) for start in range(0, len(x), _BATCH)])
    low, high = codes.min(axis=0), codes.max(axis=0)
    coder = Coder(decoder, encoder, low, high)
    probes = (codes[np.linspace(0, len(codes) - 1, min(len(codes), _PROBES)).astype(int)] - low) / coder.unit
    curvature = steepest(coder, probes, 1.0) / given.networks.unit**2
    return {"code_low": low, "code_high": high, "code_curvature": np.array([curvature], np.float32)}


def space(spec: Any, ground: Ground, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> Space:
    """Changes of rows `(L, *S)` inside bounds in input units, where the spec says."""
    if spec.space != "latent":
        pixels = ground.space(spec, x, low, high)
        return Smooth(pixels, spec.cells, spec.amplitude) if spec.space == "smooth" else pixels
    networks, arrays = ground.networks, ground.arrays
    coder = Coder(networks["decoder"], networks.get("encoder"), arrays["code_low"], arrays["code_high"])
    return Latent(x, coder, low, high, snap=ground.snap)


def near(problem: Problem, ground: Ground, rho: float) -> Problem:
    """The same, with the squared distance of the row from what it was minimised as well, in a latent space.

    `rho` is how much penalties count there; the distance counts as it is.
    """
    if not isinstance(problem.space, Latent):
        return problem
    none = np.zeros(len(problem.low), np.float32)
    penalty = problem.penalty or Penalty(Networks(None, None, ground.unit), none, none)
    weight = 1 / rho if rho else 1.0
    bend = (0 if problem.penalty is None else problem.bend) + np.full(len(none), 2 * weight, np.float32)
    return problem._replace(
        penalty=penalty._replace(origin=problem.space.origin, near=weight),
        bend=(bend * ground.arrays["code_curvature"][0]).astype(np.float32),
    )
