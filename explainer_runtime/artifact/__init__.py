"""A fitted explainer as a directory: save, load, verify. docs/artifact.md states the format, MUST by MUST.

`pack` and `unpack` are the format itself, between a `Fitted` and named bytes; they touch no disk. The files
beside this one each keep one promise about those bytes: `directory` reads them as if someone hostile had
written them, `replace` writes them all or not at all, `manifest` pins each of them, `strict_json` and
`tensors` parse them with one reading only, `networks` builds models from them without running their code,
`provenance` says what they were made of, and `signing` who vouches for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from explainer_runtime import methods
from explainer_runtime.artifact import manifest as manifests
from explainer_runtime.artifact import networks, provenance, strict_json, tensors
from explainer_runtime.artifact.directory import (
    ARRAYS,
    BESIDE,
    MANIFEST,
    MODELS,
    PROVENANCE,
    SIGNATURE,
    WORD,
    Directory,
    check_listed,
)
from explainer_runtime.artifact.manifest import Manifest
from explainer_runtime.artifact.networks import Network
from explainer_runtime.artifact.replace import kept, put, replace
from explainer_runtime.complaints import printable
from explainer_runtime.errors import InvalidArtifact, InvalidOption, InvalidSpec, MissingExtra
from explainer_runtime.fitted import Fitted
from explainer_runtime.spec import Inputs, Spec, parse

if TYPE_CHECKING:
    from explainer_runtime.artifact.signing import Trust

__all__ = ["Fitted", "Report", "load", "pack", "save", "sign", "trusted", "unpack", "verify"]

MAX_BYTES = 2 * 2**30
"""Bytes of all files together that are read unless the caller allows more."""


@dataclass(frozen=True)
class Report:
    """What `verify` found in an artifact that it has nothing against.

    Attributes:
        manifest: `explainer.json`.
        digest: SHA-256 of `explainer.json`, 64 hexadecimal digits. It pins every byte of the artifact: give
            it to `load`.
        files: Size of each file in bytes, by its path in the directory.
        signature: `unsigned`, `not verified`, or who signed it, by `key` or by `certificate`.
        made: What it says it was made of; see `provenance.py`. It says so itself: a signature vouches for it.
        arrays: What was fitted, by name.
    """

    manifest: dict[str, Any]
    digest: str
    files: Mapping[str, int]
    signature: str = "unsigned"
    made: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(self.files.values())

    @property
    def parts(self) -> dict[str, int]:
        """What makes that size: bytes of each array, of each model, and of the rest, the largest first."""
        found = {
            name: math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize
            for name, array in self.manifest["arrays"].items()
        }
        for name, size in self.files.items():
            if name.startswith(f"{MODELS}/"):
                stem = name.rpartition(".")[0]
                found[stem] = found.get(stem, 0) + size
        found["the rest"] = self.bytes - sum(found.values())
        return dict(sorted(found.items(), key=lambda part: -part[1]))


def save(fitted: Fitted, path: str | Path) -> Path:
    """Write the artifact, or replace an earlier one at the same path.

    What is written has been read back first, so a save that succeeds can be loaded; one that fails leaves
    the earlier artifact as it was. A `model-settings.json` beside it is kept.

    Returns:
        The directory.

    Raises:
        InvalidArtifact: Something in `fitted` has no place in an artifact, or there is something at `path`
            that is not one. The message says what.
        OSError: The disk would not have it.
    """
    path = Path(os.path.abspath(path))
    with _about(path):
        files = pack(fitted)
        unpack(files)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, files)
    return path


def check_place(path: str | Path) -> None:
    """Refuse a path that `save` would refuse, before there is anything to save.

    Raises:
        InvalidArtifact: There is something at `path` that is not an artifact.
    """
    with _about(path):
        kept(Path(os.path.abspath(path)))


def load(
    path: str | Path, *, digest: str | None = None, max_bytes: int = MAX_BYTES, trust: Trust | None = None
) -> Fitted:
    """Read an artifact. Nothing in it is executed, imported, followed or trusted.

    TensorFlow is imported only if the artifact has models. Arrays are read-only.

    Args:
        path: The directory.
        digest: Digest that the artifact must have, as `verify` reports it; None takes any.
        max_bytes: Most bytes of all files together.
        trust: Whose signature it must have, as `trusted` reads it; None asks for none.

    Raises:
        InvalidArtifact: It is not exactly what `save` writes; the message names the file and says what to do.
        MissingExtra: It has models, and TensorFlow is not installed.
    """
    with _about(path):
        files, more = _read(path, digest, max_bytes)
        _vouched(files, more, trust)
        return unpack(files)


def verify(
    path: str | Path, *, digest: str | None = None, max_bytes: int = MAX_BYTES, trust: Trust | None = None
) -> Report:
    """Check everything that `load` checks, short of building the models.

    Raises:
        InvalidArtifact: As `load`.
    """
    with _about(path):
        files, more = _read(path, digest, max_bytes)
        parts = _parse(files)
        return Report(
            manifest=parts.manifest.model_dump(mode="json", exclude_unset=True),
            digest=manifests.digest_of(files[MANIFEST]),
            files={name: len(data) for name, data in files.items()},
            signature=_vouched(files, more, trust),
            made=_made(files),
            arrays=parts.arrays,
        )


def sign(
    path: str | Path, key: str | Path, certificate: str | Path | None = None, *, password: str | None = None
) -> Report:
    """Put a signature of every file of an artifact, as they are now, into it; an earlier one is replaced.

    Args:
        path: The directory.
        key: A PEM file with a private key on P-256, P-384 or P-521.
        certificate: A PEM file with the certificate of that key and those between it and a root, if it is a
            certificate by which others will verify.
        password: Of the key, where it is encrypted.

    Raises:
        InvalidArtifact: It is not an artifact.
        InvalidSpec: The key or the certificate cannot be used.
        MissingExtra: `cryptography` is not installed.
        OSError: The signature cannot be written.
    """
    path = Path(os.path.abspath(path))
    signing, files = _signing(), contents(path)
    put(path / SIGNATURE, signing.signed(path.name, _digests(files), key, certificate, password))
    return verify(path)


def contents(path: str | Path) -> dict[str, bytes]:
    """Every file of a directory that `verify` has nothing against, and what lies beside them, by path.

    Raises:
        InvalidArtifact: As `verify`.
    """
    with _about(path):
        files, more = _read(path, None, MAX_BYTES, whole=True)
        _parse(files)
        _made(files)
    return {**files, **more}


def trusted(path: str | Path, name: str = "key") -> Trust:
    """Whose signatures to believe, from a PEM file; see `signing.trusted`.

    Raises:
        InvalidSpec: It is neither a public key nor certificates with a root, or has expired.
        MissingExtra: `cryptography` is not installed.
    """
    return _signing().trusted(path, name)


def pack(fitted: Fitted) -> dict[str, bytes]:
    """The files of an artifact: content by path. The same values give the same bytes.

    Raises:
        InvalidArtifact: Something in `fitted` has no place in an artifact.
    """
    _check_names((*fitted.arrays, *fitted.models))
    files: dict[str, bytes] = {}
    arrays = {name: np.asarray(array) for name, array in fitted.arrays.items()}
    if arrays:
        files[ARRAYS] = tensors.dump(arrays, ARRAYS)
    for name, model in fitted.models.items():
        stem = _stem(name)
        files[f"{stem}.json"], files[f"{stem}.safetensors"] = networks.dump(model, stem)
    head = manifests.dump(_describe(fitted, arrays, files))
    if fitted.made:
        files[PROVENANCE] = provenance.dump(fitted.made, manifests.digest_of(head))
    return {MANIFEST: head, **files}


def unpack(files: Mapping[str, bytes]) -> Fitted:
    """What is in these files of an artifact.

    Raises:
        InvalidArtifact, MissingExtra: As `load`.
    """
    parts = _parse(files)
    return Fitted(
        spec=parts.spec,
        inputs=parts.inputs,
        arrays=parts.arrays,
        models={
            name: networks.build(network, _stem(name), parts.inputs.shape)
            for name, network in parts.networks.items()
        },
        model=parts.manifest.model,
        made=_made(files),
    )


class _Parts(NamedTuple):
    manifest: Manifest
    spec: Spec
    inputs: Inputs
    arrays: dict[str, np.ndarray]
    networks: dict[str, Network]


def _read(
    path: str | Path, digest: str | None, max_bytes: int, *, whole: bool = False
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The bytes of every file, each as its manifest says it is, of which only that has been parsed; and of
    what lies beside them, where that is signed, or the `whole` directory is asked for."""
    with Directory(path) as directory:
        if not directory.has(MANIFEST):  # first, or a folder of other things would hear what to remove
            raise InvalidArtifact(f"{MANIFEST}: is missing; this is not the directory of an artifact")
        found = directory.names()
        head = directory.read(MANIFEST, strict_json.LIMIT)
        if digest is not None and manifests.digest_of(head) != digest:
            raise InvalidArtifact(
                f"{MANIFEST}: expected an artifact with digest {digest}, got {manifests.digest_of(head)}"
            )
        listed = manifests.parse(head).files
        check_listed(set(listed), found)
        if (total := len(head) + sum(file.bytes for file in listed.values())) > max_bytes:
            raise InvalidArtifact(f"{MANIFEST}: lists {total} bytes, at most {max_bytes} are allowed")
        rest = {
            name: directory.read_pinned(name, file.bytes, file.sha256)
            for name, file in sorted(listed.items())
        }
        if PROVENANCE in found:
            rest[PROVENANCE] = directory.read(PROVENANCE, strict_json.LIMIT)
        beside = sorted(found & {BESIDE, SIGNATURE}) if whole or SIGNATURE in found else ()
        return {MANIFEST: head, **rest}, {name: directory.read(name, strict_json.LIMIT) for name in beside}


def _vouched(files: Mapping[str, bytes], more: Mapping[str, bytes], trust: Trust | None) -> str:
    """See `Report.signature`.

    Raises:
        InvalidArtifact: Nobody has signed these files who is believed, and somebody has to be.
    """
    if trust is None:
        return "not verified" if SIGNATURE in more else "unsigned"
    if SIGNATURE not in more:
        raise InvalidArtifact(f"{SIGNATURE}: is missing, and a signature is asked for; sign the artifact")
    return _signing().check(more[SIGNATURE], _digests({**files, **more}), trust)


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file but the signature."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != SIGNATURE}


def _signing() -> Any:
    try:
        from explainer_runtime.artifact import signing
    except ModuleNotFoundError as error:
        wanted = "pip install 'explainer-runtime[sign]'"
        raise MissingExtra(f"{error.name} is not installed, and signatures need it; {wanted}") from None
    return signing


def _parse(files: Mapping[str, bytes]) -> _Parts:
    """Everything that these files say, checked as far as it can be without building a model."""
    manifest = manifests.parse(files[MANIFEST])
    try:
        spec = methods.parse_spec(manifest.spec)
        inputs = parse(Inputs, manifest.inputs, "inputs")
    except InvalidSpec as error:
        raise InvalidArtifact(f"{MANIFEST}: {error}") from None
    if spec.kind != manifest.kind:
        raise InvalidArtifact(f"{MANIFEST}: kind is {manifest.kind!r}, that of its spec {spec.kind!r}")
    arrays = tensors.parse(files[ARRAYS], ARRAYS) if ARRAYS in files else {}
    _check_names(arrays)
    if _shapes(arrays) != {name: array.model_dump() for name, array in manifest.arrays.items()}:
        raise InvalidArtifact(f"{ARRAYS}: names, dtypes or shapes are not those in {MANIFEST}; save again")
    held = _networks(files)
    try:
        methods.of(spec.kind).check(Fitted(spec, inputs, arrays, held))
    except (InvalidSpec, InvalidOption) as error:
        raise InvalidArtifact(str(error)) from None
    return _Parts(manifest, spec, inputs, arrays, held)


def _made(files: Mapping[str, bytes]) -> dict[str, Any]:
    if PROVENANCE not in files:
        return {}
    return provenance.parse(files[PROVENANCE], manifests.digest_of(files[MANIFEST]))


def _networks(files: Mapping[str, bytes]) -> dict[str, Network]:
    stems = {name.rpartition(".")[0] for name in files if name.startswith(f"{MODELS}/")}
    for part in sorted(stem + suffix for stem in stems for suffix in (".json", ".safetensors")):
        if part not in files:
            raise InvalidArtifact(f"{part}: is missing; a model is a .json and a .safetensors file")
    return {
        stem.removeprefix(f"{MODELS}/"): networks.parse(
            files[f"{stem}.json"], files[f"{stem}.safetensors"], stem
        )
        for stem in sorted(stems)
    }


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not WORD.fullmatch(name):
            raise InvalidArtifact(
                f"{strict_json.short(name)} cannot name an array or a model; use {WORD.pattern}"
            )


def _stem(model: str) -> str:
    return f"{MODELS}/{model}"


def _describe(fitted: Fitted, arrays: Mapping[str, np.ndarray], files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "kind": fitted.spec.kind,
        "spec": fitted.spec.model_dump(mode="json"),
        "inputs": fitted.inputs.model_dump(mode="json"),
        "model": dict(fitted.model),
        "arrays": _shapes(arrays),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
        **manifests.written("numpy", "safetensors", *(("keras", "tensorflow") if fitted.models else ())),
    }


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: {"dtype": a.dtype.name, "shape": list(a.shape)} for name, a in arrays.items()}


@contextlib.contextmanager
def _about(path: str | Path) -> Iterator[None]:
    """Name the artifact in front of what is wrong with it, in words that a terminal or a log can bear."""
    try:
        yield
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{path}: {printable(str(error)[:1000])}") from error.__cause__
