"""Whether an artifact holds what its spec needs, in shape and dtype.

A directory may be exactly what was written and still lack the rows that a method looks things up in; that
would be found by the first request. So it is asked when it is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import assert_never

import numpy as np

from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Inputs, Spec

Shape = tuple[int | str, ...]
"""Sizes of axes; the same word stands for the same size, whatever it is."""

_CODES: Mapping[str, tuple[str, Shape]] = {
    "codes": ("f", ("M", "E")),
    "classes": ("i", ("M",)),
    "means": ("f", ("K", "E")),
    "norms": ("f", ("M",)),
}


def check(spec: Spec, inputs: Inputs, arrays: Mapping[str, np.ndarray], models: Collection[str]) -> None:
    """Refuse an artifact that lacks something.

    Args:
        spec: Its spec.
        inputs: Its input contract.
        arrays: Its arrays by name.
        models: Names of its models; what these take and give is for `networks.py` to see.

    Raises:
        InvalidArtifact: An array or model that the spec needs is missing, or has another shape or dtype.
    """
    rows: Shape = ("R", *inputs.shape)
    wanted: dict[str, tuple[str, Shape]] = {}
    match spec:
        case Counterfactual():
            pass
        case CounterfactualProto():
            if spec.gamma:
                _need("autoencoder", models, "model", "gamma")
            if spec.theta or spec.threshold:
                _need("codes", arrays, "array", "theta or threshold")
            if any(name in arrays for name in _CODES):
                wanted = dict(_CODES)
        case CEM():
            wanted = {"no_info": ("f", inputs.shape)}
            if spec.gamma:
                _need("autoencoder", models, "model", "gamma")
        case AnchorImage():
            if spec.fill == "background":
                wanted = {"background": ("f", ("M", *inputs.shape))}
        case _:
            assert_never(spec)
    if getattr(spec, "gradient", None) == "surrogate" and "student" not in models:
        _need("surrogate_kernel_0", arrays, "array", "gradient='surrogate'")
    if "student" in models or "surrogate_kernel_0" in arrays:
        wanted |= {"reference_rows": ("f", rows), "reference_scores": ("f", ("R", inputs.classes))}
    for name, size in (
        ("student_agreement", (1,)),
        ("surrogate_agreement", (1,)),
        ("curvature", (2,)),
        ("bend", (2,)),
    ):
        if name in arrays:
            wanted[name] = ("f", size)
    sizes: dict[str, int] = {"K": inputs.classes}
    for name, (kind, shape) in wanted.items():
        _need(name, arrays, "array", f"a {spec.kind}")
        _check_array(name, arrays[name], kind, shape, sizes)


def _need(name: str, held: Collection[str], what: str, why: str) -> None:
    if name not in held:
        raise InvalidArtifact(f"{what} {name!r}: is missing, and {why} needs it; fit and save again")


def _check_array(name: str, array: np.ndarray, kind: str, shape: Shape, sizes: dict[str, int]) -> None:
    fits = array.dtype.kind == kind and array.ndim == len(shape) and array.size > 0
    for size, axis in zip(array.shape, shape, strict=False):
        fits &= size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
    if not fits:
        numbers = "floats" if kind == "f" else "integers"
        expected = ", ".join(str(sizes.get(axis, axis) if isinstance(axis, str) else axis) for axis in shape)
        raise InvalidArtifact(
            f"array {name!r}: expected {numbers} of shape ({expected}), got {array.dtype} {array.shape}; "
            "fit and save again"
        )
