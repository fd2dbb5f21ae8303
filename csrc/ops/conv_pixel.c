/* conv_pixel.c: a forward pass or input gradient whose samples have one output pixel each: a matrix times few vectors.
 *
 *     out[s][p] = init[p] + sum over k of W(p, k) * source[s][k]          k = (channel, kernel row, kernel column)
 *
 * Each weight is used once a sample, so what counts is to read it once, where it is. dense.c would pack it, for vectors
 * of pixels of which one lane is used. Here the source is packed instead, which is small, and the weights are
 *
 *     vectors    where neighbours p lie side by side: in the input gradient of a 1x1 map, or of a window that is all of
 *                one (a generator's first layer). The tile's rows are samples: dense_tile
 *     scalars    where neighbours k do: forward. The tile's rows are outputs p, each at its own place, the lanes are
 *                samples: weight_tile. Half empty lanes cost nothing: a scalar a multiply-add is what is slow here
 *
 * The weight gradient is a sum over samples, grad_weight[p][k] += grad_out[s][p] * in[s][k]. Where the input's k are one
 * line it is the same problem in other words: vectors of the input take the place of the weights, output channels that
 * of the samples.
 *
 * The chain of an output is that of dense.c, so the bits are the same, and the family may be chosen by the batch. The
 * bias comes first: sums are set to it, and the tile adds on. */
#include "ops/conv_pixel.h"

#include <string.h>

#include "base/pool.h"

enum {
    TALL = 512,              /* scalars: outputs at a time, */
    PACKED_BYTES = 16 << 10, /* times so much of the source, half of L1 */
    WIDE = 2048,             /* vectors: outputs at a time, */
    WAYS = 8,                /* times few k: if they lie a power of two apart, lines of more do not stay in L1 */
    BLOCKS = 4,              /* of samples, for which weights are read again, */
    SHALLOW = 64,            /* unless there are so few k that the outputs are what costs, */
    LONG = 16,               /* if there are so many vectors of them */
};

typedef struct {
    int64_t share, batch;            /* outputs p and samples of an item, */
    int64_t shares, batches, items;  /* items side by side, and all */
    int64_t samples, columns, depth; /* of an item's samples, p and k so many at a time, at most */
    int64_t width;                   /* of a packed k: the samples, and nothing */
} pc_pixel_cut;

typedef struct {
    char *packed, *rest, *total;
    int64_t *list;
} pc_pixel_work;

/* Where element k of a sample is: lines of `wide` elements that are `column` apart, `high` lines a channel. */
typedef struct {
    int64_t sample, channel, row, column;
    int64_t high, wide;
} pc_walk;

/* What is being worked on. */
typedef struct {
    const pc_pass *pass;
    const pc_pixel_cut *cut;
    pc_pixel_work work;
    pc_walk walk;
    int64_t size, depth, group, sample, samples;
} pc_pixel_item;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/conv_pixel.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/conv_pixel.inc.h"
#undef T
#undef PC_LOCAL

/* The most samples that a tile takes. */
static int64_t most_samples(const pc_pass *pass)
{
    return pass->forward ? pass->kernels->tile_columns : pass->kernels->dense_rows;
}

/* What lies in padding is dense.c's business. So are vectors of weights for many samples: it packs them once. */
bool pc_pixel_serves(const pc_pass *pass)
{
    const pc_conv_geom *g = &pass->geom;
    const bool inside = g->pt == 0 && g->pb == 0 && g->pl == 0 && g->pr == 0;
    if (pass->out_h != 1 || pass->out_w != 1 || !inside || g->n == 0) {
        return false;
    }
    if (pass->forward) {
        return true;
    }
    const int64_t vectors = pass->rows / pass->kernels->lanes, most = most_samples(pass);
    const bool few = g->n <= most || (vectors >= LONG && (g->n <= BLOCKS * most || pass->depth <= SHALLOW));
    return g->kh * g->kw == 1 && vectors > 0 && few;
}

static int64_t depth_of(const pc_pass *pass) { return pass->depth * pass->geom.kh * pass->geom.kw; }

static pc_pixel_cut cut_of(const pc_pass *pass, pc_dtype dtype, int threads)
{
    const int64_t lanes = pass->kernels->lanes, size = (int64_t)pc_dtype_size(dtype), g = pass->geom.g;
    const int64_t vectors = pc_ceil_div(pass->rows, lanes);
    const int64_t blocks = pc_ceil_div(pass->geom.n, most_samples(pass));
    pc_pixel_cut c = {.share = vectors * lanes, .samples = pc_ceil_div(pass->geom.n, blocks), .batch = pass->geom.n};
    const bool alone = g % threads == 0 || g >= 4 * threads;
    if (!alone && blocks >= threads && vectors < 4 * threads) {
        c.batch = pc_ceil_div(blocks, threads) * c.samples;
    } else if (!alone) {
        c.share = pc_ceil_div(vectors, pc_min(threads, vectors)) * lanes;
    }
    c.shares = pc_ceil_div(pass->rows, c.share);
    c.batches = pc_ceil_div(pass->geom.n, c.batch);
    c.items = g * c.shares * c.batches;
    c.columns = pc_min(c.share, pass->forward ? TALL : WIDE);
    c.width = pass->forward ? pc_ceil_div(c.samples, lanes) * lanes : pass->kernels->dense_rows;
    c.depth = pc_min(depth_of(pass), pass->forward ? PACKED_BYTES / size / c.width : WAYS);
    return c;
}

static pc_pixel_work lay_out(pc_slice *slice, const pc_pass *pass, const pc_pixel_cut *c, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype), lanes = pass->kernels->lanes;
    pc_pixel_work work = {.packed = pc_lay(slice, c->depth * c->width, size)};
    if (pass->forward) {
        work.total = pc_lay(slice, c->columns * c->width, size);
        work.list = pc_lay(slice, c->columns, sizeof(int64_t));
    } else {
        work.rest = pc_lay(slice, c->depth * lanes, size);
        work.list = pc_lay(slice, c->depth, sizeof(int64_t));
    }
    return work;
}

int64_t pc_pixel_bytes(const pc_pass *pass, pc_dtype dtype, int threads)
{
    const pc_pixel_cut cut = cut_of(pass, dtype, threads);
    pc_slice slice = {0};
    lay_out(&slice, pass, &cut, dtype);
    return slice.used;
}

/* A window that is all of an image is one long line, and so is a single pixel. */
static pc_walk walk_of(const pc_pass *pass)
{
    const pc_conv_geom *g = &pass->geom;
    const int64_t *step = pass->source->step;
    pc_walk w = {.sample = step[0], .channel = step[1], .high = g->kh, .wide = g->kw};
    w.row = g->kh > 1 ? g->dh * step[2] : 0; /* the dilation of nothing is any number */
    w.column = g->kw > 1 ? g->dw * step[3] : w.row;
    if (g->kh == 1 || g->kw == 1 || w.row == g->kw * w.column) {
        w.wide = g->kh * g->kw;
        w.high = 1;
    }
    if (w.wide == 1) {
        w.column = w.channel;
    }
    if (w.high == 1 && w.channel == w.wide * w.column) {
        w.wide *= pass->depth;
    }
    return w;
}

static void take_source(const pc_pixel_item *b, int64_t k, int64_t depth)
{
    const pc_walk *w = &b->walk;
    const int64_t width = b->cut->width, at = b->sample * w->sample + b->group * b->pass->depth * w->channel;
    const void *source = b->pass->source->data;
    if (b->pass->call->dtype == PC_F32) {
        take_source_f32((float *)b->work.packed, width, (const float *)source + at, w, k, depth, b->samples);
    } else {
        take_source_f64((double *)b->work.packed, width, (const double *)source + at, w, k, depth, b->samples);
    }
}

/* The bias of outputs p .. p + count - 1, which the pixels of a window share. */
static void begin_vectors(const pc_pixel_item *b, char *out, int64_t out_step, int64_t p, int64_t count)
{
    const pc_pass *pass = b->pass;
    const int64_t window = pass->window_h * pass->window_w, first = b->group * pass->rows + p;
    for (int64_t i = 0, taken; i < count; i += taken) {
        const int64_t channel = (first + i) / window, rest = window - (first + i) % window;
        const int64_t windows = rest == window ? (count - i) / window : 0; /* whole ones */
        taken = windows > 0 ? windows * window : pc_min(rest, count - i);
        for (int64_t s = 0; s < b->samples; s++) {
            pc_copy_args copy = {.to = out + (s * out_step + i) * b->size,
                                 .from = pass->init + channel * b->size,
                                 .rows = pc_max(1, windows),
                                 .columns = pc_min(taken, window),
                                 .to_step = window,
                                 .from_step = 1};
            if (window == 1) {
                copy.rows = copy.from_column = 1;
                copy.columns = taken;
            }
            pass->kernels->copy_rows(&copy);
        }
    }
}

/* Weights k .. k + depth - 1 of p .. p + count - 1 where they are, or, as nothing behind a vector may be read, copied. */
static const char *take_weights(const pc_pixel_item *b, int64_t p, int64_t count, int64_t k, int64_t depth,
                                int64_t step)
{
    const pc_pass *pass = b->pass;
    const char *weights = pass->weight + ((b->group * pass->depth + k) * pass->c_step + p) * b->size;
    if (count % pass->kernels->lanes == 0) {
        return weights;
    }
    pass->kernels->copy_rows(&(pc_copy_args){.to = b->work.rest,
                                             .from = weights,
                                             .rows = depth,
                                             .columns = count,
                                             .to_step = step,
                                             .from_step = pass->c_step,
                                             .from_column = 1});
    return b->work.rest;
}

/* Outputs p .. p + count - 1: whole vectors, or less than one. */
static void run_vectors(const pc_pixel_item *b, char *out, int64_t p, int64_t count)
{
    const pc_pass *pass = b->pass;
    const int64_t out_step = pass->geom.g * pass->rows, lanes = pass->kernels->lanes;
    const int64_t step = count % lanes == 0 ? pass->c_step : lanes;
    if (pass->init) {
        begin_vectors(b, out, out_step, p, count);
    }
    for (int64_t i = 0; i < b->cut->depth; i++) {
        b->work.list[i] = i * step;
    }
    for (int64_t k = 0, depth; k < b->depth && !pc_poll(pass->call); k += depth) {
        depth = pc_min(b->cut->depth, b->depth - k);
        take_source(b, k, depth);
        pass->kernels->dense_tile(&(pc_dense_args){.out = out,
                                                   .out_step = out_step,
                                                   .rows = b->samples,
                                                   .columns = count,
                                                   .accumulate = k > 0 || pass->init,
                                                   .vec = take_weights(b, p, count, k, depth, step),
                                                   .scal = b->work.packed,
                                                   .count = depth,
                                                   .rest = depth,
                                                   .list = b->work.list});
    }
}

static void run_scalars(const pc_pixel_item *b, char *out, int64_t p, int64_t count)
{
    const pc_pass *pass = b->pass;
    const int64_t width = b->cut->width, out_step = pass->geom.g * pass->rows;
    if (pass->init) { /* all lanes alike */
        pass->kernels->copy_rows(&(pc_copy_args){.to = b->work.total,
                                                 .from = pass->init + (b->group * pass->rows + p) * b->size,
                                                 .rows = count,
                                                 .columns = width,
                                                 .to_step = width,
                                                 .from_step = 1});
    }
    for (int64_t i = 0; i < count; i++) {
        b->work.list[i] = (b->group * pass->rows + p + i) * pass->p_step;
    }
    for (int64_t k = 0, depth; k < b->depth && !pc_poll(pass->call); k += depth) {
        depth = pc_min(b->cut->depth, b->depth - k);
        take_source(b, k, depth);
        pass->kernels->weight_tile(&(pc_weight_args){.out = b->work.total,
                                                     .rows = count,
                                                     .vectors = width / pass->kernels->lanes,
                                                     .accumulate = k > 0 || pass->init,
                                                     .vec = b->work.packed,
                                                     .scal = pass->weight,
                                                     .offset = b->work.list,
                                                     .row_count = 1,
                                                     .columns = depth,
                                                     .pixel_step = 1,
                                                     .row = &k});
    }
    pass->kernels->copy_rows(&(pc_copy_args){.to = out,
                                             .from = b->work.total,
                                             .rows = b->samples,
                                             .columns = count,
                                             .to_step = out_step,
                                             .from_step = 1,
                                             .from_column = width});
}

void pc_pixel_run(const pc_pass *pass, int index, int count)
{
    const pc_dtype dtype = pass->call->dtype;
    const pc_pixel_cut cut = cut_of(pass, dtype, count);
    const int64_t lanes = pass->kernels->lanes;
    pc_slice slice = pc_slice_of(pass->call, index);
    pc_pixel_item b = {.pass = pass,
                       .cut = &cut,
                       .work = lay_out(&slice, pass, &cut, dtype),
                       .walk = walk_of(pass),
                       .size = (int64_t)pc_dtype_size(dtype),
                       .depth = depth_of(pass)};
    /* No sample writes the lanes that have none: their sums go nowhere, but must not be slow. */
    memset(b.work.packed, 0, (size_t)(cut.depth * cut.width * b.size));
    for (int64_t item = index; item < cut.items; item += count) {
        const int64_t first = item % cut.shares * cut.share, end = pc_min(first + cut.share, pass->rows);
        const int64_t sample = item / cut.shares % cut.batches * cut.batch;
        const int64_t last = pc_min(sample + cut.batch, pass->geom.n);
        b.group = item / cut.shares / cut.batches;
        for (int64_t p = first, columns; p < end; p += columns) {
            columns = pc_min(cut.columns, end - p);
            columns -= !pass->forward && columns > lanes ? columns % lanes : 0;
            for (b.sample = sample; b.sample < last && !pc_stopped(pass->call); b.sample += cut.samples) {
                const int64_t plane = b.sample * pass->geom.g + b.group;
                char *out = pass->out + (plane * pass->rows + p) * b.size;
                b.samples = pc_min(cut.samples, last - b.sample);
                if (pass->forward) {
                    run_scalars(&b, out, p, columns);
                } else {
                    run_vectors(&b, out, p, columns);
                }
            }
        }
    }
}

bool pc_pixel_weight(const pc_conv_geom *geom, pc_dtype dtype, pc_call *call, pc_pass *pass)
{
    const bool at_corner = geom->pt == 0 && geom->pl == 0; /* a wide stride has one window, wherever that is */
    const bool whole = geom->kh == geom->ih && geom->kw == geom->iw && geom->dh == 1 && geom->dw == 1 && at_corner;
    *pass = (pc_pass){.geom = {.n = geom->oc, .g = 1, .kh = 1, .kw = 1},
                      .call = call,
                      .kernels = pc_kernels_for(dtype),
                      .rows = geom->ic * geom->kh * geom->kw,
                      .depth = geom->n,
                      .out_h = geom->oh,
                      .out_w = geom->ow,
                      .window_h = 1,
                      .window_w = 1};
    return whole && geom->g == 1 && geom->n > 0 && geom->n <= PC_PIXEL_CHUNK && pc_pixel_serves(pass);
}

static void run_thread(void *pass, int index, int count) { pc_pixel_run(pass, index, count); }

bool pc_pixel_run_weight(pc_pass *pass, const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                         const pc_tensor *in)
{
    const int64_t *step = in->step;
    if ((geom->kw > 1 && step[3] != 1) || (geom->kh > 1 && step[2] != geom->kw) ||
        (geom->ic > 1 && step[1] != geom->kh * geom->kw)) {
        return false;
    }
    const pc_tensor source = {.data = grad_out->data, .step = {grad_out->step[1], grad_out->step[0]}};
    pass->source = &source;
    pass->weight = in->data;
    pass->c_step = step[0];
    pass->out = grad_weight;
    pc_pool_run(pass->call->threads, run_thread, pass);
    return true;
}

void pc_pixel_explain(const pc_pass *pass, pc_plan *plan)
{
    const pc_kernels *kernels = pass->kernels;
    const pc_pixel_cut c = cut_of(pass, pass->call->dtype, pass->call->threads);
    plan->family = "pixel";
    plan->form = pass->forward ? "weights as scalars" : pass->p_step ? "weights as vectors" : "input as vectors";
    plan->kernel = pass->forward ? "weight_tile" : "dense_tile";
    plan->phases = 1;
    plan->tile_rows = pass->forward ? kernels->tile_rows : c.samples;
    plan->tile_vectors = pass->forward ? c.width / kernels->lanes : kernels->dense_vectors[c.samples - 1];
    plan->items = c.items;
    pc_plan_add(plan, "samples", c.samples);
    pc_plan_add(plan, "columns", c.columns);
    pc_plan_add(plan, "depth", c.depth);
    pc_plan_add(plan, "shares", c.shares);
    pc_plan_add(plan, "batches", c.batches);
}
