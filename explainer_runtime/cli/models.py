"""Which model is explained, from the words of a command line.

A file that is run here, an address, or settings as JSON, written out or in a file named after an `@`; and
the two things that are said most often about a model, as flags of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer_runtime.cli import files
from explainer_runtime.cli.output import import_tensorflow_quietly
from explainer_runtime.complaints import json_object
from explainer_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from explainer_runtime.predictors import Predictor
    from explainer_runtime.predictors.settings import PredictorSettings


def said(logits: bool = False, label: int | None = None) -> dict[str, Any]:
    """What the flags say about the model, as fields of `spec.ModelContract`."""
    return {**({"output": "logits"} if logits else {}), **({} if label is None else {"label": label})}


def written(predictor: str) -> str:
    """What was said of a predictor; the text of the file where that is named.

    Raises:
        InvalidInput: There is no such file.
    """
    return files.text(Path(predictor[1:]), "predictor") if predictor.startswith("@") else predictor


def with_contract(predictor: str, contract: Mapping[str, Any]) -> str:
    """Settings of a predictor as JSON, with what the flags say about it.

    They may lack an address, which the platform says.

    Raises:
        InvalidInput: It is no object.
        InvalidSpec: It is no address.
    """
    from explainer_runtime.predictors.settings import parse_predictor

    if predictor.lstrip().startswith("{"):
        given = json_object(predictor, "predictor", lambda message: InvalidInput(message, "predictor"))
        return json.dumps({**given, **contract})
    return parse_predictor(predictor, **contract).model_dump_json(exclude_unset=True)


def chosen(model: str | None, predictor: str | None, **contract: Any) -> PredictorSettings:
    """What was said of the model being explained, by the one of two options that was given. It is looked at
    as far as that goes without importing what runs it.

    Raises:
        InvalidInput: Both or none were given.
        InvalidSpec: It cannot be used as it was said, or is not there.
        MissingExtra: What runs it is not installed.
    """
    from explainer_runtime.predictors.settings import KerasModel, parse_predictor
    from explainer_runtime.spec import parse

    if (model is None) == (predictor is None):
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if model is not None:
        said: PredictorSettings = parse(KerasModel, {"path": model, **contract}, "model")
    else:
        said = parse_predictor(written(predictor or ""), **contract)
    if isinstance(said, KerasModel):
        check(said.path)
    return said


def check(path: str) -> None:
    """Refuse a model's file that is not there, or that nothing here can run.

    Raises:
        InvalidSpec, MissingExtra: It is one.
    """
    from explainer_runtime.hosts.platform import needs
    from explainer_runtime.predictors import backends

    backends.check(Path(path))
    needs.require(path, "onnx" if path.endswith(".onnx") else "tensorflow")


def connected(said: PredictorSettings) -> Predictor:
    """The model that was `chosen`."""
    from explainer_runtime.predictors import connect
    from explainer_runtime.predictors.settings import KerasModel

    if isinstance(said, KerasModel) and not said.path.endswith(".onnx"):
        import_tensorflow_quietly()
    return connect(said)


def refuse(*given: object) -> None:
    """Refuse what was said about a model where a server knows it.

    Raises:
        InvalidInput: Something was.
    """
    if any(one not in (None, False) for one in given):
        raise InvalidInput("a server knows its model: give --server alone", "server")
