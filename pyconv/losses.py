"""Losses, as functions with their gradients and as modules.

``loss = criterion(output, target)`` and ``grad = criterion.backward()`` start a backward pass:
``model.backward(grad)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_array, as_float, as_grad, as_int, cast, quiet, working_dtype
from pyconv._vjp import Remembering

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

__all__ = [
    "CrossEntropyLoss",
    "MSELoss",
    "cross_entropy",
    "cross_entropy_backward",
    "mse_loss",
    "mse_loss_backward",
]


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    r"""Return the cross entropy between unnormalised scores and class labels.

    For one sample with scores ``x`` and label ``y``: ``-weight[y] * log(softmax(x)[y])``. If the
    target holds probabilities ``t``: ``-sum over c of weight[c] * t[c] * log(softmax(x)[c])``.
    Label smoothing ``e`` replaces a target by ``(1 - e) * target + e / C``.

    Parameters
    ----------
    input : array_like, shape (N, C), (C,) or (N, C, d1, ...)
        Scores of the ``C`` classes.
    target : array_like of int, shape (N,), () or (N, d1, ...); or of float, of the input's shape
        Class labels from 0 to C - 1, or probabilities.
    weight : array_like, shape (C,), optional
        A factor for each class.
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    ignore_index : int, default: -100
        Samples with this label count for nothing. Not for probabilities.
    reduction : {'mean', 'sum', 'none'}, default: 'mean'
        The mean over labels is weighted by ``weight[y]``; over probabilities it is plain.
    label_smoothing : float from 0 to 1, default: 0.0

    Returns
    -------
    NumPy scalar, or with ``reduction='none'`` an array of the target's shape without classes
        The mean of nothing is NaN.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If shapes disagree, or a label is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x = np.log([[1.0, 2.0, 1.0]])
    >>> round(float(F.cross_entropy(x, [1])), 6)  # -log(2/4)
    0.693147
    """
    who = "cross_entropy"
    reduction = _reduction(who, size_average, reduce, reduction)
    x, t, w = _class_arrays(who, input, target, weight, ignore_index, label_smoothing)
    with quiet():
        log_p = _log_softmax(x)
        if t.dtype.kind == "f":
            losses = -(log_p * _smoothed(t, label_smoothing) * w).sum(-1)
            return _reduced(losses, reduction, losses.size)
        kept = t != ignore_index
        labels = np.where(kept, t, 0)
        factors = np.where(kept, w[labels], w.dtype.type(0))
        picked = np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
        losses = np.where(kept, -factors * picked, w.dtype.type(0))
        if label_smoothing:
            smooth = np.where(kept, -(log_p * w).sum(-1), w.dtype.type(0))
            losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / x.shape[-1])
        return _reduced(losses, reduction, factors.sum())


def cross_entropy_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Return the gradient of :func:`cross_entropy` with respect to ``input``.

    For one sample whose loss is ``-sum over c of a[c] * log(softmax(x)[c])`` it is
    ``grad_output * (softmax(x) * sum(a) - a)``.

    Parameters
    ----------
    grad_output : array_like
        A scalar; for ``reduction='none'`` an array of the losses' shape.
    input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As in the forward.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError, ValueError
        As in the forward, and if ``grad_output`` has the wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.cross_entropy_backward(1.0, np.log([[1.0, 2.0, 1.0]]), [1])
    array([[ 0.25, -0.5 ,  0.25]])
    """
    who = "cross_entropy_backward"
    reduction = _reduction(who, size_average, reduce, reduction)
    x, t, w = _class_arrays(who, input, target, weight, ignore_index, label_smoothing)
    grad = as_grad(who, grad_output, x.shape[:-1] if reduction == "none" else (), x.dtype)
    with quiet():
        if t.dtype.kind == "f":
            parts = _smoothed(t, label_smoothing) * w
            divisor: Any = x.size // x.shape[-1]
        else:
            kept = t != ignore_index
            labels = np.where(kept, t, 0)
            factors = np.where(kept, w[labels], w.dtype.type(0))
            divisor = factors.sum()
            parts = (kept[..., None] * w) * x.dtype.type(label_smoothing / x.shape[-1])
            own = np.take_along_axis(parts, labels[..., None], -1)[..., 0]
            own += factors * x.dtype.type(1 - label_smoothing)
            np.put_along_axis(parts, labels[..., None], own[..., None], -1)
        if reduction == "mean":
            grad = grad / divisor
        out = np.exp(_log_softmax(x)) * parts.sum(-1, keepdims=True) - parts
        out *= grad[..., None]
        if t.dtype.kind != "f":
            out[~kept] = 0
    original = as_array(input)
    return np.array(np.moveaxis(out, -1, 1) if original.ndim > 1 else out, dtype=x.dtype, order="C")


def mse_loss(
    input: ArrayLike,
    target: ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: ArrayLike | None = None,
) -> Any:
    """Return the mean squared error ``(input - target)**2``.

    Parameters
    ----------
    input, target : array_like, of one shape
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    reduction : {'mean', 'sum', 'none'}, default: 'mean'
    weight : array_like, of the input's shape, optional
        A factor for each square; the mean is divided by its sum.

    Returns
    -------
    NumPy scalar, or with ``reduction='none'`` an array of the input's shape

    Raises
    ------
    ValueError
        If the shapes differ. They are not broadcast.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> float(F.mse_loss([1, 2], [1, 5]))
    4.5
    """
    who = "mse_loss"
    reduction = _reduction(who, size_average, reduce, reduction)
    x, t, w = _mse_arrays(who, input, target, weight)
    with quiet():
        squares = np.square(x - t)
        if w is None:
            return _reduced(squares, reduction, squares.size)
        return _reduced(squares * w, reduction, w.sum())


def mse_loss_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    *,
    weight: ArrayLike | None = None,
) -> Array:
    """Return the gradient of :func:`mse_loss` with respect to ``input``.

    ``2 * (input - target) * grad_output``, for the mean divided by the number of elements. The
    gradient with respect to ``target`` is its negative.

    Parameters
    ----------
    grad_output : array_like
        A scalar; for ``reduction='none'`` an array of the input's shape.
    input, target, reduction, weight
        As in the forward.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If shapes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.mse_loss_backward(1.0, [1, 2], [1, 5])
    array([ 0., -3.])
    """
    who = "mse_loss_backward"
    reduction = _reduction(who, None, None, reduction)
    x, t, w = _mse_arrays(who, input, target, weight)
    grad = as_grad(who, grad_output, x.shape if reduction == "none" else (), x.dtype)
    with quiet():
        out: Array = (x - t) * 2
        if w is not None:
            out = out * w
        out = out * grad
        if reduction == "mean":
            out = out / (x.dtype.type(x.size) if w is None else w.sum())
    return np.array(out, order="C")


class _Loss(Remembering):
    """A module of an output and a target; its backward starts a backward pass."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.reduction = _reduction(type(self).__name__, size_average, reduce, reduction)

    def _pair(self) -> tuple[Callable[..., Any], Callable[..., Array]]:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        return {"reduction": self.reduction}

    def vjp(self, input: Any, target: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the loss and its pullback; works in any mode and touches no saved state."""
        forward, backward = self._pair()
        options = self._options()
        who = type(self).__name__
        loss = forward(input, target, **options)

        def pullback(grad_output: ArrayLike | None = None, input_grad: bool = True) -> Array | None:
            if grad_output is None:
                if options["reduction"] == "none":
                    raise ValueError(f"{who}: backward needs a grad_output with reduction='none'")
                grad_output = 1.0
            grad = backward(grad_output, input, target, **options)
            return grad if input_grad else None

        return loss, pullback

    def forward(self, input: ArrayLike, target: ArrayLike) -> Any:
        """Return the loss; in training mode keep what ``backward`` needs."""
        loss, pullback = self.vjp(input, target)
        self._remember(pullback if self.training else None)
        return loss

    def backward(self, grad_output: ArrayLike | None = None) -> Any:
        """Return the gradient with respect to the last training-mode input.

        ``grad_output`` is needed for ``reduction='none'`` alone; otherwise it is a factor.
        """
        return self._recall() if grad_output is None else self._recall(grad_output)


class CrossEntropyLoss(_Loss):
    """Cross entropy between unnormalised scores and class labels.

    ``loss = -weight[y] * log(softmax(x)[y])`` for each sample; see
    :func:`pyconv.functional.cross_entropy`.

    Parameters
    ----------
    weight : array_like, shape (C,), optional
        A factor for each class; becomes the buffer ``weight``.
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    ignore_index : int, default: -100
    reduction : {'mean', 'sum', 'none'}, default: 'mean'
    label_smoothing : float from 0 to 1, default: 0.0

    Shape
    -----
    Scores (N, C), (C,) or (N, C, d1, ...); labels (N,), () or (N, d1, ...), or probabilities of the
    scores' shape.

    Attributes
    ----------
    weight : numpy.ndarray or None
    reduction : str
    ignore_index : int
    label_smoothing : float

    Raises
    ------
    RuntimeError
        If ``backward`` has no forward in training mode before it.
    TypeError, ValueError
        As :func:`pyconv.functional.cross_entropy`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> criterion = pyconv.CrossEntropyLoss()
    >>> loss = criterion(np.log([[1.0, 2.0, 1.0]]), [1])
    >>> round(float(loss), 6)
    0.693147
    >>> criterion.backward()
    array([[ 0.25, -0.5 ,  0.25]])
    """

    weight: Array | None

    def __init__(
        self,
        weight: ArrayLike | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        who = type(self).__name__
        self.register_buffer("weight", None if weight is None else as_float(who, weight))
        self.ignore_index = as_int(who, "ignore_index", ignore_index)
        self.label_smoothing = _checked_smoothing(who, label_smoothing)

    def _pair(self) -> tuple[Callable[..., Any], Callable[..., Array]]:
        return cross_entropy, cross_entropy_backward

    def _options(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
        }


class MSELoss(_Loss):
    """Mean squared error ``(output - target)**2``; see :func:`pyconv.functional.mse_loss`.

    Parameters
    ----------
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    reduction : {'mean', 'sum', 'none'}, default: 'mean'

    Shape
    -----
    Output and target have one shape, any.

    Attributes
    ----------
    reduction : str

    Raises
    ------
    RuntimeError
        If ``backward`` has no forward in training mode before it.
    ValueError
        If the shapes differ. They are not broadcast.

    Examples
    --------
    >>> import pyconv
    >>> criterion = pyconv.MSELoss()
    >>> float(criterion([1, 2], [1, 5]))
    4.5
    >>> criterion.backward()
    array([ 0., -3.])
    """

    def _pair(self) -> tuple[Callable[..., Any], Callable[..., Array]]:
        return mse_loss, mse_loss_backward


def _reduction(who: str, size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is not None or reduce is not None:
        if reduce is not None and not reduce:
            return "none"
        return "mean" if size_average is None or size_average else "sum"
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{who}: {reduction!r} is not a valid value for reduction")
    return reduction


def _reduced(losses: Array, reduction: str, divisor: Any) -> Any:
    if reduction == "none":
        return np.array(losses, order="C")
    total = losses.sum()
    return total if reduction == "sum" else losses.dtype.type(total / losses.dtype.type(divisor))


def _checked_smoothing(who: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{who}: label_smoothing must be between 0.0 and 1.0. Got: {value}")
    return float(value)


def _log_softmax(x: Array) -> Array:
    """Logarithm of the softmax over the last axis; the largest score is taken out first."""
    if x.shape[-1] == 0:
        return x.copy()
    shifted = x - x.max(-1, keepdims=True)
    out: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def _smoothed(t: Array, smoothing: float) -> Array:
    """Probabilities after label smoothing."""
    return t if not smoothing else t * (1 - smoothing) + smoothing / t.shape[-1]


def _class_arrays(
    who: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array]:
    """Scores with the classes last, the target alike, and a weight for each class."""
    _checked_smoothing(who, label_smoothing)
    t = as_array(target)
    given = as_array(input)
    dtype = working_dtype(who, given)
    if given.ndim == 0:
        raise ValueError(f"{who}: expected input (N, C), (C,) or (N, C, d1, ...), got a number")
    x = np.moveaxis(cast(given, dtype), 1 if given.ndim > 1 else 0, -1)
    classes = x.shape[-1]
    w = np.ones(classes, dtype) if weight is None else as_float(f"{who}: weight", weight, dtype)
    if w.shape != (classes,):
        raise ValueError(
            f"{who}: weight tensor should be defined either for all {classes} classes or no "
            f"classes but got weight of shape {w.shape}"
        )
    if t.shape == given.shape:
        if t.dtype.kind != "f":
            raise TypeError(
                f"{who}: Expected floating point type for target with class probabilities, "
                f"got {t.dtype}"
            )
        if ignore_index >= 0:
            raise ValueError(f"{who}: ignore_index is not supported for floating point target")
        return x, np.moveaxis(as_float(who, t, dtype), 1 if t.ndim > 1 else 0, -1), w
    if t.shape != x.shape[:-1]:
        raise ValueError(
            f"{who}: expected target of shape {x.shape[:-1]} for class labels or {given.shape} "
            f"for probabilities, got {t.shape}"
        )
    if t.size == 0:
        t = t.astype(np.int64)  # an empty list is float64
    if t.dtype.kind not in "iu":
        raise TypeError(f"{who}: expected class labels of an integer dtype, got {t.dtype}")
    wrong = (t != ignore_index) & ((t < 0) | (t >= classes))
    if wrong.any():
        raise ValueError(
            f"{who}: Target {t[wrong].flat[0]} is out of bounds. Expected labels from 0 to "
            f"{classes - 1}, or ignore_index={ignore_index}"
        )
    return x, t, w


def _mse_arrays(
    who: str, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    x, t = as_array(input), as_array(target)
    dtype = working_dtype(who, x, t)
    if x.shape != t.shape:
        raise ValueError(f"{who}: expected target of shape {x.shape}, got {t.shape}")
    if weight is None:
        return cast(x, dtype), cast(t, dtype), None
    w = as_float(f"{who}: weight", weight, dtype)
    if w.shape != x.shape:
        raise ValueError(f"{who}: expected weight of shape {x.shape}, got {w.shape}")
    return cast(x, dtype), cast(t, dtype), w
