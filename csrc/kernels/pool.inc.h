/* The pools, plane by plane. Lanes are neighbouring outputs of one row, read where they lie:
 *
 *   stride 1   tap t of L outputs is one load
 *   stride 2   two loads hold two taps: the even elements are tap t, the odd ones tap t + 1
 *   others     L elements one by one
 *
 * Taps above and below the image are never visited. Where windows hang over at the sides, rows are first copied to
 * `work` with the padding's value around them: one load and one store a row, against a mask a tap. The last vector of
 * a row lies over the one before, so there are no tails; rows shorter than a vector have whole ones written while the
 * next rows still come to overwrite what is too much.
 *
 * Largest values alone (with their places: max_pool_indices.inc.h) go down the columns of a window first and then
 * across: 2 + 2 comparisons instead of 8 for 3x3, and the row in between has its padding for nothing. Rows shorter than
 * a vector stay in registers
 * (2 x 2 on maps of 14: 1.8 times as fast, 3 x 3 two apart on maps of 13: 1.3 times, 3 x 3 one apart: the same). */

/* So many elements ahead the source is asked for. Without it planes that come from memory take half as long again (2 x 2
 * on 64 maps of 224 x 224: 1.58 ms against 1.03), those that come from a cache as long as with it. */
#define PC_AHEAD 1024

enum { PC_LOCAL(MAX), PC_LOCAL(SUM) };

/* ---- taps ---- */

PC_INLINE v_t PC_LOCAL(take)(v_t value, const int op, v_t x)
{
    return op == PC_LOCAL(MAX) ? v_max(value, x) : v_add(value, x);
}

/* `count` elements `step` apart; if not `exact`, V_LANES may be read. */
PC_INLINE v_t PC_LOCAL(lanes)(const T *p, int64_t step, const int stride, int64_t count, const bool exact)
{
    if (!exact) {
        return stride == 1 ? v_load(p) : v_load_step(p, step);
    }
    if (stride == 1) {
        return v_load_or(p, count, v_zero());
    }
    T lanes[V_LANES] = {0};
    for (int64_t i = 0; i < count; i++) {
        lanes[i] = p[i * step];
    }
    return v_load(lanes);
}

/* The largest of the lanes of `rows` rows, or those of the only one. */
PC_INLINE v_t PC_LOCAL(column)(const T *p, int64_t row_step, const int64_t rows, int64_t step, const int stride,
                               int64_t count, const bool exact)
{
    v_t best = PC_LOCAL(lanes)(p, step, stride, count, exact);
    for (int64_t i = 1; i < rows; i++) {
        best = v_max(best, PC_LOCAL(lanes)(p + i * row_step, step, stride, count, exact));
    }
    return best;
}

/* One row of the windows that start at p, p + sw, ... or the largest of several. `stride` is sw as a constant, 0 for
 * any. */
PC_INLINE v_t PC_LOCAL(across)(const pc_pool_args *a, v_t value, const int op, const T *p, int64_t row_step,
                               const int64_t rows, const int64_t kw, const int stride, const bool exact)
{
    if (stride != 2) {
        for (int64_t t = 0; t < kw; t++) {
            v_t x = PC_LOCAL(column)(p + t * a->dw, row_step, rows, a->sw, stride, a->columns, exact);
            value = PC_LOCAL(take)(value, op, x);
        }
        return value;
    }
    const int64_t count = 2 * a->columns;
    for (int64_t t = 0; t < kw; t += 2) {
        /* The last of an odd number comes as the second half of a pair: nothing behind it is read. */
        const bool last = t + 1 == kw;
        const T *pair = p + t - last;
        v_t low = PC_LOCAL(column)(pair, row_step, rows, 1, 1, pc_min(V_LANES, count), exact);
        v_t high = PC_LOCAL(column)(pair + V_LANES, row_step, rows, 1, 1, pc_max(0, count - V_LANES), exact);
        if (!last) {
            value = PC_LOCAL(take)(value, op, v_evens(low, high));
        }
        value = PC_LOCAL(take)(value, op, v_odds(low, high));
    }
    return value;
}

/* Asks for the elements that are wanted when those before p, PC_AHEAD of them, are used up: the hardware by itself stops
 * at the end of each page. */
PC_INLINE void PC_LOCAL(prefetch)(const T *p, int64_t elements)
{
    for (int64_t i = 0; i < elements; i += 64 / (int64_t)sizeof(T)) {
        __builtin_prefetch(p + PC_AHEAD + i);
    }
}

/* ---- where things lie ---- */

typedef struct {
    int64_t from, to;
} PC_LOCAL(range);

/* The rows r of the window that lie inside for output row y. */
PC_INLINE PC_LOCAL(range) PC_LOCAL(rows_inside)(const pc_pool_args *a, int64_t y)
{
    const int64_t at = a->top + y * a->sh;
    PC_LOCAL(range) inside = {0, a->kh};
    if (at < 0) {
        inside.from = pc_min(a->kh, pc_ceil_div(-at, a->dh));
    }
    if (at + (a->kh - 1) * a->dh >= a->src_rows) {
        inside.to = pc_max(inside.from, at < a->src_rows ? pc_ceil_div(a->src_rows - at, a->dh) : 0);
    }
    return inside;
}

/* Columns left .. left + width - 1 of a row: `lead` of them before the source, then `count` from source column `from`. */
typedef struct {
    int64_t width, lead, from, count;
} PC_LOCAL(columns);

PC_INLINE PC_LOCAL(columns) PC_LOCAL(columns_of)(const pc_pool_args *a, int64_t left, int64_t width)
{
    const int64_t lead = pc_min(width, pc_max(0, -left)), from = pc_min(pc_max(0, left), a->src_columns);
    return (PC_LOCAL(columns)){width, lead, from, pc_max(0, pc_min(a->src_columns - from, width - lead))};
}

/* Writes one row of them to `to`, and up to a vector more behind it. */
PC_INLINE void PC_LOCAL(stage_row)(const pc_pool_args *a, const PC_LOCAL(columns) * c, T *to, const T *row, v_t fill,
                                   const T *row_cells)
{
    const v_t rows = row_cells ? v_set1(*row_cells) : v_zero();
    const T *cells = (const T *)a->cells + c->from;
    row += c->from;
    for (int64_t q = 0; q < c->lead; q += V_LANES) {
        v_store(to + q, fill);
    }
    to += c->lead;
    if (c->count < V_LANES) {
        v_t x = v_load_or(row, c->count, fill);
        if (row_cells) { /* behind the cells there are ones */
            x = v_div(x, v_fma(rows, v_load(cells), v_zero()));
        }
        v_store(to, x);
    } else {
        for (int64_t next = 0; next < c->count; next += V_LANES) {
            const int64_t q = pc_min(next, c->count - V_LANES);
            v_t x = v_load(row + q);
            if (row_cells) {
                x = v_div(x, v_fma(rows, v_load(cells + q), v_zero()));
            }
            v_store(to + q, x);
        }
    }
    for (int64_t q = c->count; q < c->width - c->lead; q += V_LANES) {
        v_store(to + q, fill);
    }
}

/* ---- rows of outputs ---- */

/* Where a row of outputs is, and what it may touch. */
typedef struct {
    const T *row; /* of the first tap inside */
    int64_t row_step;
    PC_LOCAL(range) taps;
    const T *readable; /* what the row lies in may be read up to here */
    T *out;
    const T *writable; /* outputs may be written up to here: they are still to come */
    int64_t y;
    const T *ahead; /* what the line uses up of the source, if it lies there like that; else NULL */
} PC_LOCAL(line);

PC_INLINE v_t PC_LOCAL(all_taps)(const pc_pool_args *a, const int op, const PC_LOCAL(line) * l, int64_t q,
                                 const int64_t rows, const int64_t kw, const int stride, const bool exact)
{
    v_t value = op == PC_LOCAL(SUM) ? v_zero() : v_set1((T)-INFINITY);
    const T *p = l->row + q * a->sw;
    if (op == PC_LOCAL(MAX)) {
        return rows > 0 ? PC_LOCAL(across)(a, value, op, p, l->row_step, rows, kw, stride, exact) : value;
    }
    for (int64_t i = 0; i < rows; i++) {
        value = PC_LOCAL(across)(a, value, op, p + i * l->row_step, 0, 1, kw, stride, exact);
    }
    return value;
}

/* Outputs q .. of a line. `few` are less than a vector, `exact` if nothing behind them may be read. Windows of 2 x 2 and
 * 3 x 3, all of which lies inside, have no loops. */
PC_INLINE void PC_LOCAL(outputs)(const pc_pool_args *a, const int op, const PC_LOCAL(line) * l, int64_t q,
                                 const int64_t kw, const int stride, const bool few, const bool exact)
{
    const int64_t rows = l->taps.to - l->taps.from;
    v_t value;
    if (__builtin_constant_p(kw) && rows == kw && !exact) {
        value = PC_LOCAL(all_taps)(a, op, l, q, kw, kw, stride, exact);
    } else {
        value = PC_LOCAL(all_taps)(a, op, l, q, rows, kw, stride, exact);
    }
    if (stride == 2) {
        value = v_in_order(value);
    }
    if (op == PC_LOCAL(SUM)) {
        const v_t row_cells = v_set1(((const T *)a->row_cells)[l->y]);
        value = v_div(value, v_fma(row_cells, v_load((const T *)a->cells + q), v_zero()));
    }
    if (!few || l->out + V_LANES <= l->writable) {
        v_store(l->out + q, value);
    } else {
        v_store_tail(l->out, value, a->columns);
    }
}

/* `few` as a constant where it is known that there are less than a vector. */
PC_INLINE void PC_LOCAL(output_row)(const pc_pool_args *a, const int op, const PC_LOCAL(line) * l, const int64_t kw,
                                    const int stride, const bool few)
{
    if (few || a->columns < V_LANES) {
        const T *last = l->row + (l->taps.to - 1 - l->taps.from) * l->row_step + (kw - 1) * a->dw;
        if (stride == 0 || l->taps.to == l->taps.from || l->readable - last < stride * V_LANES) {
            PC_LOCAL(outputs)(a, op, l, 0, a->kw, stride, true, true);
        } else {
            PC_LOCAL(outputs)(a, op, l, 0, kw, stride, true, false);
        }
        return;
    }
    for (int64_t next = 0; next < a->columns; next += V_LANES) {
        if (stride && l->ahead) {
            PC_LOCAL(prefetch)(l->ahead + next * a->sw * a->sh, stride * a->sh * V_LANES);
        }
        PC_LOCAL(outputs)(a, op, l, pc_min(next, a->columns - V_LANES), kw, stride, false, false);
    }
}

PC_INLINE const T *PC_LOCAL(writable)(const pc_pool_args *a, const T *row)
{
    return a->out_row == a->columns ? (const T *)a->out + a->planes * a->rows * a->out_row : row + a->columns;
}

/* Every tap of every output, by rows; largest values alone only of rows shorter than a vector. */
PC_INLINE void PC_LOCAL(by_rows)(const pc_pool_args *a, const int op, const int64_t kw, const int stride)
{
    const bool close = a->readable == a->src_plane;
    const T *end = (const T *)a->src + a->planes * a->src_plane;
    const int64_t width = (a->columns - 1) * a->sw + (kw - 1) * a->dw + 1;
    const bool staged = a->left < 0 || a->left + width > a->src_columns;
    const int64_t first = pc_max(0, a->top);
    const int64_t last = pc_min(a->src_rows, a->top + (a->rows - 1) * a->sh + (a->kh - 1) * a->dh + 1);
    const PC_LOCAL(columns) c = PC_LOCAL(columns_of)(a, a->left, width);
    const int64_t src_row = staged ? width : a->src_row, above = staged ? first : 0;
    const v_t fill = op == PC_LOCAL(SUM) ? v_zero() : v_set1((T)-INFINITY);

    for (int64_t plane = 0; plane < a->planes; plane++) {
        const T *src = (const T *)a->src + plane * a->src_plane;
        PC_LOCAL(line) l = {.row_step = a->dh * src_row};
        if (staged) {
            for (int64_t row = first; row < last; row++) {
                PC_LOCAL(stage_row)
                (a, &c, (T *)a->work + (row - first) * width, src + row * a->src_row, fill, NULL);
            }
            src = a->work;
            l.readable = src + (last - first) * width + 2 * V_LANES;
        } else {
            /* What comes behind a plane is the next one, if they lie closely. */
            l.readable = close ? end : src + a->readable;
            src += a->left;
        }
        for (int64_t y = 0; y < a->rows; y++) {
            const int64_t at = (plane * a->rows + y) * a->out_row;
            l.y = y;
            l.taps = PC_LOCAL(rows_inside)(a, y);
            l.row = src;
            if (l.taps.from < l.taps.to) {
                l.row += (a->top + y * a->sh + l.taps.from * a->dh - above) * src_row;
            }
            l.out = (T *)a->out + at;
            l.writable = PC_LOCAL(writable)(a, l.out);
            l.ahead = staged || a->sh > 2 ? NULL : src + y * a->sh * a->src_row;
            PC_LOCAL(output_row)(a, op, &l, kw, stride, op == PC_LOCAL(MAX));
        }
    }
}

/* ---- largest values: columns first ---- */

/* Largest of `rows` rows, `row_step` apart, in columns q .. */
PC_INLINE v_t PC_LOCAL(column_max)(const T *p, int64_t row_step, const int64_t rows)
{
    v_t best = v_load(p);
    for (int64_t i = 1; i < rows; i++) {
        p += row_step;
        best = v_max(best, v_load(p));
    }
    return best;
}

PC_INLINE void PC_LOCAL(column_max_row)(const T *row, int64_t row_step, const int64_t rows, T *to, int64_t count,
                                        const int64_t stride)
{
    if (count < V_LANES) {
        v_t best = v_set1((T)-INFINITY);
        for (int64_t i = 0; i < rows; i++) {
            best = v_max(best, v_load_or(row + i * row_step, count, v_set1((T)-INFINITY)));
        }
        v_store(to, best);
        return;
    }
    for (int64_t next = 0; next < count; next += V_LANES) {
        const int64_t q = pc_min(next, count - V_LANES);
        PC_LOCAL(prefetch)(row + stride * next, stride * V_LANES);
        v_store(to + q, PC_LOCAL(column_max)(row + q, row_step, rows));
    }
}

/* 2 x 2 windows (or n x 2) side by side: nothing of a row in between is used twice, so it stays in registers. */
PC_INLINE void PC_LOCAL(pairs_max_row)(const T *row, int64_t row_step, const int64_t rows, T *out, int64_t columns)
{
    for (int64_t next = 0; next < columns; next += V_LANES) {
        const int64_t q = pc_min(next, columns - V_LANES);
        PC_LOCAL(prefetch)(row + rows * 2 * next, rows * 2 * V_LANES);
        v_t low = PC_LOCAL(column_max)(row + 2 * q, row_step, rows);
        v_t high = PC_LOCAL(column_max)(row + 2 * q + V_LANES, row_step, rows);
        v_store(out + q, v_in_order(v_max(v_evens(low, high), v_odds(low, high))));
    }
}

PC_INLINE void PC_LOCAL(by_columns)(const pc_pool_args *a, const int64_t kw, const int stride)
{
    const int64_t width = (a->columns - 1) * a->sw + (kw - 1) * a->dw + 1;
    const PC_LOCAL(columns) c = PC_LOCAL(columns_of)(a, a->left, width);
    const bool pairs = stride == 2 && kw == 2 && c.count == width && a->columns >= V_LANES;
    /* A few rows at a time: reading a row at once would have to wait until it is stored. */
    const int64_t pitch = width + V_LANES;
    T *work = a->work;
    if (!pairs && c.count < width) {
        for (int64_t q = 0; q < PC_POOL_ROWS * pitch; q += V_LANES) {
            v_store(work + q, v_set1((T)-INFINITY));
        }
    }
    for (int64_t plane = 0; plane < a->planes; plane++) {
        const T *src = (const T *)a->src + plane * a->src_plane + c.from;
        for (int64_t first = 0; first < a->rows; first += PC_POOL_ROWS) {
            const int64_t last = pc_min(a->rows, first + PC_POOL_ROWS);
            for (int64_t y = first; y < last; y++) {
                const PC_LOCAL(range) r = PC_LOCAL(rows_inside)(a, y);
                const int64_t rows = r.to - r.from, step = a->dh * a->src_row;
                const T *row = src + (rows ? a->top + y * a->sh + r.from * a->dh : 0) * a->src_row;
                T *out = (T *)a->out + (plane * a->rows + y) * a->out_row;
                T *to = work + (y - first) * pitch + c.lead;
                if (rows == 0) {
                    for (int64_t q = 0; q < c.count; q += V_LANES) {
                        v_store(to + q, v_set1((T)-INFINITY));
                    }
                } else if (pairs && rows == 2) {
                    PC_LOCAL(pairs_max_row)(row, step, 2, out, a->columns);
                } else if (pairs) {
                    PC_LOCAL(pairs_max_row)(row, step, rows, out, a->columns);
                } else if (rows == 3) {
                    PC_LOCAL(column_max_row)(row, step, 3, to, c.count, pc_min(2, a->sh));
                } else if (rows == 2) {
                    PC_LOCAL(column_max_row)(row, step, 2, to, c.count, pc_min(2, a->sh));
                } else {
                    PC_LOCAL(column_max_row)(row, step, rows, to, c.count, pc_min(2, a->sh));
                }
            }
            for (int64_t y = first; !pairs && y < last; y++) {
                T *out = (T *)a->out + (plane * a->rows + y) * a->out_row;
                const PC_LOCAL(line) l = {.row = work + (y - first) * pitch,
                                          .taps = {0, 1},
                                          .readable = work + (y - first + 1) * pitch + 2 * V_LANES,
                                          .out = out,
                                          .writable = PC_LOCAL(writable)(a, out),
                                          .y = y};
                PC_LOCAL(output_row)(a, PC_LOCAL(MAX), &l, kw, stride, false);
            }
        }
    }
}

/* Windows two and three wide, one or two apart, are the ones that people use.
 *
 * The arguments are copied: through a pointer, each store might have changed them. */
void PC_SYMBOL(max_pool_forward)(const pc_pool_args *args)
{
    const pc_pool_args copy = *args, *a = &copy;
    /* A row in between of less than a vector would be read when it has just been stored. Only where that was seen to
     * pay, with vectors of eight, and for the windows that people use there: code for all takes 90 KB. */
    enum { WORTH = sizeof(T) == sizeof(float) && V_LANES == 8 };
    const bool narrow = WORTH && a->columns < V_LANES && a->columns == a->out_row && a->dw == 1;
    if (narrow && a->kw == 3 && a->sw == 2) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(MAX), 3, 2);
    } else if (narrow && a->kw == 2 && a->sw == 2) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(MAX), 2, 2);
    } else if (a->sw == 1 && a->kw == 3) {
        PC_LOCAL(by_columns)(a, 3, 1);
    } else if (a->sw == 1) {
        PC_LOCAL(by_columns)(a, a->kw, 1);
    } else if (a->sw != 2 || a->dw != 1 || a->kw == 1) {
        PC_LOCAL(by_columns)(a, a->kw, 0);
    } else if (a->kw == 2) {
        PC_LOCAL(by_columns)(a, 2, 2);
    } else if (a->kw == 3) {
        PC_LOCAL(by_columns)(a, 3, 2);
    } else {
        PC_LOCAL(by_columns)(a, a->kw, 2);
    }
}

/* Averages of 2 x 2, two apart, all of which lies inside. In a function of its own: among the registers of the other
 * windows rows of 7 took twice as long. */
static __attribute__((noinline)) void PC_LOCAL(pair_averages)(const pc_pool_args *a)
{
    const int64_t count = a->columns, step = a->src_row;
    const bool few = count < V_LANES;
    const T *plane = (const T *)a->src + a->top * step + a->left, *cells = a->cells;
    /* Rows shorter than a vector are whole ones if they begin at or before these. */
    const T *readable =
        a->readable == a->src_plane ? (const T *)a->src + a->planes * a->src_plane - step - 2 * V_LANES : NULL;
    const T *writable = a->out_row == count ? (const T *)a->out + a->planes * a->rows * count - V_LANES : NULL;
    T *out = a->out;
    for (int64_t p = 0; p < a->planes; p++, plane += a->src_plane) {
        const T *row = plane;
        for (int64_t y = 0; y < a->rows; y++, row += a->sh * step, out += a->out_row) {
            const v_t height = v_set1(((const T *)a->row_cells)[y]);
            const bool exact = few && !(row <= readable && out <= writable);
            for (int64_t next = 0; next < count; next += V_LANES) {
                const int64_t q = few ? 0 : pc_min(next, count - V_LANES);
                if (!few) {
                    PC_LOCAL(prefetch)(row + 4 * next, 4 * V_LANES);
                }
                v_t sum = v_zero();
                PC_UNROLL(2)
                for (int64_t r = 0; r < 2; r++) {
                    const T *at = row + r * step + 2 * q, *next_at = at + V_LANES;
                    v_t low = exact ? v_load_or(at, pc_min(V_LANES, 2 * count), v_zero()) : v_load(at);
                    v_t high = exact ? v_load_or(next_at, pc_max(0, 2 * count - V_LANES), v_zero()) : v_load(next_at);
                    sum = v_add(v_add(sum, v_evens(low, high)), v_odds(low, high));
                }
                sum = v_div(v_in_order(sum), v_fma(height, v_load(cells + q), v_zero()));
                if (exact) {
                    v_store_tail(out, sum, count);
                } else {
                    v_store(out + q, sum);
                }
            }
        }
    }
}

/* The same where an output row is half a vector: two rows at a time, which touch in out, and nothing is read or written
 * in vain. */
static __attribute__((noinline)) void PC_LOCAL(short_pair_averages)(const pc_pool_args *a)
{
    const int64_t step = a->src_row, below = a->sh * step;
    const v_mask upper = v_mask_first(a->columns);
    T twice[V_LANES];
    for (int64_t i = 0; i < V_LANES; i++) {
        twice[i] = ((const T *)a->cells)[i % a->columns];
    }
    const v_t widths = v_load(twice);
    const T *plane = (const T *)a->src + a->top * step + a->left;
    T *out = a->out;
    for (int64_t p = 0; p < a->planes; p++, plane += a->src_plane) {
        const T *row = plane, *height = a->row_cells;
        for (int64_t y = 0; y < a->rows; y += 2, row += 2 * below, height += 2, out += V_LANES) {
            v_t sum = v_zero();
            PC_UNROLL(2)
            for (int64_t r = 0; r < 2; r++) {
                const v_t x = v_load(row + r * step), next = v_load(row + r * step + below);
                sum = v_add(v_add(sum, v_evens(x, next)), v_odds(x, next));
            }
            const v_t heights = v_select(upper, v_set1(height[0]), v_set1(height[1]));
            v_store(out, v_div(v_in_order(sum), v_fma(heights, widths, v_zero())));
        }
    }
}

void PC_SYMBOL(avg_pool_forward)(const pc_pool_args *args)
{
    const pc_pool_args copy = *args, *a = &copy;
    const int64_t height = (a->rows - 1) * a->sh + 2, width = 2 * a->columns;
    if (a->kw == 2 && a->sw == 2 && a->dw == 1 && a->kh == 2 && a->dh == 1 && a->left >= 0 && a->top >= 0 &&
        a->left + width <= a->src_columns && a->top + height <= a->src_rows) {
        if (width == V_LANES && a->out_row == a->columns && a->rows % 2 == 0) {
            PC_LOCAL(short_pair_averages)(a);
        } else {
            PC_LOCAL(pair_averages)(a);
        }
    } else if (a->sw == 1 && a->kw == 3) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(SUM), 3, 1);
    } else if (a->sw == 1) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(SUM), a->kw, 1);
    } else if (a->sw != 2 || a->dw != 1 || a->kw == 1) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(SUM), a->kw, 0);
    } else if (a->kw == 3) {
        PC_LOCAL(by_rows)(a, PC_LOCAL(SUM), 3, 2);
    } else {
        PC_LOCAL(by_rows)(a, PC_LOCAL(SUM), a->kw, 2);
    }
}

/* ---- averages of whole planes ---- */

void PC_SYMBOL(avg_pool_planes)(const pc_pool_args *args)
{
    enum { WIDTH = PC_POOL_SUMS, VECTORS = WIDTH / V_LANES };
    const pc_pool_args copy = *args, *a = &copy;
    const int64_t whole = a->src_columns / WIDTH * WIDTH, rest = a->src_columns - whole;
    const T divisor = *(const T *)a->row_cells * *(const T *)a->cells;
    for (int64_t plane = 0; plane < a->planes; plane++) {
        const T *src = (const T *)a->src + plane * a->src_plane;
        v_t sums[VECTORS];
        T lanes[WIDTH];
        PC_UNROLL(8)
        for (int v = 0; v < VECTORS; v++) {
            sums[v] = v_zero();
        }
        for (int64_t q = 0; q < whole; q += WIDTH) {
            PC_UNROLL(8)
            for (int v = 0; v < VECTORS; v++) {
                sums[v] = v_add(sums[v], v_load(src + q + v * V_LANES));
            }
        }
        PC_UNROLL(8)
        for (int v = 0; v < VECTORS; v++) {
            if (rest > v * V_LANES) {
                const T *last = src + whole + v * V_LANES;
                sums[v] = v_add(sums[v], v_load_or(last, pc_min(V_LANES, rest - v * V_LANES), v_zero()));
            }
        }
        int width = WIDTH / 2;
        PC_UNROLL(8)
        for (; width >= V_LANES; width /= 2) {
            PC_UNROLL(8)
            for (int v = 0; v < width / V_LANES; v++) {
                sums[v] = v_add(sums[v], sums[v + width / V_LANES]);
            }
        }
        v_store(lanes, sums[0]);
        PC_UNROLL(8)
        for (; width >= 1; width /= 2) {
            PC_UNROLL(8)
            for (int i = 0; i < width; i++) {
                lanes[i] += lanes[i + width];
            }
        }
        ((T *)a->out)[plane] = lanes[0] / divisor;
    }
}
