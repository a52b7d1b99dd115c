"""`explainer.json`: what the artifact is, and the size and SHA-256 of every other file in it.

Because it pins all the rest, its own SHA-256 (the *digest* of the artifact) pins everything. It also
carries a checksum of itself, so that a damaged or hand-edited threshold is noticed by those who did not
write the digest down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import time
from importlib import metadata
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import MANIFEST
from explainer_runtime.artifact.strict_json import short
from explainer_runtime.complaints import expected
from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.spec import Value

FORMAT = "explainer_runtime"
VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]
Text = Annotated[str, Field(max_length=1000)]
Size = Annotated[int, Field(ge=0, lt=2**63)]

_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')
_BLANK = "0" * 64
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class File(Value, strict=True):
    """One file of the artifact."""

    bytes: Size
    sha256: Sha256


class Array(Value, strict=True):
    """One array of `arrays.safetensors`: NumPy's name of its dtype, and its shape."""

    dtype: str
    shape: list[Size]


class Manifest(Value, strict=True):
    """What `explainer.json` holds; nothing else is allowed in it."""

    format: Literal["explainer_runtime"]
    format_version: Literal[1]
    checksum: Sha256
    """SHA-256 of this file with these 64 digits read as zeros."""
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    model: dict[Word, Text] = Field(default_factory=dict)
    """What is known of the model that it was fitted to, for people and for `predictors/fingerprint.py`."""
    arrays: dict[str, Array]
    files: dict[str, File]
    """Every other file of the artifact, by its path in the directory."""
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")] | None = None
    """UTC; `SOURCE_DATE_EPOCH`, where the writer had it set. There is no other time in an artifact: the same
    fit gives the same bytes."""
    versions: dict[str, str]
    """What wrote it; for people, nothing depends on it."""


def written(*packages: str) -> dict[str, Any]:
    """What wrote an artifact: this package, Python, and these where they are installed; and when, by
    `SOURCE_DATE_EPOCH`, where that is set."""
    from explainer_runtime import __version__

    versions = {"explainer_runtime": __version__, "python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):  # tensorflow-cpu is TensorFlow, too
            versions[name] = metadata.version(name)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    created = {} if epoch is None else {"created": time.strftime(_TIME, time.gmtime(int(epoch)))}
    return {**created, "versions": versions}


def dump(value: dict[str, Any]) -> bytes:
    """The bytes of `explainer.json`; format, version and checksum are filled in.

    Raises:
        InvalidArtifact: It would be larger than `strict_json.LIMIT`, or has no JSON form.
    """
    blank = strict_json.dump(
        {**value, "format": FORMAT, "format_version": VERSION, "checksum": _BLANK}, MANIFEST
    )
    return _with_checksum(blank, hashlib.sha256(blank).hexdigest())


def parse(data: bytes) -> Manifest:
    """The manifest in the bytes of `explainer.json`.

    Raises:
        InvalidArtifact: Not strict JSON, another format or version, a wrong checksum, a field that is
            missing, unknown or of the wrong type.
    """
    value = strict_json.parse(data, MANIFEST)
    _check_version(value)
    _check_checksum(data)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = short(".".join(str(part) for part in first["loc"]))
        raise InvalidArtifact(f"{MANIFEST}: {where}: {expected(first)}") from None


def digest_of(data: bytes) -> str:
    """The digest of the artifact whose `explainer.json` has these bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _check_version(value: dict[str, Any]) -> None:
    if value.get("format") != FORMAT:
        raise InvalidArtifact(f"{MANIFEST}: expected format {FORMAT!r}, got {short(value.get('format'))}")
    if value.get("format_version") != VERSION:
        raise InvalidArtifact(
            f"{MANIFEST}: expected format_version {VERSION}, the only one this release reads, got "
            f"{short(value.get('format_version'))}; fit again, or use the release that wrote it"
        )


def _check_checksum(data: bytes) -> None:
    found = _CHECKSUM.findall(data)
    if len(found) != 1:
        raise InvalidArtifact(f'{MANIFEST}: expected one "checksum" of 64 hexadecimal digits')
    blank = _with_checksum(data, _BLANK)
    if hashlib.sha256(blank).hexdigest() != found[0].decode():
        raise InvalidArtifact(
            f"{MANIFEST}: its checksum does not match: it was edited or damaged after it was saved; "
            "copy it again, or fit and save with the settings you want"
        )


def _with_checksum(data: bytes, digits: str) -> bytes:
    return _CHECKSUM.sub(f'"checksum": "{digits}"'.encode(), data)
