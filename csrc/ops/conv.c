/* conv.c: forward and input gradient of the convolution, and so both of the transposed one.
 *
 * Both passes are *sweeps*. A sweep is a dense correlation of a source plane with the taps of a weight,
 *
 *     out[p][j][i] = init[p] + sum over (c, r, s) of W(p, c, r, s) * source[c][y(j, r)][x(i, s)]
 *
 * where y and x are the two axes of slab.h. The forward pass is one sweep over the input. In the input gradient,
 * pixel y of grad_in meets kernel row k only if y + pt - k*dh is a multiple of sh; the pixels with one remainder form
 * a sublattice with kernel rows of their own, and on it the source grad_out is read with stride 1:
 *
 *     y = y0 + j*sh,   k = k0 + m*period:    grad_out row = j + (y0 + pt - k0*dh)/sh - m*(period*dh/sh)
 *
 * So there are at most min(sh, kh) * min(sw, kw) sweeps, none with a wasted tap; pixels that no tap reaches are the
 * bias alone. sweep.c cuts a sweep into items, one thread each; dense.c does an item.
 *
 * The chain of one output is (bias, then channel, kernel row, kernel column), one fma each, whatever the bands,
 * blocks, tiles and threads: between blocks of channels the accumulators are stored and loaded again, never added.
 *
 * Padding: forward multiplies its zeros, unless all weights are finite: then a product with zero adds nothing and
 * taps that read only padding are left out. In the input gradient there are no taps outside grad_out. Finite weights
 * may meet zeros there instead; weights that are not finite get bands within which every tap is wholly inside or
 * wholly outside (`exact`), and the outside ones are left out. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "ops/conv_pixel.h"
#include "ops/conv_rows.h"
#include "ops/dense.h"

enum {
    GRAIN = 1 << 20,        /* multiply-adds below which a second thread costs more than it brings */
    OUTPUT = 24,            /* multiply-adds that an element takes as long as that goes into fresh memory */
    PADDED_BYTES = 1 << 20, /* of a padded gradient, unless a single channel is larger */
    WIDE_PADDING = 4,       /* from here on a forward pass asks whether taps in padding may be left out */
    MANY_PARTS = 1 << 20,   /* are not walked through only to be counted */
};

/* ---- the pass, and how it is cut: begin, run and explain ask here ----------------------------------------------- */

/* Without its data. `skip` means that finite weights may skip. */
static pc_pass forward_pass(const pc_conv_geom *geom, pc_dtype dtype, pc_call *call)
{
    pc_pass pass = {.geom = *geom,
                    .call = call,
                    .kernels = pc_kernels_for(dtype),
                    .forward = true,
                    .rows = geom->oc / geom->g,
                    .depth = geom->ic / geom->g,
                    .out_h = geom->oh,
                    .out_w = geom->ow,
                    .c_step = geom->kh * geom->kw,
                    .window_h = 1,
                    .window_w = 1};
    pass.p_step = pass.depth * pass.c_step;
    const int64_t padding = pc_max(pc_max(geom->pt, geom->pb), pc_max(geom->pl, geom->pr));
    pass.skip = geom->pad_mode == PC_PAD_ZEROS && padding >= WIDE_PADDING;
    return pass;
}

/* Where windows tile the output each pixel of one meets one tap, and all read the same source: then each channel is as
 * many rows p as the window has pixels, of a 1x1 convolution. A single window tiles it whatever the stride (a
 * generator's first layer). */
static bool tiles_output(const pc_conv_geom *g)
{
    const bool dense = (g->dh == 1 || g->kh == 1) && (g->dw == 1 || g->kw == 1);
    const bool apart = (g->kh == g->sh || g->oh == 1) && (g->kw == g->sw || g->ow == 1);
    return dense && apart && g->pt == 0 && g->pl == 0 && g->ih == g->oh * g->kh && g->iw == g->ow * g->kw;
}

static pc_pass backward_pass(const pc_conv_geom *geom, pc_dtype dtype, pc_call *call)
{
    pc_pass pass = {.geom = *geom,
                    .call = call,
                    .kernels = pc_kernels_for(dtype),
                    .skip = true,
                    .depth = geom->oc / geom->g,
                    .p_step = geom->kh * geom->kw,
                    .c_step = geom->ic / geom->g * geom->kh * geom->kw,
                    .window_h = 1,
                    .window_w = 1};
    pc_conv_geom *g = &pass.geom;
    if (tiles_output(g)) {
        pass.window_h = g->kh;
        pass.window_w = g->kw;
        pass.p_step = 1;
        g->ic *= g->kh * g->kw;
        g->ih = g->oh;
        g->iw = g->ow;
        g->kh = g->kw = g->sh = g->sw = 1;
    }
    pass.rows = g->ic / g->g;
    pass.out_h = g->ih;
    pass.out_w = g->iw;
    return pass;
}

static bool is_empty(const pc_pass *pass) { return pass->geom.n == 0 || pass->out_h == 0 || pass->out_w == 0; }

/* The cuts of a pass one after the other, each for a range of its sweeps. Begins with {0, 0}; false behind the last. */
static bool next_range(const pc_pass *pass, pc_dtype dtype, pc_range *range)
{
    return !is_empty(pass) && pc_next_range(&pass->geom, pass->forward, pass->rows, dtype, range);
}

static pc_cut cut_of(const pc_pass *pass, pc_range range, bool skip, pc_dtype dtype, int threads)
{
    const bool spread = pass->window_h * pass->window_w > 1;
    return pc_cut_of(&pass->geom, pass->forward, range, skip, spread, pass->depth, pass->rows, pass->kernels, dtype,
                     threads);
}

/* ---- a thread's share ---------------------------------------------------------------------------------------- */

static bool reached(int64_t pixel, int64_t stride, int64_t pad, int64_t taps, int64_t dilation)
{
    int64_t count = pc_remainders(stride, dilation, taps);
    for (int64_t k = 0; k < count; k++) {
        if ((pixel + pad - k * dilation) % stride == 0) {
            return true;
        }
    }
    return false;
}

/* `count` elements, `step` apart, become what a pixel is that no tap reaches: the bias, or zero. */
static void fill(const pc_pass *pass, int64_t at, int64_t count, int64_t step, int64_t channel)
{
    if (pass->call->dtype == PC_F32) {
        const float value = pass->init ? ((const float *)pass->init)[channel] : 0;
        float *out = (float *)pass->out + at;
        for (int64_t i = 0; i < count; i++) {
            out[i * step] = value;
        }
    } else {
        const double value = pass->init ? ((const double *)pass->init)[channel] : 0;
        double *out = (double *)pass->out + at;
        for (int64_t i = 0; i < count; i++) {
            out[i * step] = value;
        }
    }
}

/* Input gradient: the pixels between the sublattices, where the stride jumps over whole pixels. */
static void fill_unreached(const pc_pass *pass, int index, int count)
{
    const pc_conv_geom *g = &pass->geom;
    if (pass->forward || (pc_remainders(g->sh, g->dh, g->kh) == g->sh && pc_remainders(g->sw, g->dw, g->kw) == g->sw)) {
        return;
    }
    for (int64_t plane = index; plane < g->n * g->ic; plane += count) {
        for (int64_t y = 0; y < g->ih; y++) {
            const int64_t at = (plane * g->ih + y) * g->iw;
            if (!reached(y, g->sh, g->pt, g->kh, g->dh)) {
                fill(pass, at, g->iw, 1, plane % g->ic);
                continue;
            }
            for (int64_t x = 0; x < pc_min(g->sw, g->iw); x++) { /* one pixel speaks for all that are a stride apart */
                if (!reached(x, g->sw, g->pl, g->kw, g->dw)) {
                    fill(pass, at + x, pc_ceil_div(g->iw - x, g->sw), g->sw, plane % g->ic);
                }
            }
        }
        if (pc_poll(pass->call)) {
            return;
        }
    }
}

static void run_thread(void *context, int index, int count)
{
    const pc_pass *pass = context;
    const pc_dtype dtype = pass->call->dtype;
    if (pc_pixel_serves(pass)) {
        pc_pixel_run(pass, index, count);
        return;
    }
    int64_t item = 0;
    for (pc_range r = {0, 0}; next_range(pass, dtype, &r) && !pc_stopped(pass->call);) {
        const pc_cut cut = cut_of(pass, r, pass->skip, dtype, count);
        pc_slice slice = pc_slice_of(pass->call, index);
        pc_dense_run(pass, r, &cut, pc_dense_lay(&slice, &cut, dtype), index, count, &item);
    }
    fill_unreached(pass, index, count);
}

/* ---- the doors ------------------------------------------------------------------------------------------------ */

/* Adding x - x of every weight leaves 0 exactly when all are finite; sixteen sums keep the loop off its latency. */
static bool all_finite(const void *weight, int64_t count, pc_dtype dtype)
{
    double sums[16] = {0};
    if (dtype == PC_F32) {
        const float *w = weight;
        float partial[16] = {0};
        for (int64_t i = 0; i + 16 <= count; i += 16) {
            for (int k = 0; k < 16; k++) {
                partial[k] += w[i + k] - w[i + k];
            }
        }
        for (int64_t i = count - count % 16; i < count; i++) {
            partial[0] += w[i] - w[i];
        }
        for (int k = 0; k < 16; k++) {
            sums[k] = (double)partial[k];
        }
    } else {
        const double *w = weight;
        for (int64_t i = 0; i + 16 <= count; i += 16) {
            for (int k = 0; k < 16; k++) {
                sums[k] += w[i + k] - w[i + k];
            }
        }
        for (int64_t i = count - count % 16; i < count; i++) {
            sums[0] += w[i] - w[i];
        }
    }
    for (int k = 0; k < 16; k++) {
        if (sums[k] != 0.0) { /* NaN */
            return false;
        }
    }
    return true;
}

/* Bytes of one thread's workspace. Negative: too large. */
static int64_t workspace_bytes(const pc_pass *pass, pc_dtype dtype, int threads)
{
    int64_t bytes = 0;
    if (pc_pixel_serves(pass)) {
        return pc_pixel_bytes(pass, dtype, threads);
    }
    for (pc_range r = {0, 0}; next_range(pass, dtype, &r);) {
        for (int skip = pass->forward ? 0 : 1; skip < 2; skip++) { /* forward: the weights, not seen yet, decide */
            const pc_cut cut = cut_of(pass, r, skip, dtype, threads);
            pc_slice slice = {0};
            pc_dense_lay(&slice, &cut, dtype);
            bytes = slice.used < 0 || bytes < 0 ? -1 : pc_max(bytes, slice.used);
        }
    }
    return bytes;
}

/* The input gradient under a padding that repeats the input is taken in two steps: that of the padded input, without
 * padding, and then every padded cell is added to the one it was read from. A block of channels of one sample at a
 * time, so the padded gradient stays small: its geometry, with as many input channels as a block has. */
static pc_conv_geom padded_block(const pc_conv_geom *geom, pc_dtype dtype)
{
    pc_conv_geom block = *geom;
    block.n = 1;
    block.g = 1;
    block.oc = geom->oc / geom->g;
    block.ih = geom->ih + geom->pt + geom->pb;
    block.iw = geom->iw + geom->pl + geom->pr;
    block.pt = block.pb = block.pl = block.pr = 0;
    block.pad_mode = PC_PAD_ZEROS;
    int64_t plane;
    if (pc_mul(&plane, block.ih, block.iw) || pc_mul(&plane, plane, (int64_t)pc_dtype_size(dtype))) {
        plane = INT64_MAX; /* one channel is too much already, which pc_conv_begin finds out */
    }
    block.ic = pc_max(1, pc_min(geom->ic / geom->g, PADDED_BYTES / plane));
    return block;
}

pc_status pc_conv_begin(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype, int threads, pc_call *call,
                        pc_error *error)
{
    if (pass == PC_CONV_BACKWARD_WEIGHT) {
        return pc_conv_begin_weight(geom, dtype, threads, call, error);
    }
    const double outputs = (double)geom->n * (double)geom->oc * (double)geom->oh * (double)geom->ow;
    const double inputs = (double)geom->n * (double)geom->ic * (double)geom->ih * (double)geom->iw;
    const double work = fmax(outputs * (double)(geom->ic / geom->g) * (double)geom->kh * (double)geom->kw,
                             OUTPUT * (pass == PC_CONV_FORWARD ? outputs : inputs));
    const bool by_rows = pc_rows_serve(geom, pass, dtype);
    threads = pc_settle(threads, work, by_rows ? PC_ROWS_GRAIN : GRAIN);
    const bool forward = pass == PC_CONV_FORWARD;
    int64_t shared = 0, bytes = 0;
    if (forward && !by_rows) {
        const pc_pass dense = forward_pass(geom, dtype, call);
        bytes = workspace_bytes(&dense, dtype, threads);
    } else if (!forward) {
        pc_conv_geom swept = *geom;
        if (geom->pad_mode != PC_PAD_ZEROS) {
            swept = padded_block(geom, dtype);
            if (pc_mul(&shared, swept.ih, swept.iw) ||
                pc_mul(&shared, shared, swept.ic * (int64_t)pc_dtype_size(dtype))) {
                shared = -1;
            }
        }
        const pc_pass dense = backward_pass(&swept, dtype, call);
        bytes = workspace_bytes(&dense, dtype, threads);
        const int64_t rest = geom->pad_mode != PC_PAD_ZEROS ? geom->ic / geom->g % swept.ic : 0;
        if (rest > 0 && bytes >= 0) { /* the last block: fewer rows are cut otherwise, and may need more */
            swept.ic = rest;
            const pc_pass last = backward_pass(&swept, dtype, call);
            const int64_t more = workspace_bytes(&last, dtype, threads);
            bytes = more < 0 ? -1 : pc_max(bytes, more);
        }
    }
    if (by_rows && bytes >= 0) {
        bytes = pc_max(bytes, pc_rows_bytes(geom, pass, dtype));
    }
    return pc_begin(call, dtype, threads, work, bytes, shared, error);
}

void pc_conv_forward(const pc_conv_geom *geom, void *out, const pc_tensor *in, const void *weight, const void *bias,
                     pc_call *call)
{
    if (pc_rows_serve(geom, PC_CONV_FORWARD, call->dtype)) {
        pc_rows_run(geom, PC_CONV_FORWARD, out, in, weight, bias, call);
        return;
    }
    pc_pass pass = forward_pass(geom, call->dtype, call);
    pass.source = in;
    pass.weight = weight;
    pass.init = bias;
    pass.out = out;
    pass.skip = pass.skip && all_finite(weight, geom->oc * pass.p_step, call->dtype);
    pc_pool_run(call->threads, run_thread, &pass);
}

/* Backward the weight's channels lie c_step apart: geom->ic of them may be a block of more. */
static bool weights_finite(const pc_pass *pass)
{
    bool finite = true;
    for (int64_t o = 0; finite && o < pass->geom.oc; o++) {
        const char *channel = pass->weight + o * pass->c_step * (int64_t)pc_dtype_size(pass->call->dtype);
        finite = all_finite(channel, pass->rows * pass->p_step, pass->call->dtype);
    }
    return finite;
}

static void backward_input(const pc_conv_geom *geom, void *grad_in, const pc_tensor *grad_out, const void *weight,
                           int64_t c_step, const void *bias, pc_call *call)
{
    pc_pass pass = backward_pass(geom, call->dtype, call);
    pass.source = grad_out;
    pass.weight = weight;
    pass.init = bias;
    pass.out = grad_in;
    pass.c_step = c_step;
    bool leaves = false;
    for (int64_t i = 0; i < pc_sweep_count(&pass.geom, false); i++) {
        const pc_sweep s = pc_sweep_at(&pass.geom, false, i);
        leaves = leaves || pc_sweep_leaves(&s);
    }
    const int64_t outputs = geom->n * geom->ic * geom->ih * geom->iw, weights = geom->oc * pass.rows * pass.p_step;
    const bool doubt = leaves && !pass.exact, first = weights <= outputs;
    pass.exact = pass.exact || (doubt && first && !weights_finite(&pass));
    pc_pool_run(call->threads, run_thread, &pass);
    /* An infinite weight times padding leaves its NaN in the output: where that is smaller, it is looked at instead. */
    if (doubt && !first && !pc_stopped(call) && !all_finite(grad_in, outputs, call->dtype) && !weights_finite(&pass)) {
        pass.exact = true;
        pc_pool_run(call->threads, run_thread, &pass);
    }
}

typedef struct {
    const pc_conv_geom *geom, *block;
    const char *padded;
    char *grad_in; /* of the block's first channel */
    pc_dtype dtype;
    int64_t channels;
} pc_fold;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/fold.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/fold.inc.h"
#undef T
#undef PC_LOCAL

static void run_fold(void *context, int index, int count)
{
    const pc_fold *f = context;
    for (int64_t c = index; c < f->channels; c += count) {
        if (f->dtype == PC_F32) {
            fold_f32(f, c);
        } else {
            fold_f64(f, c);
        }
    }
}

static void backward_padded(const pc_conv_geom *geom, char *grad_in, const pc_tensor *grad_out, const char *weight,
                            pc_call *call)
{
    const int64_t size = (int64_t)pc_dtype_size(call->dtype);
    const int64_t ic = geom->ic / geom->g, oc = geom->oc / geom->g, window = geom->kh * geom->kw;
    pc_conv_geom block = padded_block(geom, call->dtype);
    const int64_t most = block.ic;
    for (int64_t plane = 0; plane < geom->n * geom->ic; plane += block.ic) {
        const int64_t n = plane / geom->ic, group = plane % geom->ic / ic, first = plane % ic;
        block.ic = pc_min(most, ic - first);
        pc_tensor source = *grad_out;
        source.data = (const char *)source.data + (n * source.step[0] + group * oc * source.step[1]) * size;
        backward_input(&block, call->shared, &source, weight + (group * oc * ic + first) * window * size, ic * window,
                       NULL, call);
        if (pc_poll(call)) {
            return;
        }
        pc_fold fold = {.geom = geom,
                        .block = &block,
                        .padded = call->shared,
                        .grad_in = grad_in + plane * geom->ih * geom->iw * size,
                        .dtype = call->dtype,
                        .channels = block.ic};
        pc_pool_run(call->threads, run_fold, &fold);
    }
}

void pc_conv_backward_input(const pc_conv_geom *geom, void *grad_in, const pc_tensor *grad_out, const void *weight,
                            const void *bias, pc_call *call)
{
    if (pc_rows_serve(geom, PC_CONV_BACKWARD_INPUT, call->dtype) &&
        all_finite(weight, geom->oc * (geom->ic / geom->g) * geom->kh * geom->kw, call->dtype)) {
        pc_rows_run(geom, PC_CONV_BACKWARD_INPUT, grad_in, grad_out, weight, bias, call);
        return;
    }
    if (geom->pad_mode == PC_PAD_ZEROS) {
        backward_input(geom, grad_in, grad_out, weight, geom->ic / geom->g * geom->kh * geom->kw, bias, call);
    } else { /* only Conv2d has the other modes, and its gradient has no bias */
        backward_padded(geom, grad_in, grad_out, weight, call);
    }
}

/* ---- what a call will do (explain.h) ---------------------------------------------------------------------------- */

static int64_t count_items(const pc_pass *pass)
{
    const pc_dtype dtype = pass->call->dtype;
    int64_t items = 0;
    for (pc_range r = {0, 0}; next_range(pass, dtype, &r);) {
        const pc_cut c = cut_of(pass, r, pass->skip, dtype, pass->call->threads);
        const double bands = (double)pc_ceil_div(pass->out_h, c.band_h) * (double)pc_ceil_div(pass->out_w, c.band_w);
        if ((double)pc_ceil_div(pass->geom.n, c.samples) * bands > MANY_PARTS) {
            return -1;
        }
        pc_slice slice = pc_slice_of(pass->call, 0);
        const int nobody = pass->call->threads; /* counts all items and gets none */
        pc_dense_run(pass, r, &c, pc_dense_lay(&slice, &c, dtype), nobody, nobody, &items);
    }
    return items;
}

/* The first cut stands for all: that of the sweeps with the most taps. */
static void explain_cut(const pc_pass *pass, pc_range range, const pc_cut *c, pc_plan *plan)
{
    plan->family = "dense tile";
    plan->form = c->flat ? "rows run on" : "row by row";
    plan->kernel = "dense_tile";
    plan->phases = pc_sweep_count(&pass->geom, pass->forward);
    plan->tile_rows = pc_ceil_div(pass->rows, c->blocks);
    plan->tile_vectors = c->tile / pass->kernels->lanes;
    plan->items = count_items(pass);
    pc_plan_add(plan, "phases_together", range.end - range.first);
    pc_plan_add(plan, "samples", c->samples);
    pc_plan_add(plan, "band_rows", c->band_h);
    pc_plan_add(plan, "band_columns", c->band_w);
    pc_plan_add(plan, "channels", c->channels);
    pc_plan_add(plan, "columns", c->columns);
    pc_plan_add(plan, "row_blocks", c->blocks);
    pc_plan_add(plan, "packed_blocks", c->chunk);
    pc_plan_add(plan, "panel_blocks", c->panel_elements ? c->panel : 0);
    pc_plan_add(plan, "parts_of_an_item", c->run);
    pc_plan_add(plan, "shares", c->shares);
    pc_plan_add(plan, "paired", c->paired);
    pc_plan_add(plan, "exact", c->exact);
    pc_plan_add(plan, "exact_rows", c->least_y > 0);
    pc_plan_add(plan, "exact_columns", c->least_x > 0);
}

void pc_conv_explain(const pc_conv_geom *geom, pc_conv_pass which, pc_call *call, pc_plan *plan)
{
    const pc_dtype dtype = call->dtype;
    memset(plan, 0, sizeof *plan);
    if (which == PC_CONV_BACKWARD_WEIGHT) {
        pc_conv_explain_weight(geom, call, plan);
        return;
    }
    if (pc_rows_serve(geom, which, dtype)) {
        pc_rows_explain(geom, which, call, plan);
        return;
    }
    const bool forward = which == PC_CONV_FORWARD, padded = !forward && geom->pad_mode != PC_PAD_ZEROS;
    const pc_conv_geom swept = padded && geom->n > 0 ? padded_block(geom, dtype) : *geom;
    const pc_pass pass = forward ? forward_pass(&swept, dtype, call) : backward_pass(&swept, dtype, call);
    pc_range range = {0, 0};
    if (pc_pixel_serves(&pass)) {
        pc_pixel_explain(&pass, plan);
    } else if (next_range(&pass, dtype, &range)) {
        const pc_cut cut = cut_of(&pass, range, pass.skip, dtype, call->threads);
        explain_cut(&pass, range, &cut, plan);
        if (padded) {
            pc_plan_add(plan, "padded_channels", swept.ic);
        }
    }
}
