"""`provenance.json`: what an explainer was made of, as SLSA provenance v1 in an in-toto statement.

It is what `fit` says of itself: digests of what it was given, the spec, the release that ran. It names the
artifact by its digest, so it lies beside what that pins, and a signature covers both. There is no time in it:
the same fit gives the same bytes.

Source: https://slsa.dev/spec/v1.0/provenance; https://github.com/in-toto/attestation, spec/v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import MANIFEST, PROVENANCE
from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.spec import Spec

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
_PAGE = "https://github.com/explainer-runtime/explainer-runtime/blob/main/docs/signing.md"
BUILD = f"{_PAGE}#fit-v1"
"""What `fit` does with what it is given; the page says what each word means."""


def digest(array: np.ndarray) -> str:
    """SHA-256 of a line with an array's dtype and shape, then of its numbers, little-endian, in C order."""
    ready = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    found = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode())
    found.update(ready.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def made(spec: Spec, model: Mapping[str, str], **given: Any) -> dict[str, Any]:
    """The predicate for one fit.

    Args:
        spec: Every setting.
        model: What is known of the model, in words; see `Fitted.model`.
        given: Arrays that it was fitted on, by name; None where there was none.
    """
    from explainer_runtime import __version__

    arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
    arrays = {name: array.astype(str) if array.dtype.hasobject else array for name, array in arrays.items()}
    words = spec.model_dump(mode="json")
    own = f"pkg:pypi/explainer-runtime@{__version__}"
    sources = [
        {
            "name": name,
            "digest": {"sha256": digest(array)},
            "annotations": {"dtype": array.dtype.name, "shape": list(array.shape)},
        }
        for name, array in arrays.items()
    ]
    if "digest" in model:
        sources.append({"name": "model", "digest": {"sha256": model["digest"]}})
    written = strict_json.dump(words, "spec")
    sources.append({"name": "spec", "digest": {"sha256": hashlib.sha256(written).hexdigest()}})
    sources.append({"name": "explainer-runtime", "uri": own})
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {"spec": words, "model": dict(model)},
            "resolvedDependencies": sources,
        },
        "runDetails": {"builder": {"id": f"{_PAGE}#builder", "version": {"explainer-runtime": __version__}}},
    }


def dump(predicate: Mapping[str, Any], artifact: str) -> bytes:
    """The bytes of `provenance.json` for the artifact with this digest."""
    subject = {"name": MANIFEST, "digest": {"sha256": artifact}}
    statement = {"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE}
    return strict_json.dump({**statement, "predicate": dict(predicate)}, PROVENANCE)


def parse(data: bytes, artifact: str) -> dict[str, Any]:
    """The predicate in the bytes of `provenance.json`.

    Raises:
        InvalidArtifact: It is no provenance, or that of another artifact.
    """
    said = strict_json.parse(data, PROVENANCE)
    predicate = said.get("predicate")
    if (said.get("_type"), said.get("predicateType")) != (STATEMENT, PREDICATE) or not isinstance(
        predicate, dict
    ):
        raise InvalidArtifact(f"{PROVENANCE}: expected a statement of {PREDICATE}")
    if said.get("subject") != [{"name": MANIFEST, "digest": {"sha256": artifact}}]:
        raise InvalidArtifact(f"{PROVENANCE}: is not of this artifact, {artifact}; remove it, or fit again")
    return predicate
