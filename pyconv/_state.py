"""Copying a state_dict into a module: all of it, or nothing and one list of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyconv._arrays import as_array, quiet

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array
    from pyconv.module import Module


class IncompatibleKeys(
    NamedTuple("IncompatibleKeys", [("missing_keys", list[str]), ("unexpected_keys", list[str])])
):
    """What :meth:`Module.load_state_dict` found on one side only."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"{type(self).__name__}(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )

    __str__ = __repr__


def load_state(
    module: Module, state_dict: Mapping[str, ArrayLike], strict: bool
) -> IncompatibleKeys:
    """Do what :meth:`Module.load_state_dict` says."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    targets = module.state_dict()
    missing = [key for key in targets if key not in state_dict]
    unexpected = [key for key in state_dict if key not in targets]
    errors = []
    if strict and missing:
        errors.append(f"Missing key(s) in state_dict: {_quoted(missing)}. ")
    if strict and unexpected:
        errors.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
    staged = []
    for key, target in targets.items():
        if key in state_dict:
            try:
                staged.append((target, _staged(key, state_dict[key], target)))
            except ValueError as error:
                errors.append(str(error))
    if errors:
        text = "\n\t".join(errors)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{text}")
    for target, value in staged:
        np.copyto(target, value)
    return IncompatibleKeys(missing, unexpected)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _staged(key: str, value: Any, target: Array) -> Array:
    """A copy of ``value`` that is certain to fit into ``target``; ValueError with the reason."""
    what = f'While copying the parameter named "{key}"'
    try:
        array = as_array(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what}: expected an array of real numbers, got dtype {array.dtype}")
    if array.shape != target.shape:
        raise ValueError(
            f"size mismatch for {key}: copying a param with shape {array.shape} from checkpoint, "
            f"the shape in current model is {target.shape}."
        )
    if not target.flags.writeable:
        raise ValueError(f"{what}: the array in current model is read-only")
    with quiet():
        return np.array(array, dtype=target.dtype)
