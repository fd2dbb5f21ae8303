"""Modules with gradients: what they remember of a call, and ``call_vjp``, which containers use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyconv._hooks import run_hooks
from pyconv.module import Module

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class _Kept:
    """The pullback of a forward, and whether it is clear which forward a backward belongs to."""

    __slots__ = ("answered", "calls", "pullback")

    def __init__(self, pullback: Callable[..., Any], calls: int) -> None:
        self.pullback = pullback
        self.calls = calls  # forwards since the last one that was answered by a backward
        self.answered = False


class Remembering(Module):
    """A module whose forward keeps the pullback of its call for backward."""

    def _remember(self, pullback: Callable[..., Any] | None) -> None:
        """Keep the pullback of a forward; None is for eval mode and keeps nothing."""
        last = self.__dict__.get("_kept")
        calls = 0 if last is None or last.answered else last.calls
        self.__dict__["_kept"] = None if pullback is None else _Kept(pullback, calls + 1)

    def _recall(self, *args: Any) -> Any:
        """Call the pullback that was kept, or say why there is none."""
        kept = self.__dict__.get("_kept")
        if kept is None:
            raise RuntimeError(
                f"{self._label()}: backward needs a forward in training mode before it"
            )
        if kept.answered and kept.calls > 1:
            raise RuntimeError(
                f"{self._label()}: backward was called again after {kept.calls} forwards, and only "
                "knows the last of them; use `y, pullback = layer.vjp(x)`, which gives each call a "
                "pullback of its own"
            )
        result = kept.pullback(*args)
        kept.answered = True
        return result

    def _forget(self) -> None:
        self.__dict__.pop("_kept", None)

    def _label(self) -> str:
        """The module's name in error messages."""
        return type(self).__name__


class VjpModule(Remembering):
    """A module that defines ``_vjp``; ``vjp``, ``forward`` and ``backward`` follow from it.

    In training mode ``forward`` keeps the pullback of its call, in eval mode it keeps nothing.
    """

    def _vjp(self, input: Any) -> tuple[Any, Callable[..., Any]]:
        raise NotImplementedError

    def _eval(self, input: Any) -> Any:
        return self._vjp(input)[0]

    def vjp(self, input: ArrayLike) -> tuple[Any, Callable[..., Any]]:
        """Return the output and its pullback; touches no saved state, works in any mode.

        ``pullback(grad_output, input_grad=True)`` returns the gradient with respect to the input,
        or None with ``input_grad=False``, and adds to the parameters' gradients.
        """
        return self._vjp(input)

    def forward(self, input: ArrayLike) -> Any:
        """Return the output; in training mode keep what ``backward`` needs.

        What an earlier call kept and a backward has answered is dropped first, so that two calls'
        arrays are not held at once.
        """
        last = self.__dict__.get("_kept")
        if last is not None and last.answered:
            self._forget()
        del last
        if not self.training:
            output = self._eval(input)
            self._remember(None)
            return output
        # A subclass whose forward calls this one has Module.vjp, which would come back here.
        vjp = self._vjp if type(self).vjp is Module.vjp else self.vjp
        output, pullback = vjp(input)
        self._remember(pullback)
        return output

    def backward(self, grad_output: ArrayLike, input_grad: bool = True) -> Any:
        """Return the gradient with respect to the last training-mode input.

        Adds to the gradients of the parameters. With ``input_grad=False`` the gradient with respect
        to the input is not computed and None is returned.
        """
        return self._recall(grad_output, input_grad)


def call_vjp(module: Module, *args: Any) -> tuple[Any, Callable[..., Any]]:
    """``module.vjp(*args)``, with hooks, and with a forward put on the object itself honoured."""
    names = module.__dict__
    if "vjp" not in names and ("forward" in names or "backward" in names):
        output, pullback = Module.vjp(module, *args)
    else:
        output, pullback = module.vjp(*args)
    if module._watched and run_hooks(module, args, {}, output) is not output:
        raise RuntimeError(
            f"{type(module).__name__}: a forward hook returned another output, and nobody knows "
            "its gradient: in a model that is trained a hook may only look"
        )
    return output, pullback
