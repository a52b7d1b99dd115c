"""What a fitted explainer needs to run, and so which image: told before anything is deployed, or started.

Images differ in one thing that matters to an artifact, whether TensorFlow is in them. A server that finds out
at the first request, or by a crash, helps nobody: `inspect --needs` says it where an artifact is made, and
`check` where one is served, before a port is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from explainer_runtime.artifact import Report
from explainer_runtime.artifact.directory import MODELS
from explainer_runtime.errors import MissingExtra
from explainer_runtime.methods import parse_spec

_MODULES = {
    "tensorflow": ("tensorflow",),
    "jax": ("jax", "keras"),
    "onnx": ("onnxruntime",),
    "superpixels": ("skimage",),
    "batch": ("pyarrow",),
    "ray": ("ray", "pandas"),
    "mlserver": ("mlserver", "httpx"),
}
"""What each extra of this package brings that is imported."""


class Needs(NamedTuple):
    """What one artifact needs.

    Attributes:
        reasons: Extras of this package, each with why.
    """

    reasons: Mapping[str, str]

    @property
    def tensorflow(self) -> bool:
        """Whether it needs the image with TensorFlow; the chart's `image.tensorflow`."""
        return "tensorflow" in self.reasons

    @property
    def target(self) -> str:
        """The Dockerfile's smallest target that runs it."""
        return "mlserver-tensorflow" if self.tensorflow else "mlserver"


def of(report: Report) -> Needs:
    """What the artifact of this report needs."""
    spec: Mapping[str, Any] = report.manifest["spec"]
    networks = sorted({Path(name).stem for name in report.files if name.startswith(f"{MODELS}/")})
    reasons = {}
    if networks:
        reasons["tensorflow"] = f"a network ({', '.join(networks)})"
    elif parse_spec(spec).slopes == "exact":
        reasons["tensorflow"] = "the model in the same process, for its gradient"
    segmentation = spec.get("segmentation", {}).get("kind", "grid")
    if segmentation != "grid":
        reasons["superpixels"] = f"the segmentation {segmentation}"
    return Needs(reasons)


def installed(extra: str) -> bool:
    """Whether what an extra of this package brings is here."""
    return not _missing(extra)


def require(what: str, *wanted: str) -> None:
    """Refuse to begin `what` without all of these extras; Keras may compute with JAX where that is asked for.

    Raises:
        MissingExtra: With the one line that installs them.
    """
    if missing := {extra: _missing(extra) for extra in map(_backed, wanted) if _missing(extra)}:
        names, extras = ", ".join(map(", ".join, missing.values())), ",".join(missing)
        raise MissingExtra(
            f"{what} needs what is not installed ({names}): pip install 'explainer-runtime[{extras}]'"
        )


def check(report: Report, name: str) -> None:
    """Refuse to serve what needs a package that is not here.

    Raises:
        MissingExtra: With which image, or which extra, to take instead.
    """
    for extra, why in of(report).reasons.items():
        if missing := _missing(_backed(extra)):
            instead = f"pip install 'explainer-runtime[{_backed(extra)}]'"
            if extra == "tensorflow":
                instead = "take the image with it (image.tensorflow: true in the chart), or " + instead
            raise MissingExtra(f"{name}: {why} needs {missing[0]}, which is not installed: {instead}")


def _missing(extra: str) -> list[str]:
    return [name for name in _MODULES[extra] if find_spec(name) is None]


def _backed(extra: str) -> str:
    """`extra`, or that with what Keras computes with instead."""
    return "jax" if extra == "tensorflow" and os.environ.get("KERAS_BACKEND") == "jax" else extra
