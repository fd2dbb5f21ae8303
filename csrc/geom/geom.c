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

#include <stdio.h>

#include "geom/axis.h"

/* ---- one axis ---- */

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
        snprintf(shown.text, sizeof shown.text, "2*" PC_D, pad[0]);
    } else {
        snprintf(shown.text, sizeof shown.text, PC_D " + " PC_D, pad[0], pad[1]);
    }
    return shown;
}

/* "floor((2 + 2*0 - 1*(3-1) - 1)/1) + 1" */
static pc_text show_formula(const pc_window *window, int axis, int64_t size, bool round_up)
{
    pc_text shown;
    pc_text pad = show_pad(window->pad[axis]);
    snprintf(shown.text, sizeof shown.text, "%s((" PC_D " + %.50s - " PC_D "*(" PC_D "-1) - 1)/" PC_D ") + 1",
             round_up ? "ceil" : "floor", size, pad.text, window->dilation[axis], window->kernel[axis],
             window->stride[axis]);
    return shown;
}

/* ---- arrays ---- */

static pc_status array_check(const char *what, int64_t n, int64_t channels, int64_t height, int64_t width,
                             pc_error *error)
{
    if (pc_bytes_fit(n, channels, height, width)) {
        return PC_OK;
    }
    return pc_fail(error, PC_MEMORY_ERROR, "the %s of shape " PC_SHAPE " is too large: its bytes exceed 2**63 - 1",
                   what, n, channels, height, width);
}

static pc_status shape_check(const int64_t shape[4], pc_error *error)
{
    for (int i = 0; i < 4; i++) {
        if (shape[i] < 0) {
            return pc_fail(error, PC_VALUE_ERROR, "negative dimensions are not allowed, but got input shape " PC_SHAPE,
                           PC_SHAPE_OF(shape));
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
        return pc_fail(error, PC_VALUE_ERROR, "%s: padding " PC_PAIR " leaves nothing of the input %s " PC_D, word,
                       pad[0], pad[1], pc_axis_name(axis), size);
    }
    if (pc_add(padded, size, pc_axis_pad(window, axis))) {
        return pc_fail(error, PC_MEMORY_ERROR, "the padded %s is too large: " PC_D " + %s exceeds 2**63 - 1",
                       pc_axis_name(axis), size, show_pad(pad).text);
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
        snprintf(given, sizeof given, "groups=" PC_D, groups);
    }
    return pc_fail(error, PC_VALUE_ERROR,
                   "Given %s, weight of size " PC_SHAPE ", expected input" PC_SHAPE " to have " PC_D
                   " channels, but got " PC_D " channels instead",
                   given, transposed ? in_channels : out_channels, (transposed ? out_channels : in_channels) / groups,
                   window->kernel[0], window->kernel[1], PC_SHAPE_OF(shape), in_channels, shape[1]);
}

static pc_status empty_axis(const int64_t shape[4], pc_error *error)
{
    return pc_fail(error, PC_VALUE_ERROR,
                   "Only zero batch or zero channel inputs are supported, but got input shape: " PC_SHAPE
                   " with an empty height or width",
                   PC_SHAPE_OF(shape));
}

/* How far each mode can reach beyond an image. Without padding there is nothing to read and no limit. */
static pc_status pad_mode_check(const int64_t shape[4], const pc_window *window, pc_error *error)
{
    pc_pad_mode mode = window->pad_mode;
    bool edges = mode == PC_PAD_REFLECT || mode == PC_PAD_REPLICATE;
    if (edges && (shape[2] == 0 || shape[3] == 0)) {
        return pc_fail(error, PC_VALUE_ERROR,
                       "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions "
                       "for input, but got: " PC_SHAPE,
                       PC_SHAPE_OF(shape));
    }
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = shape[2 + axis];
        const int64_t *pad = window->pad[axis];
        int64_t larger = pc_max(pad[0], pad[1]);
        if (mode == PC_PAD_REFLECT && larger >= size) {
            return pc_fail(
                error, PC_VALUE_ERROR,
                "Padding size should be less than the corresponding input dimension, but got: padding " PC_PAIR
                " at dimension %d of input " PC_SHAPE,
                pad[0], pad[1], 2 + axis, PC_SHAPE_OF(shape));
        }
        if (mode == PC_PAD_CIRCULAR && larger > size) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Padding value causes wrapping around more than once. Padding " PC_PAIR
                           " is larger than the input %s " PC_D,
                           pad[0], pad[1], pc_axis_name(axis), size);
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
        span[axis] = pc_axis_span(&w, axis);
        out[axis] = count_windows(padded[axis] - span[axis], w.stride[axis], false);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (out[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Calculated padded input size per channel: (" PC_D " x " PC_D "). Kernel size: (" PC_D
                           " x " PC_D "). Kernel size can't be greater than actual input size: output %s = %s = " PC_D,
                           padded[0], padded[1], span[0], span[1], pc_axis_name(axis),
                           show_formula(&w, axis, input_shape[2 + axis], false).text, out[axis]);
        }
    }
    if (input_shape[2] == 0 || input_shape[3] == 0) {
        return empty_axis(input_shape, error);
    }
    status = array_check("input", PC_SHAPE_OF(input_shape), error);
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
    snprintf(shown.text, sizeof shown.text, "(" PC_D "-1)*" PC_D " - %s%.50s%s + " PC_D "*(" PC_D "-1) + " PC_D " + 1",
             size, window->stride[axis], equal ? "" : "(", show_pad(pad).text, equal ? "" : ")", window->dilation[axis],
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
                       "requested an output size of [" PC_D ", " PC_D "], but valid sizes range from [" PC_D ", " PC_D
                       "] to [" PC_D ", " PC_D "] (for an input of [" PC_D ", " PC_D "])",
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
    if (w.pad_mode != PC_PAD_ZEROS) {
        return pc_fail(error, PC_VALUE_ERROR, "Only \"zeros\" padding mode is supported for a transposed convolution");
    }
    pc_status status = layer_check(input_shape, in_channels, out_channels, groups, &w, true, error);
    if (status != PC_OK) {
        return status;
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
    int64_t reach[2], out[2], extra[2] = {0, 0};
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = input_shape[2 + axis];
        if (pc_mul(&reach[axis], size - 1, w.stride[axis]) ||
            pc_add(&reach[axis], reach[axis], pc_axis_span(&w, axis))) {
            return pc_fail(error, PC_MEMORY_ERROR,
                           "the output is too large: its %s before padding is cut off, (" PC_D "-1)*" PC_D " + " PC_D
                           "*(" PC_D "-1) + 1, exceeds 2**63 - 1",
                           pc_axis_name(axis), size, w.stride[axis], w.dilation[axis], w.kernel[axis]);
        }
        out[axis] = reach[axis] - pc_axis_pad(&w, axis);
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
                           pc_axis_name(axis), show_transposed(&w, axis, input_shape[2 + axis], extra[axis]).text);
        }
        out[axis] = reach[axis] - pc_axis_pad(&w, axis);
    }
    for (int axis = 0; axis < 2; axis++) {
        if (out[axis] < 1) {
            return pc_fail(error, PC_VALUE_ERROR,
                           "Given input size per channel: (" PC_D " x " PC_D
                           "). Calculated output size per channel: (" PC_D " x " PC_D
                           "). Output size is too small: output %s = %s = " PC_D,
                           input_shape[2], input_shape[3], out[0], out[1], pc_axis_name(axis),
                           show_transposed(&w, axis, input_shape[2 + axis], extra[axis]).text, out[axis]);
        }
    }
    status = array_check("input", PC_SHAPE_OF(input_shape), error);
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
        .sh = useful_stride(w.stride[0], reach[0], pc_axis_span(&w, 0)),
        .sw = useful_stride(w.stride[1], reach[1], pc_axis_span(&w, 1)),
        .dh = useful_dilation(w.dilation[0], pc_axis_span(&w, 0)),
        .dw = useful_dilation(w.dilation[1], pc_axis_span(&w, 1)),
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
        return pc_fail(
            error, PC_VALUE_ERROR,
            "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got:" PC_SHAPE
            ": channels, height and width must not be empty",
            PC_SHAPE_OF(input_shape));
    }
    int64_t padded[2], span[2], out[2];
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = input_shape[2 + axis], start;
        status = padded_size(&padded[axis], &w, axis, size, error);
        if (status != PC_OK) {
            return status;
        }
        span[axis] = pc_axis_span(&w, axis);
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
                           "Given input size: (" PC_D "x" PC_D "x" PC_D "). Calculated output size: (" PC_D "x" PC_D
                           "x" PC_D "). Output size is too small: output %s = %s = " PC_D,
                           input_shape[1], input_shape[2], input_shape[3], input_shape[1], out[0], out[1],
                           pc_axis_name(axis), show_formula(&w, axis, input_shape[2 + axis], w.ceil_mode).text,
                           out[axis]);
        }
    }
    status = array_check("input", PC_SHAPE_OF(input_shape), error);
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
