"""The rules by which parameters are changed: SGD, Adam and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv.optim._base import Optimizer, check_not_negative
from pyconv.parameter import Parameter

if TYPE_CHECKING:
    from pyconv._arrays import Array


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum.

    For a parameter ``p`` with gradient ``g``, in each step::

        g = g + weight_decay * p
        v = momentum * v + (1 - dampening) * g      (v = g in the first step)
        g = g + momentum * v if nesterov else v     (only with momentum)
        p = p - lr * g

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        What ``model.parameters()`` gives. A dict is a group: ``{"params": ..., "lr": ...}``.
    lr : float, default: 1e-3
    momentum : float, default: 0
    dampening : float, default: 0
    weight_decay : float, default: 0
    nesterov : bool, default: False
        Needs momentum and no dampening.
    maximize : bool, default: False
        Go along the gradient instead of against it.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their options; ``"params"`` is the list of handles.
    state : dict
        ``{parameter: {"momentum_buffer": array}}``.

    Raises
    ------
    TypeError
        If something other than parameters is given.
    ValueError
        If there are none, one comes twice, or an option is out of range.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> p = pyconv.Parameter(np.array([1.0]))
    >>> optimizer = pyconv.optim.SGD([p], lr=0.5)
    >>> p.grad = [1.0]
    >>> optimizer.step()
    >>> p.data
    array([0.5])
    """

    _arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        check_not_negative(group, "lr", "learning rate")
        check_not_negative(group, "momentum", "momentum value")
        check_not_negative(group, "weight_decay", "weight_decay value")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _prepare(
        self, group: Mapping[str, Any], state: dict[str, Any]
    ) -> tuple[tuple[str, ...], Callable[..., None]]:
        # Python floats do not change the dtype of an array, NumPy's float64 scalars would.
        lr, momentum = float(group["lr"]), float(group["momentum"])
        weight_decay, undamped = float(group["weight_decay"]), 1 - float(group["dampening"])
        nesterov, maximize = group["nesterov"], group["maximize"]

        def rule(
            p: Array, g: Array, arrays: list[Array], fresh: bool, one: Array, two: Array
        ) -> None:
            g = _decayed(p, g, weight_decay, maximize, one, two)
            if momentum:
                (v,) = arrays
                if fresh:
                    v[...] = g
                else:
                    v *= momentum
                    v += g if undamped == 1 else np.multiply(g, undamped, out=two)
                if nesterov:
                    np.multiply(v, momentum, out=two)
                    g = np.add(g, two, out=two)
                else:
                    g = v
            np.multiply(g, lr, out=two)
            p -= two

        return self._arrays if momentum else (), rule


class Adam(Optimizer):
    r"""Steps of a size that each element's own gradients decide.

    For a parameter ``p`` with gradient ``g``, in step ``t`` = 1, 2, ...::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        u = v, or with amsgrad the largest v so far
        p = p - lr / (1 - beta1**t) * m / (sqrt(u / (1 - beta2**t)) + eps)

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        As for :class:`SGD`.
    lr : float, default: 1e-3
    betas : (float, float), default: (0.9, 0.999)
    eps : float, default: 1e-8
    weight_decay : float, default: 0
    amsgrad : bool, default: False
    maximize : bool, default: False
        Go along the gradient instead of against it.

    Attributes
    ----------
    param_groups : list of dict
    state : dict
        ``{parameter: {"step": int, "exp_avg": array, "exp_avg_sq": array}}``, with amsgrad also
        ``"max_exp_avg_sq"``.

    Raises
    ------
    TypeError
        If something other than parameters is given.
    ValueError
        If there are none, one comes twice, or an option is out of range.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> p = pyconv.Parameter(np.array([1.0, 1.0]))
    >>> optimizer = pyconv.optim.Adam([p], lr=0.25)
    >>> p.grad = [1.0, 1000.0]
    >>> optimizer.step()
    >>> p.data.round(6)
    array([0.75, 0.75])

    Notes
    -----
    After Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, and Reddi,
    Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237.
    """

    _arrays = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled = False  # whether weight_decay shrinks p and does not go through m and v

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        check_not_negative(group, "lr", "learning rate")
        check_not_negative(group, "eps", "epsilon value")
        betas = tuple(group["betas"])
        if len(betas) != 2:
            raise ValueError(f"betas must be two numbers, got {group['betas']!r}")
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        check_not_negative(group, "weight_decay", "weight_decay value")

    def _prepare(
        self, group: Mapping[str, Any], state: dict[str, Any]
    ) -> tuple[tuple[str, ...], Callable[..., None]]:
        step = state["step"] = state.get("step", 0) + 1
        lr, eps, weight_decay = (float(group[name]) for name in ("lr", "eps", "weight_decay"))
        beta1, beta2 = (float(beta) for beta in group["betas"])
        size = lr / (1 - beta1**step)
        root = (1 - beta2**step) ** 0.5
        shrink = 1 - lr * weight_decay if self._decoupled and weight_decay else None
        added = 0.0 if self._decoupled else weight_decay
        amsgrad, maximize = group["amsgrad"], group["maximize"]

        def rule(
            p: Array, g: Array, arrays: list[Array], fresh: bool, one: Array, two: Array
        ) -> None:
            m, v, *largest = arrays
            if shrink is not None:
                p *= shrink
            g = _decayed(p, g, added, maximize, one, two)
            np.subtract(g, m, out=two)
            two *= 1 - beta1
            m += two
            np.square(g, out=two)
            two *= 1 - beta2
            v *= beta2
            v += two
            if largest:
                v = np.maximum(largest[0], v, out=largest[0])
            np.sqrt(v, out=two)
            two /= root
            two += eps
            np.divide(m, two, out=two)
            two *= size
            p -= two

        return self._arrays if amsgrad else self._arrays[:2], rule


class AdamW(Adam):
    r"""Adam whose weight decay shrinks the parameter itself.

    As :class:`Adam` without weight decay, but each step begins with ``p = p * (1 - lr *
    weight_decay)``.

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        As for :class:`SGD`.
    lr : float, default: 1e-3
    betas : (float, float), default: (0.9, 0.999)
    eps : float, default: 1e-8
    weight_decay : float, default: 1e-2
    amsgrad : bool, default: False
    maximize : bool, default: False
        Go along the gradient instead of against it.

    Attributes
    ----------
    param_groups : list of dict
    state : dict
        As for :class:`Adam`.

    Raises
    ------
    TypeError, ValueError
        As :class:`Adam`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> p = pyconv.Parameter(np.array([1.0]))
    >>> optimizer = pyconv.optim.AdamW([p], lr=0.5, weight_decay=0.5)
    >>> p.grad = [0.0]
    >>> optimizer.step()
    >>> p.data
    array([0.75])

    Notes
    -----
    After Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101.
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


def _decayed(
    p: Array, g: Array, weight_decay: float, maximize: bool, one: Array, two: Array
) -> Array:
    """``g``, or in ``one`` the gradient to follow: its negative, plus the decay."""
    if maximize:
        g = np.negative(g, out=one)
    if weight_decay:
        np.multiply(p, weight_decay, out=two)
        g = np.add(g, two, out=one)
    return g
