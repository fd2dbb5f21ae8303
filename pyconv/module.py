"""What all layers share: parameters, children, state_dict, train/eval, printing, pickling.

A module is a plain Python object. Its children are the attributes that hold a ``Module``, its
parameters the attributes that hold a ``Parameter``, in the order in which they were assigned; there
is no second registry that could disagree with the attributes. Layers from the C extension keep
their arrays themselves and hand out a ``Parameter`` that points to them.

Gradients flow through ``vjp`` (vector-Jacobian product): ``y, pullback = module.vjp(x)``, where
``pullback(grad_output)`` returns the gradient with respect to ``x`` and adds to the gradients of
the parameters. A container composes the pullbacks of its children. ``forward`` in training mode
keeps the pullback of its call, and ``backward`` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyconv._arrays import as_array, cast, layer_dtype, quiet
from pyconv.parameter import Parameter, zero_grad

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array

__all__ = ["IncompatibleKeys", "Module"]


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


class Module:
    r"""Base class of all layers and containers.

    A layer of your own is a class with ``forward``, and with ``backward`` if it is to be trained:
    ``backward(grad_output)`` returns the gradient with respect to the input of the last forward and
    adds to the gradients of the layer's parameters. Layers assigned as attributes become children.

    Attributes
    ----------
    training : bool, default: True
        In training mode ``forward`` keeps what ``backward`` needs. See :meth:`train`, :meth:`eval`.

    Raises
    ------
    NotImplementedError
        If ``forward`` or ``backward`` is called and the class has none.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> class Scale(pyconv.Module):
    ...     def __init__(self, channels):
    ...         self.factor = pyconv.Parameter(np.ones((channels, 1, 1), np.float32))
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * self.factor.data
    ...     def backward(self, grad_output):
    ...         grad = (grad_output * self.x).sum((0, 2, 3))
    ...         self.factor.accumulate_grad(grad.reshape(-1, 1, 1))
    ...         return grad_output * self.factor.data
    >>> net = pyconv.Sequential(pyconv.Conv2d(1, 2, 3), Scale(2))
    >>> [name for name, p in net.named_parameters()]
    ['0.weight', '0.bias', '1.factor']
    >>> net(np.ones((1, 1, 5, 5))).shape
    (1, 2, 3, 3)
    >>> net.backward(np.ones((1, 2, 3, 3))).shape
    (1, 1, 5, 5)
    """

    training: bool = True

    # Attributes that belong to one call or one object: neither pickled nor copied.
    _transient: tuple[str, ...] = ("_pullback", "_handles", "_calls")

    def __init__(self) -> None:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The vjp of the base class is not that of a subclass with a forward or backward of its own.
        names = cls.__dict__
        if "vjp" not in names and ("forward" in names or "backward" in names):
            cls.vjp = Module.vjp  # type: ignore[method-assign]

    # ---- calling ----

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; each layer defines its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the gradient with respect to the last training-mode input; see the class."""
        raise NotImplementedError(
            f"{type(self).__name__} has no backward: write one, or compose the module of layers "
            "that have one, for instance with pyconv.Sequential"
        )

    def vjp(self, *args: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the output and its pullback, a function of the output's gradient.

        ``pullback(grad_output, input_grad=True)`` returns the gradient with respect to the input,
        or None with ``input_grad=False``, and adds to the parameters' gradients. Here it is made of
        ``forward`` and ``backward``, which know one call at a time; the pullback says so when the
        module has been called through ``vjp`` again.
        """
        state = self.__dict__
        call = state["_calls"] = state.get("_calls", 0) + 1
        output = self(*args)

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Any:
            if state.get("_calls") != call:
                raise RuntimeError(
                    f"{type(self).__name__} was called again after this forward, and its backward "
                    "only knows the last one: define vjp to use it more than once"
                )
            grad = self.backward(grad_output)
            return grad if input_grad else None

        return output, pullback

    # ---- what the module consists of ----

    def _children(self) -> dict[str, Module]:
        return {k: v for k, v in self.__dict__.items() if isinstance(v, Module)}

    def _own_parameters(self) -> dict[str, Parameter]:
        return {k: v for k, v in self.__dict__.items() if isinstance(v, Parameter)}

    def _own_buffers(self) -> dict[str, bool]:
        """Names of the buffers, and whether state_dict holds them."""
        buffers: dict[str, bool] = self.__dict__.get("_buffer_names", {})
        return buffers

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over the direct children with their names, each module once."""
        seen: set[int] = set()
        for name, child in self._children().items():
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """Iterate over the direct children, each once."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Iterate over this module and all below it with dotted names, each once, parents first."""
        return self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._children().items():
            yield from child._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the parameters with dotted names, each once."""
        seen: set[Parameter] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, parameter in module._own_parameters().items():
                if parameter not in seen:
                    seen.add(parameter)
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Array]]:
        """Iterate over the buffers that are not None, with dotted names."""
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name in module._own_buffers():
                if (buffer := module.__dict__.get(name)) is not None:
                    yield f"{path}.{name}" if path else name, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Array]:
        """Iterate over the buffers that are not None."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the module with the dotted name ``target``; the module itself for ``''``."""
        module = self
        for name in target.split(".") if target else []:
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            found = getattr(module, name)
            if not isinstance(found, Module):
                raise AttributeError(f"`{name}` is not a Module")
            module = found
        return module

    def _check_new_name(self, kind: str, name: str, known: Iterable[str]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f'{kind} name can\'t be empty or contain ".", got: "{name}"')
        if hasattr(self, name) and name not in known:
            raise KeyError(f"attribute '{name}' already exists")

    def add_module(self, name: str, module: Module) -> None:
        """Make ``module`` a child under ``name``, like ``setattr`` but for any name."""
        if not isinstance(module, Module):
            raise TypeError(f"{typename(module)} is not a Module subclass")
        self._check_new_name("module", name, self._children())
        self.__dict__[name] = module

    register_module = add_module

    def register_buffer(self, name: str, value: Any, persistent: bool = True) -> None:
        """Make an array part of the state without training it; ``None`` is allowed.

        A buffer is an attribute, is converted by :meth:`double` and :meth:`float`, and stands in
        :meth:`state_dict` if it is ``persistent``.
        """
        names = self._own_buffers()
        self._check_new_name("buffer", name, names)
        self.__dict__[name] = None if value is None else as_array(value)
        self.__dict__["_buffer_names"] = {**names, name: bool(persistent)}

    # ---- modes and conversions ----

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and in all children; returns the module."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Leave training mode: ``forward`` then keeps nothing for ``backward``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether gradients of all parameters are computed."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        zero_grad(self.parameters(), set_to_none)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every module below, children first, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def double(self) -> Self:
        """Convert parameters, gradients and floating-point buffers to float64, in place."""
        return self._convert(np.float64)

    def float(self) -> Self:
        """Convert parameters, gradients and floating-point buffers to float32, in place."""
        return self._convert(np.float32)

    def _convert(self, dtype: DTypeLike) -> Self:
        found = layer_dtype(type(self).__name__, dtype)
        for module in self.modules():
            module._convert_own(found)
        return self

    def _convert_own(self, dtype: np.dtype[Any]) -> None:
        self.__dict__.pop("_pullback", None)
        for parameter in self._own_parameters().values():
            parameter._set_dtype(dtype)
        for name in self._own_buffers():
            buffer = self.__dict__.get(name)
            if buffer is not None and buffer.dtype.kind == "f":
                self.__dict__[name] = cast(buffer, dtype)

    # ---- state ----

    def _own_state(self) -> dict[str, Array]:
        state = {name: p.data for name, p in self._own_parameters().items()}
        for name, persistent in self._own_buffers().items():
            if persistent and (buffer := self.__dict__.get(name)) is not None:
                if not isinstance(buffer, np.ndarray):  # `self.count += 1` makes a scalar of 0-d
                    buffer = self.__dict__[name] = np.asarray(buffer)
                state[name] = buffer
        return state

    def state_dict(self, prefix: str = "") -> dict[str, Array]:
        """Return all parameters and persistent buffers by dotted name.

        The arrays are the live ones, not copies: they change when the module is trained.

        Examples
        --------
        >>> import pyconv
        >>> {k: v.shape for k, v in pyconv.Conv2d(3, 8, 5).state_dict().items()}
        {'weight': (8, 3, 5, 5), 'bias': (8,)}
        """
        state = {prefix + name: array for name, array in self._own_state().items()}
        for name, child in self._children().items():
            state.update(child.state_dict(prefix=f"{prefix}{name}."))
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy arrays, as :meth:`state_dict` names them, into this module and all below it.

        Values are converted to the dtype of what they replace. It is all or nothing: after an error
        the module is as it was.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            For instance another module's ``state_dict()``, or what ``np.load`` gives for an .npz.
        strict : bool, default: True
            Whether missing and unexpected keys are errors.

        Returns
        -------
        IncompatibleKeys
            A named tuple ``(missing_keys, unexpected_keys)``.

        Raises
        ------
        RuntimeError
            Listing all missing and unexpected keys, and all arrays of the wrong shape.
        TypeError
            If ``state_dict`` is not a mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        targets = self.state_dict()
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
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{text}"
            )
        for target, value in staged:
            np.copyto(target, value)
        return IncompatibleKeys(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in self._transient}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # ---- printing ----

    def extra_repr(self) -> str:
        """Return what stands between the parentheses when the module is printed."""
        return ""

    def __repr__(self) -> str:
        name = type(self).__name__
        extra = self.extra_repr()
        children = [f"({key}): {child!r}" for key, child in self._children().items()]
        if not children and "\n" not in extra:
            return f"{name}({extra})"
        lines = ([extra] if extra else []) + children
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{name}(\n  {body}\n)"


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


def typename(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


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
