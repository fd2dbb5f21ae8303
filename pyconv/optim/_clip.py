"""Limiting the length of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pyconv._arrays import quiet
from pyconv.parameter import Parameter


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Any:
    """Shorten all gradients by one factor, so that their common norm is at most ``max_norm``.

    The norm is that of all gradients as one vector. They are changed in place: multiplied by
    ``max_norm / (norm + 1e-6)`` if that is below 1.

    Parameters
    ----------
    parameters : iterable of Parameter, or a Parameter
    max_norm : float
    norm_type : float, default: 2.0
        ``sum(abs(grad)**norm_type)**(1/norm_type)``; the largest magnitude for infinity.
    error_if_nonfinite : bool, default: False
        Whether a norm that is NaN or infinite is an error. Otherwise it spoils the gradients.

    Returns
    -------
    NumPy scalar
        The norm before. 0 if there are no gradients.

    Raises
    ------
    RuntimeError
        With ``error_if_nonfinite``. Nothing has changed then.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> p = pyconv.Parameter(np.zeros(2))
    >>> p.grad = [3.0, 4.0]
    >>> float(pyconv.clip_grad_norm_([p], 1.0))
    5.0
    >>> p.grad.round(5)
    array([0.6, 0.8])
    """
    handles = [parameters] if isinstance(parameters, Parameter) else list(parameters)
    for handle in handles:
        if not isinstance(handle, Parameter):
            raise TypeError(
                f"clip_grad_norm_: expected Parameters, as model.parameters() gives them, got "
                f"{type(handle).__name__}"
            )
    grads = [handle.grad for handle in handles if handle.grad is not None and handle.grad.size]
    max_norm, norm_type = float(max_norm), float(norm_type)
    if not grads:
        return np.float32(0)
    with quiet():
        norms = np.array([np.linalg.norm(grad.reshape(-1), norm_type) for grad in grads])
        total = np.linalg.norm(norms, norm_type)
        if error_if_nonfinite and not np.isfinite(total):
            raise RuntimeError(
                f"The total norm of order {norm_type} for gradients from `parameters` is "
                "non-finite, so it cannot be clipped. To disable this error and scale the "
                "gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
            )
        factor = float(np.minimum(max_norm / (total + 1e-6), 1))
        for grad in grads:
            grad *= factor
    return total
