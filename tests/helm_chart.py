"""The chart, rendered by the real Helm, and its objects checked against the schemas of their makers.

python tests/helm_chart.py      # writes the snapshots of tests/snapshots/chart anew
"""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "explainer-runtime"
TOOLS = ROOT / ".tools"
SNAPSHOTS = Path(__file__).parent / "snapshots" / "chart"
CRDS = Path(os.environ.get("EXPLAINER_RUNTIME_CRDS", ROOT.parent / "shared" / "crds"))
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
MODES = ("deployment", "kserve-explainer", "kserve-sidecar", "kserve-runtime", "seldon-v1", "seldon-v2")
KUBERNETES = "1.33"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
OURS = f"explainer-runtime:{VERSION}"
needs_tools = pytest.mark.skipif(
    not (TOOLS / ".ready").exists(), reason="no .tools with helm and kubectl; `make test` fetches them"
)


def case(mode: str) -> Path:
    """The values that `mode` needs and no others."""
    return CHART / "ci" / f"{mode}-values.yaml"


def helm(*words: str | Path, version: int = 3) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (TOOLS / f"helm{version}", *words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def kubectl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (TOOLS / "kubectl", *words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@functools.cache
def text(values: Path, version: int = 3, *more: str) -> str:
    """What Helm makes of the chart with these values, as the release `fashion` in the namespace `models`."""
    done = helm("template", "fashion", CHART, "--namespace", "models", "-f", values, *more, version=version)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(values: Path, *more: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text(values, 3, *more)) if one]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def explainer_container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The container that runs the server, as a mode declares it."""
    found = [one for made in objects if not is_test(made) for one in containers(made) if one["image"] == OURS]
    (container,) = found
    return container


def is_test(made: dict[str, Any]) -> bool:
    return made["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"


def pods(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod specifications in an object, wherever its kind keeps them."""
    spec = made.get("spec", {})
    match made["kind"]:
        case "Pod" | "ClusterServingRuntime":
            yield spec
        case "Deployment":
            yield spec["template"]["spec"]
        case "Server":
            yield spec["podSpec"]
        case "SeldonDeployment":
            for predictor in spec["predictors"]:
                yield {"containers": [predictor["explainer"]["containerSpec"]]}
        case "InferenceService":
            yield from (part for name, part in spec.items() if name != "canary")
            yield from (one["predictor"] for one in spec.get("canary", []))


def containers(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for pod in pods(made):
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def check(made: dict[str, Any]) -> None:
    """Hold an object against the schema of its kind; fields that it does not have are errors.

    Skips the test where the schemas of custom kinds are not at hand.
    """
    group = made["apiVersion"].rpartition("/")[0]
    if "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway")):
        import kubernetes_validate

        kubernetes_validate.validate(made, KUBERNETES, strict=True)
    else:
        _check_custom(made)


def _check_custom(made: dict[str, Any]) -> None:
    import jsonschema

    if not CRDS.is_dir():
        pytest.skip(f"no schemas of custom kinds at {CRDS}; set EXPLAINER_RUNTIME_CRDS")
    validator = jsonschema.Draft7Validator(_schema(made["apiVersion"], made["kind"]))
    errors = [
        f"{'/'.join(map(str, one.absolute_path))}: {one.message}" for one in validator.iter_errors(made)
    ]
    assert not errors, f"{made['kind']}: " + "; ".join(errors)


@functools.cache
def _schema(version: str, kind: str) -> dict[str, Any]:
    group, _, version = version.rpartition("/")
    return closed(json.loads((CRDS / f"{group}_{kind.lower()}_{version}.json").read_text()))


def closed(schema: Any, *, top: bool = True) -> Any:
    """A schema that refuses unknown fields, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(one, top=False) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: (
            {name: closed(one, top=False) for name, one in value.items()}
            if key == "properties"
            else closed(value, top=False)
            if key in ("items", "additionalProperties")
            else copy.deepcopy(value)
        )
        for key, value in schema.items()
    }
    open_ = "additionalProperties" in made or made.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and not open_:
        made["additionalProperties"] = False
    if made.get("nullable"):
        made = {"anyOf": [made, {"type": "null"}]}
    return made


def snapshot(mode: str) -> str:
    """What a mode makes with nothing but what it needs, without the comments that Helm adds."""
    return yaml.safe_dump_all(rendered(case(mode)), sort_keys=True, width=110)


def main() -> None:
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    for mode in MODES:
        (SNAPSHOTS / f"{mode}.yaml").write_text(snapshot(mode))


if __name__ == "__main__":
    main()
