"""Learning rates that follow a plan.

>>> import pyconv
>>> optimizer = pyconv.optim.SGD(pyconv.Linear(2, 1).parameters(), lr=1.0)
>>> scheduler = pyconv.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
>>> for epoch in range(4):
...     optimizer.step()
...     scheduler.step()
...     print(optimizer.param_groups[0]["lr"])
1.0
0.5
0.5
0.25
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from pyconv.optim._base import Optimizer

__all__ = ["CosineAnnealingLR", "LRScheduler", "StepLR"]


class LRScheduler:
    """Base class of the schedulers; it sets the learning rates that ``get_lr`` returns.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int, default: -1
        How many epochs were trained before, less one.

    Attributes
    ----------
    base_lrs : list of float
        The learning rates with which training began, one for each group.
    last_epoch : int

    Raises
    ------
    TypeError
        If ``optimizer`` is none.
    KeyError
        If ``last_epoch`` says that training goes on and the optimizer does not know its beginning.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    "scheduler with last_epoch >= 0"
                )
        self.optimizer = optimizer
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._steps_before = optimizer._steps
        self._initial = True
        self.step()
        self._initial = False

    def get_lr(self) -> list[float]:
        """Return the next learning rates, one for each group; each scheduler defines its own."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """Return the learning rates that were set last."""
        return self._last_lr

    def step(self) -> None:
        """Set the next learning rates; to be called after the optimizer's last step of an epoch."""
        if self._step_count == 1 and self.optimizer._steps == self._steps_before:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call "
                "them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`. "
                "Failure to do this will result in skipping the first value of the learning rate "
                "schedule.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = self._lrs()

    def _lrs(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what another scheduler's :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)


class StepLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` every ``step_size`` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
    gamma : float, default: 0.1
    last_epoch : int, default: -1

    Attributes
    ----------
    base_lrs, last_epoch
        As for :class:`LRScheduler`.

    Raises
    ------
    TypeError, KeyError
        As :class:`LRScheduler`.
    ValueError
        If ``step_size`` is not positive.

    Examples
    --------
    See the top of this module.
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = _positive("StepLR", "step_size", step_size)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the next learning rates, one for each group."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self._lrs()
        return [lr * self.gamma for lr in self._lrs()]


class CosineAnnealingLR(LRScheduler):
    r"""Let the learning rate fall along half a cosine, and then rise again.

    ``eta_min + (base_lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2``; each step is computed
    from the current rate, so that others may change it, too.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        After how many epochs it is ``eta_min``.
    eta_min : float, default: 0.0
    last_epoch : int, default: -1

    Attributes
    ----------
    base_lrs, last_epoch
        As for :class:`LRScheduler`.

    Raises
    ------
    TypeError, KeyError
        As :class:`LRScheduler`.
    ValueError
        If ``T_max`` is not positive.

    Examples
    --------
    >>> import pyconv
    >>> optimizer = pyconv.optim.SGD(pyconv.Linear(2, 1).parameters(), lr=1.0)
    >>> scheduler = pyconv.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    >>> for epoch in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(round(optimizer.param_groups[0]["lr"], 6))
    0.853553
    0.5
    0.146447
    0.0
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = _positive("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the next learning rates, one for each group."""
        epoch, low = self.last_epoch, self.eta_min
        if self._initial:
            return self._lrs()
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # from the lowest point upwards
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [
                lr + (base - low) * rise
                for lr, base in zip(self._lrs(), self.base_lrs, strict=True)
            ]
        now, before = (1 + math.cos(math.pi * e / self.T_max) for e in (epoch, epoch - 1))
        return [now / before * (lr - low) + low for lr in self._lrs()]


def _positive(who: str, name: str, value: Any) -> Any:
    if not value > 0:
        raise ValueError(f"{who}: {name} must be positive, got {value}")
    return value
