"""Imports what a target's server imports, at the end of its build.

    python imports.py mlserver [tensorflow]

What is missing is found here and not in a cluster, and the bytecode that this leaves behind is what makes a
server on a read-only root start quickly.
"""

import importlib
import sys

COMMON = [
    "explainer_runtime.cli.serving",
    "explainer_runtime.methods.anchor",
    "explainer_runtime.render",
    "explainer_runtime.artifact.signing",
    "psycopg",  # only where jobs are kept in PostgreSQL
]
NAMES = {
    "mlserver": [*COMMON, "explainer_runtime.hosts.launcher", "explainer_runtime.hosts.mlserver"],
    "kserve": [*COMMON, "explainer_runtime.hosts.kserve"],
    "tensorflow": ["tensorflow", "keras", "explainer_runtime.predictors.keras"],
}

for target in sys.argv[1:]:
    for name in NAMES[target]:
        importlib.import_module(name)

from skimage import segmentation  # noqa: E402  - it loads its parts when they are named

print(segmentation.slic, segmentation.felzenszwalb, segmentation.quickshift)
