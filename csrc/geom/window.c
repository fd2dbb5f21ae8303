/* window.c: what can be said at construction, before any input.
 *
 * The order of the checks is torch's, where one call could fail for two reasons. The texts hold torch's words for the
 * convolutions and for the pools where these differ, because a window does not know whose it is.
 */
#include "geom/axis.h"

/* d*(k - 1) + 1 for d, k >= 1; true when that is no int64 */
static bool span_overflows(int64_t *span, int64_t kernel, int64_t dilation)
{
    return pc_mul(span, dilation, kernel - 1) || pc_add(span, *span, 1);
}

static pc_status at_least_one(const char *torch_words, const char *name, const int64_t pair[2], pc_error *error)
{
    if (pair[0] >= 1 && pair[1] >= 1) {
        return PC_OK;
    }
    return pc_fail(error, PC_VALUE_ERROR, "%s, but got %s=" PC_PAIR, torch_words, name, pair[0], pair[1]);
}

pc_status pc_window_check(pc_window *window, pc_error *error)
{
    const int64_t *stride = window->stride;
    pc_status status = at_least_one("kernel size should be greater than zero", "kernel_size", window->kernel, error);
    if (status == PC_OK) {
        bool zero = (stride[0] == 0 || stride[1] == 0) && stride[0] >= 0 && stride[1] >= 0;
        status = at_least_one(zero ? "non-positive stride is not supported: stride should not be zero"
                                   : "non-positive stride is not supported: stride should be greater than zero",
                              "stride", stride, error);
    }
    if (status == PC_OK) {
        status = at_least_one("non-positive dilation is not supported: dilation should be greater than zero",
                              "dilation", window->dilation, error);
    }
    if (status != PC_OK) {
        return status;
    }
    if (window->pad_rule == PC_PAD_SAME && (stride[0] != 1 || stride[1] != 1)) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "padding='same' is not supported for strided convolutions, but got stride=" PC_PAIR, stride[0],
                       stride[1]);
    }

    int64_t pad[2][2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t span, total;
        if (span_overflows(&span, window->kernel[axis], window->dilation[axis])) {
            return pc_fail(error, PC_MEMORY_ERROR,
                           "the window is too large: its %s, dilation*(kernel_size-1) + 1 = " PC_D "*(" PC_D
                           "-1) + 1, exceeds 2**63 - 1",
                           pc_axis_name(axis), window->dilation[axis], window->kernel[axis]);
        }
        int64_t before = window->pad[axis][0], after = window->pad[axis][1];
        if (window->pad_rule == PC_PAD_SAME) {
            before = (span - 1) / 2;
            after = span - 1 - before;
        } else if (window->pad_rule == PC_PAD_VALID) {
            before = after = 0;
        } else if (window->pad_mode == PC_PAD_ZEROS && (before < 0 || after < 0)) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "negative padding is not supported: pad must be non-negative, but got pad: " PC_D " (%s)",
                           pc_min(before, after), pc_axis_name(axis));
        }
        if (pc_add(&total, before, after)) {
            return pc_fail(error, before < 0 ? PC_VALUE_ERROR : PC_MEMORY_ERROR,
                           "the padding of the %s is too large: " PC_D " + " PC_D " is beyond 64 bits",
                           pc_axis_name(axis), before, after);
        }
        pad[axis][0] = before;
        pad[axis][1] = after;
    }
    for (int axis = 0; axis < 2; axis++) {
        window->pad[axis][0] = pad[axis][0];
        window->pad[axis][1] = pad[axis][1];
    }
    return PC_OK;
}

pc_status pc_pool_window_check(const pc_window *window, pc_error *error)
{
    pc_window w = *window;
    pc_status status = pc_window_check(&w, error);
    if (status != PC_OK) {
        return status;
    }
    for (int axis = 0; axis < 2; axis++) {
        int64_t pad = w.pad[axis][0];
        if (pad != w.pad[axis][1]) {
            return pc_fail(error, PC_VALUE_ERROR, "a pool pads both sides alike, but got %s padding " PC_PAIR,
                           pc_axis_name(axis), pad, w.pad[axis][1]);
        }
        if (pad < 0) {
            return pc_fail(error, PC_VALUE_ERROR, "pad must be non-negative, but got pad: " PC_D " (%s)", pad,
                           pc_axis_name(axis));
        }
        if (pad > pc_axis_span(&w, axis) / 2) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "pad should be at most half of effective kernel size, but got pad=" PC_D
                           ", kernel_size=" PC_D " and dilation=" PC_D " (%s)",
                           pad, w.kernel[axis], w.dilation[axis], pc_axis_name(axis));
        }
    }
    int64_t area;
    if (w.pad[0][0] > w.kernel[0] / 2 || w.pad[1][0] > w.kernel[1] / 2) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "pad should be smaller than or equal to half of kernel size, but got padW = " PC_D
                       ", padH = " PC_D ", kW = " PC_D ", kH = " PC_D,
                       w.pad[1][0], w.pad[0][0], w.kernel[1], w.kernel[0]);
    }
    if (pc_mul(&area, w.kernel[0], w.kernel[1])) {
        return pc_fail(error, PC_MEMORY_ERROR, "the window is too large: its area " PC_D "*" PC_D " exceeds 2**63 - 1",
                       w.kernel[0], w.kernel[1]);
    }
    return PC_OK;
}

pc_status pc_channels_check(int64_t in_channels, int64_t out_channels, int64_t groups, const int64_t kernel[2],
                            pc_error *error)
{
    if (groups < 1) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "groups must be a positive integer (non-positive groups is not supported), but got groups=" PC_D,
                       groups);
    }
    if (in_channels < 1 || out_channels < 1) {
        bool in = in_channels < 1;
        return pc_fail(error, PC_VALUE_ERROR, "%s must be a positive integer, but got %s=" PC_D,
                       in ? "in_channels" : "out_channels", in ? "in_channels" : "out_channels",
                       in ? in_channels : out_channels);
    }
    if (in_channels % groups != 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "in_channels must be divisible by groups, but got in_channels=" PC_D ", groups=" PC_D,
                       in_channels, groups);
    }
    if (out_channels % groups != 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "out_channels must be divisible by groups, but got out_channels=" PC_D ", groups=" PC_D,
                       out_channels, groups);
    }
    pc_status status = at_least_one("kernel size should be greater than zero", "kernel_size", kernel, error);
    if (status != PC_OK) {
        return status;
    }
    if (!pc_bytes_fit(out_channels, in_channels / groups, kernel[0], kernel[1])) {
        return pc_fail(error, PC_MEMORY_ERROR,
                       "the weight is too large: out_channels * (in_channels/groups) * kernel_size = " PC_D " * (" PC_D
                       "/" PC_D ") * " PC_D " * " PC_D " numbers, whose bytes exceed 2**63 - 1",
                       out_channels, in_channels, groups, kernel[0], kernel[1]);
    }
    return PC_OK;
}

pc_status pc_output_padding_check(const pc_window *window, const int64_t output_padding[2], pc_error *error)
{
    const int64_t *op = output_padding;
    if (op[0] < 0 || op[1] < 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "negative output_padding is not supported, but got output_padding=" PC_PAIR, op[0], op[1]);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (op[axis] >= window->stride[axis] && op[axis] >= window->dilation[axis]) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "output padding must be smaller than either stride or dilation, but got "
                           "output_padding_height: " PC_D " output_padding_width: " PC_D " stride_height: " PC_D
                           " stride_width: " PC_D " dilation_height: " PC_D " dilation_width: " PC_D,
                           op[0], op[1], window->stride[0], window->stride[1], window->dilation[0],
                           window->dilation[1]);
        }
    }
    return PC_OK;
}
