"""One image, and what the model has said of it with some superpixels masked.

The search for an anchor speaks of masks, the model of pictures. Between the two stands a memory: a picture
that was asked about once is never asked about again, so an image of few superpixels soon costs nothing more.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.search.asks import Drawn, Rows, Search
from explainer_runtime.search.masking import Canvas


class Subject:
    """Answers questions about masks by asking the model about pictures.

    Args:
        canvas: What masks are drawn with.
        classes: How many the model scores.
        seed: Of which fill a mask is drawn with, where there are several.
        name: Tells images of one batch apart.

    Attributes:
        canvas: What masks are drawn with.
        name: See above.
        superpixels: How many there are, K.
        prediction: Class of the image; -1 until the model has answered.
        scores: Class scores of the image `(classes,)`, float32; zeros until then.
        holds_masked: Whether the image keeps its class with every superpixel masked.
        rows: Pictures that the answers rest on, each as often as the model was to be asked about it.
        fills: Which fill each draw was masked with, for all draws answered so far, in order.
    """

    def __init__(self, canvas: Canvas, classes: int, seed: int, name: object = None) -> None:
        self.canvas, self._seed, self.name = canvas, seed, name
        self.superpixels = int(canvas.segments.max()) + 1
        self.prediction = -1
        self.scores = np.zeros(classes, np.float32)
        self.holds_masked = False
        self.rows = 0
        self.fills = np.zeros(0, np.int64)
        self._known: dict[bytes, np.ndarray] = {}
        self._used: set[bytes] = set()
        self._choice = 1 if canvas.fills is None else len(canvas.fills)
        self._rng = np.random.default_rng([seed, 1])  # a stream of its own beside that of the masks

    def beside(self) -> Subject:
        """The same image for another search, with the same memory: what one has asked the other knows."""
        other = Subject(self.canvas, len(self.scores), self._seed, self.name)
        other._known = self._known
        return other

    def filled(self, name: str, fills: np.ndarray | None, soft: int = 0) -> Subject:
        """The same image, whose masked superpixels show something else, by some name; see `Canvas`. Of that
        nothing is known but the image itself."""
        shown = self.canvas._replace(fills=fills, soft=soft)
        other = Subject(shown, len(self.scores), self._seed, (self.name, name))
        other.prediction, other.scores = self.prediction, self.scores
        itself = self._keys(np.ones((1, self.superpixels), bool), np.zeros(1, np.int64))[0]
        other._known.update({itself: self._known[itself]} if itself in self._known else {})
        return other

    def ask(self, shown: np.ndarray) -> Search[np.ndarray]:
        """How far the class leads with these superpixels shown: `(M, K)` -> `(M,)`, as `lead` says.

        The first question carries two pictures more: the image itself, and one with everything masked.
        """
        fills = self._rng.integers(self._choice, size=len(shown))
        first = self.prediction < 0
        if first:
            ends = np.repeat([[True], [False]], self.superpixels, axis=1)
            shown, fills = np.concatenate([ends, shown]), np.concatenate([[0, 0], fills])
        led = lead((yield from self.said(shown, fills)), self.prediction)
        if first:
            self.holds_masked, led, fills = bool(led[1] > 0), led[2:], fills[2:]
        self.fills = np.concatenate([self.fills, fills])
        return led

    def said(
        self, shown: np.ndarray, fills: np.ndarray | None = None, again: np.ndarray | None = None
    ) -> Search[np.ndarray]:
        """What the model says with these superpixels shown: `(M, K)` -> log-scores `(M, classes)`.

        Args:
            shown: Masks; the first of all that are ever asked about shows the image itself.
            fills: Which fill each is masked with `(M,)`; None is the first for all.
            again: Which of them the model is asked about even though it has answered `(M,)`, or None.
        """
        fills = np.zeros(len(shown), np.int64) if fills is None else fills
        keys = self._keys(shown, fills)
        anew = {key for key, one in zip(keys, again, strict=True) if one} if again is not None else set()
        places: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, place)
        wanted = [place for key, place in places.items() if key in anew or key not in self._used]
        self._used.update(places)
        # Another search may have asked by now.
        fresh = [place for place in wanted if keys[place] in anew or keys[place] not in self._known]
        if fresh:
            masks, with_fills = shown[fresh], fills[fresh]
            drawn = Drawn(
                lambda some: self.canvas.draw(masks[some], with_fills[some]),
                len(fresh),
                self.canvas.image.shape,
            )
            names = [(self.name, keys[place]) for place in fresh]
            scores = yield Rows(drawn, self.rows / (self.rows + 512), names=names)
            self._known.update(zip((key for _, key in names), scores, strict=True))
        if self.prediction < 0:
            own = self._known[keys[0]]
            self.scores, self.prediction = np.exp(own), int(own.argmax())
        self.rows += len(wanted)
        return np.stack([self._known[key] for key in keys])

    def _keys(self, shown: np.ndarray, fills: np.ndarray) -> list[bytes]:
        """A name for each picture: equal for equal pictures."""
        # With everything shown nothing of the fill is seen.
        seen = np.where(shown.all(axis=1), 0, fills).astype("<u4")
        packed = np.concatenate([np.packbits(shown, axis=1), seen[:, None].view(np.uint8)], axis=1)
        return [row.tobytes() for row in packed]


def lead(log_scores: np.ndarray, prediction: int) -> np.ndarray:
    """Log-odds of a class against the best other `(M,)`; positive just where it is the model's answer."""
    logs = log_scores.astype(np.float64)
    others = np.delete(logs, prediction, axis=1).max(axis=1)
    # Where two classes share the first place the model's answer is the one of lower number.
    far = np.maximum(np.abs(logs[:, prediction] - others), 1e-6)
    return np.asarray(np.where(logs.argmax(axis=1) == prediction, far, -far))
