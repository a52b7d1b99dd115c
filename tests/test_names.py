"""Names that code and settings in the field use, wherever what they name stands by now."""

from __future__ import annotations

from importlib import import_module

import pytest

import explainer_runtime

SPEC = [
    "AnchorImage",
    "CEM",
    "Colocated",
    "Counterfactual",
    "CounterfactualProto",
    "ElasticNet",
    "Endpoint",
    "Felzenszwalb",
    "Grid",
    "Inputs",
    "KerasModel",
    "Limits",
    "ModelContract",
    "Quickshift",
    "Slic",
    "layout_of",
    "parse",
    "parse_options",
    "parse_predictor",
    "parse_spec",
    "with_options",
]


@pytest.mark.parametrize("name", SPEC)
def test_settings_can_be_had_from_where_all_of_them_were(name):
    assert getattr(import_module("explainer_runtime.spec"), name).__name__ == name


@pytest.mark.parametrize("name", sorted(set(explainer_runtime.__all__) - {"__version__"}))
def test_every_public_name_is_there(name):
    if name.endswith("Runtime"):
        pytest.importorskip("mlserver")
    assert getattr(explainer_runtime, name).__name__ == name


@pytest.mark.parametrize("name", ["ExplainerRuntime", "KerasRuntime"])
def test_hosts_are_where_model_settings_name_them(name):
    pytest.importorskip("mlserver")
    host = import_module("explainer_runtime.hosts.mlserver")
    assert getattr(host, name) is getattr(explainer_runtime, name)


def test_what_was_never_there_is_not_there():
    for module in ("explainer_runtime", "explainer_runtime.spec", "explainer_runtime.methods"):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            import_module(module).nothing  # noqa: B018
