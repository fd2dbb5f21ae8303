"""Losses as modules: ``loss = criterion(output, target)``, then ``grad = criterion.backward()``.

The gradient starts a backward pass: ``model.backward(grad)``. As functions they are in
:mod:`pyconv.functional`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyconv._arrays import as_float, as_int
from pyconv._losses import (
    LossCall,
    binary_call,
    checked_smoothing,
    cross_entropy_call,
    mse_call,
    reduction_of,
)
from pyconv._vjp import Remembering

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "MSELoss"]


class _Loss(Remembering):
    """A module of an output and a target; its backward starts a backward pass."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.reduction = reduction_of(type(self).__name__, size_average, reduce, reduction)

    def _call(self, input: Any, target: Any, reduction: str) -> LossCall:
        raise NotImplementedError

    def vjp(self, input: Any, target: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the loss and its pullback; works in any mode and touches no saved state."""
        who = type(self).__name__
        reduction = reduction_of(who, None, None, self.reduction)
        call = self._call(input, target, reduction)

        def pullback(grad_output: ArrayLike | None = None, input_grad: bool = True) -> Array | None:
            if grad_output is None:
                if reduction == "none":
                    raise ValueError(f"{who}: backward needs a grad_output with reduction='none'")
                grad_output = 1.0
            grad = call.gradient(grad_output)
            return grad if input_grad else None

        return call.value(), pullback

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
        self.label_smoothing = checked_smoothing(who, label_smoothing)

    def _call(self, input: Any, target: Any, reduction: str) -> LossCall:
        return cross_entropy_call(
            "cross_entropy",
            input,
            target,
            self.weight,
            self.ignore_index,
            reduction,
            self.label_smoothing,
        )


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

    def _call(self, input: Any, target: Any, reduction: str) -> LossCall:
        return mse_call("mse_loss", input, target, None, reduction)


class BCEWithLogitsLoss(_Loss):
    """Cross entropy of scores of yes or no; the sigmoid is in it.

    See :func:`pyconv.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    weight : array_like, optional
        A factor for each element, broadcast to the output; becomes the buffer ``weight``.
    size_average, reduce : bool, optional
        Torch's old way to say ``reduction``.
    reduction : {'mean', 'sum', 'none'}, default: 'mean'
    pos_weight : array_like, optional
        A factor for what is yes, broadcast to the output; becomes the buffer ``pos_weight``.

    Shape
    -----
    Output and target have one shape, any.

    Attributes
    ----------
    weight, pos_weight : numpy.ndarray or None
    reduction : str

    Raises
    ------
    RuntimeError
        If ``backward`` has no forward in training mode before it.
    ValueError
        If shapes disagree.

    Examples
    --------
    >>> import pyconv
    >>> criterion = pyconv.BCEWithLogitsLoss()
    >>> round(float(criterion([0.0], [1.0])), 6)
    0.693147
    >>> criterion.backward()
    array([-0.5])
    """

    weight: Array | None
    pos_weight: Array | None

    def __init__(
        self,
        weight: ArrayLike | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        for name, value in (("weight", weight), ("pos_weight", pos_weight)):
            factor = None if value is None else as_float(type(self).__name__, value)
            self.register_buffer(name, factor)

    def _call(self, input: Any, target: Any, reduction: str) -> LossCall:
        who = "binary_cross_entropy_with_logits"
        return binary_call(who, input, target, self.weight, self.pos_weight, reduction)
