"""Writes the chart's values.yaml, values.schema.json and the table in its README, from `chart_values.Values`.

    python charts/write_chart.py          # tests/test_chart.py fails where they are out of step

The three say the same thing to three readers: a person who edits, Helm, and a person who chooses.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chart_values import JobsLimits, Predictor, Values
from pydantic import BaseModel

from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.spec import Limits

CHART = Path(__file__).parent / "explainer-runtime"
START, END = "<!-- values -->\n", "<!-- /values -->\n"
_OURS = {"token_file", "management", "tls_cert", "tls_key", "tls_client_ca"}
"""Fields of the guard that the chart sets itself: from `tokenSecret`, for Seldon's agent, from `tls`."""
_PARTS = {"predictor": Predictor, "limits": Limits, "guard": Guard, "jobs.limits": JobsLimits}


def schema() -> dict[str, Any]:
    """The closed JSON schema of the values."""
    made = Values.model_json_schema(by_alias=True)
    for path, part in _PARTS.items():
        where, _, name = path.rpartition(".")
        properties = (made["$defs"][where.capitalize()] if where else made)["properties"]
        (reference,) = (one for one in properties[name].pop("anyOf") if "$ref" in one)
        properties[name].update(reference)
        definition = made["$defs"][reference["$ref"].rpartition("/")[2]]
        definition.pop("required", None)
        if part is Guard:
            definition["properties"] = {k: v for k, v in definition["properties"].items() if k not in _OURS}
    made["properties"]["global"] = {"type": "object", "description": "Helm's own; not used."}
    made["$schema"] = "http://json-schema.org/draft-07/schema#"
    limits = made["$defs"]["Resources"]["properties"]["limits"]
    limits["propertyNames"] = {"enum": ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]}
    limits["required"] = ["memory"]
    made["$defs"]["Image"]["properties"]["tag"]["not"] = {"const": "latest"}
    return _draft7(made)


def _draft7(value: Any) -> Any:
    """Without pydantic's titles, and with siblings of `$ref` where draft 7 sees them."""
    if isinstance(value, list):
        return [_draft7(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _draft7(one) for key, one in value.items() if key != "title" or not isinstance(one, str)}
    if "$ref" in made and len(made) > 1:
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made


def rows(model: BaseModel | None = None, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every value as its path, its default and its sentence; parts of the server's own models have none."""
    model = model or Values()
    for name, field in type(model).model_fields.items():
        path, value = prefix + (field.alias or name), getattr(model, name)
        said = " ".join((field.description or "").split())
        if path in _PARTS:
            yield path, field.default, said
            for key, one in _PARTS[path].model_fields.items():
                if key not in _OURS:
                    yield f"{path}.{key}", ..., " ".join((one.description or "").split())
        elif isinstance(value, BaseModel):
            yield from rows(value, path + ".")
        else:
            yield path, value, said


def values_yaml() -> str:
    """values.yaml, with each sentence above its value."""
    return (
        "# Written by charts/chart_values.py, which is where to change it; see README.md for every value.\n"
        + "".join(_yaml(Values(), ""))
    )


def _yaml(model: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        said = " ".join((field.description or "").split())
        if indent == "":
            yield "\n"
        yield from (f"{indent}# {line}\n" for line in _wrapped(said, 105 - len(indent)))
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:\n"
            yield from _yaml(value, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}\n"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def table() -> str:
    """The table of values, for the README."""
    lines = ["| value | default | |\n| --- | --- | --- |\n"]
    for path, default, said in rows():
        shown = "" if default is ... else f"`{json.dumps(default)}`"
        lines.append(f"| `{path}` | {shown} | {said.replace('|', chr(92) + '|')} |\n")
    return "".join(lines)


def written() -> dict[Path, str]:
    """The files that are written from here, and what they ought to hold."""
    readme = CHART / "README.md"
    text = re.sub(
        f"{START}.*{END}",
        lambda _: START + table() + END,
        readme.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    return {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": json.dumps(schema(), indent=1) + "\n",
        readme: text,
    }


def main() -> None:
    """Write them."""
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
