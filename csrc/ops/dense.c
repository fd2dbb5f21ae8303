/* dense.c: one item of a pass, from packing to the output. conv.c has the chapter.
 *
 *     for each block of channels:
 *         for each chunk of blocks of rows p:      pack their weights, a part of L2
 *             for each part (a band, samples):     pack its slab, another part of L2
 *                 for each run of columns:         a few tiles, whose slab lines are in L1 or come from L2
 *                     for each block of rows:      dense_tile along the run; its weights stay in L1
 *
 * Weights are packed [block][set of taps][channel][tap][row of the block], in the order of the chain: the tile then
 * reads them one behind the other. Parts that read the same taps share a set. The other parts of an item have other
 * taps: the phases of a strided gradient have each tap once between them, and so have the pixels of a map that is
 * smaller than its window. So each weight is read once, and goes where its part wants it.
 *
 * Where outputs are not neighbours in memory (samples that share their tiles, pixels of one phase of a strided
 * gradient or of one place in windows that tile the output, bands of columns that run on) the tile writes a panel, and
 * the panel goes out when all channels are in. */
#include "ops/dense.h"

#include <assert.h>
#include <string.h>

enum {
    STRIP = 16,    /* channels: their weights stay in L1 while all blocks of rows take theirs */
    MOST_ROWS = 8, /* of a tile, on any ISA */
    LINE = 64,
    WRITE_AHEAD = 1024, /* bytes: outputs that are fetched while others are written; see write_panel */
};

typedef struct {
    const pc_pass *pass;
    const pc_cut *cut;
    pc_dense_work work;
    int64_t least_y, least_x; /* for bands */
    bool paired;
    int64_t group, sweep_first, sweep_end;
    int64_t parts, sets, taps, outputs; /* of the item */
    int64_t placed;                     /* channels for which the places are there */
    /* the part that is being worked on */
    const pc_part *part;
    pc_sweep sweep;
    int64_t sweep_index, together;
    pc_slab slab;
    char *data; /* where its slab is */
} pc_item;

/* Where the panel's columns lie in the output: samples fastest, then columns, then rows. */
typedef struct {
    int64_t samples, width, rows;
    int64_t sample_step, y_step, x_step;
    int64_t row_step; /* in the panel, from one p to the next */
} pc_panel_place;

#define T float
#define PC_LOCAL(name) name##_f32
#include "ops/dense.inc.h"
#undef T
#undef PC_LOCAL
#define T double
#define PC_LOCAL(name) name##_f64
#include "ops/dense.inc.h"
#undef T
#undef PC_LOCAL

pc_dense_work pc_dense_lay(pc_slice *slice, const pc_cut *c, pc_dtype dtype)
{
    const int64_t size = (int64_t)pc_dtype_size(dtype);
    return (pc_dense_work){
        .slab = pc_lay(slice, c->slots * c->slab_elements, size),
        .weights = pc_lay(slice, c->weight_elements, size),
        .panel = pc_lay(slice, c->panel_elements, size),
        .list = pc_lay(slice, c->list, sizeof(int64_t)),
        .row = pc_lay(slice, c->taps_y, sizeof(int64_t)),
        .column = pc_lay(slice, c->taps_x, sizeof(int64_t)),
        .part = pc_lay(slice, c->run, sizeof(pc_part)),
        .held = pc_lay(slice, c->slots, sizeof(pc_held)),
        .first = pc_lay(slice, c->window, sizeof(int64_t)),
        .place = pc_lay(slice, c->item_taps, sizeof(pc_place)),
    };
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

static void enter_sweep(pc_item *b, int64_t index)
{
    if (b->sweep_index != index) {
        b->sweep = pc_sweep_at(&b->pass->geom, b->pass->forward, index);
        b->sweep.x.split = b->cut->flat;
        b->sweep_index = index;
    }
}

/* The first part of sweep `index`, or of the first one behind it that has outputs. Behind the last: sweep_end. */
static pc_part first_part(pc_item *b, int64_t index)
{
    pc_part part = {.sweep = index};
    for (; part.sweep < b->sweep_end; part.sweep++) {
        enter_sweep(b, part.sweep);
        if (b->sweep.y.count > 0 && b->sweep.x.count > 0) {
            part.y_end = pc_band_end(&b->sweep.y, 0, b->cut->band_h, b->least_y);
            part.x_end = pc_band_end(&b->sweep.x, 0, b->cut->band_w, b->least_x);
            break;
        }
    }
    return part;
}

/* Samples fastest, then bands of columns, bands of rows, sweeps; of paired sweeps, which have one band, sweeps fastest. */
static void next_part(pc_item *b, pc_part *part)
{
    if (b->paired) {
        const int64_t sample = part->sample, next = sample + b->cut->samples;
        *part = first_part(b, part->sweep + 1);
        part->sample = sample;
        if (part->sweep == b->sweep_end && next < b->pass->geom.n) {
            *part = first_part(b, b->sweep_first);
            part->sample = next;
        }
        return;
    }
    enter_sweep(b, part->sweep);
    part->sample += b->cut->samples;
    if (part->sample < b->pass->geom.n) {
        return;
    }
    part->sample = 0;
    part->x = part->x_end;
    if (part->x == b->sweep.x.count) {
        part->x = 0;
        part->y = part->y_end;
        if (part->y == b->sweep.y.count) {
            *part = first_part(b, part->sweep + 1);
            return;
        }
        part->y_end = pc_band_end(&b->sweep.y, part->y, b->cut->band_h, b->least_y);
    }
    part->x_end = pc_band_end(&b->sweep.x, part->x, b->cut->band_w, b->least_x);
}

/* Makes `part` one of the item's, if there is room for it. The first one always has. */
static bool add_part(pc_item *b, const pc_part *part)
{
    const pc_cut *cut = b->cut;
    if (b->parts == cut->run) {
        return false;
    }
    enter_sweep(b, part->sweep);
    const pc_sweep *s = &b->sweep;
    const int64_t rows = part->y_end - part->y, columns = part->x_end - part->x;
    const pc_part *last = b->parts > 0 ? &b->work.part[b->parts - 1] : NULL;
    pc_part added = *part;
    added.samples = pc_min(cut->samples, b->pass->geom.n - part->sample);
    added.direct = cut->samples == 1 && s->x_step == 1 && !cut->spread &&
                   (!cut->flat || rows == 1 || (columns == b->pass->out_w && s->y_step == 1));
    added.taps_y = pc_band_taps(&s->y, part->y, rows, b->pass->skip, &added.tap_y);
    added.taps_x = pc_band_taps(&s->x, part->x, columns, b->pass->skip, &added.tap_x);
    const pc_part *shared = NULL;
    for (const pc_part *like = last; like && !shared && like >= b->work.part; like--) {
        shared = like->sweep == added.sweep && like->tap_y == added.tap_y && like->tap_x == added.tap_x &&
                         like->taps_y == added.taps_y && like->taps_x == added.taps_x
                     ? like
                     : NULL;
    }
    const int64_t taps = shared ? 0 : added.taps_y * added.taps_x;
    const int64_t outputs = rows * columns * added.samples;
    if (last && (b->outputs + outputs > cut->outputs || b->taps + taps > cut->item_taps)) {
        return false;
    }
    added.set = shared ? shared->set : b->sets;
    added.taps = shared ? shared->taps : b->taps;
    added.outputs = b->outputs;
    b->work.part[b->parts++] = added;
    b->sets += !shared;
    b->taps += taps;
    b->outputs += outputs;
    return true;
}

/* Slab and list of the part: the steps of a few channels in the slab. */
static void enter_part(pc_item *b, const pc_part *part)
{
    if (b->part == part) {
        return;
    }
    b->part = part;
    enter_sweep(b, part->sweep);
    const pc_sweep *s = &b->sweep;
    pc_slab *slab = &b->slab;
    *slab = pc_slab_of(pc_span_of(&s->y, part->y, part->y_end - part->y, b->pass->skip),
                       pc_span_of(&s->x, part->x, part->x_end - part->x, b->pass->skip), part->samples,
                       b->pass->call->dtype);
    assert(slab->y.taps <= b->cut->taps_y && slab->x.taps <= b->cut->taps_x);
    assert(slab->channel_step * b->cut->channels + b->cut->columns + b->cut->tile + b->pass->kernels->lanes <=
           b->cut->slab_elements);
    pc_slab_rows(slab, &s->y, b->work.row);
    pc_slab_columns(slab, &s->x, b->work.column);
    b->together = pc_together(b->cut, slab->y.taps * slab->x.taps);
    assert(b->together * slab->y.taps * slab->x.taps <= b->cut->list);
    int64_t *list = b->work.list;
    for (int64_t c = 0; c < b->together; c++) {
        for (int64_t r = 0; r < slab->y.taps; r++) {
            for (int64_t t = 0; t < slab->x.taps; t++) {
                *list++ = c * slab->channel_step + b->work.row[r] + b->work.column[t];
            }
        }
    }
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/* Elements from a block of packed weights to the next, and to a part's. A vector of room behind each set of taps, since
 * packing writes whole vectors. */
static int64_t block_step(const pc_item *b, int64_t channels)
{
    return b->taps * channels * b->pass->kernels->dense_rows + b->sets * b->pass->kernels->lanes;
}

static int64_t set_offset(const pc_item *b, const pc_part *part, int64_t channels)
{
    return part->taps * channels * b->pass->kernels->dense_rows + part->set * b->pass->kernels->lanes;
}

/* The tap's place among those of the window. */
static int64_t weight_tap(const pc_item *b, const pc_part *part, int64_t r, int64_t t)
{
    const pc_axis *y = &b->sweep.y, *x = &b->sweep.x;
    return (y->weight_first + (part->tap_y + r) * y->weight_step) * b->pass->geom.kw + x->weight_first +
           (part->tap_x + t) * x->weight_step;
}

/* Where each tap of the window goes, in the order of the window: counted, summed up, and filled in. */
static void fill_places(pc_item *b, int64_t channels)
{
    const int64_t tall = b->pass->kernels->dense_rows;
    int64_t *first = b->work.first;
    if (b->placed == channels) {
        return;
    }
    b->placed = channels;
    b->part = NULL; /* sweeps are entered here */
    memset(first, 0, (size_t)b->cut->window * sizeof *first);
    for (int fill = 0; fill < 2; fill++) {
        for (int64_t i = 0, seen = 0; i < b->parts; i++) {
            const pc_part *part = &b->work.part[i];
            if (part->set < seen) {
                continue;
            }
            seen++;
            enter_sweep(b, part->sweep);
            for (int64_t r = 0; r < part->taps_y; r++) {
                for (int64_t t = 0; t < part->taps_x; t++) {
                    const int64_t k = weight_tap(b, part, r, t), place = first[k]++;
                    if (fill) {
                        b->work.place[place] =
                            (pc_place){.k = k,
                                       .at = set_offset(b, part, channels) + (r * part->taps_x + t) * tall,
                                       .step = part->taps_y * part->taps_x * tall};
                    }
                }
            }
        }
        for (int64_t k = 0, sum = 0; !fill && k < b->cut->window; k++) { /* counts become starts */
            const int64_t count = first[k];
            first[k] = sum;
            sum += count;
        }
    }
}

/* Backward the rows of a channel lie side by side, so a few channels go through all blocks before the next. */
static void pack_blocks(pc_item *b, int64_t first, int64_t last, int64_t channel, int64_t channels)
{
    const pc_pass *pass = b->pass;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype), tall = pass->kernels->dense_rows;
    /* Weight (oc, ic/g, kh, kw): a group's outputs are its slice of oc forward, its sources are backward. */
    const int64_t group_step = pass->forward ? pass->rows * pass->p_step : pass->depth * pass->c_step;
    const int64_t window = b->cut->window, step = block_step(b, channels);
    const int64_t strip = pass->forward ? channels : pc_min(channels, STRIP);
    const char *weight = pass->weight + (b->group * group_step + channel * pass->c_step) * size;
    const bool whole = b->sets == 1 && b->taps == window;
    const bool run = whole && pass->c_step == window; /* the taps of a channel, and then those of the next */
    assert(b->taps <= b->cut->item_taps && (last - first) * step <= b->cut->weight_elements);
    pc_pack_args all = {.channel_step = pass->c_step, .row_step = pass->p_step};
    if (!whole) {
        fill_places(b, channels);
        all.place = b->work.place;
        all.places = b->taps;
    }
    for (all.channel = 0; all.channel < channels; all.channel += strip) {
        const int64_t count = pc_min(strip, channels - all.channel);
        all.channels = run ? 1 : count;
        all.steps = run ? count * window : window;
        for (int64_t i = first; i < last; i++) {
            const int64_t p = pc_block_row(b->cut, pass->rows, i);
            all.rows = pc_block_row(b->cut, pass->rows, i + 1) - p;
            all.ahead = all.rows * pass->p_step;
            all.from = weight + (p * pass->p_step + all.channel * pass->c_step) * size;
            all.to = (char *)b->work.weights + ((i - first) * step + (whole ? all.channel * window * tall : 0)) * size;
            pass->kernels->pack_scalars(&all);
        }
    }
}

static bool same_span(const pc_span *a, const pc_span *b) { return memcmp(a, b, sizeof *a) == 0; }

/* The part's slab, in its slot, unless it is there already. */
static void pack_slab(pc_item *b, int64_t channel, int64_t channels)
{
    const pc_pass *pass = b->pass;
    const pc_slab *slab = &b->slab;
    const int64_t slot = (b->part - b->work.part) % b->cut->slots, sample = b->part->sample;
    pc_held *held = &b->work.held[slot];
    /* Spans of different phases may be the same: they read grad_out, from where the span says. Split ones do not say. */
    const bool alike = held->samples == slab->samples && same_span(&held->y, &slab->y) &&
                       same_span(&held->x, &slab->x) && (held->sweep == b->sweep_index || !b->cut->flat);
    b->data = (char *)b->work.slab + slot * b->cut->slab_elements * (int64_t)pc_dtype_size(pass->call->dtype);
    channel += b->group * pass->depth;
    if (alike && held->sample == sample && held->channel == channel) {
        return;
    }
    /* The first block of channels is the largest, so all that follow find their rims. */
    pc_slab_pack(slab, &b->sweep.y, &b->sweep.x, pass->call->dtype, b->data, pass->source, sample, channel, channels,
                 !alike);
    *held = (pc_held){.y = slab->y,
                      .x = slab->x,
                      .samples = slab->samples,
                      .sweep = b->sweep_index,
                      .sample = sample,
                      .channel = channel};
}

/* Where a tile's outputs go: element (p, y, x) of the band at data + p*p_step + y*y_step + x, for p from `first` on. */
typedef struct {
    char *data;
    int64_t first, p_step, y_step;
} pc_target;

/* Where rows p .. begin: at their channel's bias, which the rows of a window share. */
static const void *init_of(const pc_item *b, int64_t p, int64_t rows, void *spread)
{
    const pc_pass *pass = b->pass;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype), first = b->group * pass->rows + p;
    if (!pass->init || !b->cut->spread) {
        return pass->init ? pass->init + first * size : NULL;
    }
    assert(rows <= MOST_ROWS);
    for (int64_t i = 0; i < rows; i++) {
        const char *init = pass->init + (first + i) / (pass->window_h * pass->window_w) * size;
        memcpy((char *)spread + i * size, init, (size_t)size);
    }
    return spread;
}

/* Blocks first .. last-1, whose packed weights are there, over all columns of the slab. */
static void run_blocks(const pc_item *b, const pc_target *to, int64_t first, int64_t last, int64_t channel,
                       int64_t channels)
{
    const pc_pass *pass = b->pass;
    const pc_slab *slab = &b->slab;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype), together = b->together;
    const int64_t taps = slab->y.taps * slab->x.taps;
    const int64_t rows = b->cut->flat ? 1 : slab->y.count;
    const int64_t length = (b->cut->flat ? slab->y.count : 1) * slab->x.count * slab->samples;
    const int64_t top = pc_block_row(b->cut, pass->rows, first);
    double spread_init[MOST_ROWS];
    const int64_t step = block_step(b, channels) * size, set = set_offset(b, b->part, channels) * size;
    pc_dense_args tile = {.out_step = to->p_step,
                          .init_step = 1,
                          .accumulate = channel > 0,
                          .outer = channels / together,
                          .count = together * taps,
                          .rest = channels % together * taps,
                          .vec_outer = together * slab->channel_step,
                          .list = b->work.list};
    for (int64_t j = 0; j < rows; j++) {
        for (int64_t q = 0; q < length; q += b->cut->columns) {
            tile.columns = pc_min(b->cut->columns, length - q);
            tile.vec = b->data + (j * slab->row_step + q) * size;
            for (int64_t i = first; i < last; i++) {
                const int64_t p = pc_block_row(b->cut, pass->rows, i);
                tile.rows = pc_block_row(b->cut, pass->rows, i + 1) - p;
                tile.ahead = i + 1 < last ? tile.rows * to->p_step : (top - p) * to->p_step + tile.columns;
                tile.scal = (char *)b->work.weights + (i - first) * step + set;
                tile.init = init_of(b, p, tile.rows, spread_init);
                tile.out = to->data + ((p - to->first) * to->p_step + j * to->y_step + q) * size;
                pass->kernels->dense_tile(&tile);
            }
        }
        if (pc_poll(pass->call)) {
            return;
        }
    }
}

/* ---- items ------------------------------------------------------------------------------------------------------ */

static char *output_of(const pc_item *b)
{
    const pc_pass *pass = b->pass;
    const pc_sweep *s = &b->sweep;
    const int64_t y = s->y0 + b->part->y * s->y_step, x = s->x0 + b->part->x * s->x_step;
    const int64_t plane = b->part->sample * pass->rows * pass->geom.g + b->group * pass->rows;
    return pass->out + ((plane * pass->out_h + y) * pass->out_w + x) * (int64_t)pc_dtype_size(pass->call->dtype);
}

/* Where the part's outputs go while channels come in; p: the first row of the panel, which has `rows`. */
static pc_target target_of(const pc_item *b, int64_t p, int64_t rows)
{
    const pc_pass *pass = b->pass;
    if (b->part->direct) {
        return (pc_target){
            .data = output_of(b), .p_step = pass->out_h * pass->out_w, .y_step = b->sweep.y_step * pass->out_w};
    }
    const int64_t length = b->slab.x.count * b->slab.samples;
    assert((b->part->outputs + b->slab.y.count * length) * rows <= b->cut->panel_elements);
    return (pc_target){.data =
                           (char *)b->work.panel + b->part->outputs * rows * (int64_t)pc_dtype_size(pass->call->dtype),
                       .first = p,
                       .p_step = b->slab.y.count * length,
                       .y_step = length};
}

static void write_panel(const pc_item *b, int64_t p, int64_t rows)
{
    const pc_pass *pass = b->pass;
    const int64_t high = pass->window_h, wide = pass->window_w, window = high * wide;
    const int64_t width = pass->out_w * wide, plane = pass->out_h * high * width;
    const int64_t planes = pass->rows / window;
    const pc_panel_place place = {.samples = b->slab.samples,
                                  .width = b->slab.x.count,
                                  .rows = b->slab.y.count,
                                  .sample_step = planes * pass->geom.g * plane,
                                  .y_step = b->sweep.y_step * high * width,
                                  .x_step = b->sweep.x_step * wide,
                                  .row_step = b->slab.y.count * b->slab.x.count * b->slab.samples};
    const int64_t y = (b->sweep.y0 + b->part->y * b->sweep.y_step) * high;
    const int64_t x = (b->sweep.x0 + b->part->x * b->sweep.x_step) * wide;
    const int64_t first = (b->part->sample * pass->geom.g + b->group) * planes;
    const char *panel = target_of(b, p, rows).data;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    const bool joined = place.y_step == place.width;   /* rows */
    for (int64_t i = 0, taken; i < rows; i += taken) { /* pixels of a window's row lie side by side */
        const int64_t channel = (p + i) / window, k = (p + i) % window;
        const int64_t to = ((first + channel) * plane + (y + k / wide) * width) + x + k % wide;
        taken = pc_min(rows - i, wide - k % wide);
        if (taken == 1 && place.samples > 1 && place.x_step == 1) { /* four times as fast as one by one */
            for (int64_t j = 0; j < (joined ? 1 : place.rows); j++) {
                const int64_t from = i * place.row_step + j * place.width * place.samples;
                pass->kernels->transpose(&(pc_transpose_args){.out = pass->out + (to + j * place.y_step) * size,
                                                              .out_step = place.sample_step,
                                                              .in = panel + from * size,
                                                              .in_step = place.samples,
                                                              .rows = joined ? place.rows * place.width : place.width,
                                                              .columns = place.samples});
            }
            continue;
        }
        if (taken == 1 && place.samples == 1 && place.x_step == 1) {
            pass->kernels->copy_rows(&(pc_copy_args){.to = pass->out + to * size,
                                                     .from = panel + i * place.row_step * size,
                                                     .rows = place.rows,
                                                     .columns = place.width,
                                                     .to_step = place.y_step,
                                                     .from_step = place.width,
                                                     .from_column = 1,
                                                     .ahead = place.row_step});
            continue;
        }
        if (pass->call->dtype == PC_F32) {
            write_panel_f32(&place, (float *)pass->out + to, (const float *)panel + i * place.row_step, taken);
        } else {
            write_panel_f64(&place, (double *)pass->out + to, (const double *)panel + i * place.row_step, taken);
        }
    }
}

/* Are part `j` and the next the two phases of the same rows' columns? */
static bool are_pair(const pc_item *b, int64_t j)
{
    const pc_part *one = &b->work.part[j];
    return b->paired && j + 1 < b->parts && one->sweep % 2 == 0 && one[1].sweep == one->sweep + 1 &&
           one[1].sample == one->sample;
}

/* The panels of part `j` and the next, which are a pair. */
static void write_pair(pc_item *b, int64_t j, int64_t p, int64_t rows)
{
    const pc_pass *pass = b->pass;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype), plane = pass->out_h * pass->out_w * size;
    enter_part(b, &b->work.part[j + 1]);
    const bool swapped = b->sweep.x0 == 0;
    const char *two = target_of(b, p, rows).data;
    enter_part(b, &b->work.part[j]);
    const pc_target one = target_of(b, p, rows);
    const char *even = swapped ? two : one.data, *odd = swapped ? one.data : two;
    pc_rows_copy_args join = {.narrow = (char *)even,
                              .rows = b->slab.y.count,
                              .columns = pass->out_w,
                              .stride = 2,
                              .wide_step = b->sweep.y_step * pass->out_w,
                              .wide_column = 1,
                              .narrow_step = one.y_step,
                              .phase_step = (odd - even) / size};
    char *to = output_of(b) + p * plane - b->sweep.x0 * size;
    for (int64_t i = 0; i < rows; i++, to += plane, join.narrow = (char *)join.narrow + one.p_step * size) {
        join.wide = to;
        pass->kernels->join_rows(&join);
    }
}

/* Blocks first .. last-1 of the item's rows; as many at a time as the panel holds, if some part needs it. */
static void run_item(pc_item *b, int64_t first, int64_t last)
{
    const pc_pass *pass = b->pass;
    const pc_cut *cut = b->cut;
    bool direct = true;
    for (int64_t j = 0; j < b->parts; j++) {
        direct = direct && b->work.part[j].direct;
    }
    const int64_t most = direct ? last - first : cut->panel;
    for (int64_t i = first; i < last; i += most) {
        const int64_t end = pc_min(i + most, last);
        const int64_t p = pc_block_row(cut, pass->rows, i), rows = pc_block_row(cut, pass->rows, end) - p;
        for (int64_t c = 0; c < pass->depth; c += cut->channels) {
            const int64_t channels = pc_min(cut->channels, pass->depth - c);
            for (int64_t k = i; k < end; k += cut->chunk) {
                const int64_t k_end = pc_min(k + cut->chunk, end);
                pack_blocks(b, k, k_end, c, channels);
                for (int64_t j = 0; j < b->parts; j++) {
                    enter_part(b, &b->work.part[j]);
                    pack_slab(b, c, channels);
                    const pc_target to = target_of(b, p, rows);
                    run_blocks(b, &to, k, k_end, c, channels);
                    if (pc_stopped(pass->call)) {
                        return;
                    }
                }
            }
        }
        for (int64_t j = 0; j < b->parts; j++) {
            if (are_pair(b, j)) {
                write_pair(b, j++, p, rows);
            } else if (!b->work.part[j].direct) {
                enter_part(b, &b->work.part[j]);
                write_panel(b, p, rows);
            }
        }
    }
}

void pc_dense_run(const pc_pass *pass, pc_range range, const pc_cut *cut, pc_dense_work work, int index, int count,
                  int64_t *item)
{
    pc_item b = {.pass = pass,
                 .cut = cut,
                 .work = work,
                 .least_y = pass->exact ? 1 : cut->least_y,
                 .least_x = pass->exact ? 1 : cut->least_x,
                 .sweep_index = -1,
                 .paired = cut->paired && !pass->exact,
                 .sweep_first = range.first,
                 .sweep_end = range.end};
    const int64_t share = pc_ceil_div(cut->blocks, cut->shares);
    for (pc_part part = first_part(&b, range.first); part.sweep < range.end;) {
        b.parts = b.sets = b.taps = b.outputs = b.placed = 0;
        while (part.sweep < range.end && add_part(&b, &part)) {
            next_part(&b, &part);
        }
        for (b.group = 0; b.group < pass->geom.g; b.group++) {
            for (int64_t i = 0; i < cut->blocks; i += share) {
                if ((*item)++ % count != index) {
                    continue;
                }
                b.part = NULL;
                for (int64_t j = 0; j < cut->slots; j++) {
                    work.held[j].samples = 0;
                }
                run_item(&b, i, pc_min(i + share, cut->blocks));
                if (pc_stopped(pass->call)) {
                    return;
                }
            }
        }
    }
}
