"""The engines: each turns a pass of a problem into a function without arguments.

An engine that is not installed, or cannot do a row, is left out of it. Whatever a run returns is
fresh memory, as a user would get it; `arrays` makes NumPy arrays of it, outside of the time taken.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import pyconv
from pyconv import functional as F

if TYPE_CHECKING:
    from pyconv._arrays import Array
    from pyconv._bench.layers import Layer
    from pyconv._bench.problem import Problem

Run = Callable[[], Any]

NAMES = ("pyconv", "torch", "torch_cl", "onnxruntime")

# Which of the gradients of input, weight and bias a pass is about.
MASKS = {"bwd_data": (True, False, False), "bwd_weights": (False, True, False)}


class Engine(Protocol):
    """What measuring needs to know of an engine."""

    name: str
    version: str

    def prepare(self, problem: Problem, pass_: str, threads: int) -> Run | None:
        """Return what runs the pass, or None if this engine cannot."""

    def arrays(self, result: Any) -> tuple[Array, ...]:
        """Return the arrays of a result."""

    def mode(self) -> AbstractContextManager[Any]:
        """Return what to be in while runs are timed."""


def as_tuple(result: Any) -> tuple[Any, ...]:
    """Return one result, or several, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def geometry(v: Layer) -> tuple[tuple[int, int], ...]:
    """Return kernel, stride, padding and dilation."""
    return (v.kh, v.kw), (v.sh, v.sw), (v.ph, v.pw), (v.dh, v.dw)


class Pyconv:
    """This library."""

    name, version = "pyconv", pyconv.__version__

    def prepare(self, problem: Problem, pass_: str, threads: int) -> Run | None:
        """Return a call of pyconv.functional."""
        pyconv.set_num_threads(threads)
        v = problem.layer
        kernel, stride, padding, dilation = geometry(v)
        if v.op == "maxpool":
            if pass_ == "bwd":
                g, indices, shape = problem.g, problem.indices, problem.x.shape
                return lambda: F.max_pool2d_backward(g, indices, shape)
            x, both = problem.x, pass_ == "fwd_indices"
            return lambda: F.max_pool2d(x, kernel, stride, padding, dilation, False, both)
        if v.op == "avgpool":
            if pass_ == "bwd":
                g, shape = problem.g, problem.x.shape
                return lambda: F.avg_pool2d_backward(g, shape, kernel, stride, padding)
            x = problem.x
            return lambda: F.avg_pool2d(x, kernel, stride, padding)
        options: dict[str, Any] = dict(
            stride=stride, padding=padding, dilation=dilation, groups=v.groups
        )
        if v.op == "deconv":
            options["output_padding"] = (v.oph, v.opw)
        forward = F.conv_transpose2d if v.op == "deconv" else F.conv2d
        backward = F.conv_transpose2d_backward if v.op == "deconv" else F.conv2d_backward
        x, w = problem.x, problem.w
        if pass_ == "fwd":
            return lambda: forward(x, w, None, **options)
        g, mask = problem.g, MASKS[pass_]
        which = mask.index(True)
        return lambda: backward(g, x, w, output_mask=mask, **options)[which]

    def arrays(self, result: Any) -> tuple[Array, ...]:
        """Return them as they are."""
        return as_tuple(result)

    def mode(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()


class Torch:
    """torch, in NCHW or with all its tensors in channels-last.

    It runs in inference mode, through the operators that autograd would call, one gradient at a
    time.
    """

    def __init__(self, channels_last: bool) -> None:
        self.torch = importlib.import_module("torch")
        self.name = "torch_cl" if channels_last else "torch"
        self.version = str(self.torch.__version__)
        self.channels_last = channels_last

    def _tensor(self, problem: Problem, name: str) -> Any:
        key = (self.name, name)
        if key not in problem.kept:
            tensor = self.torch.from_numpy(getattr(problem, name))
            if self.channels_last:
                tensor = tensor.contiguous(memory_format=self.torch.channels_last)
            problem.kept[key] = tensor
        return problem.kept[key]

    def prepare(self, problem: Problem, pass_: str, threads: int) -> Run | None:
        """Return a call of one of torch's operators."""
        self.torch.set_num_threads(threads)
        return self._operator(problem, pass_)

    def mode(self) -> AbstractContextManager[Any]:
        """Inference mode: no autograd in between. A user enters it once for many layers."""
        mode: AbstractContextManager[Any] = self.torch.inference_mode()
        return mode

    def _operator(self, problem: Problem, pass_: str) -> Run:
        v, aten = problem.layer, self.torch.ops.aten
        kernel, stride, padding, dilation = map(list, geometry(v))
        if v.op == "maxpool":
            x = self._tensor(problem, "x")
            if pass_ == "fwd":
                values = self.torch.max_pool2d
                return lambda: values(x, kernel, stride, padding, dilation)
            if pass_ == "fwd_indices":
                both = aten.max_pool2d_with_indices
                return lambda: both(x, kernel, stride, padding, dilation)
            g, indices = self._tensor(problem, "g"), self._tensor(problem, "indices")
            gradient = aten.max_pool2d_with_indices_backward
            return lambda: gradient(g, x, kernel, stride, padding, dilation, False, indices)
        if v.op == "avgpool":
            x = self._tensor(problem, "x")
            if pass_ == "fwd":
                return lambda: aten.avg_pool2d(x, kernel, stride, padding)
            g, mean = self._tensor(problem, "g"), aten.avg_pool2d_backward
            return lambda: mean(g, x, kernel, stride, padding, False, True, None)
        x, w = self._tensor(problem, "x"), self._tensor(problem, "w")
        options = (stride, padding, dilation, v.op == "deconv", [v.oph, v.opw], v.groups)
        if pass_ == "fwd":
            convolution = self.torch.convolution
            return lambda: convolution(x, w, None, *options)
        g, mask = self._tensor(problem, "g"), list(MASKS[pass_])
        which, both = mask.index(True), aten.convolution_backward
        return lambda: both(g, x, w, None, *options, mask)[which]

    def arrays(self, result: Any) -> tuple[Array, ...]:
        """Return views of the tensors."""
        return tuple(tensor.numpy() for tensor in as_tuple(result))


class OnnxRuntime:
    """onnxruntime, forward only: a model of one node, whose session has packed the weight."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.onnx = importlib.import_module("onnx")
        self.runtime = importlib.import_module("onnxruntime")
        self.version = str(self.runtime.__version__)

    def model(self, problem: Problem, pass_: str) -> Any:
        """Return the model."""
        v, helper = problem.layer, self.onnx.helper
        kernel, stride, padding, dilation = map(list, geometry(v))
        attributes: dict[str, Any] = dict(kernel_shape=kernel, strides=stride, pads=padding * 2)
        operator, inputs, outputs, weights = "Conv", ["x", "w"], ["y"], []
        if v.op in ("conv", "deconv"):
            attributes.update(dilations=dilation, group=v.groups)
            weights = [self.onnx.numpy_helper.from_array(problem.w, "w")]
            if v.op == "deconv":
                operator = "ConvTranspose"
                attributes["output_padding"] = [v.oph, v.opw]
        else:
            operator, inputs = "AveragePool", ["x"]
            if v.op == "avgpool":
                attributes["count_include_pad"] = 1
            else:
                operator = "MaxPool"
                attributes["dilations"] = dilation
                outputs = ["y", "i"] if pass_ == "fwd_indices" else ["y"]
        element = helper.np_dtype_to_tensor_dtype(problem.dtype)
        types = {"y": element, "i": self.onnx.TensorProto.INT64}
        graph = helper.make_graph(
            [helper.make_node(operator, inputs, outputs, **attributes)],
            "layer",
            [helper.make_tensor_value_info("x", element, problem.x.shape)],
            [helper.make_tensor_value_info(name, types[name], [None] * 4) for name in outputs],
            weights,
        )
        # Old versions of both numbers: the runtime may be older than the package that writes them.
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)

    def prepare(self, problem: Problem, pass_: str, threads: int) -> Run | None:
        """Return a run of a session, or None: some operators know no float64."""
        if not pass_.startswith("fwd"):
            return None
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        model = self.model(problem, pass_).SerializeToString()
        try:
            session = self.runtime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # its own classes, which it does not name in public
            return None
        feed = {"x": problem.x}
        self._plane = problem.layer.H * problem.layer.W
        return lambda: session.run(None, feed)

    def arrays(self, result: Any) -> tuple[Array, ...]:
        """Return the arrays; indices count within their plane, as torch's do."""
        values, *indices = result
        if not indices:
            return (values,)
        return values, indices[0] % np.int64(self._plane)

    def mode(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()


def installed(names: Iterable[str] = NAMES) -> list[Engine]:
    """Return those of the engines that can be had here, pyconv first."""

    def there(*modules: str) -> bool:
        return all(importlib.util.find_spec(module) is not None for module in modules)

    engines: list[Engine] = [Pyconv()]
    if there("torch"):
        engines += [
            Torch(last) for name, last in (("torch", False), ("torch_cl", True)) if name in names
        ]
    if "onnxruntime" in names and there("onnx", "onnxruntime"):
        engines.append(OnnxRuntime())
    return engines
