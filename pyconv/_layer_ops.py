"""The operators of the layers around convolutions and pools: relu, adaptive pooling.

They are part of :mod:`pyconv.functional`, which tells the conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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


def adaptive_avg_pool2d(input: ArrayLike, output_size: Any) -> Array:
    """Return means of windows that are chosen so that the output gets a given size.

    Window ``i`` of ``out`` along an axis of ``n`` elements is ``floor(i*n/out) ..
    ceil((i + 1)*n/out)``; windows may overlap, and for ``out > n`` elements repeat. The sum is
    divided by the window's height, then by its width; a 1x1 output is divided by the area at once.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    output_size : int or (Hout, Wout)
        None in place of an int keeps that axis as it is.

    Returns
    -------
    numpy.ndarray, shape (N, C, Hout, Wout) or without N

    Raises
    ------
    TypeError
        If ``output_size`` is no int or pair.
    ValueError
        If ``output_size`` is negative or of the wrong length, or the image is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.adaptive_avg_pool2d(np.arange(10).reshape(1, 1, 10), (1, 3))[0]
    array([[1.5, 4.5, 7.5]])
    """
    return _core.adaptive_avg_pool2d(input, output_size)


def adaptive_avg_pool2d_backward(grad_output: ArrayLike, input_shape: Sequence[int]) -> Array:
    """Return the input gradient of :func:`adaptive_avg_pool2d`.

    Each window's elements get ``grad_output / height / width``; overlapping windows add up.

    Parameters
    ----------
    grad_output : array_like, shape (N, C, Hout, Wout) or (C, Hout, Wout)
    input_shape : sequence of int

    Returns
    -------
    numpy.ndarray, shape ``input_shape``

    Raises
    ------
    ValueError
        If the leading axes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.adaptive_avg_pool2d_backward([[[6, 12]]], (1, 1, 3))[0]
    array([[3., 9., 6.]])
    """
    return _core.adaptive_avg_pool2d_backward(grad_output, input_shape)
