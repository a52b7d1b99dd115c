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
from typing import Any, NamedTuple

from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.methods import called

FLAGS = (
    "model_name",
    "predictor_host",
    "predictor_protocol",
    "protocol",
    "predictor_use_ssl",
    "predictor_request_timeout_seconds",
    "predictor_request_retries",
    "http_port",
    "grpc_port",
    "workers",
    "storage_uri",
)
"""The platforms' flags that mean something here; all take a value."""

_SCHEMES = {
    "v2": "http",
    "v2.http": "http",
    "grpc-v2": "grpc",
    "v2.grpc": "grpc",
    "v1": "v1+http",
    "tensorflow": "v1+http",
    "tensorflow.http": "v1+http",
}


_MOST_ATTEMPTS = 10
"""As many as `spec.Endpoint` takes."""


class Line(NamedTuple):
    """A command line, taken apart.

    Attributes:
        paths: Directories of explainers.
        flags: The platform's flags by name.
        kind: The explainer type that Seldon, or KServe, names, if any.
        settings: Flags behind that name that are not the platform's: settings of the explainer.
        ignored: Words that mean nothing here.
    """

    paths: tuple[Path, ...] = ()
    flags: Mapping[str, str] = MappingProxyType({})
    kind: str | None = None
    settings: Mapping[str, str] = MappingProxyType({})
    ignored: tuple[str, ...] = ()


def read(words: Sequence[str]) -> Line:
    """Take apart the words that are not our own options.

    A word after an unknown flag belongs to it, unless it is a directory.

    Raises:
        InvalidInput: A flag that needs a value is the last word.
    """
    paths: list[Path] = []
    flags: dict[str, str] = {}
    settings: dict[str, str] = {}
    ignored: list[str] = []
    kind = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("-"):
            if called(word) and not Path(word).is_dir():
                kind = word
            else:
                paths.append(Path(word))
        elif name in FLAGS:
            if not equals and not rest:
                raise InvalidInput(f"--{name}: expected a value", name)
            flags[name] = value if equals else rest.pop(0)
        elif kind is not None and (equals or (rest and not rest[0].startswith("-"))):
            settings[name] = value if equals else rest.pop(0)
        else:
            ignored.append(word)
            if not equals and rest and not rest[0].startswith("-") and not Path(rest[0]).is_dir():
                ignored.append(rest.pop(0))
    return Line(tuple(paths), flags, kind, settings, tuple(ignored))


def number(flags: Mapping[str, str], name: str, default: int, *, least: int = 1) -> int:
    """A flag as a whole number that is at least `least`.

    Raises:
        InvalidInput: It is not one.
    """
    value = flags.get(name, str(default))
    if not value.isdecimal() or int(value) < least:
        raise InvalidInput(f"--{name}: expected a number from {least} on, got {value!r}", name)
    return int(value)


def port(said: Mapping[str, str], name: str) -> int:
    """A port.

    Raises:
        InvalidInput: It is none.
    """
    value = said[name]
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise InvalidInput(f"--{name}: expected a port, a number from 1 to 65535, got {value!r}", name)
    return int(value)


def predictor(flags: Mapping[str, str], known: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The settings of the model being explained: what a platform says about it, over what is known otherwise.

    A platform says where the model is, and seldom more. What else is known (what its outputs mean, how its
    inputs are scaled, how long a call may take) stays; of the protocol, too, only what the platform says
    counts before it. Where nobody says a protocol, the model is asked over V2.

    Args:
        flags: The platform's.
        known: Settings as `spec.Endpoint` takes them, without an address or with one that is replaced.

    Returns:
        `known` itself where the platform says nothing.

    Raises:
        InvalidSpec: A protocol that no predictor here speaks, a path for gRPC, or no model's name.
        InvalidInput: A number that is none.
    """
    settings = dict(known)
    if "predictor_request_timeout_seconds" in flags:
        settings["timeout"] = number(flags, "predictor_request_timeout_seconds", 1)
    if "predictor_request_retries" in flags:
        settings["attempts"] = min(_MOST_ATTEMPTS, 1 + number(flags, "predictor_request_retries", 0, least=0))
    host = flags.get("predictor_host", "").rstrip("/")
    if not host:
        return settings
    if "model_name" not in flags:
        raise InvalidSpec("model_name: missing; --predictor_host says where, --model_name which model it is")
    scheme = _scheme(flags, settings.get("kind", "v2"))
    _, _, place = host.rpartition("://")
    place, _, prefix = place.partition("/")
    secure = host.startswith("https://") or flags.get("predictor_use_ssl", "").lower() in ("true", "1", "yes")
    kind = "v1" if scheme.startswith("v1+") else "v2"
    settings["kind"], settings["model"] = kind, flags["model_name"]
    settings["url"] = f"{scheme.removeprefix('v1+')}{'s' * secure}://{place}"
    if prefix and scheme == "grpc":
        raise InvalidSpec(f"predictor_host: {host} has a path, which gRPC has no use for")
    if prefix:
        settings["path"] = _path(prefix, kind, flags["model_name"])
    return settings


def _scheme(flags: Mapping[str, str], kind: str) -> str:
    protocol = flags.get("predictor_protocol") or flags.get("protocol") or kind
    if protocol not in _SCHEMES:
        raise InvalidSpec(
            f"protocol: {protocol} is not spoken here; expected one of {', '.join(_SCHEMES)}. A Seldon "
            "deployment says `protocol: v2` or `protocol: tensorflow`"
        )
    return _SCHEMES[protocol]


def _path(prefix: str, kind: str, model: str) -> str:
    """The path of a call behind a prefix, where a gateway routes by paths."""
    end = {"v1": ":predict", "v2": "/infer"}[kind]
    if prefix.endswith(end):
        return f"/{prefix}"
    return f"/{prefix}/{kind}/models/{model}{end}"


def check_kind(wanted: str | None, kind: str) -> None:
    """Refuse an artifact that is not of the type that the platform was told.

    Args:
        wanted: Seldon's name of a type, a kind of ours, or None where nobody has said.
        kind: The artifact's.

    Raises:
        InvalidSpec: They differ.
    """
    if wanted and kind not in called(wanted):
        raise InvalidSpec(f"explainer_type: {wanted} was asked for, but the artifact is of kind {kind}")
