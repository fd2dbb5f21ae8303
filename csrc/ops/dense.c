/* dense.c: one item of a sweep, from packing to the output. conv.c has the chapter.
 *
 *     for each block of channels:
 *         for each chunk of blocks of rows p:      pack their weights, a part of L2
 *             for each unit (a band, a sample):    pack its slab, another part of L2
 *                 for each run of columns:         their slab lines stay in L1
 *                     for each block of rows:      dense_tile along the run
 *
 * Weights are packed [block][channel][tap][row of the block], for the taps that the band has, in the order of the
 * chain: the tile then reads them one behind the other. All units of the item share them.
 *
 * Where outputs are not neighbours in memory (samples that share their tiles, pixels of one phase of a strided
 * gradient) an item is a single unit, the tile writes a panel, and the panel goes out when all channels are in. */
#include "ops/dense.h"

enum { STRIP = 16 }; /* channels: their weights stay in L1 while all blocks of rows take theirs */

typedef struct {
    const pc_pass *pass;
    const pc_sweep *sweep;
    const pc_cut *cut;
    pc_dense_work work;
    bool exact;
    int64_t sample, group;
    pc_slab slab;
} pc_item;

/* A block of rows, one of channels: what there is to pack (dense.inc.h). */
typedef struct {
    const char *weight; /* its first row, first channel */
    int64_t rows, channels;
    int64_t p_step, c_step;
    int64_t tall;                /* distance of packed steps */
    const int64_t *row, *column; /* of the taps, in the weight */
    int64_t row_count, column_count;
} pc_weight_block;

/* Where the panel's columns lie in the output: samples fastest, then columns, then rows. */
typedef struct {
    int64_t samples, width, rows;
    int64_t sample_step, plane_step, y_step, x_step;
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
        .slab = pc_lay(slice, c->slab_elements, size),
        .weights = pc_lay(slice, c->weight_elements, size),
        .panel = pc_lay(slice, c->panel_elements, size),
        .columns = pc_lay(slice, c->column_elements, size),
        .parts = pc_lay(slice, c->packed ? 2 * c->tile : 0, sizeof(int64_t)),
        .regular = pc_lay(slice, c->packed ? c->list : 0, sizeof(int64_t)),
        .list = pc_lay(slice, c->list, sizeof(int64_t)),
        .row = pc_lay(slice, 2 * c->taps_y, sizeof(int64_t)),
        .column = pc_lay(slice, 2 * c->taps_x, sizeof(int64_t)),
    };
}

/* The lists of one band: the steps of `together` channels in the slab, and where the taps are in the weight. */
static void fill_lists(const pc_item *b)
{
    const pc_slab *slab = &b->slab;
    const pc_axis *y = &b->sweep->y, *x = &b->sweep->x;
    const pc_dense_work *work = &b->work;
    const int64_t rows = slab->y.taps, columns = slab->x.taps;
    int64_t *slab_row = work->row + rows, *slab_column = work->column + columns;
    pc_slab_rows(slab, y, slab_row);
    pc_slab_columns(slab, x, slab_column);
    for (int64_t r = 0; r < rows; r++) {
        work->row[r] = (y->weight_first + (slab->y.tap + r) * y->weight_step) * b->pass->geom->kw;
    }
    for (int64_t t = 0; t < columns; t++) {
        work->column[t] = x->weight_first + (slab->x.tap + t) * x->weight_step;
    }
    for (int64_t k = 0; b->cut->packed && k < b->cut->together * rows * columns; k++) {
        work->regular[k] = k * b->cut->tile;
    }
    int64_t *list = work->list;
    for (int64_t c = 0; c < b->cut->together; c++) {
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t t = 0; t < columns; t++) {
                *list++ = c * slab->channel_step + slab_row[r] + slab_column[t];
            }
        }
    }
}

/* The distance of blocks in packed weights. A vector of room between them, since packing writes whole vectors. */
static int64_t block_step(const pc_item *b, int64_t channels)
{
    const pc_kernels *kernels = b->pass->kernels;
    return channels * b->slab.y.taps * b->slab.x.taps * kernels->dense_rows + kernels->lanes;
}

/* Backward the rows of a channel lie side by side, so a few channels go through all blocks before the next. */
static void pack_blocks(const pc_item *b, int64_t first, int64_t last, int64_t channel, int64_t channels)
{
    const pc_pass *pass = b->pass;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype);
    /* Weight (oc, ic/g, kh, kw): a group's outputs are its slice of oc forward, its sources are backward. */
    const int64_t group_step = pass->forward ? pass->rows * pass->p_step : pass->depth * pass->c_step;
    const int64_t taps = b->slab.y.taps * b->slab.x.taps, step = block_step(b, channels);
    const int64_t strip = pass->forward ? channels : pc_min(channels, STRIP);
    const char *weight = pass->weight + (b->group * group_step + channel * pass->c_step) * size;
    pc_weight_block w = {.p_step = pass->p_step,
                         .c_step = pass->c_step,
                         .tall = pass->kernels->dense_rows,
                         .row = b->work.row,
                         .column = b->work.column,
                         .row_count = b->slab.y.taps,
                         .column_count = b->slab.x.taps};
    pc_pack_args all = {.channel_step = pass->c_step, .row_step = pass->p_step};
    for (int64_t c = 0; c < channels; c += strip) {
        w.channels = pc_min(strip, channels - c);
        /* All taps lie side by side, and then perhaps those of the next channel. */
        const bool run = pass->c_step == taps, whole = taps == pass->geom->kh * pass->geom->kw;
        all.channels = run ? 1 : w.channels;
        all.steps = run ? w.channels * taps : taps;
        for (int64_t i = first; i < last; i++) {
            const int64_t p = pc_block_row(b->cut, pass->rows, i);
            all.rows = w.rows = pc_block_row(b->cut, pass->rows, i + 1) - p;
            all.from = w.weight = weight + (p * w.p_step + c * w.c_step) * size;
            all.to = (char *)b->work.weights + ((i - first) * step + c * taps * w.tall) * size;
            if (whole) {
                pass->kernels->pack_scalars(&all);
            } else if (pass->call->dtype == PC_F32) {
                pack_weights_f32(&w, all.to);
            } else {
                pack_weights_f64(&w, all.to);
            }
        }
    }
}

/* Where a tile's outputs go: element (p, y, x) of the band at data + p*p_step + y*y_step + x, for p from `first` on. */
typedef struct {
    char *data;
    int64_t first, p_step, y_step;
} pc_target;

/* The pieces of slab rows that a tile's columns are, from run `j`, column `q` on. Offsets count from what is returned. */
static int64_t find_parts(const pc_item *b, int64_t *parts, int64_t j, int64_t q, int64_t columns)
{
    const int64_t length = b->slab.x.count * b->slab.samples;
    int64_t *part_to = b->work.parts, *part_from = b->work.parts + b->cut->tile;
    const int64_t row = j + q / length, column = q % length;
    *parts = 0;
    for (int64_t done = 0, first = column, y = 0; done < columns; y++) {
        part_to[*parts] = done;
        part_from[*parts] = y * b->slab.row_step + first - column;
        ++*parts;
        done += length - first;
        first = 0;
    }
    return row * b->slab.row_step + column;
}

/* Blocks first .. last-1, whose packed weights are there, over all columns of the slab. */
static void run_blocks(const pc_item *b, const pc_target *to, int64_t first, int64_t last, int64_t channel,
                       int64_t channels)
{
    const pc_pass *pass = b->pass;
    const pc_slab *slab = &b->slab;
    const int64_t size = (int64_t)pc_dtype_size(pass->call->dtype), together = b->cut->together;
    const int64_t taps = slab->y.taps * slab->x.taps;
    const int64_t rows = b->cut->flat ? 1 : slab->y.count;
    const int64_t length = (b->cut->flat ? slab->y.count : 1) * slab->x.count * slab->samples;
    const int64_t step = block_step(b, channels) * size;
    pc_dense_args tile = {.out_step = to->p_step,
                          .init_step = 1,
                          .accumulate = channel > 0,
                          .outer = channels / together,
                          .count = together * taps,
                          .rest = channels % together * taps,
                          .vec_outer = together * slab->channel_step,
                          .list = b->work.list};
    pc_columns_args columns = {.to = b->work.columns,
                               .width = b->cut->tile,
                               .outer = tile.outer,
                               .count = tile.count,
                               .rest = tile.rest,
                               .from_outer = tile.vec_outer,
                               .list = b->work.list,
                               .part_to = b->work.parts,
                               .part_from = b->work.parts + b->cut->tile};
    if (b->cut->packed) {
        tile.vec_outer = tile.count * b->cut->tile;
        tile.list = b->work.regular;
    }
    for (int64_t j = 0; j < rows; j++) {
        for (int64_t q = 0; q < length; q += b->cut->columns) {
            tile.columns = pc_min(b->cut->columns, length - q);
            tile.vec = (char *)b->work.slab + (j * slab->row_step + q) * size;
            if (b->cut->packed) {
                columns.from = (char *)b->work.slab + find_parts(b, &columns.parts, j, q, tile.columns) * size;
                pass->kernels->pack_columns(&columns);
                tile.vec = b->work.columns;
            }
            for (int64_t i = first; i < last; i++) {
                const int64_t p = pc_block_row(b->cut, pass->rows, i);
                tile.rows = pc_block_row(b->cut, pass->rows, i + 1) - p;
                tile.scal = (char *)b->work.weights + (i - first) * step;
                tile.init = pass->init ? pass->init + (b->group * pass->rows + p) * size : NULL;
                tile.out = to->data + ((p - to->first) * to->p_step + j * to->y_step + q) * size;
                pass->kernels->dense_tile(&tile);
            }
        }
        if (pc_poll(pass->call)) {
            return;
        }
    }
}

/* The item's bands one after the other: (band of rows, band of columns, block of samples), samples fastest. */
typedef struct {
    int64_t y, y_end, x, x_end, sample;
} pc_unit;

static pc_unit first_unit(const pc_item *b)
{
    return (pc_unit){.y_end = pc_band_end(&b->sweep->y, 0, b->cut->band_h, b->exact),
                     .x_end = pc_band_end(&b->sweep->x, 0, b->cut->band_w, b->exact)};
}

/* False behind the last one. */
static bool next_unit(const pc_item *b, pc_unit *u)
{
    u->sample += b->cut->samples;
    if (u->sample >= b->pass->geom->n) {
        u->sample = 0;
        u->x = u->x_end;
        if (u->x == b->sweep->x.count) {
            u->x = 0;
            u->y = u->y_end;
            u->y_end = pc_band_end(&b->sweep->y, u->y, b->cut->band_h, b->exact);
        }
        u->x_end = pc_band_end(&b->sweep->x, u->x, b->cut->band_w, b->exact);
    }
    return u->y < b->sweep->y.count;
}

static void enter_unit(pc_item *b, const pc_unit *u)
{
    const pc_sweep *s = b->sweep;
    b->slab = pc_slab_of(pc_span_of(&s->y, u->y, u->y_end - u->y, b->pass->skip),
                         pc_span_of(&s->x, u->x, u->x_end - u->x, b->pass->skip),
                         pc_min(b->cut->samples, b->pass->geom->n - u->sample), b->pass->call->dtype);
    b->sample = u->sample;
    fill_lists(b);
}

static char *output_of(const pc_item *b)
{
    const pc_pass *pass = b->pass;
    const pc_sweep *s = b->sweep;
    const int64_t y = s->y0 + b->slab.y.first * s->y_step, x = s->x0 + b->slab.x.first * s->x_step;
    const int64_t plane = b->sample * pass->rows * pass->geom->g + b->group * pass->rows;
    return pass->out + ((plane * pass->out_h + y) * pass->out_w + x) * (int64_t)pc_dtype_size(pass->call->dtype);
}

static void pack_slab(const pc_item *b, int64_t channel, int64_t channels)
{
    const pc_pass *pass = b->pass;
    pc_slab_pack(&b->slab, &b->sweep->y, &b->sweep->x, pass->call->dtype, b->work.slab, pass->source, b->sample,
                 b->group * pass->depth + channel, channels, 0.0);
}

/* Outputs that are neighbours in memory: blocks first .. last-1, `units` units from `unit` on. */
static void run_direct(pc_item *b, pc_unit unit, int64_t units, int64_t first, int64_t last)
{
    const pc_pass *pass = b->pass;
    const pc_cut *cut = b->cut;
    const int64_t plane = pass->out_h * pass->out_w;
    const bool keep = units == 1 && cut->channels >= pass->depth; /* the slab serves all chunks */
    for (int64_t c = 0; c < pass->depth; c += cut->channels) {
        const int64_t channels = pc_min(cut->channels, pass->depth - c);
        for (int64_t i = first; i < last; i += cut->chunk) {
            const int64_t end = pc_min(i + cut->chunk, last);
            pc_unit u = unit;
            pc_span y = {0}, x = {0};
            for (int64_t k = 0; k < units; k++, next_unit(b, &u)) {
                enter_unit(b, &u);
                if (k == 0 || y.tap != b->slab.y.tap || y.taps != b->slab.y.taps || x.tap != b->slab.x.tap ||
                    x.taps != b->slab.x.taps) {
                    y = b->slab.y;
                    x = b->slab.x;
                    pack_blocks(b, i, end, c, channels);
                }
                if (!keep || i == first) {
                    pack_slab(b, c, channels);
                }
                const pc_target to = {.data = output_of(b), .p_step = plane, .y_step = b->sweep->y_step * pass->out_w};
                run_blocks(b, &to, i, end, c, channels);
                if (pc_stopped(pass->call)) {
                    return;
                }
            }
        }
    }
}

/* Outputs that are not: as many blocks at a time as the panel holds. */
static void run_panel(pc_item *b, const pc_unit *unit, int64_t first, int64_t last)
{
    const pc_pass *pass = b->pass;
    const pc_sweep *s = b->sweep;
    const pc_cut *cut = b->cut;
    const int64_t plane = pass->out_h * pass->out_w;
    enter_unit(b, unit);
    const pc_slab *slab = &b->slab;
    const pc_panel_place place = {.samples = slab->samples,
                                  .width = slab->x.count,
                                  .rows = slab->y.count,
                                  .sample_step = pass->rows * pass->geom->g * plane,
                                  .plane_step = plane,
                                  .y_step = s->y_step * pass->out_w,
                                  .x_step = s->x_step};
    for (int64_t i = first; i < last; i += cut->panel) {
        const int64_t end = pc_min(i + cut->panel, last);
        const int64_t p = pc_block_row(cut, pass->rows, i), p_end = pc_block_row(cut, pass->rows, end);
        const int64_t length = slab->x.count * slab->samples;
        const pc_target to = {.data = b->work.panel, .first = p, .p_step = slab->y.count * length, .y_step = length};
        for (int64_t c = 0; c < pass->depth; c += cut->channels) {
            const int64_t channels = pc_min(cut->channels, pass->depth - c);
            if (i == first || cut->channels < pass->depth) {
                pack_slab(b, c, channels);
            }
            for (int64_t k = i; k < end; k += cut->chunk) {
                pack_blocks(b, k, pc_min(k + cut->chunk, end), c, channels);
                run_blocks(b, &to, k, pc_min(k + cut->chunk, end), c, channels);
                if (pc_stopped(pass->call)) {
                    return;
                }
            }
        }
        if (pass->call->dtype == PC_F32) {
            write_panel_f32(&place, (float *)output_of(b) + p * plane, b->work.panel, p_end - p);
        } else {
            write_panel_f64(&place, (double *)output_of(b) + p * plane, b->work.panel, p_end - p);
        }
    }
}

void pc_dense_run(const pc_pass *pass, const pc_sweep *s, const pc_cut *c, pc_dense_work work, int index, int count,
                  int64_t *item)
{
    pc_item b = {.pass = pass, .sweep = s, .cut = c, .work = work, .exact = c->exact || pass->exact};
    const int64_t share = pc_ceil_div(c->blocks, c->shares);
    pc_unit unit = first_unit(&b), start = unit;
    for (bool more = true; more;) {
        /* One unit, or a run of direct ones: those of a row of bands are alike. */
        const bool direct =
            c->samples == 1 && s->x_step == 1 &&
            (!c->flat || unit.y_end - unit.y == 1 || (unit.x_end - unit.x == pass->out_w && s->y_step == 1));
        int64_t units = 0;
        start = unit;
        do {
            more = next_unit(&b, &unit);
            units++;
        } while (more && direct && units < c->run);
        for (b.group = 0; b.group < pass->geom->g; b.group++) {
            for (int64_t i = 0; i < c->blocks; i += share) {
                if ((*item)++ % count != index) {
                    continue;
                }
                if (direct) {
                    run_direct(&b, start, units, i, pc_min(i + share, c->blocks));
                } else {
                    run_panel(&b, &start, i, pc_min(i + share, c->blocks));
                }
                if (pc_stopped(pass->call)) {
                    return;
                }
            }
        }
    }
}
