/* geom.c: from integers to sizes, or to a sentence that says why not.
 *
 * One axis of a convolution or a pool: i elements, k taps, stride s, dilation d, b and a elements of padding:
 *
 *     |. . .|x x x x x x x x x x x|. . .|     padded = i + b + a
 *     |o - o - o|                             span   = d*(k - 1) + 1
 *         |o - o - o|                         o      = floor((padded - span) / s) + 1
 *     |<->| s
 *
 * A pool in ceil mode rounds up instead. A last window that would start in the padding behind the image, at or after
 * i + b from the left end, is dropped again: so a window always starts in the image or before it, though it may hang
 * over the right end.
 *
 * A transposed axis runs the other way: from t elements it makes i = (t - 1)*s - b - a + span + output_padding.
 *
 * Overflow: pc_window_check refuses a window whose span or padding is no int64. After that a size is two or three
 * steps away, each of them checked. Wrong values are PC_VALUE_ERROR; right ones whose sizes, or whose arrays' bytes, no
 * int64 can hold are PC_MEMORY_ERROR. An element counts 8 bytes whatever the dtype, and an empty batch counts as one
 * sample, so that neither decides which calls exist.
 *
 * The checks of construction run again with every input. They cost a few comparisons, and in no order of calls can
 * anything divide by zero.
 */
#include "geom/geom.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/checked.h"

#define D "%" PRId64
#define PAIR "(" D ", " D ")"
#define SHAPE "[" D ", " D ", " D ", " D "]"
#define SHAPE_OF(s) (s)[0], (s)[1], (s)[2], (s)[3]

static const char *const AXIS_NAME[2] = {"height", "width"};

/* ---- one axis ---- */

/* d*(k - 1) + 1 for d, k >= 1; true when that is no int64 */
static bool span_overflows(int64_t *span, int64_t kernel, int64_t dilation)
{
    return pc_mul(span, dilation, kernel - 1) || pc_add(span, *span, 1);
}

/* The same for a window that was checked. */
static int64_t axis_span(const pc_window *window, int axis)
{
    return window->dilation[axis] * (window->kernel[axis] - 1) + 1;
}

static int64_t axis_pad(const pc_window *window, int axis) { return window->pad[axis][0] + window->pad[axis][1]; }

/* floor(room / stride) + 1 or ceil(room / stride) + 1. `room` is padded - span, with padded >= 0 and span >= 1, so
 * neither end of int64 is in reach. May be 0 or negative. */
static int64_t count_windows(int64_t room, int64_t stride, bool round_up)
{
    if (!round_up) {
        return pc_floor_div(room, stride) + 1;
    }
    return (room > 0 ? pc_ceil_div(room, stride) : room / stride) + 1;
}

/* A stride that no window uses (there is one alone) and the dilation of a single tap may be any number. Cutting them
 * down to the size of the axis changes no window and keeps absurd numbers out of the loops' arithmetic. */
static int64_t useful_stride(int64_t stride, int64_t padded, int64_t span)
{
    return pc_min(stride, pc_max(padded, span));
}

static int64_t useful_dilation(int64_t dilation, int64_t span) { return pc_min(dilation, span); }

/* ---- numbers as text ---- */

typedef struct {
    char text[200];
} pc_text;

/* "2*1" for equal sides, "0 + 1" for unequal ones */
static pc_text show_pad(const int64_t pad[2])
{
    pc_text shown;
    if (pad[0] == pad[1]) {
        snprintf(shown.text, sizeof shown.text, "2*" D, pad[0]);
    } else {
        snprintf(shown.text, sizeof shown.text, D " + " D, pad[0], pad[1]);
    }
    return shown;
}

/* "floor((2 + 2*0 - 1*(3-1) - 1)/1) + 1" */
static pc_text show_formula(const pc_window *window, int axis, int64_t size, bool round_up)
{
    pc_text shown;
    pc_text pad = show_pad(window->pad[axis]);
    snprintf(shown.text, sizeof shown.text, "%s((" D " + %.50s - " D "*(" D "-1) - 1)/" D ") + 1",
             round_up ? "ceil" : "floor", size, pad.text, window->dilation[axis], window->kernel[axis],
             window->stride[axis]);
    return shown;
}

/* ---- arrays ---- */

/* Whether the array's bytes fit, with an empty batch counted as one sample. The other sizes are at least 1. */
static bool bytes_fit(int64_t n, int64_t channels, int64_t height, int64_t width)
{
    int64_t bytes;
    return !(pc_mul(&bytes, pc_max(n, 1), 8) || pc_mul(&bytes, bytes, channels) || pc_mul(&bytes, bytes, height) ||
             pc_mul(&bytes, bytes, width));
}

static pc_status array_check(const char *what, int64_t n, int64_t channels, int64_t height, int64_t width,
                             pc_error *error)
{
    if (bytes_fit(n, channels, height, width)) {
        return PC_OK;
    }
    return pc_fail(error, PC_MEMORY_ERROR, "the %s of shape " SHAPE " is too large: its bytes exceed 2**63 - 1", what,
                   n, channels, height, width);
}

static pc_status shape_check(const int64_t shape[4], pc_error *error)
{
    for (int i = 0; i < 4; i++) {
        if (shape[i] < 0) {
            return pc_fail(error, PC_VALUE_ERROR, "negative dimensions are not allowed, but got input shape " SHAPE,
                           SHAPE_OF(shape));
        }
    }
    return PC_OK;
}

/* size + padding on both sides; the image must keep an element when padding crops */
static pc_status padded_size(int64_t *padded, const pc_window *window, int axis, int64_t size, pc_error *error)
{
    const int64_t *pad = window->pad[axis];
    int64_t cropped = size + (pc_min(pad[0], 0) + pc_min(pad[1], 0));
    if (cropped < 1 && (pad[0] < 0 || pad[1] < 0)) {
        const char *word = window->pad_mode == PC_PAD_CIRCULAR
                               ? "Negative padding value is resulting in an empty dimension"
                               : "input is too small";
        return pc_fail(error, PC_VALUE_ERROR, "%s: padding " PAIR " leaves nothing of the input %s " D, word, pad[0],
                       pad[1], AXIS_NAME[axis], size);
    }
    if (pc_add(padded, size, axis_pad(window, axis))) {
        return pc_fail(error, PC_MEMORY_ERROR, "the padded %s is too large: " D " + %s exceeds 2**63 - 1",
                       AXIS_NAME[axis], size, show_pad(pad).text);
    }
    return PC_OK;
}

/* ---- construction ---- */

static pc_status at_least_one(const char *torch_words, const char *name, const int64_t pair[2], pc_error *error)
{
    if (pair[0] >= 1 && pair[1] >= 1) {
        return PC_OK;
    }
    return pc_fail(error, PC_VALUE_ERROR, "%s, but got %s=" PAIR, torch_words, name, pair[0], pair[1]);
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
                       "padding='same' is not supported for strided convolutions, but got stride=" PAIR, stride[0],
                       stride[1]);
    }

    int64_t pad[2][2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t span, total;
        if (span_overflows(&span, window->kernel[axis], window->dilation[axis])) {
            return pc_fail(error, PC_MEMORY_ERROR,
                           "the window is too large: its %s, dilation*(kernel_size-1) + 1 = " D "*(" D
                           "-1) + 1, exceeds 2**63 - 1",
                           AXIS_NAME[axis], window->dilation[axis], window->kernel[axis]);
        }
        int64_t before = window->pad[axis][0], after = window->pad[axis][1];
        if (window->pad_rule == PC_PAD_SAME) {
            before = (span - 1) / 2;
            after = span - 1 - before;
        } else if (window->pad_rule == PC_PAD_VALID) {
            before = after = 0;
        } else if (window->pad_mode == PC_PAD_ZEROS && (before < 0 || after < 0)) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "negative padding is not supported: pad must be non-negative, but got pad: " D " (%s)",
                           pc_min(before, after), AXIS_NAME[axis]);
        }
        if (pc_add(&total, before, after)) {
            return pc_fail(error, before < 0 ? PC_VALUE_ERROR : PC_MEMORY_ERROR,
                           "the padding of the %s is too large: " D " + " D " is beyond 64 bits", AXIS_NAME[axis],
                           before, after);
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
            return pc_fail(error, PC_VALUE_ERROR, "a pool pads both sides alike, but got %s padding " PAIR,
                           AXIS_NAME[axis], pad, w.pad[axis][1]);
        }
        if (pad < 0) {
            return pc_fail(error, PC_VALUE_ERROR, "pad must be non-negative, but got pad: " D " (%s)", pad,
                           AXIS_NAME[axis]);
        }
        if (pad > axis_span(&w, axis) / 2) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "pad should be at most half of effective kernel size, but got pad=" D ", kernel_size=" D
                           " and dilation=" D " (%s)",
                           pad, w.kernel[axis], w.dilation[axis], AXIS_NAME[axis]);
        }
    }
    int64_t area;
    if (w.pad[0][0] > w.kernel[0] / 2 || w.pad[1][0] > w.kernel[1] / 2) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "pad should be smaller than or equal to half of kernel size, but got padW = " D ", padH = " D
                       ", kW = " D ", kH = " D,
                       w.pad[1][0], w.pad[0][0], w.kernel[1], w.kernel[0]);
    }
    if (pc_mul(&area, w.kernel[0], w.kernel[1])) {
        return pc_fail(error, PC_MEMORY_ERROR, "the window is too large: its area " D "*" D " exceeds 2**63 - 1",
                       w.kernel[0], w.kernel[1]);
    }
    return PC_OK;
}

pc_status pc_channels_check(int64_t in_channels, int64_t out_channels, int64_t groups, const int64_t kernel[2],
                            pc_error *error)
{
    if (groups < 1) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "groups must be a positive integer (non-positive groups is not supported), but got groups=" D,
                       groups);
    }
    if (in_channels < 1 || out_channels < 1) {
        bool in = in_channels < 1;
        return pc_fail(error, PC_VALUE_ERROR, "%s must be a positive integer, but got %s=" D,
                       in ? "in_channels" : "out_channels", in ? "in_channels" : "out_channels",
                       in ? in_channels : out_channels);
    }
    if (in_channels % groups != 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "in_channels must be divisible by groups, but got in_channels=" D ", groups=" D, in_channels,
                       groups);
    }
    if (out_channels % groups != 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "out_channels must be divisible by groups, but got out_channels=" D ", groups=" D, out_channels,
                       groups);
    }
    pc_status status = at_least_one("kernel size should be greater than zero", "kernel_size", kernel, error);
    if (status != PC_OK) {
        return status;
    }
    if (!bytes_fit(out_channels, in_channels / groups, kernel[0], kernel[1])) {
        return pc_fail(error, PC_MEMORY_ERROR,
                       "the weight is too large: out_channels * (in_channels/groups) * kernel_size = " D " * (" D "/" D
                       ") * " D " * " D " numbers, whose bytes exceed 2**63 - 1",
                       out_channels, in_channels, groups, kernel[0], kernel[1]);
    }
    return PC_OK;
}

pc_status pc_output_padding_check(const pc_window *window, const int64_t output_padding[2], pc_error *error)
{
    const int64_t *op = output_padding;
    if (op[0] < 0 || op[1] < 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "negative output_padding is not supported, but got output_padding=" PAIR, op[0], op[1]);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (op[axis] >= window->stride[axis] && op[axis] >= window->dilation[axis]) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "output padding must be smaller than either stride or dilation, but got "
                           "output_padding_height: " D " output_padding_width: " D " stride_height: " D
                           " stride_width: " D " dilation_height: " D " dilation_width: " D,
                           op[0], op[1], window->stride[0], window->stride[1], window->dilation[0],
                           window->dilation[1]);
        }
    }
    return PC_OK;
}

/* ---- with an input ---- */

/* Both checks of construction, the channels, and a shape without negative sizes. The weight is named as its layer
 * stores it. */
static pc_status layer_check(const int64_t shape[4], int64_t in_channels, int64_t out_channels, int64_t groups,
                             pc_window *window, bool transposed, pc_error *error)
{
    pc_status status = pc_window_check(window, error);
    if (status == PC_OK) {
        status = pc_channels_check(in_channels, out_channels, groups, window->kernel, error);
    }
    if (status == PC_OK) {
        status = shape_check(shape, error);
    }
    if (status != PC_OK || shape[1] == in_channels) {
        return status;
    }
    char given[40] = "transposed=1";
    if (!transposed) {
        snprintf(given, sizeof given, "groups=" D, groups);
    }
    return pc_fail(error, PC_VALUE_ERROR,
                   "Given %s, weight of size " SHAPE ", expected input" SHAPE " to have " D " channels, but got " D
                   " channels instead",
                   given, transposed ? in_channels : out_channels, (transposed ? out_channels : in_channels) / groups,
                   window->kernel[0], window->kernel[1], SHAPE_OF(shape), in_channels, shape[1]);
}

static pc_status empty_axis(const int64_t shape[4], pc_error *error)
{
    return pc_fail(error, PC_VALUE_ERROR,
                   "Only zero batch or zero channel inputs are supported, but got input shape: " SHAPE
                   " with an empty height or width",
                   SHAPE_OF(shape));
}

/* How far each mode can reach beyond an image. Without padding there is nothing to read and no limit. */
static pc_status pad_mode_check(const int64_t shape[4], const pc_window *window, pc_error *error)
{
    pc_pad_mode mode = window->pad_mode;
    bool edges = mode == PC_PAD_REFLECT || mode == PC_PAD_REPLICATE;
    if (edges && (shape[2] == 0 || shape[3] == 0)) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions "
                       "for input, but got: " SHAPE,
                       SHAPE_OF(shape));
    }
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = shape[2 + axis];
        const int64_t *pad = window->pad[axis];
        int64_t larger = pc_max(pad[0], pad[1]);
        if (mode == PC_PAD_REFLECT && larger >= size) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Padding size should be less than the corresponding input dimension, but got: padding " PAIR
                           " at dimension %d of input " SHAPE,
                           pad[0], pad[1], 2 + axis, SHAPE_OF(shape));
        }
        if (mode == PC_PAD_CIRCULAR && larger > size) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Padding value causes wrapping around more than once. Padding " PAIR
                           " is larger than the input %s " D,
                           pad[0], pad[1], AXIS_NAME[axis], size);
        }
    }
    return PC_OK;
}

pc_status pc_conv_geometry(const int64_t input_shape[4], int64_t in_channels, int64_t out_channels, int64_t groups,
                           const pc_window *window, pc_conv_geom *geom, pc_error *error)
{
    pc_window w = *window;
    pc_status status = layer_check(input_shape, in_channels, out_channels, groups, &w, false, error);
    if (status == PC_OK) {
        status = pad_mode_check(input_shape, &w, error);
    }
    int64_t padded[2] = {0, 0}, span[2], out[2];
    for (int axis = 0; axis < 2 && status == PC_OK; axis++) {
        status = padded_size(&padded[axis], &w, axis, input_shape[2 + axis], error);
    }
    if (status != PC_OK) {
        return status;
    }
    for (int axis = 0; axis < 2; axis++) {
        span[axis] = axis_span(&w, axis);
        out[axis] = count_windows(padded[axis] - span[axis], w.stride[axis], false);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (out[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Calculated padded input size per channel: (" D " x " D "). Kernel size: (" D " x " D
                           "). Kernel size can't be greater than actual input size: output %s = %s = " D,
                           padded[0], padded[1], span[0], span[1], AXIS_NAME[axis],
                           show_formula(&w, axis, input_shape[2 + axis], false).text, out[axis]);
        }
    }
    if (input_shape[2] == 0 || input_shape[3] == 0) {
        return empty_axis(input_shape, error);
    }
    status = array_check("input", SHAPE_OF(input_shape), error);
    if (status == PC_OK) {
        status = array_check("output", input_shape[0], out_channels, out[0], out[1], error);
    }
    if (status != PC_OK) {
        return status;
    }
    *geom = (pc_conv_geom){
        .n = input_shape[0],
        .g = groups,
        .ic = in_channels,
        .oc = out_channels,
        .ih = input_shape[2],
        .iw = input_shape[3],
        .oh = out[0],
        .ow = out[1],
        .kh = w.kernel[0],
        .kw = w.kernel[1],
        .sh = useful_stride(w.stride[0], padded[0], span[0]),
        .sw = useful_stride(w.stride[1], padded[1], span[1]),
        .dh = useful_dilation(w.dilation[0], span[0]),
        .dw = useful_dilation(w.dilation[1], span[1]),
        .pt = w.pad[0][0],
        .pb = w.pad[0][1],
        .pl = w.pad[1][0],
        .pr = w.pad[1][1],
        .pad_mode = w.pad_mode,
    };
    return PC_OK;
}

/* "(5-1)*2 - 2*1 + 1*(3-1) + 0 + 1"; unequal sides as "- (0 + 1)" */
static pc_text show_transposed(const pc_window *window, int axis, int64_t size, int64_t output_padding)
{
    pc_text shown;
    const int64_t *pad = window->pad[axis];
    bool equal = pad[0] == pad[1];
    snprintf(shown.text, sizeof shown.text, "(" D "-1)*" D " - %s%.50s%s + " D "*(" D "-1) + " D " + 1", size,
             window->stride[axis], equal ? "" : "(", show_pad(pad).text, equal ? "" : ")", window->dilation[axis],
             window->kernel[axis], output_padding);
    return shown;
}

/* Turns a wanted output size into output_padding; `least` is the size without any. */
static pc_status output_size_check(const int64_t shape[4], const pc_window *window, const int64_t output_size[2],
                                   const int64_t least[2], int64_t output_padding[2], pc_error *error)
{
    bool valid = true;
    int64_t most[2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t spare = window->stride[axis] - 1;
        if (pc_add(&most[axis], least[axis], spare)) {
            most[axis] = INT64_MAX;
        }
        valid = valid && output_size[axis] >= least[axis] && output_size[axis] <= most[axis];
    }
    if (!valid) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "requested an output size of [" D ", " D "], but valid sizes range from [" D ", " D "] to [" D
                       ", " D "] (for an input of [" D ", " D "])",
                       output_size[0], output_size[1], least[0], least[1], most[0], most[1], shape[2], shape[3]);
    }
    for (int axis = 0; axis < 2; axis++) {
        output_padding[axis] = output_size[axis] - least[axis];
    }
    return PC_OK;
}

pc_status pc_conv_transpose_geometry(const int64_t input_shape[4], int64_t in_channels, int64_t out_channels,
                                     int64_t groups, const pc_window *window, const int64_t output_padding[2],
                                     const int64_t *output_size, pc_conv_geom *geom, pc_error *error)
{
    pc_window w = *window;
    pc_status status = layer_check(input_shape, in_channels, out_channels, groups, &w, true, error);
    if (status != PC_OK) {
        return status;
    }
    if (w.pad_mode != PC_PAD_ZEROS) {
        return pc_fail(error, PC_VALUE_ERROR, "Only \"zeros\" padding mode is supported for a transposed convolution");
    }
    if (output_size == NULL) {
        status = pc_output_padding_check(&w, output_padding, error);
        if (status != PC_OK) {
            return status;
        }
    }
    if (input_shape[2] == 0 || input_shape[3] == 0) {
        return empty_axis(input_shape, error);
    }

    /* `reach` is from the first tap of the first window to the last tap of the last: the size before the crop. */
    int64_t reach[2], out[2], extra[2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = input_shape[2 + axis];
        if (pc_mul(&reach[axis], size - 1, w.stride[axis]) || pc_add(&reach[axis], reach[axis], axis_span(&w, axis))) {
            return pc_fail(error, PC_MEMORY_ERROR,
                           "the output is too large: its %s before padding is cut off, (" D "-1)*" D " + " D "*(" D
                           "-1) + 1, exceeds 2**63 - 1",
                           AXIS_NAME[axis], size, w.stride[axis], w.dilation[axis], w.kernel[axis]);
        }
        out[axis] = reach[axis] - axis_pad(&w, axis);
    }
    if (output_size != NULL) {
        status = output_size_check(input_shape, &w, output_size, out, extra, error);
        if (status != PC_OK) {
            return status;
        }
    } else {
        extra[0] = output_padding[0];
        extra[1] = output_padding[1];
    }
    for (int axis = 0; axis < 2; axis++) {
        if (pc_add(&reach[axis], reach[axis], extra[axis])) {
            return pc_fail(error, PC_MEMORY_ERROR,
                           "the output is too large: its %s with output padding, %s, exceeds 2**63 - 1",
                           AXIS_NAME[axis], show_transposed(&w, axis, input_shape[2 + axis], extra[axis]).text);
        }
        out[axis] = reach[axis] - axis_pad(&w, axis);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (out[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Given input size per channel: (" D " x " D "). Calculated output size per channel: (" D
                           " x " D "). Output size is too small: output %s = %s = " D,
                           input_shape[2], input_shape[3], out[0], out[1], AXIS_NAME[axis],
                           show_transposed(&w, axis, input_shape[2 + axis], extra[axis]).text, out[axis]);
        }
    }
    status = array_check("input", SHAPE_OF(input_shape), error);
    if (status == PC_OK) {
        status = array_check("output", input_shape[0], out_channels, out[0], out[1], error);
    }
    if (status != PC_OK) {
        return status;
    }
    *geom = (pc_conv_geom){
        .n = input_shape[0],
        .g = groups,
        .ic = out_channels,
        .oc = in_channels,
        .ih = out[0],
        .iw = out[1],
        .oh = input_shape[2],
        .ow = input_shape[3],
        .kh = w.kernel[0],
        .kw = w.kernel[1],
        .sh = useful_stride(w.stride[0], reach[0], axis_span(&w, 0)),
        .sw = useful_stride(w.stride[1], reach[1], axis_span(&w, 1)),
        .dh = useful_dilation(w.dilation[0], axis_span(&w, 0)),
        .dw = useful_dilation(w.dilation[1], axis_span(&w, 1)),
        .pt = w.pad[0][0],
        .pb = w.pad[0][1],
        .pl = w.pad[1][0],
        .pr = w.pad[1][1],
        .pad_mode = PC_PAD_ZEROS,
    };
    return PC_OK;
}

pc_status pc_pool_geometry(const int64_t input_shape[4], const pc_window *window, pc_pool_geom *geom, pc_error *error)
{
    pc_window w = *window;
    pc_status status = pc_pool_window_check(window, error);
    if (status == PC_OK) {
        status = pc_window_check(&w, error); /* makes numbers of 'same' and 'valid'; cannot fail any more */
    }
    if (status == PC_OK) {
        status = shape_check(input_shape, error);
    }
    if (status != PC_OK) {
        return status;
    }
    if (input_shape[1] == 0 || input_shape[2] == 0 || input_shape[3] == 0) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got:" SHAPE
                       ": channels, height and width must not be empty",
                       SHAPE_OF(input_shape));
    }
    int64_t padded[2], span[2], out[2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = input_shape[2 + axis], start;
        status = padded_size(&padded[axis], &w, axis, size, error);
        if (status != PC_OK) {
            return status;
        }
        span[axis] = axis_span(&w, axis);
        out[axis] = count_windows(padded[axis] - span[axis], w.stride[axis], w.ceil_mode);
        if (w.ceil_mode && out[axis] > 1) {
            /* A start that is no int64 lies behind everything. */
            bool beyond = pc_mul(&start, out[axis] - 1, w.stride[axis]);
            out[axis] -= beyond || start >= size + w.pad[axis][0];
        }
    }
    for (int axis = 0; axis < 2; axis++) {
        if (out[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Given input size: (" D "x" D "x" D "). Calculated output size: (" D "x" D "x" D
                           "). Output size is too small: output %s = %s = " D,
                           input_shape[1], input_shape[2], input_shape[3], input_shape[1], out[0], out[1],
                           AXIS_NAME[axis], show_formula(&w, axis, input_shape[2 + axis], w.ceil_mode).text, out[axis]);
        }
    }
    status = array_check("input", SHAPE_OF(input_shape), error);
    if (status == PC_OK) {
        status = array_check("output", input_shape[0], input_shape[1], out[0], out[1], error);
    }
    if (status != PC_OK) {
        return status;
    }
    *geom = (pc_pool_geom){
        .n = input_shape[0],
        .c = input_shape[1],
        .ih = input_shape[2],
        .iw = input_shape[3],
        .oh = out[0],
        .ow = out[1],
        .kh = w.kernel[0],
        .kw = w.kernel[1],
        .sh = useful_stride(w.stride[0], padded[0], span[0]),
        .sw = useful_stride(w.stride[1], padded[1], span[1]),
        .dh = useful_dilation(w.dilation[0], span[0]),
        .dw = useful_dilation(w.dilation[1], span[1]),
        .pt = w.pad[0][0],
        .pl = w.pad[1][0],
    };
    return PC_OK;
}
