/* geom.h: integers only. Output sizes, padding and windows of all operators, checked against overflow.
 *
 * GLOSSARY (one word per thing, the same in every room)
 *   n            samples of a batch              g          groups
 *   ic, oc       input and output channels, of all groups together
 *   ih, iw       input height and width          oh, ow     output height and width
 *   kh, kw       size of the window ("kernel" alone is a C function; the tensor is "weight")
 *   sh, sw       stride of the window            dh, dw     dilation: distance of neighbouring taps, 1 = dense
 *   pt, pb       padding above and below         pl, pr     padding left and right
 *   tap          one position (kernel row, kernel column) of the window
 *   step         a distance in memory, in elements; never called stride
 *   axis         0 is the height, 1 the width, in every pair below
 *
 * A transposed convolution has no geometry of its own. Its forward is the input gradient of the convolution that runs
 * the other way, so pc_conv_transpose_geometry fills the geometry of *that* convolution: its ic, ih, iw are the
 * transposed layer's OUTPUT and its oc, oh, ow the transposed layer's INPUT.
 *
 * Every function either fills its result completely or returns an error and leaves it alone. The text of the error
 * says which axis, shows the arithmetic, and begins with torch's words where torch has a message for the case. Any
 * int64 may come in, and no order of the calls is needed: what needs a checked window checks it.
 */
#ifndef PC_GEOM_GEOM_H
#define PC_GEOM_GEOM_H

#include <stdbool.h>

#include "base/base.h"
#include "base/error.h"

typedef enum { PC_PAD_ZEROS, PC_PAD_REFLECT, PC_PAD_REPLICATE, PC_PAD_CIRCULAR } pc_pad_mode;
typedef enum { PC_PAD_NUMBERS, PC_PAD_SAME, PC_PAD_VALID } pc_pad_rule;

/* What a layer was told, before it sees an input. */
typedef struct {
    int64_t kernel[2];
    int64_t stride[2];
    int64_t dilation[2];
    int64_t pad[2][2]; /* [axis][before, after]; filled by pc_window_check for 'same' and 'valid' */
    pc_pad_rule pad_rule;
    pc_pad_mode pad_mode;
    bool ceil_mode; /* pools only */
} pc_window;

/* A convolution, all sizes known. A stride is at most max(padded size, span of the window) and the dilation of a single
 * tap is 1: larger ones were cut down, which moves no window (there is then one alone). Padding may still be huge. */
typedef struct {
    int64_t n, g, ic, oc;
    int64_t ih, iw, oh, ow;
    int64_t kh, kw, sh, sw, dh, dw;
    int64_t pt, pb, pl, pr;
    pc_pad_mode pad_mode;
} pc_conv_geom;

/* A pool: c channels, each a plane of its own. `pt, pl` are the padding before; windows may hang over behind. */
typedef struct {
    int64_t n, c;
    int64_t ih, iw, oh, ow;
    int64_t kh, kw, sh, sw, dh, dw;
    int64_t pt, pl;
} pc_pool_geom;

/* An adaptive pool: the output's size is given, the windows follow. */
typedef struct {
    int64_t n, c;
    int64_t ih, iw, oh, ow;
} pc_adaptive_geom;

#define PC_SIZE_KEPT INT64_MIN /* an output size that is the input's */

/* ---- what can be said at construction, before any input ---- */

/* Kernel, stride, dilation >= 1; padding >= 0 (negative padding crops, and only the modes other than zeros take it);
 * 'same' refuses a stride and becomes numbers: total d*(k-1), left = total / 2, the right side takes the odd one.
 * d*(k-1) + 1 and the sum of both sides' padding must be representable. */
pc_status pc_window_check(pc_window *window, pc_error *error);

/* That, and the pools' rule: padding on both sides equal and at most half the (undilated) kernel. kh*kw fits int64. */
pc_status pc_pool_window_check(const pc_window *window, pc_error *error);

/* in, out, groups >= 1, both divisible by groups; the number of weights and its bytes must be representable. */
pc_status pc_channels_check(int64_t in_channels, int64_t out_channels, int64_t groups, const int64_t kernel[2],
                            pc_error *error);

/* output_padding >= 0 and, per axis, smaller than the stride or smaller than the dilation. */
pc_status pc_output_padding_check(const pc_window *window, const int64_t output_padding[2], pc_error *error);

/* Neither is negative, unless it is PC_SIZE_KEPT. */
pc_status pc_adaptive_size_check(const int64_t output_size[2], pc_error *error);

/* ---- with the input's shape (n, channels, height, width) ---- */

/* `in_channels, out_channels, groups` as the layer has them. Channels that disagree, an empty axis (n may be 0), a
 * window larger than the padded input, a padding larger than its mode allows, and sizes whose bytes overflow fail. */
pc_status pc_conv_geometry(const int64_t input_shape[4], int64_t in_channels, int64_t out_channels, int64_t groups,
                           const pc_window *window, pc_conv_geom *geom, pc_error *error);

/* `output_size` is NULL or two numbers; then it overrides output_padding: valid are min .. min + stride - 1. */
pc_status pc_conv_transpose_geometry(const int64_t input_shape[4], int64_t in_channels, int64_t out_channels,
                                     int64_t groups, const pc_window *window, const int64_t output_padding[2],
                                     const int64_t *output_size, pc_conv_geom *geom, pc_error *error);

pc_status pc_pool_geometry(const int64_t input_shape[4], const pc_window *window, pc_pool_geom *geom, pc_error *error);

/* An output without elements is allowed, an image without elements is not. */
pc_status pc_adaptive_geometry(const int64_t input_shape[4], const int64_t output_size[2], pc_adaptive_geom *geom,
                               pc_error *error);

/* ---- small questions ---- */

/* The window of output `o` along an axis of `size` elements, cut into `count` windows: floor(o * size / count) up to,
 * not including, ceil((o + 1) * size / count). Neighbours may overlap; with more windows than elements they repeat.
 * `size * count` is representable, as pc_adaptive_geometry has seen to. */
int64_t pc_adaptive_window(int64_t size, int64_t count, int64_t o, int64_t *length);

/* Where position `i` of a padded axis reads: an index into an axis of `size` elements, or -1 for the padding value.
 * `i` counts from the first real element, so padding before it is negative. Any `i` has an answer: the image goes on
 * without end by the mode's rule, and negative padding on one side does not change what the other side continues. */
int64_t pc_pad_source(pc_pad_mode mode, int64_t i, int64_t size);

/* How many cells of one axis an average pool's window counts at output `o`; the divisor is the product of both axes.
 * With include_pad the cells of the padded image, without it those of the image. A window is clipped to the padded
 * image first: what ceil mode lets hang over is never counted. May be 0 without include_pad, and is 0 for a window
 * outside. Never more than `kernel`. */
int64_t pc_avg_pool_count(int64_t size, int64_t o, int64_t kernel, int64_t stride, int64_t pad, bool include_pad);

#endif
