"""Optimizers: they change parameters along their gradients, in place.

Each holds the handles that :meth:`pyconv.Module.parameters` gives, in groups with options of their
own, as in torch.optim: ``optimizer.param_groups[0]["lr"] = 0.01`` changes the learning rate, and
:mod:`pyconv.optim.lr_scheduler` does so by a plan.
"""

from pyconv.optim import lr_scheduler
from pyconv.optim._base import Optimizer
from pyconv.optim._clip import clip_grad_norm_
from pyconv.optim._rules import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "lr_scheduler"]
