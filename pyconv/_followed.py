"""Functions that a tracer (_trace.py) sees; where none looks on, they are called as always."""

from __future__ import annotations

import functools
from _thread import get_ident
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

tracers: dict[int, Any] = {}
"""Of each thread that follows a model, its tracer."""


def followed(function: Function) -> Function:
    """Let the tracer of this thread, if there is one, answer in place of ``function``."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tracer = tracers.get(get_ident()) if tracers else None
        if tracer is None:
            return function(*args, **kwargs)
        return tracer.function(function, args, kwargs)

    return call  # type: ignore[return-value]
