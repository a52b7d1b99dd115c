"""Steps that keep changes small: pull towards the input, stay inside the bounds.

TensorFlow, row by row: no row's result depends on another's.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def shrink(z: Any, origin: Any, threshold: Any) -> Any:
    r"""Pull each element of `z` towards `origin` by `threshold`, stopping there.

    This is the proximal step of the L1 distance: the minimiser over `p` of
    :math:`\tfrac12\|p - z\|_2^2 + t\,\|p - o\|_1`. It makes small changes vanish, so explanations come out
    sparse.

    Args:
        z: Candidates `(N, *S)`, float32, in input units.
        origin: The inputs being explained, shaped like `z`.
        threshold: `t`, in input units, a number or anything that broadcasts to `z`. Not negative.

    Returns:
        `(N, *S)`. Every element lies between `origin` and `z`.

    Source: FISTA, Beck and Teboulle (2009), section 1.
    """
    change = z - origin
    return origin + tf.sign(change) * tf.nn.relu(tf.abs(change) - threshold)


def project(z: Any, low: Any, high: Any) -> Any:
    """The point of the box `[low, high]` nearest to `z`, element by element."""
    return tf.minimum(tf.maximum(z, low), high)


def per_row(values: Any, like: Any) -> Any:
    """`values` `(N,)` with axes added, so that they broadcast over the rows of `like` `(N, *S)`."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))


def rows_sum(values: Any) -> Any:
    """The sum of each row `(N, *S)` -> `(N,)`."""
    return tf.reduce_sum(values, axis=list(range(1, len(values.shape))))
