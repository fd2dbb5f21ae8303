"""Modules with gradients: VjpModule, the base of what is written in NumPy, and ``call_vjp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyconv.module import Module

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class VjpModule(Module):
    """A module that defines ``_vjp``; ``vjp``, ``forward`` and ``backward`` follow from it.

    In training mode ``forward`` keeps the pullback of its call, in eval mode it keeps nothing.
    """

    _pullback: Callable[..., Any] | None

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
        """Return the output; in training mode keep what ``backward`` needs."""
        if not self.training:
            self._pullback = None
            return self._eval(input)
        # A subclass whose forward calls this one has Module.vjp, which would come back here.
        vjp = self._vjp if type(self).vjp is Module.vjp else self.vjp
        output, self._pullback = vjp(input)
        return output

    def backward(self, grad_output: ArrayLike, input_grad: bool = True) -> Any:
        """Return the gradient with respect to the last training-mode input.

        Adds to the gradients of the parameters. With ``input_grad=False`` the gradient with respect
        to the input is not computed and None is returned.
        """
        pullback = self.__dict__.get("_pullback")
        if pullback is None:
            raise RuntimeError(
                f"{self._label()}: backward needs a forward in training mode before it"
            )
        return pullback(grad_output, input_grad)

    def _label(self) -> str:
        """The module's name in error messages."""
        return type(self).__name__


def call_vjp(module: Module, *args: Any) -> tuple[Any, Callable[..., Any]]:
    """``module.vjp(*args)``, with a forward or backward put on the object itself honoured."""
    names = module.__dict__
    if "vjp" not in names and ("forward" in names or "backward" in names):
        return Module.vjp(module, *args)
    return module.vjp(*args)
