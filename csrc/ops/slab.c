#include "ops/slab.h"

#include "base/checked.h"
#include "isa/dispatch.h"

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int64_t modulo(int64_t a, int64_t b) { return a - pc_floor_div(a, b) * b; }

pc_axis pc_axis_of(int64_t size, int64_t count, int64_t stride, int64_t pad, int64_t taps, int64_t dilation,
                   pc_pad_mode mode)
{
    return (pc_axis){.size = size,
                     .stride = stride,
                     .count = count,
                     .taps = taps,
                     .base = -pad,
                     .delta = dilation,
                     .weight_step = 1,
                     .mode = mode};
}

int64_t pc_tap_period(int64_t stride, int64_t delta) { return stride / gcd(stride, modulo(delta, stride)); }

static int64_t tap_offset(const pc_axis *axis, int64_t k) { return axis->base + k * axis->delta; }

/* Padding that looks the same however far out one reads. The other modes limit it to the size of the source. */
static bool endless_padding(const pc_axis *axis)
{
    return axis->mode == PC_PAD_ZEROS || axis->mode == PC_PAD_REPLICATE;
}

/* f of tap k for the band, moved next to the source when the whole band reads outside. */
static int64_t tap_element(const pc_axis *axis, int64_t first, int64_t count, int64_t k)
{
    int64_t offset = tap_offset(axis, k), r = modulo(offset, axis->stride);
    int64_t f = pc_floor_div(offset, axis->stride);
    if (!endless_padding(axis)) {
        return f;
    }
    /* Everything at or below `before` ends in front of the source, everything from `behind` on starts behind it. */
    int64_t before = pc_floor_div(-1 - r, axis->stride) - (first + count - 1);
    int64_t behind = -pc_floor_div(r - axis->size, axis->stride) - first;
    return pc_min(pc_max(f, before), behind);
}

static bool reads_only_padding(const pc_axis *axis, int64_t first, int64_t count, int64_t k)
{
    int64_t offset = tap_offset(axis, k);
    return (first + count - 1) * axis->stride + offset < 0 || first * axis->stride + offset >= axis->size;
}

int64_t pc_band_taps(const pc_axis *axis, int64_t first, int64_t count, bool skip, int64_t *tap)
{
    int64_t low = 0, high = axis->taps;
    while (skip && low < high && reads_only_padding(axis, first, count, low)) {
        low++;
    }
    while (skip && low < high && reads_only_padding(axis, first, count, high - 1)) {
        high--;
    }
    *tap = low;
    return high - low;
}

pc_span pc_span_of(const pc_axis *axis, int64_t first, int64_t count, bool skip)
{
    pc_span span = {.first = first, .count = count};
    span.taps = pc_band_taps(axis, first, count, skip, &span.tap);
    if (axis->split) {
        span.period = pc_max(1, span.taps);
        span.phases = span.taps;
        span.extent = count;
        return span;
    }
    span.period = pc_tap_period(axis->stride, axis->delta);
    span.phases = pc_min(span.period, span.taps);
    int64_t low = 0, high = 0;
    for (int64_t k = span.tap; k < span.tap + span.taps; k++) {
        int64_t f = tap_element(axis, first, count, k);
        low = k == span.tap ? f : pc_min(low, f);
        high = k == span.tap ? f : pc_max(high, f);
    }
    span.low = low;
    span.extent = count + high - low;
    return span;
}

int64_t pc_span_most(const pc_axis *axis, int64_t count)
{
    if (axis->split) {
        return axis->taps > INT64_MAX / 64 / count ? INT64_MAX / 64 : axis->taps * count;
    }
    int64_t phases = pc_min(pc_tap_period(axis->stride, axis->delta), axis->taps);
    int64_t spread;
    if (pc_mul(&spread, axis->delta < 0 ? -axis->delta : axis->delta, axis->taps - 1)) {
        spread = INT64_MAX;
    }
    spread = spread / axis->stride + (axis->stride > 1);
    if (endless_padding(axis)) { /* tap_element keeps f within one band and one source */
        spread = pc_min(spread, axis->size / axis->stride + count + 2);
    }
    return phases * (count + spread);
}

/* Channels an odd number of cache lines apart: a power of two would put all of them into a few sets of the cache. */
static int64_t padded_step(int64_t elements, pc_dtype dtype)
{
    int64_t line = 64 / (int64_t)pc_dtype_size(dtype);
    return (pc_ceil_div(elements, line) | 1) * line;
}

pc_slab pc_slab_of(pc_span y, pc_span x, int64_t samples, pc_dtype dtype)
{
    pc_slab slab = {.y = y, .x = x, .samples = samples};
    slab.row_step = x.extent * samples;
    slab.plane_step = y.extent * slab.row_step;
    slab.channel_step = padded_step(y.phases * x.phases * slab.plane_step, dtype);
    return slab;
}

int64_t pc_slab_most(int64_t most_y, int64_t most_x, int64_t samples, pc_dtype dtype)
{
    int64_t elements;
    if (pc_mul(&elements, most_y, most_x) || pc_mul(&elements, elements, samples) || elements > INT64_MAX / 64) {
        return -1;
    }
    return padded_step(elements, dtype);
}

static void tap_offsets(const pc_span *span, const pc_axis *axis, int64_t phase_step, int64_t element_step,
                        int64_t *offsets)
{
    for (int64_t i = 0; i < span->taps; i++) {
        int64_t f = axis->split ? 0 : tap_element(axis, span->first, span->count, span->tap + i);
        offsets[i] = (i % span->period) * phase_step + (f - span->low) * element_step;
    }
}

void pc_slab_rows(const pc_slab *slab, const pc_axis *axis, int64_t *offsets)
{
    tap_offsets(&slab->y, axis, slab->x.phases * slab->plane_step, slab->row_step, offsets);
}

void pc_slab_columns(const pc_slab *slab, const pc_axis *axis, int64_t *offsets)
{
    tap_offsets(&slab->x, axis, slab->plane_step, slab->samples, offsets);
}

/* The source position of element 0 of a phase. */
static int64_t phase_start(const pc_span *span, const pc_axis *axis, int64_t phase)
{
    const int64_t offset = tap_offset(axis, span->tap + phase);
    return (span->first + span->low) * axis->stride + (axis->split ? offset : modulo(offset, axis->stride));
}

int64_t pc_band_end(const pc_axis *axis, int64_t first, int64_t most, int64_t least)
{
    int64_t end = pc_min(first + most, axis->count);
    for (int64_t k = 0; least > 0 && k < axis->taps; k++) {
        /* The first outputs that read at or behind the source's end, and behind its start. */
        for (int64_t edge = axis->size, i = 0; i < 2; i++, edge = 0) {
            const int64_t first_there = -pc_floor_div(tap_offset(axis, k) - edge, axis->stride);
            if (first_there >= first + least && first_there <= axis->count - least) {
                end = pc_min(end, first_there);
            }
        }
    }
    return end;
}

/* Where element v of a phase comes from, or -1 for the padding's value. Elements at the rim of a phase may lie further
 * out than any tap reads; what they hold does not matter, only that nothing outside the source is touched. */
static int64_t source_index(const pc_axis *axis, int64_t start, int64_t v)
{
    int64_t i;
    if (pc_mul(&i, v, axis->stride) || pc_add(&i, i, start)) {
        return -1;
    }
    if (i < 0 || i >= axis->size) {
        i = axis->mode == PC_PAD_ZEROS ? -1 : pc_pad_source(axis->mode, i, axis->size);
    }
    return i < axis->size ? i : -1;
}

/* One phase along one axis: elements low .. high-1 lie inside the source, those around them are padding. */
typedef struct {
    const pc_axis *axis;
    int64_t start, low, high; /* element v is source position start + v*stride */
} pc_rim;

static pc_rim rim_of(const pc_span *span, const pc_axis *axis, int64_t phase)
{
    const int64_t start = phase_start(span, axis, phase);
    pc_rim rim = {.axis = axis, .start = start};
    rim.low = start >= 0 ? 0 : pc_min(span->extent, pc_ceil_div(-start, axis->stride));
    rim.high = start >= axis->size ? 0 : pc_min(span->extent, (axis->size - 1 - start) / axis->stride + 1);
    rim.high = pc_max(rim.low, rim.high);
    return rim;
}

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/slab.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/slab.inc.h"
#undef T
#undef PC_LOCAL

void pc_slab_pack(const pc_slab *slab, const pc_axis *y, const pc_axis *x, pc_dtype dtype, void *packed,
                  const pc_tensor *source, int64_t sample, int64_t channel, int64_t channels, bool rim)
{
    if (dtype == PC_F32) {
        pack_f32(slab, y, x, packed, source, sample, channel, channels, rim);
    } else {
        pack_f64(slab, y, x, packed, source, sample, channel, channels, rim);
    }
}
