"""`AnchorImage`, as notebooks know it; see methods/anchor/ for what is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from explainer_runtime import artifact, explainers
from explainer_runtime.alibi.explainer import NO_LIMITS, Explainer
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.models import Labels, as_predictor, classes_of, said_of_model
from explainer_runtime.alibi.ranges import OPEN, contract, pixels
from explainer_runtime.alibi.settings import plain
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explanation import Explanation as Answer
from explainer_runtime.methods import parse_spec
from explainer_runtime.spec import Spec, options_of

Segmenter = Callable[..., np.ndarray]


class AnchorImage(Explainer):
    """The superpixels that hold the answer in place whatever the others show.

    Args:
        predictor: A Keras model, its `predict`, or a function of images `(N, H, W, C)` that answers with
            class scores `(N, K)` or labels `(N,)`, whole numbers or words; see `models.as_predictor`.
        image_shape: `(H, W, C)`, or `(C, H, W)` where that can be told from the shape or `layout` says so.
        dtype: Of the image that a function is tried with.
        segmentation_fn: `slic`, `felzenszwalb`, `quickshift`, `grid`, or a function of an image that answers
            with a label for each pixel `(H, W)`; such an explainer cannot be saved.
        segmentation_kwargs: Its settings.
        images_background: Images `(B, H, W, C)`, of which masked superpixels show a random one.
        seed: None is 0: the same call gives the same answer.
        feature_range: Lowest and highest value of a pixel; None guesses from the images.
        layout: `channels_last` or `channels_first`; None takes it from `image_shape`, if it is beyond doubt.
        settings: Any other field of `spec.AnchorImage`: `fill`, and what `explain` takes, as its defaults;
            and what the model's numbers mean, as fields of `spec.ModelContract`: `output="logits"`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("blackbox",)
    kind = "anchor_image"
    _segment: partial[np.ndarray] | None = None

    def __init__(
        self,
        predictor: Any,
        image_shape: tuple[int, ...],
        dtype: Any = np.float32,
        segmentation_fn: str | Segmenter = "slic",
        segmentation_kwargs: Mapping[str, Any] | None = None,
        images_background: Any = None,
        seed: int | None = None,
        *,
        feature_range: tuple[float, float] | None = None,
        layout: Literal["channels_last", "channels_first"] | None = None,
        **settings: Any,
    ) -> None:
        shape = tuple(int(size) for size in image_shape)
        model = as_predictor(predictor, shape, **said_of_model(settings))
        labels = Labels.of(model, np.zeros((1, *shape), dtype))
        self._predictor = labels or model
        details = dict(segmentation_kwargs or {})
        if callable(segmentation_fn):
            self._segment = partial(segmentation_fn, **details)
        else:
            settings["segmentation"] = {**details, "kind": segmentation_fn}
        if images_background is not None:
            settings.setdefault("fill", "background")
        settings.setdefault("n_covered_ex", 10)  # notebooks look at them
        spec = parse_spec(plain({**settings, "kind": self.kind, "seed": seed or 0}))
        inputs = contract(shape, 2 if labels else classes_of(model, shape), feature_range or (-OPEN, OPEN))
        if layout is not None:
            inputs = inputs.model_copy(update={"layout": layout})
        images = None if images_background is None else np.asarray(images_background)
        fitted = explainers.fit(spec, inputs=inputs, background=images)
        self._fitted = fitted if images is None else pixels(fitted, images)

    def explain(
        self,
        image: Any,
        p_sample: float | None = None,
        threshold: float | None = None,
        delta: float | None = None,
        tau: float | None = None,
        batch_size: int | None = None,
        coverage_samples: int | None = None,
        beam_size: int | None = None,
        stop_on_first: bool | None = None,
        max_anchor_size: int | None = None,
        min_samples_start: int | None = None,
        n_covered_ex: int | None = None,
        binary_cache_size: int | None = None,
        cache_margin: int | None = None,
        verbose: bool = False,
        verbose_every: int = 1,
        *,
        seed: int | None = None,
    ) -> Explanation:
        """The anchor of one image, of the shape `image_shape`.

        Args:
            image: The image, without a batch axis.
            tau, coverage_samples, binary_cache_size, cache_margin, verbose, verbose_every: Have no effect;
                coverage is exact.

        The other arguments are the fields of `spec.AnchorImage` by the same name; None keeps the explainer's.

        Returns:
            `anchor`, shaped like the image, its values stretched to 0..255, where the anchor is, 0 elsewhere;
            `segments` `(H, W)`; `precision`; `coverage`; and `raw`, with `feature`, `mean`, `precision` and
            `coverage` (one entry a superpixel, as it was added), `examples` (pictures stretched like the
            anchor), `all_precision`, `num_preds`, `success`, `instance`, `instances`, `prediction` `(1,)`,
            `vacuous` (it is empty), `note` (why, and what to try) and `holds_masked`.

        Raises:
            InvalidInput: It is not one image of the right shape, or not finite.
            InvalidOption, InvalidSpec: An argument is out of range.
        """
        said, fields = locals(), type(self._fitted.spec).model_fields
        given = plain({name: said[name] for name in fields if said.get(name) is not None})
        row = self._image(image)
        # What a served request may not change is an argument here, too.
        offered = options_of(type(self._fitted.spec)).model_fields
        options = {name: given.pop(name) for name in [*given] if name in offered}
        fitted = pixels(self._fitted, row)
        spec = parse_spec({**fitted.spec.model_dump(), **given})
        predictor, label = self._predictor, None
        if isinstance(predictor, Labels):
            label = predictor.label(row)
            predictor = predictor.against(label)
        prepared = explainers.prepare(
            dataclasses.replace(fitted, spec=spec), predictor, segment=self._segment, warm=False
        )
        answer = prepared(row, options, limits=NO_LIMITS)
        first = self._fitted.inputs.layout == "channels_first"
        return self._explanation(answer, _data(answer, row[0], 0 if first else -1, label))

    def save(self, path: str | Path) -> Path:
        """Write what was fitted as an artifact; `load_explainer` reads it. The model is not part of it.

        Raises:
            InvalidSpec: It has a segmentation function or a predictor of labels, which an artifact cannot
                hold, or the range of pixels is not known.
        """
        if self._segment is not None:
            raise InvalidSpec(
                "segmentation_fn: an artifact holds no code, so a function cannot be saved; use 'slic', "
                "'felzenszwalb', 'quickshift' or 'grid'"
            )
        if isinstance(self._predictor, Labels):
            raise InvalidSpec("predictor: answers with labels; an artifact needs a model of class scores")
        return artifact.save(pixels(self._fitted, None), path)

    def _image(self, image: Any) -> np.ndarray:
        array, shape = np.asarray(image), self._fitted.inputs.shape
        if array.shape == (1, *shape):
            raise InvalidInput(f"image: expected shape {shape}, got {array.shape}; pass image[0]", "image")
        return array[None]

    def _params(self, spec: Spec) -> dict[str, Any]:
        params = super()._params(spec)
        del params["shape"], params["segmentation"]
        if self._segment is None:
            details = spec.model_dump()["segmentation"]
            function = details.pop("kind")
        else:
            details, function = self._segment.keywords, getattr(self._segment.func, "__name__", "a function")
        return {
            "image_shape": self._fitted.inputs.shape,
            "segmentation_fn": function,
            "segmentation_kwargs": details,
            **params,
        }


def _data(answer: Answer, image: np.ndarray, channels: int, label: int | None) -> dict[str, Any]:
    """The answer as notebooks read it."""
    raw, mask = answer.raw[0], answer["anchor_mask"][0]
    low, high = float(image.min()), float(image.max())

    def stretched(pictures: np.ndarray) -> np.ndarray:
        # By the ends of the image for all of them, so that they can be compared.
        unit = (np.asarray(pictures, np.float64) - low) / (high - low if high > low else 1.0)
        return (np.clip(unit, 0, 1) * 255).astype(np.int64)

    examples = [
        {name: list(stretched(pictures)) for name, pictures in each.items()}
        | {"uncovered_true": [], "uncovered_false": []}
        for each in raw["examples"]
    ]
    return {
        "anchor": stretched(image) * np.expand_dims(mask, channels),
        "segments": answer["segments"][0],
        "precision": float(answer["precision"][0]),
        "coverage": float(answer["coverage"][0]),
        "raw": {
            **raw,
            "examples": examples,
            "success": bool(answer["found"][0]),
            "instance": image,
            "instances": image[None],
            "prediction": np.array([raw["prediction"] if label is None else label]),
        },
    }
