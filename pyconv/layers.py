"""The layers of the C extension: convolutions, pools and ReLU.

A layer computes and keeps its arrays in C; what it has in common with every other module comes from
:class:`pyconv.Module`. The layers in NumPy are in :mod:`pyconv.dense`.
"""

from __future__ import annotations

import copyreg
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv import _core
from pyconv._arrays import as_size
from pyconv._explained import Explained
from pyconv._random import fill_uniform, generator
from pyconv.module import Module
from pyconv.parameter import Parameter, layer_parameter

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    _Pair = int | Sequence[int]
    _Padding = int | Sequence[int] | Sequence[Sequence[int]] | str

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "MaxPool2d",
    "ReLU",
]


class _CoreLayer(Module):
    """What a layer of the C extension needs to be a module: pickling and copying."""

    _core_type: type[Any]

    def _arrays_state(self) -> dict[str, Any]:
        """What the C part holds beside its configuration."""
        return {}

    def _copy_core(self, state: dict[str, Any]) -> None:
        """Initialise the C part, but not the Python class, and fill it."""
        self._core_type.__init__(self, **state["config"])
        for name, value in state["arrays"].items():
            setattr(self, name, value)
        self.training = state["training"]

    def __getstate__(self) -> dict[str, Any]:
        config: dict[str, Any] = self._config()  # type: ignore[attr-defined]
        return {
            "config": config,
            "arrays": self._arrays_state(),
            "training": self.training,
            "attributes": super().__getstate__(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._copy_core(state)
        self.__dict__.update(state["attributes"])

    # object's own would refuse protocols 0 and 1 for a type from C.
    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from copy import deepcopy

        state = self.__getstate__()
        new = memo[id(self)] = type(self).__new__(type(self))
        new._copy_core(state)
        for name, parameter in new._own_core_parameters().items():
            parameter.grad = getattr(self, name + "_grad")
        new.__dict__.update(deepcopy(state["attributes"], memo))
        return new

    def _names(self, what: str) -> dict[str, str]:
        # The initialisation of the C part is what counts; Module's need not be called.
        names: dict[str, str] = self.__dict__.setdefault("_registered", {})
        return names

    def _own_core_parameters(self) -> dict[str, Parameter]:
        return {}

    def _own_parameters(self) -> dict[str, Parameter]:
        return {**self._own_core_parameters(), **super()._own_parameters()}


class _OwnerLayer(_CoreLayer):
    """What layers with a weight and a bias share; either may be missing for good."""

    if TYPE_CHECKING:
        weight: Any
        bias: Any

    def _own_core_parameters(self) -> dict[str, Parameter]:
        names = [name for name in ("weight", "bias") if getattr(self, name) is not None]
        return {name: layer_parameter(self, name) for name in names}

    def _arrays_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for name, parameter in self._own_core_parameters().items():
            state[name] = parameter.data
            state[f"_{name}_requires_grad"] = parameter.requires_grad
        return state


class _ConvLayer(Explained, _OwnerLayer):
    """What the convolutions share."""

    if TYPE_CHECKING:
        in_channels: Any
        out_channels: Any
        kernel_size: Any
        stride: Any
        padding: Any
        dilation: Any
        output_padding: Any
        groups: Any
        padding_mode: Any

    def reset_parameters(self, rng: Any = None) -> None:
        """Fill weight, then bias, from U(-b, b), ``b = 1/sqrt(weight[0].size)``.

        ``rng`` is anything that ``numpy.random.default_rng`` takes; None is the generator that
        :func:`pyconv.manual_seed` sets.
        """
        source = generator(rng)
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        fill_uniform(source, self.weight, bound)
        if self.bias is not None:
            fill_uniform(source, self.bias, bound)

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them: the last ones only if not the default."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        if self.padding not in ((0, 0), (0,)):
            parts.append(f"padding={self.padding}")
        if self.dilation not in ((1, 1), (1,)):
            parts.append(f"dilation={self.dilation}")
        if self.output_padding not in ((0, 0), (0,)):
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv2d(_core.Conv2d, _ConvLayer):
    r"""2-D convolution: each output is a window's sum of products with one filter.

    ``out[n, o, y, x] = bias[o] + sum over c, i, j of
    weight[o, c, i, j] * input[n, c, y*s - p + i*d, x*s - p + j*d]``

    with stride ``s``, padding ``p`` and dilation ``d``, where ``c`` runs over the input channels of
    ``o``'s group. In the language of signal processing this is a cross-correlation.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), default: 1
    padding : int, (pH, pW), ((top, bottom), (left, right)), 'same' or 'valid', default: 0
        'same' keeps height and width, for stride 1; an odd total puts the extra one at the end.
    dilation : int or (dH, dW), default: 1
        Distance of neighbouring taps.
    groups : int, default: 1
        Must divide both channel numbers. Each group of outputs sees its own group of inputs.
    bias : bool, default: True
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, default: 'zeros'
    device : None or 'cpu', optional
    dtype : float32 or float64, default: float32
    rng : optional, keyword only
        What ``numpy.random.default_rng`` takes, for the initial values. By default they come from
        the generator that :func:`pyconv.manual_seed` sets.

    Shape
    -----
    Input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, Hout, Wout) or
    (out_channels, Hout, Wout), with

    ``Hout = floor((H + 2*pH - dH*(kH - 1) - 1) / sH) + 1``, and ``Wout`` alike.

    Attributes
    ----------
    weight : numpy.ndarray, shape (out_channels, in_channels / groups, kH, kW)
        From U(-b, b), ``b = 1 / sqrt(in_channels / groups * kH * kW)``. Assigning copies.
    bias : numpy.ndarray of shape (out_channels,), or None
        From the same distribution.
    weight_grad, bias_grad : numpy.ndarray or None
        What backward has added up since ``zero_grad``.
    training : bool
        Whether a call keeps its input (a reference, not a copy) for ``backward``.

    Raises
    ------
    TypeError
        If a size is no int (bool and float are none), or an array is not real.
    ValueError
        If a size is out of range, shapes disagree, or the window does not fit.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> conv = pyconv.Conv2d(3, 8, 5, stride=2, padding=2)
    >>> conv
    Conv2d(3, 8, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2))
    >>> y = conv(np.zeros((4, 3, 32, 32)))
    >>> y.shape, y.dtype
    ((4, 8, 16, 16), dtype('float32'))
    >>> conv.backward(np.ones_like(y)).shape
    (4, 3, 32, 32)
    >>> conv.bias_grad[:2]
    array([1024., 1024.], dtype=float32)

    Notes
    -----
    The sum is one chain of fused multiply-adds from the bias on, taps in the order (channel, row,
    column), so that its bits do not depend on threads, batch or memory layout. Arithmetic of the
    sizes after Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.
    """

    _core_type = _core.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Padding = 0,
        dilation: _Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        rng: Any = None,
    ) -> None:
        _core.Conv2d.__init__(
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


class ConvTranspose2d(_core.ConvTranspose2d, _ConvLayer):
    r"""2-D transposed convolution: each input adds its multiple of the filters to a larger image.

    ``input[n, c, y, x] * weight[c, o, i, j]`` is added at
    ``out[n, o, y*s - p + i*d, x*s - p + j*d]``; what falls outside is dropped. The bias is added.
    It is the input gradient of :class:`Conv2d` with the same arguments.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), default: 1
    padding : int or (pH, pW), default: 0
        How much is cut off on each side.
    output_padding : int or (int, int), default: 0
        How much is computed beyond the lower right end; less than stride or dilation.
    groups : int, default: 1
    bias : bool, default: True
    dilation : int or (dH, dW), default: 1
    padding_mode : {'zeros'}, default: 'zeros'
    device : None or 'cpu', optional
    dtype : float32 or float64, default: float32
    rng : optional, keyword only
        As for :class:`Conv2d`.

    Shape
    -----
    Input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, Hout, Wout) or
    (out_channels, Hout, Wout), with

    ``Hout = (H - 1)*sH - 2*pH + dH*(kH - 1) + output_padding + 1``, and ``Wout`` alike. A call may
    choose among the ``sH * sW`` sizes that have the same minimum: ``conv(x, output_size=(h, w))``.

    Attributes
    ----------
    weight : numpy.ndarray, shape (in_channels, out_channels / groups, kH, kW)
        From U(-b, b), ``b = 1 / sqrt(out_channels / groups * kH * kW)``. Assigning copies.
    bias : numpy.ndarray of shape (out_channels,), or None
        From the same distribution.
    weight_grad, bias_grad : numpy.ndarray or None
    training : bool
        Whether a call keeps its input (a reference, not a copy) for ``backward``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As :class:`Conv2d`; ValueError also for a string padding and for an empty output.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> up = pyconv.ConvTranspose2d(8, 3, 4, stride=2, padding=1)
    >>> up
    ConvTranspose2d(8, 3, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    >>> up(np.zeros((1, 8, 16, 16))).shape
    (1, 3, 32, 32)
    >>> up(np.zeros((1, 8, 16, 16)), output_size=(33, 32)).shape
    (1, 3, 33, 32)

    Notes
    -----
    With a stride the output falls into ``sH * sW`` phases, each a dense convolution of its own: no
    zeros are inserted. Sizes after Dumoulin and Visin, arXiv:1603.07285.
    """

    _core_type = _core.ConvTranspose2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Pair = 0,
        output_padding: _Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _Pair = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        rng: Any = None,
    ) -> None:
        _core.ConvTranspose2d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self.reset_parameters(rng)


class MaxPool2d(_core.MaxPool2d, Explained, _CoreLayer):
    """The largest element of each window.

    ``out[n, c, y, x] = max over i, j of input[n, c, y*s - p + i*d, x*s - p + j*d]``; only elements
    of the image count. The first of equal elements wins, and the last NaN of a window beats all.

    Parameters
    ----------
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), optional
        ``kernel_size`` if not given.
    padding : int or (pH, pW), default: 0
        At most half of ``kernel_size``.
    dilation : int or (dH, dW), default: 1
    return_indices : bool, default: False
        Return ``(values, indices)``, as :func:`pyconv.functional.max_pool2d`.
    ceil_mode : bool, default: False
        Round the output size up, but never start a window in the padding behind the image.

    Shape
    -----
    Input (N, C, H, W) or (C, H, W), output (N, C, Hout, Wout) or (C, Hout, Wout), with

    ``Hout = floor((H + 2*pH - dH*(kH - 1) - 1) / sH) + 1``, and ``Wout`` alike.

    Attributes
    ----------
    kernel_size, stride, padding, dilation, return_indices, ceil_mode
        As given; ``stride`` is never None.
    training : bool
        Whether a call keeps the winners' indices for ``backward``.

    Raises
    ------
    TypeError
        If a size is no int (bool and float are none), or an array is not real.
    ValueError
        If a size is out of range, or no window fits.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> pool = pyconv.MaxPool2d(3, stride=2)
    >>> pool
    MaxPool2d(kernel_size=3, stride=2, padding=0, dilation=1, ceil_mode=False)
    >>> pool(np.arange(25.0).reshape(1, 5, 5))[0]
    array([[12., 14.],
           [22., 24.]])
    >>> pool.backward(np.ones((1, 2, 2))).sum()
    np.float64(4.0)

    Notes
    -----
    The gradient of a window goes to its winner alone. A dilated window without an element of the
    image gives -inf and index -1, and its gradient goes nowhere.
    """

    _core_type = _core.MaxPool2d

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(_core.AvgPool2d, Explained, _CoreLayer):
    """The mean of each window.

    ``out[n, c, y, x] = sum over i, j of input[n, c, y*s - p + i, x*s - p + j] / divisor``, with
    zeros outside the image. The divisor is the window's area within the padded image; or within the
    image; or ``divisor_override``.

    Parameters
    ----------
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), optional
        ``kernel_size`` if not given.
    padding : int or (pH, pW), default: 0
        At most half of ``kernel_size``.
    ceil_mode : bool, default: False
        Round the output size up, but never start a window in the padding behind the image.
    count_include_pad : bool, default: True
        Whether the divisor counts padding.
    divisor_override : int, optional
        Not zero.

    Shape
    -----
    Input (N, C, H, W) or (C, H, W), output (N, C, Hout, Wout) or (C, Hout, Wout), with

    ``Hout = floor((H + 2*pH - kH) / sH) + 1``, and ``Wout`` alike.

    Attributes
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As given; ``stride`` is never None.
    training : bool

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As :class:`MaxPool2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> pool = pyconv.AvgPool2d(2)
    >>> pool
    AvgPool2d(kernel_size=2, stride=2, padding=0)
    >>> pool(np.arange(16.0).reshape(1, 4, 4))[0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """

    _core_type = _core.AvgPool2d

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(_core.AdaptiveAvgPool2d, _CoreLayer):
    """Means of windows that are chosen so that the output gets a given size.

    Along an axis of ``n`` elements window ``i`` of ``out`` is ``floor(i*n/out) ..
    ceil((i + 1)*n/out)``: windows may overlap, and for ``out > n`` elements repeat.

    Parameters
    ----------
    output_size : int or (Hout, Wout)
        None in place of an int keeps that axis as it is. ``AdaptiveAvgPool2d(1)`` is the mean of
        each image.

    Shape
    -----
    Input (N, C, H, W) or (C, H, W), output (N, C, Hout, Wout) or (C, Hout, Wout).

    Attributes
    ----------
    output_size
        As given.
    training : bool

    Raises
    ------
    TypeError
        If ``output_size`` is no int or pair (bool and float are none), or the input is not real.
    ValueError
        If a size is negative, or the image is empty.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> pool = pyconv.AdaptiveAvgPool2d((1, 3))
    >>> pool
    AdaptiveAvgPool2d(output_size=(1, 3))
    >>> pool(np.arange(10.0).reshape(1, 1, 10))[0]
    array([[1.5, 4.5, 7.5]])
    """

    _core_type = _core.AdaptiveAvgPool2d

    def __init__(self, output_size: int | Sequence[int | None]) -> None:
        _core.AdaptiveAvgPool2d.__init__(self, output_size)

    def extra_repr(self) -> str:
        """Return the argument, as torch prints it."""
        return f"output_size={self.output_size}"


class ReLU(_core.ReLU, _CoreLayer):
    """``max(0, input)``, elementwise.

    NaN stays NaN and -0.0 stays -0.0; the gradient passes where not ``input <= 0``.

    Parameters
    ----------
    inplace : bool, default: False
        Accepted and printed for torch's sake; the output is a new array in any case.

    Shape
    -----
    Any; the output has the input's.

    Attributes
    ----------
    inplace : bool

    Raises
    ------
    TypeError
        If the input is not real.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import pyconv
    >>> relu = pyconv.ReLU()
    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    >>> relu.backward([1, 1, 1])
    array([0., 0., 1.])

    Notes
    -----
    What is kept for ``backward`` is one bit per element; input and output may be written to.
    """

    _core_type = _core.ReLU

    def __init__(self, inplace: bool = False) -> None:
        _core.ReLU.__init__(self, inplace)

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape of the output: that of the input, whatever its rank."""
        super().output_shape((1, 1, 1))  # says so if __init__ was not called
        return tuple(as_size("ReLU", "input_shape", size) for size in input_shape)

    def extra_repr(self) -> str:
        """Return the argument if it is not the default."""
        return "inplace=True" if self.inplace else ""
