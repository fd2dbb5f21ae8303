/* Largest values and where they were (lanes and rows as in pool.inc.h).
 *
 * First across each image row of a window: the first of the largest there, and its number. Then down these rows: a row
 * replaces those above only if it is larger, so the first by rows wins.
 *
 * NaN wins and the last NaN stays, but NaNs are rare: taps are taken for numbers, and the sum of some rows of outputs
 * tells whether they were (or held infinities of both signs, which costs no more than time). If not, these rows are done
 * again one tap at a time. */

/* Planes of at most so many bytes are worked through in strips, a vector wide, from top to bottom: constants stay in
 * registers, and what windows share of a row is computed once (6 comparisons for 3 x 3 two apart, 4 for one apart,
 * against 8): 1.2 to 1.5 times as fast as row by row. Beyond that the caches fetch rows ahead and no strips: 3 x 3 on
 * maps of 57 that come from memory would take twice as long. */
#define PC_STRIPS_BYTES 4096

typedef struct {
    v_t value;
    v_int number;
} PC_LOCAL(winner);

PC_INLINE void PC_LOCAL(meet)(PC_LOCAL(winner) * best, PC_LOCAL(winner) x, v_int number)
{
    best->number = vi_select(v_gt(x.value, best->value), number, best->number);
    best->value = v_max_number(best->value, x.value);
}

/* Taps t of the windows that start at p, p + sw, ... `stride` is sw as a constant, 0 for any. */
PC_INLINE v_t PC_LOCAL(tap)(const pc_pool_args *a, const T *p, int64_t t, const int64_t kw, const int stride)
{
    if (stride == 2) { /* the last of an odd number comes as the second half of a pair: nothing behind it is read */
        const bool odd = t % 2 != 0 || t + 1 == kw;
        p += t - odd;
        return odd ? v_odds(v_load(p), v_load(p + V_LANES)) : v_evens(v_load(p), v_load(p + V_LANES));
    }
    return stride == 1 ? v_load(p + t * a->dw) : v_load_step(p + t * a->dw, a->sw);
}

/* Of one image row. */
PC_INLINE void PC_LOCAL(across_row)(PC_LOCAL(winner) * best, const pc_pool_args *a, const T *p, const int64_t kw,
                                    const int stride, v_t *sum)
{
    const v_int step = vi_set1((T_INT)a->column_number);
    v_t taps = best->value = PC_LOCAL(tap)(a, p, 0, kw, stride);
    best->number = vi_set1(0);
    v_int here = step;
    for (int64_t t = 1; t < kw; t++, here = vi_add(here, step)) {
        const v_t x = PC_LOCAL(tap)(a, p, t, kw, stride);
        PC_LOCAL(meet)(best, (PC_LOCAL(winner)){x, here}, here);
        taps = v_add(taps, x);
    }
    *sum = v_add(*sum, taps);
}

/* Row y of outputs, by the definition. */
static __attribute__((noinline, cold)) void PC_LOCAL(row_by_taps)(const pc_pool_args *a, const T *src, int64_t y,
                                                                  T *out, int64_t *indices)
{
    const PC_LOCAL(range) inside = PC_LOCAL(rows_inside)(a, y);
    for (int64_t q = 0; q < a->columns; q++) {
        T best = (T)-INFINITY;
        int64_t number = -1;
        for (int64_t r = inside.from; r < inside.to; r++) {
            const T *row = src + (a->top + y * a->sh + r * a->dh) * a->src_row;
            for (int64_t t = 0; t < a->kw; t++) {
                const int64_t x = a->left + q * a->sw + t * a->dw;
                if (x >= 0 && x < a->src_columns && (row[x] > best || row[x] != row[x])) {
                    best = row[x];
                    number = r * a->row_number + t * a->column_number;
                }
            }
        }
        number = pc_max(number, ((const T_INT *)a->start)[q] + inside.from * a->row_number);
        out[q] = best;
        indices[q] = a->base + y * a->base_row + ((const T_INT *)a->place)[q] + number;
    }
}

/* Where a plane is, and what of it may be touched. */
typedef struct {
    const T *src; /* row `above` of the plane, from the first column that is looked at */
    int64_t src_row, above;
    int64_t ahead; /* so far ahead the source is asked for; 0 if it has been copied */
    T *out;
    int64_t *indices;
    const T *writable; /* outputs may be written up to here: they are still to come */
} PC_LOCAL(plane);

PC_INLINE v_int PC_LOCAL(of_lanes)(const void *numbers, int64_t q, const int stride)
{
    const v_int a = vi_load((const T_INT *)numbers + q);
    return stride == 2 ? vi_in_order(a) : a;
}

PC_INLINE void PC_LOCAL(store_wide)(int64_t *p, v_int a, int64_t base, const int stride)
{
    if (stride == 2) {
        vi_store_wide_evens(p, a, base);
    } else {
        vi_store_wide(p, a, base);
    }
}

PC_INLINE void PC_LOCAL(store)(const pc_pool_args *a, const PC_LOCAL(plane) * plane, int64_t y, int64_t q,
                               PC_LOCAL(winner) best, v_int start, v_int place, int64_t base, const int stride)
{
    T *out = plane->out + y * a->out_row + q;
    int64_t *indices = plane->indices + y * a->out_row + q;
    const v_t value = stride == 2 ? v_in_order(best.value) : best.value;
    const v_int number = vi_add(place, vi_max(start, best.number));
    base += a->base + y * a->base_row;
    if (a->columns >= V_LANES || out + V_LANES <= plane->writable) {
        v_store(out, value);
        PC_LOCAL(store_wide)(indices, number, base, stride);
    } else {
        int64_t wide[V_LANES];
        v_store_tail(out, value, a->columns);
        PC_LOCAL(store_wide)(wide, number, base, stride);
        memcpy(indices, wide, (size_t)a->columns * sizeof *wide);
    }
}

/* Row y of outputs, whose windows have `rows` rows inside from row r on. Returns the sum of the taps. */
PC_INLINE v_t PC_LOCAL(row)(const pc_pool_args *a, const PC_LOCAL(plane) * plane, int64_t y, int64_t r,
                            const int64_t rows, const int64_t kw, const int stride)
{
    const int64_t row_step = a->dh * plane->src_row;
    const T *src = plane->src + (a->top + y * a->sh + r * a->dh - plane->above) * plane->src_row;
    const v_int down = vi_set1((T_INT)a->row_number);
    v_t sum = v_zero();
    for (int64_t next = 0; next < a->columns; next += V_LANES) {
        const int64_t q = pc_max(0, pc_min(next, a->columns - V_LANES));
        const T *p = src + q * a->sw;
        PC_LOCAL(winner) best, x;
        PC_LOCAL(across_row)(&best, a, p, kw, stride, &sum);
        v_int here = down;
        for (int64_t i = 1; i < rows; i++, here = vi_add(here, down)) {
            PC_LOCAL(across_row)(&x, a, p + i * row_step, kw, stride, &sum);
            PC_LOCAL(meet)(&best, x, vi_add(x.number, here));
        }
        if (plane->ahead) {
            PC_LOCAL(prefetch)(src + next * a->sw * a->sh, stride * a->sh * V_LANES);
        }
        const v_int start = PC_LOCAL(of_lanes)(a->start, q, stride), place = PC_LOCAL(of_lanes)(a->place, q, stride);
        PC_LOCAL(store)(a, plane, y, q, best, start, place, r * a->row_number, stride);
    }
    return sum;
}

/* The same for all windows. NaN if no row is inside. */
PC_INLINE v_t PC_LOCAL(any_row)(const pc_pool_args *a, const PC_LOCAL(plane) * plane, int64_t y, const int64_t kh,
                                const int64_t kw, const int stride)
{
    const PC_LOCAL(range) inside = PC_LOCAL(rows_inside)(a, y);
    const int64_t rows = inside.to - inside.from;
    if (__builtin_constant_p(kh) && rows == kh) {
        return PC_LOCAL(row)(a, plane, y, 0, kh, kw, stride);
    }
    return rows > 0 ? PC_LOCAL(row)(a, plane, y, inside.from, rows, kw, stride) : v_set1((T)NAN);
}

/* Outputs q .. q + V_LANES - 1 of the rows first .. last - 1, whose windows overlap by `shared` rows and have a row
 * inside. Returns the sum of the taps. */
PC_INLINE v_t PC_LOCAL(strip)(const pc_pool_args *a, const PC_LOCAL(plane) * plane, int64_t first, int64_t last,
                              int64_t q, const int64_t kh, const int64_t kw, const int stride, const int64_t shared)
{
    const v_int start = PC_LOCAL(of_lanes)(a->start, q, stride), place = PC_LOCAL(of_lanes)(a->place, q, stride);
    const v_int down = vi_set1((T_INT)a->row_number);
    const T *src = plane->src + q * a->sw;
    PC_LOCAL(winner) rows[3];
    v_t sum = v_zero();
    for (int64_t r = 0; r < shared; r++) {
        const int64_t row = pc_max(0, pc_min(a->src_rows - 1, a->top + first * a->sh + r));
        PC_LOCAL(across_row)(&rows[r], a, src + (row - plane->above) * plane->src_row, kw, stride, &sum);
    }
    for (int64_t y = first; y < last; y++) {
        /* Rows outside are taken for the nearest one inside: they tie with it. */
        const int64_t at = a->top + y * a->sh, from = pc_max(0, -at);
        for (int64_t r = shared; r < kh; r++) {
            const int64_t row = pc_max(0, pc_min(a->src_rows - 1, at + r));
            const T *p = src + (row - plane->above) * plane->src_row;
            __builtin_prefetch(p + plane->ahead);
            PC_LOCAL(across_row)(&rows[r], a, p, kw, stride, &sum);
        }
        PC_LOCAL(winner) best = rows[0];
        v_int here = down;
        if (from > 0) {
            here = vi_set1((T_INT)((1 - from) * a->row_number));
        }
        for (int64_t r = 1; r < kh; r++, here = vi_add(here, down)) {
            PC_LOCAL(meet)(&best, rows[r], vi_add(rows[r].number, here));
        }
        for (int64_t r = 0; r < shared; r++) {
            rows[r] = rows[r + kh - shared];
        }
        PC_LOCAL(store)(a, plane, y, q, best, start, place, from * a->row_number, stride);
    }
    return sum;
}

PC_INLINE void PC_LOCAL(find_planes)(const pc_pool_args *a, const pc_pool_args *args, const int64_t kh,
                                     const int64_t kw, const int stride, const int64_t shared)
{
    const int64_t width = (a->columns - 1) * a->sw + (kw - 1) * a->dw + 1;
    const int64_t first = pc_max(0, a->top);
    const int64_t last = pc_min(a->src_rows, a->top + (a->rows - 1) * a->sh + (a->kh - 1) * a->dh + 1);
    const PC_LOCAL(columns) c = PC_LOCAL(columns_of)(a, a->left, width);
    const bool narrow = a->columns < V_LANES, close = a->readable == a->src_plane;
    const bool strips =
        __builtin_constant_p(kh) && a->rows * a->sh * a->src_row <= PC_STRIPS_BYTES / (int64_t)sizeof(T);
    const int64_t together = strips ? a->rows : 1;
    const v_mask lanes = v_mask_first(pc_min(V_LANES, a->columns));

    for (int64_t k = 0; k < a->planes; k++) {
        const T *src = (const T *)a->src + k * a->src_plane;
        /* How far rows narrower than a vector are read. Behind a plane comes the next one, if they lie closely. */
        const int64_t readable = close ? (a->planes - k) * a->src_plane : a->readable;
        const int64_t end = a->left + (last - 1) * a->src_row + (kw - 1) * a->dw + stride * V_LANES;
        const int64_t at = k * a->rows * a->out_row;
        PC_LOCAL(plane)
        plane = {.src = src + a->left,
                 .src_row = a->src_row,
                 .ahead = PC_AHEAD,
                 .out = (T *)a->out + at,
                 .indices = a->indices + at};
        plane.writable = PC_LOCAL(writable)(a, plane.out);
        if (c.count < width || (narrow && end > readable)) {
            for (int64_t row = first; row < last; row++) {
                PC_LOCAL(prefetch)(src + row * a->src_row, a->src_columns);
                PC_LOCAL(stage_row)
                (a, &c, (T *)a->work + (row - first) * width, src + row * a->src_row, v_set1((T)-INFINITY), NULL);
            }
            plane.src = a->work;
            plane.src_row = width;
            plane.above = first;
            plane.ahead = 0;
        }
        for (int64_t y = 0, next; y < a->rows; y = next) {
            next = pc_min(a->rows, y + together);
            v_t sum = v_zero();
            if (narrow && stride == 0) {
                sum = v_set1((T)NAN);
            } else if (!strips) {
                sum = PC_LOCAL(any_row)(a, &plane, y, kh, kw, stride);
            } else {
                for (int64_t q = 0; q < a->columns; q += V_LANES) {
                    const int64_t x = pc_max(0, pc_min(q, a->columns - V_LANES));
                    sum = v_add(sum, PC_LOCAL(strip)(a, &plane, y, next, x, kh, kw, stride, shared));
                }
            }
            if (stride == 2) {
                sum = v_in_order(sum);
            }
            if (__builtin_expect(v_any(v_mask_and(lanes, v_isnan(sum))), 0)) {
                for (; y < next; y++) {
                    const int64_t to = at + y * a->out_row;
                    PC_LOCAL(row_by_taps)(args, src, y, (T *)a->out + to, a->indices + to);
                }
            }
        }
    }
}

/* Windows of 2 x 2 and 3 x 3, one or two apart, are the ones that people use. The arguments are copied: through a
 * pointer, each store might have changed them. */
void PC_SYMBOL(max_pool_forward_taps)(const pc_pool_args *args)
{
    const pc_pool_args copy = *args, *a = &copy;
    const bool simple = a->kh == a->kw && a->sh == a->sw && a->dh == 1 && a->dw == 1 && a->top + a->kh > 0 &&
                        a->top + (a->rows - 1) * a->sh < a->src_rows;
    if (simple && a->sw == 2 && a->kw == 2) {
        PC_LOCAL(find_planes)(a, args, 2, 2, 2, 0);
    } else if (simple && a->sw == 2 && a->kw == 3) {
        PC_LOCAL(find_planes)(a, args, 3, 3, 2, 1);
    } else if (simple && a->sw == 1 && a->kw == 3) {
        PC_LOCAL(find_planes)(a, args, 3, 3, 1, 2);
    } else if (a->sw == 1) {
        PC_LOCAL(find_planes)(a, args, a->kh, a->kw, 1, 0);
    } else if (a->sw == 2 && a->dw == 1 && a->kw > 1) {
        PC_LOCAL(find_planes)(a, args, a->kh, a->kw, 2, 0);
    } else {
        PC_LOCAL(find_planes)(a, args, a->kh, a->kw, 0, 0);
    }
}

#undef PC_AHEAD
#undef PC_STRIPS_BYTES
