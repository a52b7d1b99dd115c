"""What a method is fitted from, and what its search stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np

from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.fitted import check_rows
from explainer_runtime.predictors.base import Predictor
from explainer_runtime.search.feedback import Guide
from explainer_runtime.search.networks import Network, Networks
from explainer_runtime.search.spaces import Pixels
from explainer_runtime.spec import Inputs, Spec

CHANGED = 1e-6
"""Least difference, in ranges of a feature, that counts as a change."""

S = TypeVar("S", bound=Spec)
_BATCH, _NUMBERS = 500, 2**23
"""Rows, and numbers of rows, that are encoded together."""

Segmenter = Callable[[np.ndarray], np.ndarray]
"""An image `(H, W, C)`, in input units -> a label for each pixel `(H, W)`, of any numbers."""


class Given(NamedTuple):
    """What an explainer is fitted from.

    Attributes:
        spec: Settings.
        inputs: The input contract.
        x: Training rows `(M, *S)` as they were given, or None.
        predictor: The model, or None.
        networks: The autoencoder and the encoder, where there are any.
        background: Images that masked pixels may show, or None.
        progress: Told the share that is done, or None.
        decoder: Codes -> rows, or None; `code` is the shape of one.
        surrogate: Whether one may be taught that nobody has asked for.
    """

    spec: Any
    inputs: Inputs
    x: np.ndarray | None
    predictor: Predictor | None
    networks: Networks
    background: np.ndarray | None = None
    progress: Callable[[float], None] | None = None
    decoder: Network | None = None
    code: tuple[int, ...] = ()
    surrogate: bool = True

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of rows `(M, *S)` -> `(M, E)`, float32, some rows at a time."""
        size = max(1, min(_BATCH, _NUMBERS // x[0].size))
        return np.concatenate([self.networks.codes(x[at : at + size]) for at in range(0, len(x), size)])

    def rows(self) -> np.ndarray | None:
        """The training rows as float32 rows that keep the contract, or None."""
        return None if self.x is None else check_rows(self.x, self.inputs, len(self.x))


class Ground(NamedTuple):
    """What a search stands on, besides its rows and settings.

    Attributes:
        inputs: The input contract.
        arrays: What was fitted.
        networks: Fitted networks by name: `autoencoder`, `encoder`, `decoder`.
        exclusive: Whether the model's scores of a row are one distribution.
        snap: Rows as the model sees them, where it takes whole numbers only.
        road: Where slopes come from: `exact`, `surrogate`, `random` or `full`.
        guide: The surrogate and what was kept of the rows it was taught, for that road.
        segment: Cuts an image into superpixels in place of what the spec says, or None.
    """

    inputs: Inputs
    arrays: Mapping[str, np.ndarray]
    networks: Mapping[str, Network]
    exclusive: bool = True
    snap: Callable[[np.ndarray], np.ndarray] | None = None
    road: str = "exact"
    guide: Guide | None = None
    segment: Segmenter | None = None

    def bounds(self, spec: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of rows `(N, *S)`; both the row itself where it may not change."""
        low, high = (np.broadcast_to(bound, x.shape) for bound in self._range(spec))
        if spec.region is None:
            return low, high
        free = region(spec, self.inputs)
        return np.where(free, low, x), np.where(free, high, x)

    def _range(self, spec: Any) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest values `(*S)`; of a model of whole numbers the last ones inside that it can
        take."""
        low, high = feature_range(spec, self.inputs)
        if self.snap is None:
            return low, high
        near = CHANGED * self.unit
        return _inside(low, 1, self.snap, near), _inside(high, -1, self.snap, near)

    @property
    def unit(self) -> float:
        """Range of a feature, in input units."""
        return self.inputs.high - self.inputs.low

    def space(self, spec: Any, origin: np.ndarray, low: np.ndarray, high: np.ndarray) -> Pixels:
        """Changes of rows `(L, *S)`, counted from `origin`, inside bounds in input units; they are counted in
        ranges of a feature, and in input units with the reference schedule."""
        unit = 1.0 if spec.schedule == "reference" else self.unit
        plane = {"channels_last": (0, 1), "channels_first": (1, 2)}.get(self.inputs.layout or "", ())
        return Pixels(origin, unit, low, high, snap=self.snap, plane=plane)

    def plausible(self) -> Networks:
        """The autoencoder and the encoder."""
        return Networks(self.networks.get("autoencoder"), self.networks.get("encoder"), self.unit)


def feature_range(spec: Any, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest allowed values `(*S)`, float32."""
    low, high = spec.feature_range or (inputs.low, inputs.high)
    return broadcast(low, inputs, "feature_range"), broadcast(high, inputs, "feature_range")


def _inside(
    bound: np.ndarray, inward: int, snap: Callable[[np.ndarray], np.ndarray], near: float
) -> np.ndarray:
    """The values nearest to a bound `(*S)` that a model of whole numbers can take, on its inner side."""
    inner = snap(bound[None])[0]
    away = np.abs(bound - inner)
    for _ in range(32):  # float32 has fewer binary places: where it ends there is none
        outside = inward * (bound - inner) > near
        if not outside.any():
            break
        # At most half a step away: doubled until it is rounded the other way, it is less than one.
        inner = np.where(outside, snap((bound + inward * away)[None])[0], inner)
        away = away * 2
    return np.asarray(inner, np.float32)


def broadcast(value: Any, inputs: Inputs, name: str) -> np.ndarray:
    """`value` of a spec, a number or nested lists, for each feature of a row `(*S)`, float32.

    Raises:
        InvalidSpec: It is neither, is not finite, or does not broadcast to a row.
    """
    try:
        numbers = np.asarray(value)  # by itself: asked for floats, NumPy takes None and "1" for numbers
        if numbers.dtype.kind in "biuf":
            with np.errstate(over="ignore"):
                numbers = np.broadcast_to(numbers.astype(np.float32), inputs.shape)
            if np.isfinite(numbers).all():
                return numbers
    except ValueError:  # ragged, or another shape
        pass
    raise InvalidSpec(f"{name}: expected finite numbers or lists that broadcast to {inputs.shape}")


def numbered(spec: S, inputs: Inputs) -> S:
    """`spec` with its `target_class` in numbers, where it has one.

    Raises:
        InvalidOption: It names a class that the model does not have; the words that it may be, too, are said.
    """
    wanted = getattr(spec, "target_class", None)
    literal = get_args(get_args(type(spec).model_fields["target_class"].annotation)[0]) if wanted else ()
    words = [word for word in literal if isinstance(word, str)]

    def number(named: int | str) -> int | str:
        return named if named in words else inputs.number(named, "target_class", words)

    if wanted is None or wanted in words:
        return spec
    several = isinstance(wanted, tuple)
    return spec.model_copy(update={"target_class": tuple(map(number, wanted)) if several else number(wanted)})


def region(spec: Any, inputs: Inputs) -> np.ndarray:
    """Where a row may change `(*S)`, bool. A request may say so: what is wrong with it is wrong with that."""
    try:
        return broadcast(spec.region, inputs, "region").astype(bool)
    except InvalidSpec:
        raise InvalidOption(
            f"region: expected truths, or lists of them that broadcast to {inputs.shape}", "region"
        ) from None
