"""pyconv.functional: torch's signatures, worked examples, corners, and gradients."""

import inspect
import itertools

import numpy as np
import pytest

import pyconv
from pyconv import functional as F
from pyconv.testing import gradcheck

SIGNATURES = {
    "conv1d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1",
    "conv2d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1",
    "conv_transpose2d": "input, weight, bias=None, stride=1, padding=0, output_padding=0, "
    "groups=1, dilation=1",
    "max_pool2d": "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, "
    "return_indices=False",
    "avg_pool2d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True, divisor_override=None",
    "adaptive_avg_pool2d": "input, output_size",
    "relu": "input, inplace=False",
    "linear": "input, weight, bias=None",
    "batch_norm": "input, running_mean, running_var, weight=None, bias=None, training=False, "
    "momentum=0.1, eps=1e-05",
    "cross_entropy": "input, target, weight=None, size_average=None, ignore_index=-100, "
    "reduce=None, reduction='mean', label_smoothing=0.0",
    "binary_cross_entropy_with_logits": "input, target, weight=None, size_average=None, "
    "reduce=None, reduction='mean', pos_weight=None",
    "dropout": "input, p=0.5, training=True, inplace=False, *, rng=None",
    "leaky_relu": "input, negative_slope=0.01, inplace=False",
    "log_softmax": "input, dim=None, _stacklevel=3, dtype=None",
    "pad": "input, pad, mode='constant', value=None",
    "sigmoid": "input",
    "softmax": "input, dim=None, _stacklevel=3, dtype=None",
    "tanh": "input",
    "mse_loss": "input, target, size_average=None, reduce=None, reduction='mean', weight=None",
    "conv1d_backward": "grad_output, input, weight, *, stride=1, padding=0, dilation=1, groups=1, "
    "output_mask=(True, True, True)",
    "conv2d_backward": "grad_output, input, weight, *, stride=1, padding=0, dilation=1, groups=1, "
    "output_mask=(True, True, True)",
    "conv_transpose2d_backward": "grad_output, input, weight, *, stride=1, padding=0, "
    "output_padding=0, groups=1, dilation=1, output_mask=(True, True, True)",
    "max_pool2d_backward": "grad_output, indices, input_shape",
    "avg_pool2d_backward": "grad_output, input_shape, kernel_size, stride=None, padding=0, "
    "ceil_mode=False, count_include_pad=True, divisor_override=None",
    "adaptive_avg_pool2d_backward": "grad_output, input_shape",
    "relu_backward": "grad_output, input",
    "linear_backward": "grad_output, input, weight, *, output_mask=(True, True, True)",
    "batch_norm_backward": "grad_output, input, running_mean, running_var, weight=None, "
    "training=False, eps=1e-05, *, output_mask=(True, True, True)",
    "cross_entropy_backward": "grad_output, input, target, weight=None, size_average=None, "
    "ignore_index=-100, reduce=None, reduction='mean', label_smoothing=0.0",
    "binary_cross_entropy_with_logits_backward": "grad_output, input, target, weight=None, "
    "size_average=None, reduce=None, reduction='mean', pos_weight=None",
    "leaky_relu_backward": "grad_output, input, negative_slope=0.01",
    "log_softmax_backward": "grad_output, input, dim=None, _stacklevel=3, dtype=None",
    "pad_backward": "grad_output, input_shape, pad, mode='constant'",
    "sigmoid_backward": "grad_output, input",
    "softmax_backward": "grad_output, input, dim=None, _stacklevel=3, dtype=None",
    "tanh_backward": "grad_output, input",
    "mse_loss_backward": "grad_output, input, target, reduction='mean', *, weight=None",
}

X = np.arange(1.0, 17).reshape(1, 1, 4, 4)


def rng(seed=0):
    return np.random.default_rng(seed)


def distinct(*shape):
    """Values that differ by much more than a difference quotient's step, none near 0."""
    return rng(5).permutation(np.arange(float(np.prod(shape)))).reshape(shape) - 2.3


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_and_docstring(name):
    function = getattr(F, name)
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(function).parameters.values()
    ]
    assert str(inspect.Signature(parameters))[1:-1] == SIGNATURES[name]
    for heading in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"\n    {heading}\n    ---" in function.__doc__, heading


def test_nothing_else_is_public():
    assert sorted(F.__all__) == sorted(SIGNATURES)


# ---- convolution: worked examples ----


def test_conv2d_same_puts_the_odd_one_at_the_end():
    y = F.conv2d(X, [[[[1, 2], [3, 4]]]], padding="same")
    assert y[0, 0].tolist() == [
        [44, 54, 64, 28],
        [84, 94, 104, 44],
        [124, 134, 144, 60],
        [41, 44, 47, 16],
    ]


def test_conv2d_groups():
    x = np.arange(1.0, 9).reshape(1, 2, 2, 2)
    y = F.conv2d(x, np.arange(1.0, 5).reshape(4, 1, 1, 1), groups=2)
    assert y.reshape(4, 4).tolist() == [
        [1, 2, 3, 4],
        [2, 4, 6, 8],
        [15, 18, 21, 24],
        [20, 24, 28, 32],
    ]


def test_conv_transpose2d_takes_groups_before_dilation():
    w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    y = F.conv_transpose2d([[[1, 2], [3, 4]]], w, None, 2, 1, 1, 1, 1)
    assert y[0].tolist() == [[5, 14, 10, 12], [14, 36, 24, 30], [15, 34, 20, 24], [24, 55, 32, 36]]
    spread = F.conv_transpose2d(np.ones((2, 1, 1)), np.ones((2, 1, 2, 2)), groups=2, dilation=3)
    assert spread.shape == (2, 4, 4) and spread.sum() == 8


def test_max_pool2d_takes_ceil_mode_before_return_indices():
    values, indices = F.max_pool2d(X, 3, 2, 1, 1, True, True)
    assert values.ravel().tolist() == [6, 8, 8, 14, 16, 16, 14, 16, 16]
    assert indices.ravel().tolist() == [5, 7, 7, 13, 15, 15, 13, 15, 15]
    assert F.max_pool2d(X, 3, 2, 1, 1, True).shape == (1, 1, 3, 3)
    assert F.max_pool2d(X, 3, 2, 1, 1, False).shape == (1, 1, 2, 2)
    _, dilated = F.max_pool2d(X, 2, 1, 1, 2, return_indices=True)
    assert dilated.ravel().tolist() == [5, 6, 7, 6, 9, 10, 11, 10, 13, 14, 15, 14, 9, 10, 11, 10]


def test_max_pool2d_backward_adds_where_the_winner_was():
    _, indices = F.max_pool2d(X, 3, 1, 1, return_indices=True)
    grad = F.max_pool2d_backward(np.ones((1, 1, 4, 4)), indices, (1, 1, 4, 4))
    assert grad[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 2], [0, 1, 1, 2], [0, 2, 2, 4]]


def test_avg_pool2d_divisors():
    def pool(**options):
        return np.round(F.avg_pool2d(X, 3, 2, 1, **options).ravel(), 4).tolist()

    assert pool() == [1.5556, 3.3333, 6.3333, 11]
    assert pool(ceil_mode=True) == [1.5556, 3.3333, 2, 6.3333, 11, 6, 4.5, 7.5, 4]
    assert pool(ceil_mode=True, count_include_pad=False) == [3.5, 5, 6, 9.5, 11, 12, 13.5, 15, 16]
    assert pool(ceil_mode=True, divisor_override=4) == [
        *(3.5, 7.5, 3),
        *(14.25, 24.75, 9),
        *(6.75, 11.25, 4),
    ]
    grad = F.avg_pool2d_backward(np.ones((1, 1, 3, 3)), (1, 1, 4, 4), 3, 2, 1, True)
    assert np.round(grad[0, 0], 4).tolist() == [
        [0.1111, 0.2222, 0.1111, 0.2778],
        [0.2222, 0.4444, 0.2222, 0.5556],
        [0.1111, 0.2222, 0.1111, 0.2778],
        [0.2778, 0.5556, 0.2778, 0.6944],
    ]


# ---- conv1d ----


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("padding", [0, 2, (1,), ((2, 0),), "same", "valid"])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 2, 1), ((1,), 1, 2), (2, (1,), 1)])
def test_conv1d_is_conv2d_of_height_one(padding, stride, dilation, groups, unbatched):
    if padding == "same" and stride == 2:
        with pytest.raises(ValueError, match=r"conv1d.*not supported for strided"):
            F.conv1d(np.ones((4, 9)), np.ones((6, 4, 2)), stride=2, padding="same")
        return
    x = rng().standard_normal((4, 9) if unbatched else (3, 4, 9))
    w, b = rng(1).standard_normal((6, 4 // groups, 2)), rng(2).standard_normal(6)
    step = stride[0] if isinstance(stride, tuple) else stride
    gap = dilation[0] if isinstance(dilation, tuple) else dilation
    total = gap if padding == "same" else 0
    left, right = {
        0: (0, 0),
        2: (2, 2),
        (1,): (1, 1),
        ((2, 0),): (2, 0),
        "same": (total // 2, total - total // 2),
        "valid": (0, 0),
    }[padding]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(left, right)])
    length = (padded.shape[-1] - gap - 1) // step + 1
    expected = np.zeros((*x.shape[:-2], 6, length)) + b[:, None]
    for o, position in itertools.product(range(6), range(length)):
        first = o // (6 // groups) * (4 // groups)
        taps = padded[..., first : first + 4 // groups, position * step :: gap][..., :2]
        expected[..., o, position] += (taps * w[o]).sum((-2, -1))
    y = F.conv1d(x, w, b, stride, padding, dilation, groups)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert y.flags.c_contiguous
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert gradcheck(F.conv1d, x, w, b, **options)
    grads = F.conv1d_backward(y, x, w, **options, output_mask=(False, True, False))
    assert grads[0] is None and grads[1].shape == w.shape and grads[2] is None


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"input": np.ones(5)}, ValueError, "Expected 2D .unbatched. or 3D"),
        ({"input": np.ones((3, 5))}, ValueError, "to have 2 channels, but got 3"),
        ({"weight": np.ones((1, 2))}, ValueError, "weight"),
        ({"weight": np.ones((1, 2, 9))}, ValueError, "conv1d"),
        ({"stride": 0}, ValueError, "non-positive stride is not supported"),
        ({"stride": (1, 1)}, ValueError, "stride"),
        ({"stride": 1.0}, TypeError, r"stride must be an int or a sequence of one int, got 1.0"),
        ({"padding": -1}, ValueError, "negative padding is not supported"),
        ({"padding": ((1, 2, 3),)}, ValueError, "left, right"),
        ({"padding": "full"}, ValueError, "conv1d.*padding"),
        (
            {"dilation": True},
            TypeError,
            "dilation must be an int or a sequence of one",
        ),
        ({"groups": 0}, ValueError, "non-positive groups is not supported"),
        ({"bias": np.ones(2)}, ValueError, "conv1d.*bias"),
        ({"input": np.ones((2, 5), complex)}, TypeError, "conv1d.*complex"),
    ],
)
def test_conv1d_errors_speak_of_conv1d(change, error, text):
    arguments = {"input": np.ones((2, 5)), "weight": np.ones((1, 2, 3)), **change}
    with pytest.raises(error, match=text) as caught:
        F.conv1d(**arguments)
    assert "conv2d" not in str(caught.value)
    if "bias" not in change:
        with pytest.raises(error):
            F.conv1d_backward(np.ones((1, 3)), **arguments)


def test_conv1d_backward_checks_the_gradients_rank():
    with pytest.raises(ValueError, match="conv1d_backward"):
        F.conv1d_backward(np.ones((1, 1, 3)), np.ones((2, 5)), np.ones((1, 2, 3)))


# ---- relu ----


def test_relu_keeps_nan_and_the_sign_of_zero():
    x = np.array([np.nan, -0.0, 0.0, 1.5, -1.5, np.inf, -np.inf])
    with np.errstate(all="raise"):
        y = F.relu(x)
    expected = np.array([np.nan, -0.0, 0.0, 1.5, 0.0, np.inf, 0.0])
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.signbit(y[1:]), np.signbit(expected[1:]))
    grad = F.relu_backward(np.arange(1.0, 8), x)
    assert grad.tolist() == [1, 0, 0, 4, 0, 6, 0]


def test_relu_gives_a_new_contiguous_array():
    x = rng().standard_normal((3, 4, 5)).T
    for y in (F.relu(x), F.relu(x, inplace=True), F.relu_backward(x, x)):
        assert y.flags.c_contiguous and not np.shares_memory(x, y)
    np.testing.assert_array_equal(F.relu(x), np.maximum(x, 0))
    assert F.relu(-3).shape == () and F.relu([[]]).shape == (1, 0)
    assert gradcheck(F.relu, x)
    with pytest.raises(ValueError, match=r"relu_backward: expected grad_output of shape \(2,\)"):
        F.relu_backward(np.ones((2, 1)), np.ones(2))


# ---- adaptive average pooling ----


def naive_adaptive(x, oh, ow):
    h, w = x.shape[-2:]
    out = np.empty((*x.shape[:-2], oh, ow))
    for i, j in np.ndindex(oh, ow):
        rows = slice(i * h // oh, -(-(i + 1) * h // oh))
        columns = slice(j * w // ow, -(-(j + 1) * w // ow))
        out[..., i, j] = x[..., rows, columns].mean((-2, -1))
    return out


@pytest.mark.parametrize("shape", [(2, 3, 10, 7), (3, 5, 5), (1, 1, 1, 9), (0, 2, 4, 4)])
@pytest.mark.parametrize("size", [1, 3, (2, 5), (7, 10), (12, 1), (1, 12)])
def test_adaptive_windows(shape, size):
    x = rng().standard_normal(shape)
    oh, ow = size if isinstance(size, tuple) else (size, size)
    np.testing.assert_allclose(
        F.adaptive_avg_pool2d(x, size), naive_adaptive(x, oh, ow), rtol=1e-13, atol=1e-13
    )
    if x.size < 100:
        assert gradcheck(F.adaptive_avg_pool2d, x, output_size=size)


def means(size, count):
    """Return the matrix that takes the mean of each window along an axis."""
    matrix = np.zeros((count, size))
    for i in range(count):
        window = slice(i * size // count, -(-(i + 1) * size // count))
        matrix[i, window] = 1 / (window.stop - window.start)
    return matrix


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 2, 150, 190), (130, 110)),  # planes in bands
        ((1, 2, 40, 3), (400, 120)),  # of which each row is held by many windows
        ((1, 1, 3, 20000), (2, 9001)),  # rows longer than a band
        ((3, 700, 5, 6), (4, 4)),  # planes in groups, the last one short
        ((5, 7, 9, 31), (4, 18)),
        ((3, 5, 6, 7), (6, 7)),  # the same size: copied
    ],
)
def test_adaptive_blocks(shape, size):
    y, x = means(shape[2], size[0]), means(shape[3], size[1])
    image, grad = rng().standard_normal(shape), rng().standard_normal((*shape[:2], *size))
    wide = np.repeat(image, 2, 1)
    views = (image, wide[:, ::2], image.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2))
    for view in views:
        np.testing.assert_allclose(F.adaptive_avg_pool2d(view, size), y @ image @ x.T, atol=1e-12)
    expected = y.T @ grad @ x
    for view in (grad, np.repeat(grad, 2, 1)[:, ::2], np.repeat(grad, 2, 3)[..., ::2]):
        found = F.adaptive_avg_pool2d_backward(view, shape)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    flat = F.adaptive_avg_pool2d_backward(np.broadcast_to(1.0, grad.shape), shape)
    np.testing.assert_allclose(flat, y.T @ np.ones_like(grad) @ x, atol=1e-12)


def test_adaptive_none_and_zero():
    x = rng().standard_normal((2, 3, 4, 5))
    assert F.adaptive_avg_pool2d(x, (None, 2)).shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (None, None)), x)
    large = np.ones((2, 3, 150, 150))
    for size in ((0, 0), (0, 2), (2, 0)):
        assert F.adaptive_avg_pool2d(x, size).shape == (2, 3, *size)
        F.relu(large)  # leaves its memory to the gradient
        grad = F.adaptive_avg_pool2d_backward(np.ones((2, 3, *size)), large.shape)
        assert grad.shape == large.shape and not grad.any()


def test_adaptive_divides_twice_but_a_single_cell_once():
    """Which of the two shows in the last bit: sum / 3 / 7 is not sum / 21."""
    for seed in range(50):
        x = rng(seed).integers(-1000, 1000, (3, 7)).astype(np.float32)  # the sum is exact
        total = x.sum(dtype=np.float32)
        once, twice = total / np.float32(21), total / np.float32(3) / np.float32(7)
        assert F.adaptive_avg_pool2d(x[None], 1)[0, 0, 0] == once
        two = np.concatenate([x, x])
        assert F.adaptive_avg_pool2d(two[None], (2, 1))[0, :, 0].tolist() == [twice, twice]
        for rows, share in ((1, once), (2, twice)):
            grad = np.full((1, rows, 1), total)
            assert (F.adaptive_avg_pool2d_backward(grad, (1, 3 * rows, 7)) == share).all()
        if once != twice:
            return
    raise AssertionError("no example tells the two roads apart")


@pytest.mark.parametrize(
    ("shape", "size", "error", "text"),
    [
        ((1, 2, 3, 4), None, TypeError, "output_size"),
        ((1, 2, 3, 4), 1.5, TypeError, "output_size"),
        ((1, 2, 3, 4), True, TypeError, "output_size"),
        ((1, 2, 3, 4), (1, 2, 3), ValueError, "output_size must be 2"),
        ((1, 2, 3, 4), -1, ValueError, "greater than or equal to 0 but received"),
        ((3, 4), 1, ValueError, "Expected 3D or 4D"),
        ((1, 2, 0, 4), 1, ValueError, "non-zero size for non-batch dimensions"),
    ],
)
def test_adaptive_errors(shape, size, error, text):
    with pytest.raises(error, match=text):
        F.adaptive_avg_pool2d(np.ones(shape), size)


# ---- linear ----


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 2), (0, 2), (3, 0)])
def test_linear(lead, inputs, outputs):
    x = rng().standard_normal((*lead, inputs))
    w, b = rng(1).standard_normal((outputs, inputs)), rng(2).standard_normal(outputs)
    expected = np.einsum("...i,oi->...o", x, w) + b
    np.testing.assert_allclose(F.linear(x, w, b), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(F.linear(x, w), expected - b, rtol=1e-12, atol=1e-12)
    assert gradcheck(F.linear, x, w, b)
    grads = F.linear_backward(expected, x, w, output_mask=(False, False, True))
    assert grads[0] is None and grads[1] is None and grads[2].shape == (outputs,)


def test_linear_errors():
    with pytest.raises(ValueError, match=r"shapes cannot be multiplied \(2x5 and 4x3\)"):
        F.linear(np.ones((2, 5)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="weight"):
        F.linear(np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match="bias of shape"):
        F.linear(np.ones(4), np.ones((3, 4)), np.ones(4))
    with pytest.raises(ValueError, match="cannot be multiplied"):
        F.linear(1.0, np.ones((3, 4)))
    with pytest.raises(ValueError, match="grad_output"):
        F.linear_backward(np.ones(4), np.ones(4), np.ones((3, 4)))


# ---- batch_norm ----


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_norm_normalises_with_the_biased_variance(shape):
    x = rng().standard_normal(shape) * 3 + 10
    axes = (0, *range(2, x.ndim))
    wide = (-1, *(1,) * (x.ndim - 2))
    w, b = rng(1).standard_normal((2, 3))
    mean, var = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    expected = (x - x.mean(axes).reshape(wide)) / np.sqrt(x.var(axes).reshape(wide) + 1e-3)
    expected = expected * w.reshape(wide) + b.reshape(wide)
    new_mean = 0.7 * mean + 0.3 * x.mean(axes)
    new_var = 0.7 * var + 0.3 * x.var(axes, ddof=1)
    y = F.batch_norm(x, mean, var, w, b, training=True, momentum=0.3, eps=1e-3)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, new_mean, rtol=1e-13)
    np.testing.assert_allclose(var, new_var, rtol=1e-13)
    expected = (x - mean.reshape(wide)) / np.sqrt(var.reshape(wide) + 1e-5)
    before = mean.copy(), var.copy()
    np.testing.assert_allclose(F.batch_norm(x, mean, var), expected, rtol=1e-12, atol=1e-12)
    assert (mean == before[0]).all() and (var == before[1]).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_gradients(training, affine):
    x, mean, var = rng().standard_normal((3, 2, 2, 2)), np.array([0.1, -0.2]), np.array([0.5, 2.0])
    arrays = [x, mean, var] + ([np.array([2.0, -1.0]), np.array([0.5, 0.0])] if affine else [])
    assert gradcheck(F.batch_norm, *arrays, training=training)
    before = mean.copy()
    grads = F.batch_norm_backward(
        x, x, mean, var, training=training, output_mask=(False, True, False)
    )
    assert grads[0] is None and grads[1].shape == (2,) and grads[2] is None
    assert (mean == before).all()


@pytest.mark.parametrize("mean", [0, 1000, 1e6, -3e7, 1e25])
def test_batch_norm_float32_keeps_its_digits_far_from_zero(mean):
    """The result is that of the rounded input to a few units, however large its mean."""
    x = rng().standard_normal((64, 2, 9, 8)) * (1 + abs(mean) * 1e-6) + mean
    x = x.astype(np.float32)
    exact = x.astype(np.float64)
    centred = exact - exact.mean((0, 2, 3), keepdims=True)
    var = np.square(centred).mean((0, 2, 3), keepdims=True)
    exact = centred / np.sqrt(var + 1e-5)
    y = F.batch_norm(x, None, None, training=True)
    assert y.dtype == np.float32 and np.abs(y - exact).max() < 2**-21 * np.abs(exact).max()
    mean, var = centred[0, :, 0, 0] * 0 + x.astype(np.float64).mean((0, 2, 3)), var.ravel()
    y = F.batch_norm(x, mean, var)
    assert np.abs(y - exact).max() < 2**-21 * np.abs(exact).max()
    axes, slope = (0, 2, 3), 1 / np.sqrt(var + 1e-5).reshape(2, 1, 1)
    g = (rng(1).standard_normal(x.shape) + 2).astype(np.float32)
    gx, gw, _ = F.batch_norm_backward(g, x, None, None, training=True)
    product = g * exact
    assert (np.abs(gw - product.sum(axes)) < 2**-21 * np.abs(product).sum(axes)).all()
    parts = [
        g,
        -g.mean(axes, np.float64, keepdims=True),
        -exact * product.mean(axes)[:, None, None],
    ]
    assert (np.abs(gx - sum(parts) * slope) < 2**-21 * sum(map(np.abs, parts)) * slope).all()


def test_batch_norm_of_constants_whose_sums_overflow():
    """Their variance is zero: what rounding makes of it is not less, which would have no root."""
    constants = rng().uniform(2.2e37, 3e38, (1, 200, 1, 1)).astype(np.float32)
    y = F.batch_norm(np.broadcast_to(constants, (3, 200, 5, 7)), None, None, training=True)
    assert not y.any()


def test_batch_norm_of_differences_that_overflow():
    """The sums are made again in double, and so are the differences in them."""
    x = np.repeat(np.array([-2e37, 3.3e38], np.float32), 512).reshape(2, 1, 16, 32)
    y = F.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y, np.sign(x), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_by_an_infinite_mean(dtype):
    """The infinity of the subtraction, and no NaN beside it."""
    x, mean = rng().standard_normal((2, 2, 3, 3)).astype(dtype), np.array([np.inf, -np.inf], dtype)
    y = F.batch_norm(x, mean, np.ones(2, dtype))
    assert (y == -mean.reshape(2, 1, 1)).all()
    _, gw, gb = F.batch_norm_backward(np.ones_like(x), x, mean, np.ones(2, dtype))
    assert (gw == -mean).all() and (gb == 18).all()


def test_batch_norm_with_an_outlier_in_front():
    """What the sums are taken around is near the mean only if nothing odd comes first."""
    for value in (1e6, 1e10, np.float32(9.97e36)):
        x = rng().standard_normal((50, 1, 40, 40)).astype(np.float32)
        x[0, 0, 0, 0] = value
        exact = x.astype(np.float64)
        exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
        y = F.batch_norm(x, None, None, training=True)
        assert np.abs(y - exact).max() < 1e-6 * np.abs(exact).max()


def test_batch_norm_empty_batch_leaves_the_statistics():
    mean, var = np.zeros(3), np.ones(3)
    assert F.batch_norm(np.ones((0, 3, 2, 2)), mean, var, training=True).shape == (0, 3, 2, 2)
    assert not mean.any() and (var == 1).all()
    grads = F.batch_norm_backward(np.ones((0, 3)), np.ones((0, 3)), None, None, training=True)
    assert grads[0].shape == (0, 3) and not grads[1].any() and not grads[2].any()


def test_batch_norm_errors():
    x, mean, var = np.ones((2, 3)), np.zeros(3), np.ones(3)
    for arguments, error, text in [
        ((np.ones(3), mean, var), ValueError, "expected input"),
        ((x, np.zeros(4), var), ValueError, "running_mean should contain 3 elements"),
        ((x, mean, var, np.ones(2)), ValueError, "weight should contain 3 elements"),
        ((x, None, None), ValueError, "running_mean must be defined in evaluation mode"),
        ((x, mean, None), ValueError, "running_var must be defined in evaluation mode"),
        ((x, mean, None, None, None, True), ValueError, "must either both be None or neither"),
        ((x, mean, var, None, None, False, 0.1, -1.0), ValueError, "eps must be non-negative"),
        ((x, mean, var, None, None, False, None), TypeError, "momentum must be a float"),
        ((x, [0, 0, 0], var, None, None, True), TypeError, "running_mean is updated"),
        ((x, mean.astype("f4"), var, None, None, True), TypeError, "running_mean is updated"),
        ((x[:1], mean, var, None, None, True), ValueError, "more than 1 value per channel"),
        ((x, mean, var, None, None, True, 0.1, 0.0), ValueError, "eps must be positive"),
    ]:
        with pytest.raises(error, match=text):
            F.batch_norm(*arguments)
    mean.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.batch_norm(x, mean, var, training=True)
    assert not mean.any() and (var == 1).all()


# ---- every function against difference quotients ----


def test_gradients_of_the_operators():
    x = distinct(2, 4, 5, 6)
    w = rng(1).standard_normal((4, 2, 3, 2))
    b = rng(2).standard_normal(4)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    assert gradcheck(F.conv2d, x, w, b, **options)
    assert gradcheck(F.conv2d, x, w, padding=((0, 2), (1, 0)), groups=2)
    w = rng(1).standard_normal((4, 1, 2, 3))
    assert gradcheck(
        F.conv_transpose2d, x, w, rng(2).standard_normal(2), stride=2, output_padding=1, groups=2
    )
    assert gradcheck(F.max_pool2d, x, 3, 2, 1, ceil_mode=True)
    assert gradcheck(F.avg_pool2d, x, (2, 3), stride=1, padding=(1, 0), count_include_pad=False)


def test_functions_and_layers_agree_bit_for_bit():
    x = rng().standard_normal((2, 3, 7, 8)).astype(np.float32)
    conv = pyconv.Conv2d(3, 4, 3, 2, 1, rng=0)
    np.testing.assert_array_equal(conv(x), F.conv2d(x, conv.weight, conv.bias, 2, 1))
    gy = np.ones((2, 4, 4, 4), np.float32)
    gx, gw, gb = F.conv2d_backward(gy, x, conv.weight, stride=2, padding=1)
    np.testing.assert_array_equal(conv.backward(gy), gx)
    np.testing.assert_array_equal(conv.weight_grad, gw)
    np.testing.assert_array_equal(conv.bias_grad, gb)
    pool = pyconv.MaxPool2d(2)
    np.testing.assert_array_equal(pool(x), F.max_pool2d(x, 2))


@pytest.mark.parametrize("name", ["relu", "adaptive_avg_pool2d", "linear", "batch_norm"])
def test_no_warnings_and_no_errors_for_infinities(name):
    x = np.array([[[[np.inf, -np.inf], [np.nan, 3e38]]]] * 2, np.float32)
    calls = {
        "relu": lambda: (F.relu(x), F.relu_backward(x, x)),
        "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(np.nan_to_num(x), 1),
        "linear": lambda: (F.linear(x, x[0, 0]), F.linear_backward(x, x, x[0, 0])),
        "batch_norm": lambda: (
            F.batch_norm(x, None, None, training=True),
            F.batch_norm_backward(x, x, None, None, training=True),
        ),
    }
    with np.errstate(all="raise"):
        calls[name]()
