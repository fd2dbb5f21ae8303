"""The operators of the layers around convolutions and pools: relu.

They are part of :mod:`pyconv.functional`, which tells the conventions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyconv import _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array


def relu(input: ArrayLike, inplace: bool = False) -> Array:
    """Return ``max(0, input)``, elementwise.

    NaN stays NaN and -0.0 stays -0.0.

    Parameters
    ----------
    input : array_like, any shape
    inplace : bool, default: False
        Accepted for torch's sake; the result is a new array in any case.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If ``input`` is not real.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.relu([-1.5, 0, 2])
    array([0., 0., 2.])
    """
    return _core.relu(input, inplace)


def relu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return the input gradient of :func:`relu`: ``grad_output`` where not ``input <= 0``, else 0.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input : array_like, any shape

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.relu_backward([10, 20, 30], [-1, 0, float("nan")])
    array([ 0.,  0., 30.])
    """
    return _core.relu_backward(grad_output, input)
