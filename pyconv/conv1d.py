"""Convolution in one dimension: the layer and its functions.

The functions are part of :mod:`pyconv.functional`, which tells the conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv import _core
from pyconv._followed import followed
from pyconv.layers import _ConvLayer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array

    _One = int | Sequence[int]
    _Padding = int | Sequence[int] | Sequence[Sequence[int]] | str
    _Gradients = tuple[Array | None, Array | None, Array | None]

__all__ = ["Conv1d"]


class Conv1d(_core.Conv1d, _ConvLayer):
    """1-D convolution: :class:`Conv2d` on images of height 1.

    ``out[n, o, x] = bias[o] + sum over c, j of weight[o, c, j] * input[n, c, x*s - p + j*d]``

    with stride ``s``, padding ``p`` and dilation ``d``, where ``c`` runs over the input channels of
    ``o``'s group.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (k,)
    stride : int or (s,), default: 1
    padding : int, (p,), ((left, right),), 'same' or 'valid', default: 0
    dilation : int or (d,), default: 1
    groups : int, default: 1
    bias : bool, default: True
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, default: 'zeros'
    device : None or 'cpu', optional
    dtype : float32 or float64, default: float32
    rng : optional, keyword only
        As for :class:`Conv2d`.

    Shape
    -----
    Input (N, in_channels, L) or (in_channels, L), output (N, out_channels, Lout) or (out_channels,
    Lout), with ``Lout = floor((L + 2*p - d*(k - 1) - 1) / s) + 1``.

    Attributes
    ----------
    weight : numpy.ndarray, shape (out_channels, in_channels / groups, k)
        From U(-b, b), ``b = 1 / sqrt(in_channels / groups * k)``. Assigning copies.
    bias : numpy.ndarray of shape (out_channels,), or None
        From the same distribution.
    weight_grad, bias_grad : numpy.ndarray or None
        What backward has added up since ``zero_grad``.
    training : bool
        Whether a call keeps its input (a reference, not a copy) for ``backward``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As :class:`Conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> conv = pyconv.Conv1d(2, 4, 5, stride=2, padding=2)
    >>> conv
    Conv1d(2, 4, kernel_size=(5,), stride=(2,), padding=(2,))
    >>> y = conv(np.zeros((3, 2, 20)))
    >>> y.shape
    (3, 4, 10)
    >>> conv.backward(np.ones_like(y)).shape, conv.weight_grad.shape
    ((3, 2, 20), (4, 2, 5))
    """

    _core_type = _core.Conv1d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _One,
        stride: _One = 1,
        padding: _Padding = 0,
        dilation: _One = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        rng: Any = None,
    ) -> None:
        _core.Conv1d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.reset_parameters(rng)

    def _image_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        *front, length = input_shape
        if len(front) not in (1, 2):
            raise ValueError(
                f"Conv1d({self.in_channels}, {self.out_channels}): "
                f"input_shape must be (N, C, L) or (C, L), got {tuple(input_shape)}"
            )
        return (*front, 1, length)

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of shape (N, C, L) or (C, L) would give."""
        *front, _, length = super().output_shape(self._image_shape(input_shape))
        return (*front, length)


@followed
def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _One = 1,
    padding: _Padding = 0,
    dilation: _One = 1,
    groups: int = 1,
) -> Array:
    """Slide filters along sequences: :func:`pyconv.functional.conv2d` on images of height 1.

    Parameters
    ----------
    input : array_like, shape (N, C, L) or (C, L)
    weight : array_like, shape (out_channels, C / groups, k)
    bias : array_like, shape (out_channels,), optional
    stride : int or (s,), default: 1
    padding : int, (p,), ((left, right),), 'same' or 'valid', default: 0
    dilation : int or (d,), default: 1
    groups : int, default: 1

    Returns
    -------
    numpy.ndarray, shape (N, out_channels, Lout) or (out_channels, Lout)
        ``Lout = floor((L + 2*p - d*(k - 1) - 1) / s) + 1``.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyconv.functional.conv2d`.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.conv1d([[1, 2, 3, 4]], [[[1, 0, -1]]], padding=1)
    array([[-2., -2., -2.,  3.]])
    """
    return _core.conv1d(input, weight, bias, stride, padding, dilation, groups)


def conv1d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _One = 1,
    padding: _Padding = 0,
    dilation: _One = 1,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of conv1d; see :func:`pyconv.functional.conv2d_backward`.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input, weight, stride, padding, dilation, groups
        As in the forward.
    output_mask : three bools, default: (True, True, True)

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyconv.functional.conv2d_backward`.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> grad_x, grad_w, grad_b = F.conv1d_backward([[1, 1]], [[1, 2, 3]], [[[5, 7]]])
    >>> grad_x, grad_w, grad_b
    (array([[ 5., 12.,  7.]]), array([[[3., 5.]]]), array([2.]))
    """
    return _core.conv1d_backward(
        grad_output,
        input,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_mask=output_mask,
    )
