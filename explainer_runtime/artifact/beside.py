"""`model-settings.json` beside an artifact: what whoever wrote the directory would like a server to do.

It is no part of the artifact, nothing pins it, and it is as untrusted as the rest: read without following
links, no further than a megabyte, as strict JSON. It names no code, and what it asks for is no more than what
the operator allows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from explainer_runtime.artifact import strict_json
from explainer_runtime.artifact.directory import BESIDE, Directory
from explainer_runtime.complaints import expected
from explainer_runtime.errors import InvalidArtifact, InvalidSpec


class Parameters(BaseModel, strict=True, frozen=True):
    """`parameters`."""

    version: str | None = None
    extra: dict[str, Any] | None = None


class Beside(BaseModel, strict=True, frozen=True):
    """What is read of the file; servers write other things into it, too."""

    name: str | None = None
    parameters: Parameters | None = None

    @property
    def version(self) -> str | None:
        """The version under which to serve the explainer."""
        return self.parameters.version if self.parameters else None

    @property
    def extra(self) -> dict[str, Any]:
        """Settings of the explainer."""
        return dict((self.parameters and self.parameters.extra) or {})


def settings(path: str | Path) -> Beside:
    """What the file in this directory says; nothing where there is none.

    Raises:
        InvalidSpec: It is not a small file of its own that holds a JSON object of the right kind.
    """
    path = Path(path)
    # A mounted ConfigMap or Secret has its files there, and links to them where one looks.
    folder = path / "..data" if (path / "..data").is_symlink() else path
    try:
        with Directory(folder) as directory:
            if not directory.has(BESIDE):
                return Beside()
            value = strict_json.parse(directory.read(BESIDE, strict_json.LIMIT), BESIDE)
        return Beside.model_validate(value)
    except InvalidArtifact as error:
        raise InvalidSpec(f"{path / BESIDE}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidSpec(f"{path / BESIDE}: {where}: {expected(first)}") from None
