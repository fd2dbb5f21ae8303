"""Forward hooks: functions that see each call of a module.

A module whose ``_watched`` is true is called through ``_watched_call``, also if it is a layer of
the C extension; all others pay nothing for hooks. Hooks belong to one object: they are neither
copied nor pickled.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import Self

    from pyconv.module import Module


class Hook(NamedTuple):
    """A function and when and how it is called."""

    function: Callable[..., Any]
    with_kwargs: bool
    always_call: bool


class RemovableHandle:
    """What registering a hook returns: ``remove()`` undoes it, as does the end of a ``with``."""

    _numbers = itertools.count()

    def __init__(self, module: Module, hook: Hook, first: bool) -> None:
        self.id = next(self._numbers)
        self._module = weakref.ref(module)
        hooks = module.__dict__.get("_forward_hooks", {})
        mine = {self.id: hook}
        _set_hooks(module, {**mine, **hooks} if first else {**hooks, **mine})

    def remove(self) -> None:
        """Take the hook away; once it is gone, nothing happens."""
        module = self._module()
        if module is not None:
            hooks = module.__dict__.get("_forward_hooks", {})
            _set_hooks(module, {k: hook for k, hook in hooks.items() if k != self.id})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _set_hooks(module: Module, hooks: dict[int, Hook]) -> None:
    # A new dict each time: a call that is under way finishes with the hooks that it began with.
    module.__dict__["_forward_hooks"] = hooks
    module._watched = bool(hooks) or "_tracer" in module.__dict__


def watched_call(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], follow: bool = True
) -> Any:
    """``module.forward(*args, **kwargs)`` with its hooks; or a tracer's way, see _trace.py."""
    tracer = module.__dict__.get("_tracer")
    if follow and tracer is not None:
        return tracer.call(module, args, kwargs)
    try:
        output = module.forward(*args, **kwargs)
    except Exception:
        run_hooks(module, args, kwargs, None, failed=True)
        raise
    found = run_hooks(module, args, kwargs, output)
    if found is not output:  # what forward kept for backward does not belong to it
        module._forget()
    return found


def run_hooks(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, failed: bool = False
) -> Any:
    """Call the hooks one after the other; each may return another output."""
    for hook in module.__dict__.get("_forward_hooks", {}).values():
        if failed and not hook.always_call:
            continue
        given = (args, kwargs) if hook.with_kwargs else (args,)
        result = hook.function(module, *given, output)
        if result is not None:
            output = result
    return output
