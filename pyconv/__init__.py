"""Convolution and pooling layers with torch.nn's interface, forward and backward, on NumPy arrays.

>>> import numpy as np
>>> import pyconv
>>> conv = pyconv.Conv2d(3, 16, 3, padding=1)
>>> y = conv(np.zeros((1, 3, 28, 28)))
>>> y.shape
(1, 16, 28, 28)
>>> conv.backward(np.ones_like(y)).shape
(1, 3, 28, 28)
>>> conv.weight_grad.shape
(16, 3, 3, 3)

The layers are in this namespace; :mod:`pyconv.functional` has the operators as functions with
explicit gradients, :mod:`pyconv.optim` the optimizers, :mod:`pyconv.reference` a slow NumPy twin of
each operator, and :mod:`pyconv.testing` the check of a gradient of your own.
"""

from typing import TYPE_CHECKING, Any

from pyconv import functional
from pyconv._core import release_workspace
from pyconv._random import manual_seed
from pyconv._threads import get_num_threads, num_threads, set_num_threads
from pyconv.activations import Dropout, Identity, LeakyReLU, Sigmoid, Softmax, Tanh
from pyconv.batchnorm import BatchNorm2d
from pyconv.conv1d import Conv1d
from pyconv.dense import Flatten, Linear
from pyconv.joins import Concat, Residual
from pyconv.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d, ReLU
from pyconv.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from pyconv.module import Module
from pyconv.parameter import Parameter
from pyconv.sequential import ModuleList, Sequential

if TYPE_CHECKING:
    from pyconv import optim, reference, testing
    from pyconv._config import show_config
    from pyconv._summary import receptive_field, summary
    from pyconv.optim import clip_grad_norm_

__version__ = "0.1.0"

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Concat",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "__version__",
    "clip_grad_norm_",
    "functional",
    "get_num_threads",
    "manual_seed",
    "num_threads",
    "optim",
    "receptive_field",
    "reference",
    "release_workspace",
    "set_num_threads",
    "show_config",
    "summary",
    "testing",
]

# Imported when first asked for, so that `import pyconv` stays cheap.
_LAZY = {
    "clip_grad_norm_": "optim",
    "optim": "",
    "receptive_field": "_summary",
    "reference": "",
    "show_config": "_config",
    "summary": "_summary",
    "testing": "",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pyconv' has no attribute '{name}'")
    from importlib import import_module

    module = import_module(f"pyconv.{_LAZY[name] or name}")
    value = getattr(module, name) if _LAZY[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
