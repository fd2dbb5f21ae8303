"""Following a model's forward without computing it: shapes, costs, and receptive fields.

Each module is called as always, but the layers of pyconv, instead of computing, say what shape
would come out and give an array of zeros of that shape, which no page of memory stands behind until
somebody writes into it. A forward of the user's own runs as it is, on such arrays. So what depends
on the values of an image is followed as for a black one.
"""

from __future__ import annotations

import math
from _thread import RLock, get_ident
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import _core
from pyconv._arrays import as_size
from pyconv._fields import SAME, WHOLE, Field, chain, field_of, kind_of, union
from pyconv._followed import tracers
from pyconv._found import find, multiplications
from pyconv._hooks import watched_call
from pyconv.joins import Concat, Residual

if TYPE_CHECKING:
    from pyconv._arrays import Array
    from pyconv.module import Module

_lock = RLock()  # a model carries one tracer at a time


class Traced(np.ndarray[Any, Any]):
    """An array that knows its receptive field, and so does what NumPy computes of it."""

    field: Field = None

    def __array_finalize__(self, source: Any) -> None:
        own = getattr(source, "field", None)
        same = own is not None and (
            self.shape[-2:] == source.shape[-2:]
            and self.strides[-2:] == source.strides[-2:]
            and self.ndim == source.ndim
        )
        if own is None or own is WHOLE or same:
            self.field = own
        else:  # a flattened image, or something that nobody can follow
            self.field = WHOLE if self.ndim < 3 else None

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any
    ) -> Any:
        fields = [held(x) for x in inputs if isinstance(x, Traced)]
        if out is not None:
            kwargs["out"] = tuple(_plain(x) for x in out)
        result = getattr(ufunc, method)(*(_plain(x) for x in inputs), **kwargs)
        if ufunc.signature is not None:  # rows and columns meet
            found = WHOLE if all(own is WHOLE for own in fields) else None
            _tell_of_product(ufunc, inputs, result, found)
        elif method == "__call__":
            found = union(fields)
        else:
            found = _reduced(inputs[0], result)
        if out is not None:
            for x in out:
                if isinstance(x, Traced):
                    x.field = found
            return out[0] if len(out) == 1 else out
        return _wrapped(result, found)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        given = list(_flat((args, kwargs)))
        result = function(*_replaced(args), **_replaced(kwargs))
        if function in _PRODUCTS:
            _tell_of_product(function, args, result, None)
        found = None
        shapes = {x.shape[-2:] for x in given}
        if function in (np.concatenate, np.where, np.clip) and shapes == {np.shape(result)[-2:]}:
            found = union([held(x) for x in given])
        elif function in (np.mean, np.sum, np.max):
            found = _reduced(given[0], result)
        return _wrapped(result, found)


_PRODUCTS = (
    np.convolve,
    np.correlate,
    np.cross,
    np.dot,
    np.einsum,
    np.inner,
    np.kron,
    np.outer,
    np.tensordot,
    np.vdot,
)


def _tell_of_product(function: Any, args: Any, result: Any, found: Field) -> None:
    """Tell the tracer of a product of matrices that NumPy has computed."""
    tracer = tracers.get(get_ident())
    if tracer is None:
        return
    if function is np.matmul:
        shape = np.shape(args[0])
        tracer.product(shape, result, math.prod(np.shape(result)) * shape[-1], found)
    else:
        tracer.miss(function.__name__)


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Traced) else x


def _flat(value: Any) -> Iterator[Traced]:
    if isinstance(value, Traced):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _replaced(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(item) for item in value)
    if isinstance(value, dict):
        return {key: _replaced(item) for key, item in value.items()}
    return _plain(value)


def _reduced(source: Any, result: Any) -> Field:
    own = held(source)
    same = np.ndim(result) > 2 and np.shape(result)[-2:] == source.shape[-2:]
    return own if own is None or same else WHOLE


def held(array: Any) -> Field:
    """The field of an array; None if it lies in memory as if it had been turned or reversed."""
    found = getattr(array, "field", None)
    if found is None or found is WHOLE or 1 in array.shape[-2:]:
        return found
    return found if 0 <= array.strides[-1] <= array.strides[-2] else None


def _zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros; of an array that is too large to be had, all elements are one."""
    if math.prod(shape) * np.dtype(dtype).itemsize < 1 << 28:
        return np.zeros(shape, dtype)
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))


def _wrapped(result: Any, found: Field) -> Any:
    if not isinstance(result, np.ndarray):
        return result
    traced = result.view(Traced)
    traced.field = found
    return traced


@dataclass
class Call:
    """One call of one module or function, and what came of it."""

    module: Module | None  # None for a function
    kind: str
    name: str  # dotted; '' for the model
    depth: int
    leaf: bool  # a function, a layer that says its shape, or a module that calls nothing seen
    again: bool = False  # it has been called before
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    itemsize: int = 0
    macs: int = 0
    field: Field = None


@dataclass
class Tracer:
    """What sees the calls of a model while it is followed."""

    names: dict[Module, str]
    thread: int
    calls: list[Call] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)  # the names of the modules that are running
    missed: list[str] = field(default_factory=list)  # what multiplies, and is not counted

    def call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of ``module``, instead of its forward."""
        if get_ident() != self.thread:  # somebody else uses the model meanwhile
            return watched_call(module, args, kwargs, follow=False)
        leaf = _says_its_shape(module)
        name = self.names.get(module, "")
        call = Call(
            module,
            type(module).__name__,
            name,
            len(self.inside),
            leaf or not module._children(),
            any(earlier.module is module for earlier in self.calls),
            np.shape(args[0]) if args else (),
        )
        if not leaf and isinstance(module, _core._Layer) and multiplications(module, (), ()):
            self.miss("a forward of its own", call)
        self.calls.append(call)
        before = len(self.calls)
        self.inside.append(name)
        try:
            go = self._leaf if leaf else self._inside
            output = go(module, args, kwargs)
        finally:
            self.inside.pop()
        call.leaf = call.leaf and len(self.calls) == before
        if not isinstance(output, Traced):  # computed where nobody looked
            output = _wrapped(output, None)
        values = output[0] if isinstance(output, tuple) and output else output
        call.output_shape = np.shape(values)
        call.itemsize = getattr(values, "itemsize", 0)
        call.field = held(values)
        if leaf:
            call.macs = multiplications(module, call.input_shape, call.output_shape)
        return output

    def function(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One call of a function of pyconv.functional, instead of it."""
        found = find(function, args, kwargs)
        if found is None:  # it says itself why not
            return function(*args, **kwargs)
        own = held(found.input)
        if sum(isinstance(x, Traced) for x in (*args, *kwargs.values())) > 1:
            own = None  # weights that depend on the input
        mine = found.field
        if isinstance(mine, tuple) and isinstance(own, tuple):
            mine = mine[-len(own) :]
        field = own if mine == "same" else chain(mine, own)
        result = _wrapped(_zeros(found.output_shape, found.dtype), field)
        self._row(function.__name__, found.input.shape, result, found.macs, field)
        return (result, _zeros(found.output_shape, np.int64)) if found.indices else result

    def product(self, shape: tuple[int, ...], result: Any, macs: int, field: Field) -> None:
        """NumPy has multiplied matrices."""
        self._row("matmul", shape, result, macs, field)

    def _row(self, kind: str, shape: tuple[int, ...], result: Any, macs: int, field: Field) -> None:
        name = f"{self.inside[-1]}.{kind}()".lstrip(".") if self.inside else f"{kind}()"
        call = Call(None, f"{kind}()", name, len(self.inside), True, input_shape=shape)
        call.output_shape, call.itemsize = np.shape(result), getattr(result, "itemsize", 0)
        call.macs, call.field = macs, field
        self.calls.append(call)

    def miss(self, what: str, call: Call | None = None) -> None:
        """Something multiplies, and nobody knows how often."""
        where = self.inside[-1] if call is None and self.inside else call.name if call else ""
        text = f"{what} of {where!r}" if where else what
        if text not in self.missed:
            self.missed.append(text)

    def _leaf(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(("input", "output_size"), args, strict=False)) | kwargs
        x, size = np.asanyarray(given["input"]), given.get("output_size")
        shape = tuple(x.shape)
        out: tuple[int, ...] = tuple(module.output_shape(shape))
        if size is not None:
            who = type(module).__name__
            out = (*out[:-2], *(as_size(who, "output_size", n) for n in size[-2:]))
        dtype = np.result_type(getattr(module, "dtype", x.dtype), np.float32)
        mine = field_of(kind_of(module), module, shape, out)
        own = held(x)
        found = own if mine == "same" else chain(mine, own)
        result = _wrapped(_zeros(out, dtype), found)
        if getattr(module, "return_indices", False):
            return result, _zeros(out, np.int64)
        return result

    def _inside(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(module, Residual) and type(module).forward is Residual.forward:
            (x,) = args
            paths = [module.body(x), x if module.shortcut is None else module.shortcut(x)]
            joined = module._joined(x, paths[0], None if module.shortcut is None else paths[1])
        elif isinstance(module, Concat) and type(module).forward is Concat.forward:
            paths = [branch(*args) for branch in module]
            joined, axis, _ = module._joined(paths)
            if joined.ndim - axis <= 2:  # side by side along the image: no field any more
                return _wrapped(joined, None)
        else:
            return module.forward(*args, **kwargs)
        return _wrapped(joined, union([held(path) for path in paths]))


def _says_its_shape(module: Module) -> bool:
    """Is it a layer of pyconv, with a forward that nobody has overridden?"""
    owner = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    own = owner.__module__.split(".")[0] == "pyconv" and "forward" not in module.__dict__
    return own and (isinstance(module, _core._Layer) or module._knows_its_shape)


@contextmanager
def _watching(model: Module) -> Iterator[Tracer]:
    """Let a tracer see all calls in ``model``, in eval mode; in the end all is as before."""
    modules = list(model.modules())
    names = {module: name for name, module in model.named_modules()}
    tracer = Tracer(names, get_ident())
    with _lock:
        modes = [module.training for module in modules]
        outer = tracers.get(tracer.thread)
        tracers[tracer.thread] = tracer
        try:
            for module in modules:
                module.training = False
                module.__dict__["_tracer"] = tracer
                module._watched = True
            yield tracer
        finally:
            if outer is None:
                tracers.pop(tracer.thread, None)
            else:
                tracers[tracer.thread] = outer
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
                module.__dict__.pop("_tracer", None)
                module._watched = bool(module.__dict__.get("_forward_hooks"))


def trace(model: Module, input_shape: Sequence[Any]) -> Tracer:
    """Follow ``model`` for an input of a shape, or for inputs of several; its calls were seen."""
    who = type(model).__name__
    many = bool(len(input_shape)) and isinstance(input_shape[0], (tuple, list))
    shapes = [
        tuple(as_size(who, "input_shape", n) for n in shape)
        for shape in (input_shape if many else [input_shape])
    ]
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    inputs = []
    for shape in shapes:
        if math.prod(shape) * dtype.itemsize > np.iinfo(np.int64).max:
            raise MemoryError(f"{who}: an input of shape {shape} is too large")
        axes = 1 if any(type(m).__name__ == "Conv1d" for m in model.modules()) else 2
        known = (SAME,) * axes if len(shape) > axes else WHOLE
        inputs.append(_wrapped(_zeros(shape, dtype), known))
    with _watching(model) as tracer:
        model(*inputs)
    return tracer


def output_shape(model: Module, input_shape: Sequence[Any]) -> tuple[int, ...]:
    """The shape of what comes out."""
    return trace(model, input_shape).calls[0].output_shape


def macs(model: Module, input_shape: Sequence[Any]) -> int:
    """The multiplications of all layers."""
    return sum(call.macs for call in trace(model, input_shape).calls)
