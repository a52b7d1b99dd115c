"""What a platform appends to a container's command line, in the platform's own words.

KServe's controller appends `--model_name <name> --predictor_host <name>-predictor.<namespace> --http_port
8080`, and `--workers N` where the service bounds its concurrency, to whatever the operator wrote. Seldon
Core 1 sets the whole line: `--model_name= --predictor_host= --protocol= --http_port= [--storage_uri=] <Type>
[--key=value ...]`. Flags therefore come twice (the last one counts, as both platforms mean it) and some are
for explainers that others wrote: those are reported, not refused. A container that does not start because
of a word it does not know cannot be repaired by the person who sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.spec import OPTIONS

FLAGS = (
    "model_name",
    "predictor_host",
    "predictor_protocol",
    "protocol",
    "predictor_use_ssl",
    "http_port",
    "grpc_port",
    "workers",
    "storage_uri",
)
"""The platforms' flags that mean something here; all take a value."""

KINDS = {
    **{kind: (kind,) for kind in OPTIONS},
    "anchorimages": ("anchor_image",),
    "counterfactuals": ("counterfactual", "counterfactual_proto"),
    "contrastive": ("cem",),
}
"""Names of types, ours and Seldon's in small letters, and the kinds of artifact that answer to them.
`AnchorImages` is how a SeldonDeployment spells it, `anchor_image` what its operator makes of it."""

_SCHEMES = {
    "v2": "http",
    "v2.http": "http",
    "grpc-v2": "grpc",
    "v2.grpc": "grpc",
    "v1": "v1+http",
    "tensorflow": "v1+http",
    "tensorflow.http": "v1+http",
}


class Line(NamedTuple):
    """A command line, taken apart.

    Attributes:
        paths: Directories of explainers.
        flags: The platform's flags by name.
        kind: The explainer type that Seldon names, if any.
        ignored: Words that mean nothing here.
    """

    paths: tuple[Path, ...] = ()
    flags: Mapping[str, str] = MappingProxyType({})
    kind: str | None = None
    ignored: tuple[str, ...] = ()


def read(words: Sequence[str]) -> Line:
    """Take apart the words that are not our own options.

    A word after an unknown flag belongs to it, unless it is a directory.

    Raises:
        InvalidInput: A flag that needs a value is the last word.
    """
    paths: list[Path] = []
    flags: dict[str, str] = {}
    ignored: list[str] = []
    kind = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("-"):
            if word.lower() in KINDS and not Path(word).is_dir():
                kind = word
            else:
                paths.append(Path(word))
        elif name in FLAGS:
            if not equals and not rest:
                raise InvalidInput(f"--{name}: expected a value", name)
            flags[name] = value if equals else rest.pop(0)
        else:
            ignored.append(word)
            if not equals and rest and not rest[0].startswith("-") and not Path(rest[0]).is_dir():
                ignored.append(rest.pop(0))
    return Line(tuple(paths), flags, kind, tuple(ignored))


def number(flags: Mapping[str, str], name: str, default: int) -> int:
    """A flag as a number that is at least 1.

    Raises:
        InvalidInput: It is not one.
    """
    value = flags.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise InvalidInput(f"--{name}: expected a number, got {value!r}", name)
    return int(value)


def predictor_address(flags: Mapping[str, str]) -> str | None:
    """The address of the model being explained, as `spec.parse_predictor` takes it; None if none is named.

    Without a protocol the model is asked over V2.

    Raises:
        InvalidSpec: A protocol that no predictor here speaks, or no model's name.
    """
    host = flags.get("predictor_host", "").rstrip("/")
    if not host:
        return None
    protocol = flags.get("predictor_protocol") or flags.get("protocol") or "v2"
    if protocol not in _SCHEMES:
        raise InvalidSpec(
            f"protocol: {protocol} is not spoken here; expected one of {', '.join(_SCHEMES)}. A Seldon "
            "deployment says `protocol: v2` or `protocol: tensorflow`"
        )
    if "model_name" not in flags:
        raise InvalidSpec("model_name: missing; --predictor_host says where, --model_name which model it is")
    _, _, place = host.rpartition("://")
    secure = host.startswith("https://") or flags.get("predictor_use_ssl", "").lower() in ("true", "1", "yes")
    return f"{_SCHEMES[protocol]}{'s' * secure}://{place}/{flags['model_name']}"


def check_kind(wanted: str | None, kind: str) -> None:
    """Refuse an artifact that is not of the type that the platform was told.

    Args:
        wanted: Seldon's name of a type, a kind of ours, or None where nobody has said.
        kind: The artifact's.

    Raises:
        InvalidSpec: They differ.
    """
    if wanted and kind not in KINDS.get(wanted.lower(), ()):
        raise InvalidSpec(f"explainer_type: {wanted} was asked for, but the artifact is of kind {kind}")
