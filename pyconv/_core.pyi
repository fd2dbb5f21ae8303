"""The C extension behind pyconv. Private: use ``pyconv`` or ``pyconv.functional`` instead."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

_Array = NDArray[Any]
_Pair = int | Sequence[int]
_Padding = int | Sequence[int] | Sequence[Sequence[int]] | str
_Mask = tuple[bool, bool, bool]
_Gradients = tuple[_Array | None, _Array | None, _Array | None]

num_threads_var: ContextVar[int]

def set_num_threads(n: int, /) -> None: ...
def get_num_threads() -> int: ...
def build_info() -> dict[str, Any]: ...
def release_workspace() -> None: ...
def fma_chains(dtype: DTypeLike, rounds: int) -> float: ...
def fresh_copy(array: ArrayLike, /) -> _Array: ...
def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> _Array: ...
def conv1d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients: ...
def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> _Array: ...
def conv2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients: ...
def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
) -> _Array: ...
def conv_transpose2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients: ...
def max_pool2d(
    input: ArrayLike,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any: ...
def max_pool2d_backward(
    grad_output: ArrayLike, indices: ArrayLike, input_shape: Sequence[int]
) -> _Array: ...
def avg_pool2d(
    input: ArrayLike,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> _Array: ...
def avg_pool2d_backward(
    grad_output: ArrayLike,
    input_shape: Sequence[int],
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> _Array: ...
def adaptive_avg_pool2d(input: ArrayLike, output_size: int | Sequence[int | None]) -> _Array: ...
def adaptive_avg_pool2d_backward(grad_output: ArrayLike, input_shape: Sequence[int]) -> _Array: ...
def batch_norm(
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> _Array: ...
def batch_norm_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-05,
    *,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients: ...
def relu(input: ArrayLike, inplace: bool = False) -> _Array: ...
def relu_backward(grad_output: ArrayLike, input: ArrayLike) -> _Array: ...

@final
class Pullback:
    """What ``vjp`` returns beside the output; ``pullback(grad_output)`` is the input gradient."""

    def __call__(self, grad_output: ArrayLike, input_grad: bool = True) -> _Array | None: ...

class _Layer:
    training: bool
    _watched: bool
    def _forget(self) -> None: ...
    def __call__(self, input: ArrayLike) -> Any: ...
    def forward(self, input: ArrayLike) -> Any: ...
    def vjp(self, input: ArrayLike) -> tuple[Any, Pullback]: ...
    def backward(self, grad_output: ArrayLike, input_grad: bool = True) -> _Array | None: ...
    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]: ...

class _Conv(_Layer):
    weight: _Array
    bias: Any  # an array, or None for good
    weight_grad: _Array | None
    bias_grad: _Array | None
    _weight_requires_grad: bool
    _bias_requires_grad: bool
    def _config(self) -> dict[str, Any]: ...
    def _explain(
        self, input_shape: Sequence[int], dtype: DTypeLike | None = None
    ) -> list[dict[str, Any]]: ...
    def _set_dtype(self, dtype: DTypeLike, /) -> None: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def kernel_size(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def padding(self) -> tuple[Any, ...] | Literal["same", "valid"]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    @property
    def groups(self) -> int: ...
    @property
    def padding_mode(self) -> str: ...
    @property
    def output_padding(self) -> tuple[int, ...]: ...
    @property
    def transposed(self) -> bool: ...

class Conv1d(_Conv):
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
    ) -> None: ...

class Conv2d(_Conv):
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
    ) -> None: ...

class ConvTranspose2d(_Conv):
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
    ) -> None: ...
    def __call__(self, input: ArrayLike, output_size: Sequence[int] | None = None) -> _Array: ...
    def forward(self, input: ArrayLike, output_size: Sequence[int] | None = None) -> _Array: ...
    def vjp(
        self, input: ArrayLike, output_size: Sequence[int] | None = None
    ) -> tuple[_Array, Pullback]: ...

class MaxPool2d(_Layer):
    def __init__(
        self,
        kernel_size: _Pair,
        stride: _Pair | None = None,
        padding: _Pair = 0,
        dilation: _Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None: ...
    def _config(self) -> dict[str, Any]: ...
    def _explain(
        self, input_shape: Sequence[int], dtype: DTypeLike | None = None
    ) -> list[dict[str, Any]]: ...
    @property
    def kernel_size(self) -> Any: ...
    @property
    def stride(self) -> Any: ...
    @property
    def padding(self) -> Any: ...
    @property
    def dilation(self) -> Any: ...
    @property
    def return_indices(self) -> bool: ...
    @property
    def ceil_mode(self) -> bool: ...

class AvgPool2d(_Layer):
    def __init__(
        self,
        kernel_size: _Pair,
        stride: _Pair | None = None,
        padding: _Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None: ...
    def _config(self) -> dict[str, Any]: ...
    def _explain(
        self, input_shape: Sequence[int], dtype: DTypeLike | None = None
    ) -> list[dict[str, Any]]: ...
    @property
    def kernel_size(self) -> Any: ...
    @property
    def stride(self) -> Any: ...
    @property
    def padding(self) -> Any: ...
    @property
    def ceil_mode(self) -> bool: ...
    @property
    def count_include_pad(self) -> bool: ...
    @property
    def divisor_override(self) -> int | None: ...

class ReLU(_Layer):
    def __init__(self, inplace: bool = False) -> None: ...
    def _config(self) -> dict[str, Any]: ...
    @property
    def inplace(self) -> bool: ...

class AdaptiveAvgPool2d(_Layer):
    def __init__(self, output_size: int | Sequence[int | None]) -> None: ...
    def _config(self) -> dict[str, Any]: ...
    @property
    def output_size(self) -> Any: ...

class BatchNorm2d(_Layer):
    eps: float
    momentum: float | None
    weight: Any  # an array, or None for good; so is the bias
    bias: Any
    weight_grad: _Array | None
    bias_grad: _Array | None
    _weight_requires_grad: bool
    _bias_requires_grad: bool
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-05,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None: ...
    def _config(self) -> dict[str, Any]: ...
    def _set_dtype(self, dtype: DTypeLike, /) -> None: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def num_features(self) -> int: ...
    @property
    def affine(self) -> bool: ...
    @property
    def track_running_stats(self) -> bool: ...
