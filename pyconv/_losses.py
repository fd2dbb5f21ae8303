"""The losses as functions, with their gradients; part of :mod:`pyconv.functional`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyconv._arrays import as_array, as_float, as_grad, cast, quiet, working_dtype
from pyconv._maps import log_probabilities, sigmoid

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array


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
    reduction = reduction_of(who, size_average, reduce, reduction)
    return cross_entropy_call(
        who, input, target, weight, ignore_index, reduction, label_smoothing
    ).value()


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
    reduction = reduction_of(who, size_average, reduce, reduction)
    return cross_entropy_call(
        who, input, target, weight, ignore_index, reduction, label_smoothing
    ).gradient(grad_output)


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
    reduction = reduction_of("mse_loss", size_average, reduce, reduction)
    return mse_call("mse_loss", input, target, weight, reduction).value()


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
    reduction = reduction_of(who, None, None, reduction)
    return mse_call(who, input, target, weight, reduction).gradient(grad_output)


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Any:
    """Return the cross entropy between scores of yes or no and the truth, element by element.

    With ``s = sigmoid(input)``: ``-weight * (pos_weight * target * log(s) + (1 - target) *
    log(1 - s))``, computed so that nothing overflows.

    Parameters
    ----------
    input : array_like
        Scores; positive means yes.
    target : array_like, of the input's shape
        From 0 (no) to 1 (yes).
    weight : array_like, optional
        A factor for each element, broadcast to the input.
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    reduction : {'mean', 'sum', 'none'}, default: 'mean'
    pos_weight : array_like, optional
        A factor for what is yes, broadcast to the input.

    Returns
    -------
    NumPy scalar, or with ``reduction='none'`` an array of the input's shape

    Raises
    ------
    ValueError
        If shapes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> round(float(F.binary_cross_entropy_with_logits([0.0], [1.0])), 6)  # -log(1/2)
    0.693147
    """
    who = "binary_cross_entropy_with_logits"
    reduction = reduction_of(who, size_average, reduce, reduction)
    return binary_call(who, input, target, weight, pos_weight, reduction).value()


def binary_cross_entropy_with_logits_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Array:
    """Return the gradient of :func:`binary_cross_entropy_with_logits` with respect to ``input``.

    ``grad_output * weight * ((pos_weight * target + 1 - target) * sigmoid(input) - pos_weight *
    target)``, for the mean divided by the number of elements.

    Parameters
    ----------
    grad_output : array_like
        A scalar; for ``reduction='none'`` an array of the input's shape.
    input, target, weight, size_average, reduce, reduction, pos_weight
        As in the forward.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        As in the forward, and if ``grad_output`` has the wrong shape.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.binary_cross_entropy_with_logits_backward(1.0, [0.0], [1.0])
    array([-0.5])
    """
    who = "binary_cross_entropy_with_logits_backward"
    reduction = reduction_of(who, size_average, reduce, reduction)
    return binary_call(who, input, target, weight, pos_weight, reduction).gradient(grad_output)


class LossCall(NamedTuple):
    """A loss of arrays that have been checked; value and gradient share what both need."""

    value: Callable[[], Any]
    gradient: Callable[[ArrayLike], Array]


def cross_entropy_call(
    who: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> LossCall:
    x, t, w = _class_arrays(who, input, target, weight, ignore_index, label_smoothing)
    classes, number = x.shape[-1], x.dtype.type
    with quiet():
        log_p = log_probabilities(x, -1)
    # A sample's loss is -sum over c of parts[c] * log_p[c]. For labels alone there is one part in
    # each sample, at `places` of the flat array: `factors`, or 1.
    parts = kept = factors = None
    divisor: Any = t.size
    if t.dtype.kind == "f":
        parts = _smoothed(t, label_smoothing)
        parts = parts if w is None else parts * w
        divisor = math.prod(x.shape[:-1])
    else:
        kept = t != ignore_index
        labels = t.astype(np.intp, copy=False)
        if kept.all():
            kept = None
        else:
            labels = np.where(kept, labels, 0)
        places = np.arange(t.size).reshape(t.shape) * classes + labels
        if kept is not None or w is not None:
            factors = np.ones(classes, x.dtype)[labels] if w is None else w[labels]
            factors = factors if kept is None else np.where(kept, factors, number(0))
            divisor = factors.sum()
        if label_smoothing:
            parts = np.empty_like(log_p)
            parts[...] = number(label_smoothing / classes) * (1 if w is None else w)
            parts.reshape(-1)[places] += number(1 - label_smoothing) * (
                1 if factors is None else factors
            )

    def value() -> Any:
        with quiet():
            if parts is not None:
                losses = -(log_p * parts).sum(-1)
            else:
                losses = -log_p.reshape(-1)[places]
                losses = losses if factors is None else factors * losses
            if kept is not None:
                losses = np.where(kept, losses, number(0))
            return _reduced(losses, reduction, divisor)

    def gradient(grad_output: ArrayLike) -> Array:
        grad = as_grad(who, grad_output, x.shape[:-1] if reduction == "none" else (), x.dtype)
        with quiet():
            if reduction == "mean":
                grad = grad / number(divisor)
            out: Array = np.exp(log_p)
            if parts is not None:
                out *= parts.sum(-1, keepdims=True)
                out -= parts
            elif factors is None:
                out.reshape(-1)[places] -= 1
            else:
                out *= factors[..., None]
                out.reshape(-1)[places] -= factors
            out *= grad[..., None]
            if kept is not None:
                out[~kept] = 0
        return np.ascontiguousarray(np.moveaxis(out, -1, 1)) if out.ndim > 2 else out

    return LossCall(value, gradient)


def mse_call(
    who: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
) -> LossCall:
    x, t, w = _mse_arrays(who, input, target, weight)
    with quiet():
        difference = np.asarray(np.subtract(x, t, order="C"))
        divisor = x.dtype.type(x.size) if w is None else w.sum()

    def value() -> Any:
        with quiet():
            squares = np.square(difference)
            return _reduced(squares if w is None else squares * w, reduction, divisor)

    def gradient(grad_output: ArrayLike) -> Array:
        grad = as_grad(who, grad_output, x.shape if reduction == "none" else (), x.dtype)
        with quiet():
            out = np.asarray(difference * 2)
            if w is not None:
                out *= w
            out *= grad
            if reduction == "mean":
                out /= divisor
        return out

    return LossCall(value, gradient)


def binary_call(
    who: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    pos_weight: ArrayLike | None,
    reduction: str,
) -> LossCall:
    x, t, w, positive = _binary_arrays(who, input, target, weight, pos_weight)

    def value() -> Any:
        with quiet():
            log_s = np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
            yes = log_s if positive is None else ((positive - 1) * t + 1) * log_s
            losses = (1 - t) * x - yes
            return _reduced(losses if w is None else losses * w, reduction, losses.size)

    def gradient(grad_output: ArrayLike) -> Array:
        grad = as_grad(who, grad_output, x.shape if reduction == "none" else (), x.dtype)
        with quiet():
            yes = t if positive is None else positive * t
            out = (yes + 1 - t) * sigmoid(x) - yes
            if w is not None:
                out = out * w
            out = out * grad
            if reduction == "mean":
                out = out / x.dtype.type(x.size)
        return np.array(out, order="C")

    return LossCall(value, gradient)


def reduction_of(who: str, size_average: bool | None, reduce: bool | None, reduction: str) -> str:
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


def checked_smoothing(who: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{who}: label_smoothing must be between 0.0 and 1.0. Got: {value}")
    return float(value)


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
) -> tuple[Array, Array, Array | None]:
    """Scores with the classes last, the target alike, and a weight for each class."""
    checked_smoothing(who, label_smoothing)
    t = as_array(target)
    given = as_array(input)
    dtype = working_dtype(who, given)
    if given.ndim == 0:
        raise ValueError(f"{who}: expected input (N, C), (C,) or (N, C, d1, ...), got a number")
    x = cast(given, dtype)
    x = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    classes = x.shape[-1]
    w = None if weight is None else as_float(f"{who}: weight", weight, dtype)
    if w is not None and w.shape != (classes,):
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
    if t.size and (t.min() < 0 or t.max() >= classes):
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


def _binary_arrays(
    who: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    pos_weight: ArrayLike | None,
) -> tuple[Array, Array, Array | None, Array | None]:
    x, t = as_array(input), as_array(target)
    dtype = working_dtype(who, x, t)
    if x.shape != t.shape:
        raise ValueError(
            f"{who}: Target size ({t.shape}) must be the same as input size ({x.shape})"
        )
    factors: list[Array | None] = []
    for name, value in (("weight", weight), ("pos_weight", pos_weight)):
        factor = None if value is None else as_float(f"{who}: {name}", value, dtype)
        if factor is not None:
            try:
                fits = np.broadcast_shapes(factor.shape, x.shape) == x.shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{who}: expected {name} to be broadcastable to {x.shape}, got {factor.shape}"
                )
        factors.append(factor)
    return cast(x, dtype), cast(t, dtype), factors[0], factors[1]
