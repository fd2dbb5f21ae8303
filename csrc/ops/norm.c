/* norm.c: batch normalisation, forward and backward.
 *
 *     xhat = (x - mean) / sqrt(variance + eps)        y = xhat * weight + bias
 *     grad_bias = sum(g)    grad_weight = sum(g * xhat)
 *     grad_x = weight / sqrt(variance + eps) * (g - mean(g) - xhat * mean(g * xhat)), for given statistics without means
 *
 * Both passes have one form: two sums over a channel, sum(u - u0) and sum((u - u0) * (v - v0)), a few scalars from them
 * in double, and a map over the channel, out = (v - v0) * scale + shift (+ u * more). Forward u = v = x and u0 is near
 * the mean (that of the first elements), so that neither a large mean nor an outlier cancels digits;
 * backward u = g, u0 = 0, v = x. The mean is kept as a T and the rest of it, which goes into `shift`: so x - mean is
 * exact where it matters.
 *
 * A channel's elements are numbered by blocks of 16 * W, W the kernels' virtual lanes: plane after plane, and a plane
 * ends with a short block; of planes smaller than half a block, a few are one block. Blocks are the links of the
 * chain: each adds to 2 * W doubles. Up to 16 chunks of blocks, cut by the shape alone, have chains of their own, which
 * are added in order. So bits depend neither on threads nor layout.
 *
 * Each thread takes channels, some at a time: so few that they are in the cache when the map comes, but enough for
 * memory to be read in long runs, sample by sample. Where the channels are too few for that, threads share them by
 * chunks, first for the sums and then for the map. Elements that are not side by side in memory are gathered in a line
 * first.
 *
 * The floor is a reading more than a copy has, of x, and backward of g as well: with what a reading takes, 0.65 of a
 * copy's speed forward and 0.57 to 0.60 backward, where nothing stays in a cache. Zen 3, 64 samples, one thread: maps
 * of 56x56, 28x28 and 14x14 reach 0.60 to 0.71 and 0.69 to 0.79, at or above that floor; maps of 7x7 0.52 to 0.54 and
 * 0.40 to 0.44, of 0.7 and 0.55: their rows are short. Longer runs (RUN_BYTES 32 K), fetching ahead and smaller groups
 * were measured: within 5 % either way.
 *
 * Floats whose squares overflow (beyond 1e19, a fill value of some data formats) give sums that are not finite: those
 * are made again, in double. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "isa/dispatch.h"
#include "ops/call.h"

enum {
    LANES = 32,              /* the most virtual lanes: those of float */
    STEPS = 16,              /* of W elements: a block */
    CHUNKS = 16,             /* of a channel, at most */
    CHUNK_BLOCKS = 64,       /* at least */
    RUN_BLOCKS = 16,         /* at most in one go */
    TOGETHER = 32,           /* channels whose sums are taken side by side, at most */
    CACHE_BYTES = 192 << 10, /* of them, or */
    RUN_BYTES = 16 << 10,    /* of one sample of them, whatever is more: 28x28 planes one by one are half as fast */
    GRAIN = 1 << 16,         /* elements (25 us) below which a second thread costs more than it brings */
    CHANNEL = 256,           /* elements that take as long as what is done once in a channel, */
    PLANE = 16,              /* and in a plane */
};

typedef struct {
    const pc_norm *norm;
    const pc_tensor *in, *grad; /* the gradient is NULL in forward */
    char *out;                  /* NULL: no map */
    char *grad_weight, *grad_bias;
    bool sums;
    int64_t plane;         /* elements of one */
    int64_t group, blocks; /* planes of a block (more than one: then it is whole planes), or blocks of a plane */
    int64_t all, chunks;   /* blocks and chunks of a channel */
    double *partial;       /* [c][chunks][2] */
    double *guess;         /* [c] */
    pc_norm_line *lines;   /* [c] */
    pc_call *call;
} norm_pass;

typedef struct {
    double *totals; /* [TOGETHER][2 * LANES] */
    void *first, *second;
} norm_work;

static int64_t lanes_of(pc_dtype dtype) { return 128 / (int64_t)pc_dtype_size(dtype); }
static int64_t block_of(pc_dtype dtype) { return STEPS * lanes_of(dtype); }

static norm_work lay_out(pc_slice *slice, pc_dtype dtype)
{
    const int64_t line = RUN_BLOCKS * block_of(dtype), size = (int64_t)pc_dtype_size(dtype);
    return (norm_work){.totals = pc_lay(slice, TOGETHER * 2 * LANES, sizeof(double)),
                       .first = pc_lay(slice, line, size),
                       .second = pc_lay(slice, line, size)};
}

/* What all threads share, laid out behind their slices. */
static void lay_out_shared(norm_pass *p, pc_slice *slice)
{
    const int64_t c = p->norm->shape[1];
    p->partial = pc_lay(slice, c, p->chunks * 2 * (int64_t)sizeof(double));
    p->guess = pc_lay(slice, c, sizeof(double));
    p->lines = pc_lay(slice, c, sizeof(pc_norm_line));
}

/* ---- reading ---- */

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/norm.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/norm.inc.h"
#undef T
#undef PC_LOCAL

/* Are the elements of a plane side by side? */
static bool has_whole_planes(const norm_pass *p, const pc_tensor *tensor)
{
    const int64_t width = p->norm->shape[3], *step = tensor->step;
    const bool rows_touch = step[3] == 1 && (step[2] == width || p->norm->shape[2] == 1);
    return p->plane == 1 || rows_touch || (width == 1 && step[2] == 1);
}

/* Elements first .. first+count-1 of plane (n, c), side by side. */
static const void *read(const norm_pass *p, const pc_tensor *tensor, int64_t n, int64_t c, int64_t first, int64_t count,
                        void *line)
{
    const int64_t width = p->norm->shape[3];
    const int64_t plane = n * tensor->step[0] + c * tensor->step[1];
    if (has_whole_planes(p, tensor)) {
        return (const char *)tensor->data + (plane + first) * (int64_t)pc_dtype_size(p->call->dtype);
    }
    if (p->call->dtype == PC_F32) {
        gather_f32(line, tensor, plane, first, count, width);
    } else {
        gather_f64(line, tensor, plane, first, count, width);
    }
    return line;
}

/* Elements first .. first+count-1 of each of the samples n .. n+samples-1. */
typedef struct {
    int64_t n, samples, first, count;
    int64_t next; /* the block behind them */
} norm_run;

static norm_run run_at(const norm_pass *p, int64_t block, int64_t last)
{
    if (p->group > 1) {
        const int64_t n = block * p->group;
        return (norm_run){n, pc_min(p->group, p->norm->shape[0] - n), 0, p->plane, block + 1};
    }
    const int64_t size = block_of(p->call->dtype), at = block % p->blocks;
    const int64_t length = pc_min(pc_min(p->blocks - at, last - block), RUN_BLOCKS);
    return (norm_run){block / p->blocks, 1, at * size, pc_min(p->plane - at * size, length * size), block + length};
}

/* The samples of a run, of channel c: the first, and the step to the next. Each is side by side. */
static const void *read_run(const norm_pass *p, const pc_tensor *tensor, const norm_run *run, int64_t c, void *line,
                            int64_t *step)
{
    assert(run->samples * run->count <= RUN_BLOCKS * block_of(p->call->dtype));
    const void *first = read(p, tensor, run->n, c, run->first, run->count, line);
    *step = first == line ? run->count : tensor->step[0];
    for (int64_t s = 1; first == line && s < run->samples; s++) {
        char *to = (char *)line + s * run->count * (int64_t)pc_dtype_size(p->call->dtype);
        read(p, tensor, run->n + s, c, run->first, run->count, to);
    }
    return first;
}

/* ---- the sums ---- */

static double as_t(double value, pc_dtype dtype) { return dtype == PC_F32 ? (double)(float)value : value; }

/* Adds the sums over a run of some channels, which may be near their guesses or (guess NULL) near zero. */
static void sum_run(const norm_pass *p, const norm_work *work, const norm_run *run, int64_t c, int64_t channels,
                    const double *guess)
{
    const pc_kernels *kernels = pc_kernels_for(p->call->dtype);
    for (int64_t i = 0; i < channels; i++) {
        pc_norm_sums_args args = {.sums = work->totals + i * 2 * LANES, .rows = run->samples, .count = run->count};
        args.u = args.v = read_run(p, p->in, run, c + i, work->first, &args.v_step);
        args.u_step = args.v_step;
        if (p->grad) {
            args.u = read_run(p, p->grad, run, c + i, work->second, &args.u_step);
            args.v0 = p->lines[c + i].mean;
        } else if (guess) {
            args.u0 = args.v0 = guess[i];
        }
        kernels->norm_sums(&args);
    }
}

static void clear_totals(const norm_work *work, int64_t channels)
{
    assert(channels <= TOGETHER);
    memset(work->totals, 0, (size_t)(channels * 2 * LANES) * sizeof(double));
}

/* The lanes' sum, by halves: of LANES or half as many. */
static double fold(const double *lanes, int64_t count)
{
    enum { HALF = LANES / 2 };
    double half[HALF];
    for (int j = 0; j < HALF; j++) {
        half[j] = lanes[j];
    }
    for (int j = 0; count > HALF && j < HALF; j++) {
        half[j] += lanes[HALF + j];
    }
    for (int n = HALF / 2; n > 0; n /= 2) {
        for (int j = 0; j < n; j++) {
            half[j] += half[j + n];
        }
    }
    return half[0];
}

/* guess[i] = the mean of the first elements, as a T: of so many that an outlier among them, of 2 sqrt(count) in all, does
 * not cancel digits, or of the first block. */
static void guess_means(const norm_pass *p, const norm_work *work, int64_t c, int64_t channels, double *guess)
{
    const double enough = 2 * sqrt((double)p->norm->shape[0] * (double)p->plane);
    norm_run run = run_at(p, 0, 1);
    run.samples = pc_min(run.samples, 1 + (int64_t)(enough / (double)p->plane));
    clear_totals(work, channels);
    sum_run(p, work, &run, c, channels, NULL);
    for (int64_t i = 0; i < channels; i++) {
        const double sum = fold(work->totals + i * 2 * LANES, lanes_of(p->call->dtype));
        guess[i] = as_t(sum / (double)(run.samples * run.count), p->call->dtype);
        guess[i] = isfinite(guess[i]) ? guess[i] : 0;
    }
}

static int64_t chunk_start(const norm_pass *p, int64_t chunk)
{
    return p->all / p->chunks * chunk + pc_min(chunk, p->all % p->chunks);
}

static void sum_chunk(const norm_pass *p, const norm_work *work, int64_t c, int64_t channels, int64_t chunk)
{
    const int64_t lanes = lanes_of(p->call->dtype);
    const int64_t first = chunk_start(p, chunk), last = chunk_start(p, chunk + 1);
    double guess[TOGETHER] = {0};
    if (!p->grad) {
        guess_means(p, work, c, channels, guess);
    }
    clear_totals(work, channels);
    norm_run run;
    for (int64_t block = first; block < last && !pc_poll(p->call); block = run.next) {
        run = run_at(p, block, last);
        sum_run(p, work, &run, c, channels, guess);
    }
    for (int64_t i = 0; i < channels; i++) {
        double *sums = p->partial + ((c + i) * p->chunks + chunk) * 2;
        sums[0] = fold(work->totals + i * 2 * LANES, lanes);
        sums[1] = fold(work->totals + i * 2 * LANES + lanes, lanes);
        if (chunk == 0) {
            p->guess[c + i] = guess[i];
        }
    }
}

/* The sums of a channel once more, in double and one element after the other. */
static void sum_slowly(const norm_pass *p, const norm_work *work, int64_t c, double sums[2])
{
    const double u0 = p->grad ? 0 : p->guess[c], v0 = p->grad ? p->lines[c].mean : u0;
    norm_run run;
    sums[0] = sums[1] = 0;
    for (int64_t block = 0; block < p->all && !pc_poll(p->call); block = run.next) {
        run = run_at(p, block, p->all);
        int64_t u_step, v_step;
        const void *v = read_run(p, p->in, &run, c, work->first, &v_step), *u = v;
        u_step = v_step;
        if (p->grad) {
            u = read_run(p, p->grad, &run, c, work->second, &u_step);
        }
        for (int64_t s = 0; s < run.samples; s++) {
            if (p->call->dtype == PC_F32) {
                add_slowly_f32(sums, (const float *)u + s * u_step, (const float *)v + s * v_step, u0, v0, run.count);
            } else {
                add_slowly_f64(sums, (const double *)u + s * u_step, (const double *)v + s * v_step, u0, v0, run.count);
            }
        }
    }
}

/* ---- from the sums to the map ---- */

static double value_of(const void *vector, int64_t c, pc_dtype dtype, double missing)
{
    return !vector ? missing : dtype == PC_F32 ? (double)((const float *)vector)[c] : ((const double *)vector)[c];
}

static void put(char *vector, int64_t c, pc_dtype dtype, double value)
{
    if (vector && dtype == PC_F32) {
        ((float *)vector)[c] = (float)value;
    } else if (vector) {
        ((double *)vector)[c] = value;
    }
}

static void finish(const norm_pass *p, const norm_work *work, int64_t c)
{
    const pc_norm *norm = p->norm;
    const pc_dtype dtype = p->call->dtype;
    const double count = (double)norm->shape[0] * (double)p->plane;
    pc_norm_line *line = &p->lines[c];
    double sums[2] = {0, 0};
    for (int64_t k = 0; p->sums && k < p->chunks; k++) {
        sums[0] += p->partial[(c * p->chunks + k) * 2];
        sums[1] += p->partial[(c * p->chunks + k) * 2 + 1];
    }
    if (!isfinite(sums[0]) || !isfinite(sums[1])) {
        sum_slowly(p, work, c, sums);
    }
    if (!p->grad && norm->batch && !p->sums) {
        norm->mean[c] = 0;
        norm->variance[c] = 1;
    } else if (!p->grad && norm->batch) {
        const double offset = sums[0] / count, variance = (sums[1] - sums[0] * offset) / count;
        norm->mean[c] = p->guess[c] + offset;
        norm->variance[c] = variance < 0 ? 0 : variance;
    }
    const double mean = as_t(norm->mean[c], dtype), rest = norm->mean[c] - mean;
    const double inverse = 1 / sqrt(norm->variance[c] + norm->eps);
    const double slope = value_of(norm->weight, c, dtype, 1) * inverse;
    if (!p->grad) {
        const double shift = value_of(norm->bias, c, dtype, 0) - (isfinite(rest) ? rest * slope : 0);
        *line = (pc_norm_line){.mean = mean, .scale = slope, .shift = shift};
        return;
    }
    const double product = sums[1] - (isfinite(rest) ? rest * sums[0] : 0);
    put(p->grad_bias, c, dtype, sums[0]);
    put(p->grad_weight, c, dtype, product * inverse);
    if (norm->batch) {
        const double scale = -slope * inverse * inverse * product / count;
        const double shift = -slope * sums[0] / count - (isfinite(rest) ? rest * scale : 0);
        *line = (pc_norm_line){.mean = mean, .scale = scale, .shift = shift, .more = slope};
    } else {
        *line = (pc_norm_line){.mean = 0, .scale = slope, .shift = 0};
    }
}

/* The map over one run of one sample, for some channels; as one call where their planes can be read in place. */
static void map_run(const norm_pass *p, const norm_work *work, const norm_run *run, int64_t n, int64_t c,
                    int64_t channels)
{
    const bool both = p->grad && p->norm->batch;
    const pc_tensor *in = p->grad && !both ? p->grad : p->in;
    const bool whole = has_whole_planes(p, in) && (!both || has_whole_planes(p, p->grad));
    const int64_t size = (int64_t)pc_dtype_size(p->call->dtype);
    for (int64_t i = c, rows; i < c + channels && !pc_poll(p->call); i += rows) {
        rows = whole ? pc_min(c + channels - i, TOGETHER) : 1;
        const pc_norm_map_args args = {.out = p->out + ((n * p->norm->shape[1] + i) * p->plane + run->first) * size,
                                       .in = read(p, in, n, i, run->first, run->count, work->first),
                                       .more =
                                           both ? read(p, p->grad, n, i, run->first, run->count, work->second) : NULL,
                                       .lines = p->lines + i,
                                       .rows = rows,
                                       .out_step = p->plane,
                                       .in_step = in->step[1],
                                       .more_step = both ? p->grad->step[1] : 0,
                                       .count = run->count};
        pc_kernels_for(p->call->dtype)->norm_map(&args);
    }
}

/* The map over some blocks of a channel. */
static void map_blocks(const norm_pass *p, const norm_work *work, int64_t c, int64_t first, int64_t last)
{
    norm_run run;
    for (int64_t block = first; block < last; block = run.next) {
        run = run_at(p, block, last);
        for (int64_t n = run.n; n < run.n + run.samples && !pc_poll(p->call); n++) {
            map_run(p, work, &run, n, c, 1);
        }
    }
}

/* The map over all of some channels; from the last sample back, so that it finds in the cache what the sums read last:
 * of channels twice as large as the cache that is half. */
static void map_channels(const norm_pass *p, const norm_work *work, int64_t c, int64_t channels)
{
    const int64_t length = RUN_BLOCKS * block_of(p->call->dtype);
    for (int64_t n = p->norm->shape[0] - 1; n >= 0 && !pc_poll(p->call); n--) {
        for (int64_t first = 0; first < p->plane; first += length) {
            const norm_run run = {.first = first, .count = pc_min(length, p->plane - first)};
            map_run(p, work, &run, n, c, channels);
        }
    }
}

/* ---- threads ---- */

static void enter(const norm_pass *p, int64_t c)
{
    /* Backward sums are taken around the mean. */
    p->lines[c] = (pc_norm_line){.mean = p->grad ? as_t(p->norm->mean[c], p->call->dtype) : 0};
}

/* How many channels at a time. Without sums there is nothing to come back to. */
static int64_t channels_together(const norm_pass *p)
{
    const int64_t plane = pc_max(p->plane, 1) * (int64_t)pc_dtype_size(p->call->dtype) * (p->grad ? 2 : 1);
    if (!p->sums) {
        return p->norm->shape[1];
    }
    const int64_t cached = CACHE_BYTES / pc_max(plane * p->norm->shape[0], 1);
    return pc_max(1, pc_min(TOGETHER, pc_max(cached, pc_ceil_div(RUN_BYTES, plane))));
}

/* A share of the channels, from the sums to the map. */
static void run_channels(void *context, int index, int count)
{
    const norm_pass *p = context;
    pc_slice slice = pc_slice_of(p->call, index);
    const norm_work work = lay_out(&slice, p->call->dtype);
    const int64_t all = p->norm->shape[1], end = all * (index + 1) / count, together = channels_together(p);
    for (int64_t c = all * index / count; c < end && !pc_poll(p->call); c += together) {
        const int64_t channels = pc_min(together, end - c);
        for (int64_t i = c; i < c + channels; i++) {
            enter(p, i);
        }
        for (int64_t k = 0; p->sums && k < p->chunks; k++) {
            sum_chunk(p, &work, c, channels, k);
        }
        for (int64_t i = c; i < c + channels && !pc_stopped(p->call); i++) {
            finish(p, &work, i);
        }
        if (p->out) {
            map_channels(p, &work, c, channels);
        }
    }
}

/* A share of the chunks of all channels: of their sums, or of the map. */
static void run_chunks(const norm_pass *p, int index, int count, bool map)
{
    pc_slice slice = pc_slice_of(p->call, index);
    const norm_work work = lay_out(&slice, p->call->dtype);
    const int64_t items = p->norm->shape[1] * p->chunks;
    for (int64_t i = items * index / count; i < items * (index + 1) / count && !pc_poll(p->call); i++) {
        const int64_t c = i / p->chunks, k = i % p->chunks;
        if (map) {
            map_blocks(p, &work, c, chunk_start(p, k), chunk_start(p, k + 1));
        } else {
            sum_chunk(p, &work, c, 1, k);
        }
    }
}

static void run_sums(void *context, int index, int count) { run_chunks(context, index, count, false); }
static void run_map(void *context, int index, int count) { run_chunks(context, index, count, true); }

static norm_pass pass_of(const pc_norm *norm, pc_dtype dtype)
{
    norm_pass p = {.norm = norm, .plane = norm->shape[2] * norm->shape[3]};
    p.group = pc_max(1, pc_min(STEPS, block_of(dtype) / pc_max(p.plane, 1)));
    p.blocks = pc_ceil_div(p.plane, block_of(dtype));
    p.all = p.group > 1 ? pc_ceil_div(norm->shape[0], p.group) * (p.plane > 0) : norm->shape[0] * p.blocks;
    p.chunks = pc_max(1, pc_min(CHUNKS, p.all / CHUNK_BLOCKS));
    return p;
}

static void run(norm_pass *p)
{
    const int64_t channels = p->norm->shape[1];
    const int threads = p->call->threads;
    pc_slice slice = {p->call->shared, 0, (int64_t)p->call->shared_size};
    lay_out_shared(p, &slice);
    if (channels % threads == 0 || channels >= 4 * threads) {
        pc_pool_run(threads, run_channels, p);
        return;
    }
    pc_slice own = pc_slice_of(p->call, 0);
    const norm_work work = lay_out(&own, p->call->dtype);
    for (int64_t c = 0; c < channels; c++) {
        enter(p, c);
    }
    if (p->sums) {
        pc_pool_run(threads, run_sums, p);
    }
    for (int64_t c = 0; c < channels && !pc_stopped(p->call); c++) {
        finish(p, &work, c);
    }
    if (p->out) {
        pc_pool_run(threads, run_map, p);
    }
}

/* ---- the doors ---- */

pc_status pc_norm_begin(const pc_norm *norm, pc_dtype dtype, int threads, pc_call *call, pc_error *error)
{
    norm_pass p = pass_of(norm, dtype);
    pc_slice slice = {0}, shared = {0};
    lay_out(&slice, dtype);
    lay_out_shared(&p, &shared);
    const double work =
        (double)norm->shape[1] * ((double)norm->shape[0] * ((double)p.plane + PLANE) + (norm->batch ? CHANNEL : 0));
    return pc_begin(call, dtype, pc_settle(threads, work, GRAIN), work, slice.used, shared.used, error);
}

/* A tensor without elements has no blocks: nothing is summed or mapped, and gradients of parameters are zero. */
void pc_norm_forward(const pc_norm *norm, void *out, const pc_tensor *in, pc_call *call)
{
    norm_pass p = pass_of(norm, call->dtype);
    p.in = in;
    p.out = out;
    p.sums = norm->batch && norm->shape[0] * p.plane > 0;
    p.call = call;
    run(&p);
}

void pc_norm_backward(const pc_norm *norm, void *grad_in, void *grad_weight, void *grad_bias, const pc_tensor *grad_out,
                      const pc_tensor *in, pc_call *call)
{
    norm_pass p = pass_of(norm, call->dtype);
    p.in = in;
    p.grad = grad_out;
    p.out = grad_in;
    p.grad_weight = grad_weight;
    p.grad_bias = grad_bias;
    p.sums = (norm->batch || grad_weight || grad_bias) && norm->shape[0] * p.plane > 0;
    p.call = call;
    run(&p);
}
