/* ops.h: what the operators offer to `py/`. Knows no Python and no ISA.
 *
 * A call has three steps, and only the first can fail:
 *
 *     pc_call call;
 *     status = pc_<op>_begin(&geom, dtype, threads, &call, &error);   with the GIL: plans, settles threads, takes scratch
 *     pc_<op>(&geom, ..., &call);                                     without it: loops, never fails
 *     pc_end(&call);                                                  gives the scratch back
 *
 * `call.stop` may be set between begin and run. Then the calling thread asks it between blocks, and once it answers
 * true all threads stop early; pc_stopped(&call) tells, and the outputs are to be thrown away.
 *
 * Tensors come as a pointer to element (0, 0, 0, 0) and four steps in ELEMENTS (n, channel, row, column), any sign,
 * zero included; the caller sees to it that all elements within the geometry can be read. Outputs are C-contiguous
 * and come as a plain pointer. Weights and biases are C-contiguous: weight (oc, ic/g, kh, kw), bias one per channel.
 */
#ifndef PC_OPS_OPS_H
#define PC_OPS_OPS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/base.h"
#include "base/error.h"
#include "geom/geom.h"

typedef struct {
    const void *data;
    int64_t step[4];
} pc_tensor;

typedef struct {
    bool (*should_stop)(void *context); /* NULL: never. Called on the calling thread only */
    void *context;
} pc_stop;

typedef struct {
    pc_dtype dtype;
    int threads;   /* settled by begin: at most what was asked for, fewer for little work */
    char *scratch; /* `threads` slices of `scratch_step` bytes */
    size_t scratch_step;
    char *shared; /* behind them, `shared_size` bytes */
    size_t shared_size;
    double work; /* multiply-adds or elements moved: `py/` keeps the GIL for a very small one */
    pc_stop stop;
    const void *caller; /* tells the calling thread */
    atomic_bool stopped;
} pc_call;

void pc_end(pc_call *call);
PC_INLINE bool pc_stopped(pc_call *call) { return atomic_load_explicit(&call->stopped, memory_order_relaxed); }

/* ---- convolution: three primitives carry Conv2d and ConvTranspose2d (geom.h tells how) ---- */

typedef enum { PC_CONV_FORWARD, PC_CONV_BACKWARD_INPUT, PC_CONV_BACKWARD_WEIGHT } pc_conv_pass;

pc_status pc_conv_begin(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype, int threads, pc_call *call,
                        pc_error *error);

/* out[n][o][y][x] = bias[o] + sum over (c, r, s) of weight[o][c][r][s] * in[n][c][y*sh - pt + r*dh][x*sw - pl + s*dw].
 * bias may be NULL. */
void pc_conv_forward(const pc_conv_geom *geom, void *out, const pc_tensor *in, const void *weight, const void *bias,
                     pc_call *call);

/* grad_in, of shape (n, ic, ih, iw); `bias` (one per input channel, or NULL) is what a transposed layer adds. */
void pc_conv_backward_input(const pc_conv_geom *geom, void *grad_in, const pc_tensor *grad_out, const void *weight,
                            const void *bias, pc_call *call);

/* grad_weight, of shape (oc, ic/g, kh, kw) */
void pc_conv_backward_weight(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                             const pc_tensor *in, pc_call *call);

/* sums[c] = sum of tensor[n][c][y][x] over n, y, x, in an order that the shape alone fixes: a bias gradient.
 * `shape` is (n, channels, height, width). */
pc_status pc_channel_sum_begin(const int64_t shape[4], pc_dtype dtype, int threads, pc_call *call, pc_error *error);
void pc_channel_sum(const int64_t shape[4], void *sums, const pc_tensor *tensor, pc_call *call);

/* ---- pools ---- */

typedef enum { PC_MAX_FORWARD, PC_MAX_INDICES, PC_MAX_BACKWARD, PC_AVG_FORWARD, PC_AVG_BACKWARD } pc_pool_pass;

/* `in` is what the pass reads: the input, or the output's gradient. */
pc_status pc_pool_begin(const pc_pool_geom *geom, pc_pool_pass pass, const pc_tensor *in, pc_dtype dtype, int threads,
                        pc_call *call, pc_error *error);

/* `indices` (int64, flat position in the input plane, -1 for a window without any tap in the image) may be NULL. */
void pc_max_pool_forward(const pc_pool_geom *geom, void *out, int64_t *indices, const pc_tensor *in, pc_call *call);

/* Needs n, c, ih, iw, oh, ow of the geometry alone. `indices` has four steps like a tensor, its data is int64.
 * Checks every index while it reads: false (and grad_in is rubbish) when one is below -1 or beyond the plane. */
bool pc_max_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, const pc_tensor *indices,
                          pc_call *call);

/* `divisor` 0 means by the rule of geom.h; any other number divides every output. */
void pc_avg_pool_forward(const pc_pool_geom *geom, void *out, const pc_tensor *in, bool count_include_pad,
                         int64_t divisor, pc_call *call);
void pc_avg_pool_backward(const pc_pool_geom *geom, void *grad_in, const pc_tensor *grad_out, bool count_include_pad,
                          int64_t divisor, pc_call *call);

/* ---- adaptive average pool: sum / height / width of each window (sum / area where there is one window) ---- */

/* `in` is what the pass reads: the input, or the output's gradient. */
pc_status pc_adaptive_begin(const pc_adaptive_geom *geom, bool backward, const pc_tensor *in, pc_dtype dtype,
                            int threads, pc_call *call, pc_error *error);
void pc_adaptive_forward(const pc_adaptive_geom *geom, void *out, const pc_tensor *in, pc_call *call);
void pc_adaptive_backward(const pc_adaptive_geom *geom, void *grad_in, const pc_tensor *grad_out, pc_call *call);

/* ---- batch normalisation: each channel by itself, over n, h, w ---- */

typedef struct {
    int64_t shape[4]; /* n, c, h, w */
    bool batch;       /* by the batch's own mean and (biased) variance; else by those that are given */
    double eps;
    double *mean, *variance;   /* c each; forward writes them where `batch` is set, all else reads them */
    const void *weight, *bias; /* c each, or NULL for ones and zeros */
} pc_norm;

pc_status pc_norm_begin(const pc_norm *norm, pc_dtype dtype, int threads, pc_call *call, pc_error *error);

/* out = (in - mean) / sqrt(variance + eps) * weight + bias */
void pc_norm_forward(const pc_norm *norm, void *out, const pc_tensor *in, pc_call *call);

/* Any of the three gradients may be NULL: not wanted. */
void pc_norm_backward(const pc_norm *norm, void *grad_in, void *grad_weight, void *grad_bias, const pc_tensor *grad_out,
                      const pc_tensor *in, pc_call *call);

/* ---- maps: `count` elements side by side, of any shape ---- */

pc_status pc_relu_begin(int64_t count, pc_dtype dtype, int threads, pc_call *call, pc_error *error);

/* `out` may be `in`. Where `bits` is not NULL it receives one bit per element, 64 to a word: does the gradient pass? */
void pc_relu_forward(int64_t count, void *out, uint64_t *bits, const void *in, pc_call *call);

/* By the input, or where that is NULL by the bits that forward left. `out` may be `grad_out`. */
void pc_relu_backward(int64_t count, void *grad_in, const void *grad_out, const void *in, const uint64_t *bits,
                      pc_call *call);

#endif
