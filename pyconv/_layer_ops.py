"""The operators of the layers around convolutions and pools: relu, adaptive pooling, batch_norm.

They are part of :mod:`pyconv.functional`, which tells the conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv import _core
from pyconv._followed import followed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array


@followed
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


@followed
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


@followed
def batch_norm(
    input: ArrayLike,
    running_mean: Array | None,
    running_var: Array | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel: ``(input - mean) / sqrt(var + eps) * weight + bias``.

    In training the mean and the biased variance are those of the batch, and the running ones are
    moved towards them in place, ``running = (1 - momentum) * running + momentum * batch``, with the
    unbiased variance. Otherwise the running ones are used.

    Parameters
    ----------
    input : array_like, shape (N, C, ...)
    running_mean, running_var : numpy.ndarray, shape (C,), or None
        None is for training only. To be updated they must have the dtype of the result.
    weight, bias : array_like, shape (C,), optional
    training : bool, default: False
    momentum : float, default: 0.1
    eps : float, default: 1e-05

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If a running array is to be updated and is no writable array of the right dtype.
    ValueError
        If shapes disagree, or in training there is one value per channel, or ``eps <= 0``.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> F.batch_norm([[1], [3]], mean, var, training=True, eps=1e-12)
    array([[-1.],
           [ 1.]])
    >>> mean, var
    (array([0.2]), array([1.1]))
    """
    return _core.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def batch_norm_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
    *,
    output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of :func:`batch_norm`.

    With ``g = grad_output`` and ``xhat = (input - mean) / sqrt(var + eps)``: ``grad_bias`` is
    ``sum(g)``, ``grad_weight`` is ``sum(g * xhat)``, and ``grad_input`` is ``weight / sqrt(var +
    eps) * g``, in training with ``g - mean(g) - xhat * mean(g * xhat)`` in place of ``g``, since
    mean and variance depend on the input.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input, running_mean, running_var, weight, training, eps
        As in the forward. The running arrays are not changed; in training they are not used.
    output_mask : three bools, default: (True, True, True)
        Which of the three gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    ValueError
        As in the forward.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x, mean, var = [[1.0], [3.0]], np.zeros(1), np.ones(1)
    >>> grad_x, grad_w, grad_b = F.batch_norm_backward([[1], [1]], x, mean, var, eps=0.0)
    >>> grad_x, grad_w, grad_b
    (array([[1.],
           [1.]]), array([4.]), array([2.]))
    """
    return _core.batch_norm_backward(
        grad_output,
        input,
        running_mean,
        running_var,
        weight,
        training,
        eps,
        output_mask=output_mask,
    )
