"""Batch normalisation, the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import _core
from pyconv.layers import _OwnerLayer

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["BatchNorm2d"]


class BatchNorm2d(_core.BatchNorm2d, _OwnerLayer):
    """Normalise each channel of a batch: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    In training mode ``mean`` and the biased ``var`` are those of the batch, over N, H and W, and
    the running ones move towards them: ``running = (1 - momentum) * running + momentum * batch``,
    with the unbiased variance. In eval mode the running ones are used. A gradient flows through
    the batch's statistics, not through running ones.

    Parameters
    ----------
    num_features : int
        Channels of the input.
    eps : float, default: 1e-05
    momentum : float or None, default: 0.1
        None makes the running statistics the mean over all batches.
    affine : bool, default: True
        Whether there are ``weight`` and ``bias``.
    track_running_stats : bool, default: True
        Without running statistics the batch's are used in eval mode as well.
    device : None or 'cpu', optional
    dtype : float32 or float64, default: float32
    bias : bool, default: True, keyword only
        Whether there is a ``bias`` if ``affine``.

    Shape
    -----
    Input and output (N, num_features, H, W).

    Attributes
    ----------
    weight, bias : numpy.ndarray of shape (num_features,), or None
        Ones and zeros at first. Assigning copies.
    weight_grad, bias_grad : numpy.ndarray or None
        What backward has added up since ``zero_grad``.
    running_mean, running_var : numpy.ndarray of shape (num_features,), or None
        Zeros and ones at first. Buffers: part of ``state_dict``, not trained.
    num_batches_tracked : numpy.ndarray of shape () and dtype int64, or None
    eps, momentum : float; momentum may be None
        May be set.
    training : bool
        Whether the batch's statistics are used and the running ones moved, and whether a call
        keeps its input (a reference, not a copy) for ``backward``.

    Raises
    ------
    TypeError
        If ``num_features`` is no int, or an array is not real.
    ValueError
        If ``eps`` is negative (in training: not positive), the input is not (N, num_features, H,
        W), or in training there is one value per channel.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> norm = pyconv.BatchNorm2d(2)
    >>> norm
    BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    >>> norm(x)[0, 0].round(2)
    array([[-1.34, -0.45],
           [ 0.45,  1.34]], dtype=float32)
    >>> norm.running_mean, norm.num_batches_tracked
    (array([0.15, 0.55], dtype=float32), array(1))
    >>> list(norm.state_dict())
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']

    Notes
    -----
    Sums are taken around a number near the channel's mean, so a large mean costs no digits, and in
    an order that the shape alone fixes: the bits depend on neither threads nor memory layout.
    S. Ioffe and C. Szegedy, "Batch Normalization", arXiv:1502.03167.
    """

    _core_type = _core.BatchNorm2d

    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        _core.BatchNorm2d.__init__(
            self,
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
        )
        tracked = self.track_running_stats
        zeros, ones = (np.full(self.num_features, v, self.dtype) for v in (0, 1))
        self.register_buffer("running_mean", zeros if tracked else None)
        self.register_buffer("running_var", ones if tracked else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running statistics to zero mean, unit variance and no batches."""
        if self.track_running_stats:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Set weight to ones and bias to zeros, and reset the running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            self.weight[...] = 1
        if self.bias is not None:
            self.bias[...] = 0

    def extra_repr(self) -> str:
        """Return the arguments, as torch prints them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
