"""What a fitted explainer needs to run, and so which image: told before anything is deployed, or started.

Images differ in one thing that matters to an artifact, whether TensorFlow is in them. A server that finds out
at the first request, or by a crash, helps nobody: `inspect --needs` says it where an artifact is made, and
`check` where one is served, before a port is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from explainer_runtime.artifact import Report
from explainer_runtime.artifact.directory import MODELS
from explainer_runtime.errors import MissingExtra
from explainer_runtime.methods import parse_spec

_MODULES = {"tensorflow": "tensorflow", "superpixels": "skimage"}


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
    return find_spec(_MODULES[extra]) is not None


def check(report: Report, name: str) -> None:
    """Refuse to serve what needs a package that is not here.

    Raises:
        MissingExtra: With which image, or which extra, to take instead.
    """
    for extra, why in of(report).reasons.items():
        if not installed(extra):
            instead = f"pip install 'explainer-runtime[{extra}]'"
            if extra == "tensorflow":
                instead = "take the image with it (image.tensorflow: true in the chart), or " + instead
            raise MissingExtra(f"{name}: {why} needs {_MODULES[extra]}, which is not installed: {instead}")
