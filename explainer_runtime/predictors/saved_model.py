"""The directory of a SavedModel as a `Form`: one of its signatures, opened up where it has to be
differentiated.

A signature is a call of a function inside a function. Seen from outside it ends in that call, not in the
softmax within, and it begins with whole numbers that have no slope, though the first thing that is done to
them may be a cast. So for slopes its functions are inlined by TensorFlow's own optimiser (the pass that
freezing begins with; it has no public name, and a tape does not see what it made, so slopes are taken of
the graph), the casts of the rows are replaced by the rows, and what comes of it is compared with the
signature before it is used. Where any of this fails the signature itself is differentiated, or is a black
box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors.forms import Form, chosen_output, held_values, repeated, row_input, sample
from explainer_runtime.predictors.meaning import PAGE
from explainer_runtime.predictors.settings import ModelContract

_Call = Callable[[Mapping[str, Any]], Any]


def of_saved_model(tf: Any, path: Any, contract: ModelContract) -> Form:
    """The form of one signature of the SavedModel in a directory.

    Raises:
        InvalidSpec: It cannot be loaded, has no such signature, or the contract leaves open which input or
        output
            is meant.
    """
    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:  # custom operations, other versions: TensorFlow raises many kinds
        said = " ".join(str(error).split())[:200]
        raise InvalidSpec(f"{path}: cannot be loaded as a SavedModel: {said}") from error
    wanted, there = contract.signature or "serving_default", sorted(loaded.signatures)
    if wanted not in there:
        known = ", ".join(there) or "none: write it with `model.export`"
        raise InvalidSpec(f"{path}: has no signature {wanted!r}; say `signature`, there are {known}; {PAGE}")
    signature = loaded.signatures[wanted]
    specs = signature.structured_input_signature[1]
    kinds = {name: (tuple(spec.shape[1:]), spec.dtype.name) for name, spec in specs.items()}
    rows = row_input(str(path), kinds, contract)
    if kinds[rows][1] == "string":
        raise InvalidSpec(
            f"{path}: input {rows!r} of signature {wanted!r} takes byte strings, such as encoded images, not "
            f"numbers; say a `signature` that takes pixels, there are {', '.join(there)}; {PAGE}"
        )
    held = held_values(tf, str(path), kinds, rows, contract)

    def through(function: _Call) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            return chosen_output(str(path), function({rows: x, **repeated(tf, held, x)}), (), contract)

        return call

    shape, dtype = kinds[rows]
    weights = getattr(loaded, "variables", None) or signature.variables
    form = Form(
        through(lambda values: signature(**values)),
        shape,
        str(path),
        dtype,
        specs[rows].shape[0],
        weights=lambda: (np.asarray(one) for one in weights),
        keep=loaded,
    )
    opened = _same(tf, form, through, lambda: _opened(tf, signature, rows, whole=form.whole is not None))
    return form._replace(smooth=opened or (form.call if form.whole is None else None))


def _same(
    tf: Any, form: Form, through: Callable[[_Call], Callable[[Any], Any]], make: Callable[[], _Call]
) -> Callable[[Any], Any] | None:
    """What `make` makes, as a function of float rows, if it says the same as the signature and has a
    slope."""
    x = sample(form)
    if x is None:
        return None
    try:
        smooth = through(make())

        @tf.function(autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
        def both(x: Any) -> Any:
            own = smooth(x)
            if form.whole and tf.gradients(own, x)[0] is None:  # of floats that shows when it is asked for
                raise ValueError("no slope")
            return own, form.call(tf.cast(x, form.dtype))

        own, known = both(tf.constant(x))
        good = np.allclose(own, known, rtol=1e-3, atol=1e-5)
    except Exception:  # TensorFlow raises many kinds; the signature itself is still there
        return None
    return smooth if good else None


def _opened(tf: Any, signature: Any, rows: str, *, whole: bool) -> _Call:
    """The signature with its functions inlined; of whole numbers, from behind the casts of its rows on."""
    from tensorflow.python.framework import convert_to_constants

    graph = convert_to_constants._run_inline_graph_optimization(
        signature, lower_control_flow=False, aggressive_inlining=True
    )
    captured = signature.captured_inputs
    inner = {
        one.name: value for one, value in zip(signature.inputs[-len(captured) :], captured, strict=True)
    } if captured else {}  # fmt: skip
    specs = signature.structured_input_signature[1]
    outputs = sorted(signature.structured_outputs)  # as tf.nest flattens a mapping
    casts = _casts(tf, graph, specs[rows].name) if whole else []
    used = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}

    def call(values: Mapping[str, Any]) -> Any:
        x = values[rows]
        feeds = {f"{specs[name].name}:0": tf.cast(value, specs[name].dtype) for name, value in values.items()}
        feeds |= {f"{node.name}:0": tf.cast(x, node.attr["DstT"].type) for node in casts}
        here = tf.compat.v1.get_default_graph()  # that of the function which is being traced
        feeds |= {name: here.capture(value) for name, value in inner.items()}
        feeds = {name: value for name, value in feeds.items() if name.partition(":")[0] in used}
        found = tf.graph_util.import_graph_def(
            graph, input_map=feeds, return_elements=[one.name for one in signature.outputs]
        )
        return dict(zip(outputs, found, strict=True))

    return call


def _casts(tf: Any, graph: Any, placeholder: str) -> list[Any]:
    """The casts to floats that are all that is done to an input.

    Raises:
        ValueError: Something else is done to it.
    """
    ends, names = [], {placeholder}
    for node in graph.node:  # in an order in which inputs come first
        if not names & {name.partition(":")[0] for name in node.input}:
            continue
        if node.op == "Identity":
            names.add(node.name)
        elif node.op == "Cast" and tf.dtypes.as_dtype(node.attr["DstT"].type).is_floating:
            ends.append(node)
        else:
            raise ValueError(f"{node.op} of whole numbers")
    return ends
