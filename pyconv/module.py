"""What all layers share: parameters, children, state_dict, train/eval, printing, pickling.

A module is a plain Python object. Its children are the attributes to which a ``Module`` was
assigned, its parameters those to which a ``Parameter`` was, its buffers those that were registered
as such. The attributes hold the values; ``_registered`` holds the kind of each name, in the order
in which they came, so that a name keeps its kind when ``None`` is assigned to it. Layers from the C
extension keep their arrays themselves and hand out a ``Parameter`` that points to them.

Gradients flow through ``vjp`` (vector-Jacobian product): ``y, pullback = module.vjp(x)``, where
``pullback(grad_output)`` returns the gradient with respect to ``x`` and adds to the gradients of
the parameters. A container composes the pullbacks of its children. ``forward`` in training mode
keeps the pullback of its call, and ``backward`` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_array, cast, layer_dtype
from pyconv._blueprint import Blueprint
from pyconv._hooks import Hook, RemovableHandle, watched_call
from pyconv._state import IncompatibleKeys, load_state
from pyconv.parameter import Parameter, zero_grad

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array

__all__ = ["Module"]


# The kinds of registered names, and for each the word that messages have for it, its role as an
# attribute, and what it must be.
_MODULE, _PARAMETER, _BUFFER, _UNSAVED = "module", "parameter", "buffer", "buffer, not saved"
_WORDS = {
    _MODULE: ("module", "child module", "pyconv.Module"),
    _PARAMETER: ("parameter", "parameter", "pyconv.Parameter"),
    _BUFFER: ("buffer", "buffer", "numpy.ndarray"),
    _UNSAVED: ("buffer", "buffer", "numpy.ndarray"),
}


class Module(Blueprint):
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
    ...         super().__init__()
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
    _transient: tuple[str, ...] = (
        "_kept",
        "_handles",
        "_calls",
        "_forward_hooks",
        "_tracer",
        "_watched",
    )

    _watched: bool = False  # whether calls go through _watched_call; C layers have their own

    def __init__(self) -> None:
        self.__dict__.setdefault("_registered", {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The vjp of the base class is not that of a subclass with a forward or backward of its own.
        names = cls.__dict__
        if "vjp" not in names and ("forward" in names or "backward" in names):
            cls.vjp = Module.vjp  # type: ignore[method-assign]
        # Nor does an inherited backward know what a forward of its own does.
        if "forward" in names and "backward" not in names:
            cls.backward = Module.backward  # type: ignore[method-assign]

    # ---- calling ----

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._watched:
            return self._watched_call(*args, **kwargs)
        return self.forward(*args, **kwargs)

    def _watched_call(self, *args: Any, **kwargs: Any) -> Any:
        return watched_call(self, args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; each layer defines its own."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the gradient with respect to the last training-mode input; see the class."""
        raise NotImplementedError(
            f"{type(self).__name__} has no backward, and its forward cannot be differentiated: "
            "compose it of pyconv.Sequential, Residual and Concat, or write its backward, or use "
            "an engine of pyconv.interop"
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
        output = self.forward(*args)

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Any:
            if state.get("_calls") != call:
                raise RuntimeError(
                    f"{type(self).__name__} was called again after this forward, and its backward "
                    "only knows the last one: define vjp to use it more than once"
                )
            grad = self.backward(grad_output)
            return grad if input_grad else None

        return output, pullback

    def _forget(self) -> None:
        """Drop what the last forward kept for backward."""

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Let ``hook(module, args, output)`` see each call of this module.

        What it returns, if not None, becomes the output; backward then has nothing to go by and
        says so. Hooks run where the module is called, by anybody, also by a container that trains;
        not where its ``forward`` or ``vjp`` is. They are neither copied nor pickled.

        Parameters
        ----------
        hook : callable
        prepend : bool, default: False
            Whether it comes before the hooks that are there.
        with_kwargs : bool, default: False
            Whether it is called as ``hook(module, args, kwargs, output)``.
        always_call : bool, default: False
            Whether it is called, with the output None, even if ``forward`` raises an exception.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook away; it is a context manager, too.

        Examples
        --------
        >>> import numpy as np, pyconv
        >>> net = pyconv.Sequential(pyconv.Conv2d(1, 8, 3), pyconv.ReLU())
        >>> with net[0].register_forward_hook(lambda module, args, out: print(out.shape)):
        ...     y = net(np.ones((1, 1, 5, 5)))
        (1, 8, 3, 3)
        """
        entry = Hook(hook, bool(with_kwargs), bool(always_call))
        return RemovableHandle(self, entry, bool(prepend))

    # ---- what the module consists of ----

    def _names(self, what: str) -> dict[str, str]:
        """The kind of each registered name: a module, a parameter, a buffer (in state_dict or not).

        To read, use ``_members``; this is for registering ``what``.
        """
        names: dict[str, str] | None = self.__dict__.get("_registered")
        if names is None:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        return names

    def _members(self, *kinds: str) -> dict[str, Any]:
        """The attributes registered as one of ``kinds``, in their order; None among them."""
        values = self.__dict__
        names: dict[str, str] = values.get("_registered", {})
        return {n: values[n] for n, kind in names.items() if kind in kinds and n in values}

    def _children(self) -> dict[str, Module]:
        return {k: v for k, v in self._members(_MODULE).items() if v is not None}

    def _own_parameters(self) -> dict[str, Parameter]:
        return {k: v for k, v in self._members(_PARAMETER).items() if v is not None}

    def _own_buffers(self) -> dict[str, Array]:
        return {k: v for k, v in self._members(_BUFFER, _UNSAVED).items() if v is not None}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Module, Parameter)):
            owner = getattr(type(self), name, None)
            if not hasattr(owner, "__set__"):  # else a property knows what to do with it
                if hasattr(type(self), name):
                    raise KeyError(f"attribute '{name}' already exists")
                module = isinstance(value, Module)
                names = self._names("module" if module else "parameters")
                kind = _MODULE if module else _PARAMETER
                if names.get(name) != kind:  # it comes last, whatever had its name before
                    names.pop(name, None)
                    self.__dict__.pop(name, None)
                    names[name] = kind
                self.__dict__[name] = value
                return
        elif (kind := self.__dict__.get("_registered", {}).get(name)) is not None:
            if value is not None:
                value = _registrable(kind, f"as {_WORDS[kind][1]} '{name}'", value, "expected")
            self.__dict__[name] = value
            return
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self.__dict__.get("_registered", {}).pop(name, None)

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

    def named_modules(
        self,
        memo: set[Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Module]]:
        """Iterate over this module and all below it with dotted names, each once, parents first."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, child in self._children().items():
            yield from child.named_modules(seen, _joined(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _named_members(
        self, members: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: dict[int, Any] = {}  # members by id, which is theirs as long as they live
        below = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in below if recurse else [(prefix, self)]:
            for name, member in getattr(module, members)().items():
                if id(member) not in seen:
                    if remove_duplicate:
                        seen[id(member)] = member
                    yield _joined(path, name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the parameters with dotted names, each once."""
        return self._named_members("_own_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Array]]:
        """Iterate over the buffers that are not None, with dotted names, each once."""
        return self._named_members("_own_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Array]:
        """Iterate over the buffers that are not None."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the module with the dotted name ``target``; the module itself for ``''``."""
        module = self
        for name in target.split(".") if target else []:
            found = module._get(name)
            if not isinstance(found, Module):
                raise AttributeError(f"`{name}` is not a Module")
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with the dotted name ``target``."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        owner._get(name)
        found = owner._own_parameters().get(name)
        if found is None:
            raise AttributeError(f"`{name}` is not a Parameter")
        return found

    def get_buffer(self, target: str) -> Array:
        """Return the buffer with the dotted name ``target``."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        owner._get(name)
        found = owner._own_buffers().get(name)
        if found is None:
            raise AttributeError(f"`{name}` is not a buffer")
        return found

    def _get(self, name: str) -> Any:
        if not hasattr(self, name):
            raise AttributeError(f"{type(self).__name__} has no attribute `{name}`")
        return getattr(self, name)

    def _register(self, kind: str, name: str, value: Any) -> None:
        what = _WORDS[kind][0]
        names = self._names(what)
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {typename(name)}")
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        if hasattr(self, name) and _WORDS.get(names.get(name, ""), " ")[0] != what:
            raise KeyError(f"attribute '{name}' already exists")
        if value is not None:
            value = _registrable(kind, f"object to {what} '{name}'", value, "required")
        names[name] = kind
        self.__dict__[name] = value

    def add_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a child under ``name``, like ``setattr`` but for any name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{typename(module)} is not a Module subclass")
        self._register(_MODULE, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """Do what :meth:`add_module` does."""
        self.add_module(name, module)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make ``param`` a parameter under ``name``; None keeps the name for one."""
        self._register(_PARAMETER, name, param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Make an array part of the state without training it.

        A buffer is an attribute, which may be assigned another array or None. :meth:`double` and
        :meth:`float` convert it if it is floating-point, copies and pickles hold it, and
        :meth:`state_dict` does if it is ``persistent``.

        Parameters
        ----------
        name : str
        tensor : numpy.ndarray or None
            The array itself is kept, not a copy. A NumPy scalar becomes an array.
        persistent : bool, default: True

        Raises
        ------
        AttributeError
            If ``Module.__init__`` has not been called.
        KeyError
            If the name is taken, empty, or has a dot.
        TypeError
            If ``tensor`` is no array of numbers, or the name no string.

        Examples
        --------
        >>> import numpy as np, pyconv
        >>> counter = pyconv.Module()
        >>> counter.register_buffer("count", np.zeros((), np.int64))
        >>> counter.count += 1
        >>> counter.state_dict()
        {'count': array(1)}
        """
        self._register(_BUFFER if persistent else _UNSAVED, name, tensor)

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
        self._forget()
        for parameter in self._own_parameters().values():
            parameter._set_dtype(dtype)
        for name, buffer in self._own_buffers().items():
            if buffer.dtype.kind == "f":
                setattr(self, name, cast(buffer, dtype))

    # ---- state ----

    def _own_state(self) -> dict[str, Array]:
        unsaved = self._members(_UNSAVED)
        state = {name: p.data for name, p in self._own_parameters().items()}
        state.update((k, v) for k, v in self._own_buffers().items() if k not in unsaved)
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
        return load_state(self, state_dict, strict)

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in self._transient}
        if "_registered" in state:
            state["_registered"] = dict(state["_registered"])  # for copy.copy
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # ---- printing ----

    def extra_repr(self) -> str:
        """Return what stands between the parentheses when the module is printed."""
        return ""

    def __repr__(self) -> str:
        children = [f"({key}): {child!r}" for key, child in self._members(_MODULE).items()]
        return tree(type(self).__name__, self.extra_repr(), children)


def tree(name: str, extra: str, children: list[str]) -> str:
    """A module's text, its children below it and to the right, as torch prints them."""
    if not children and "\n" not in extra:
        return f"{name}({extra})"
    lines = ([extra] if extra else []) + children
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{name}(\n  {body}\n)"


def _registrable(kind: str, place: str, value: Any, verb: str) -> Any:
    """``value`` as an attribute of a kind, or torch's TypeError."""
    if kind in (_BUFFER, _UNSAVED):
        if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
            array = as_array(value)
            if array.dtype.kind in "biufc":
                return array
    elif isinstance(value, Module if kind == _MODULE else Parameter):
        return value
    raise TypeError(f"cannot assign '{typename(value)}' {place} ({_WORDS[kind][2]} or None {verb})")


def typename(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
