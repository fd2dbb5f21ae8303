/* Row kernels: depthwise convolutions, and those of few channels a group. Lanes are neighbouring outputs of one row.
 *
 * conv_tile shares one loaded vector among 8 output channels; with one output channel a group there is nobody to share
 * with, and 7 of its 8 rows stay idle. Here the tile's rows are rows of one output plane instead, and what they share is
 * the weight:
 *
 *                q: pixels, NV vectors            vec + offset[k] + j*vec_step
 *              +----------------------+
 *     row j    |  acc[0][0 .. NV-1]   |  += weight[k] * (the same rows of the slab, shifted by tap k)
 *     row j+1  |  acc[1][0 .. NV-1]   |
 *              +----------------------+
 *
 * A load for each multiply-add, and most loads are misaligned: that is one and a half cache line reads, of which today's
 * cores do two or three while they do two multiply-adds. A 3x3 window over a map that lies in L1 runs at 80 % of the
 * multiply-add peak so, before the copies of split_rows and the traffic of L2 (measured with AVX2).
 *
 * A row that is no multiple of the vector ends in a vector that overlaps its neighbour: the same pixels once more, with
 * the same bits. Only rows shorter than a vector need another end. */

#if PC_TILE_VECTORS > 2
#define PC_ROWS_MOST(vectors) 8
#else /* 16 registers */
#define PC_ROWS_MOST(vectors) ((vectors) == 1 ? 8 : 6)
#endif

/* Where whole vectors may be stored: up to `limit`. */
PC_INLINE void PC_LOCAL(rows_store)(T *out, v_t a, const T *limit, int64_t columns)
{
    if (columns >= V_LANES || out + V_LANES <= limit) {
        v_store(out, a);
    } else {
        v_store_tail(out, a, columns);
    }
}

/* `rows` x `vectors` outputs, of which the last vector begins at column `last`. */
PC_INLINE void PC_LOCAL(rows_body)(const pc_rows_args *a, T *out, const T *vec, int64_t last, const T *limit,
                                   const int rows, const int vectors)
{
    v_t acc[8][PC_TILE_VECTORS];
    const v_t first = a->init ? v_set1(*(const T *)a->init) : v_zero();
    PC_UNROLL(8)
    for (int j = 0; j < rows; j++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            acc[j][v] = first;
        }
    }
    const int64_t step = a->vec_step;
    for (int64_t k = 0; k < a->taps; k++) {
        const T *x = vec + a->offset[k];
        const v_t w = v_set1(((const T *)a->weight)[k]);
        PC_UNROLL(8)
        for (int j = 0; j < rows; j++) {
            PC_UNROLL(4)
            for (int v = 0; v < vectors - 1; v++) {
                acc[j][v] = v_fma(w, v_load(x + j * step + v * V_LANES), acc[j][v]);
            }
            acc[j][vectors - 1] = v_fma(w, v_load(x + j * step + last), acc[j][vectors - 1]);
        }
    }
    PC_UNROLL(8)
    for (int j = 0; j < rows; j++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors - 1; v++) {
            v_store(out + j * a->out_step + v * V_LANES, acc[j][v]);
        }
        PC_LOCAL(rows_store)(out + j * a->out_step + last, acc[j][vectors - 1], limit, a->columns);
    }
}

#define PC_ROWS(rows)                                                                                                  \
    case rows:                                                                                                         \
        if (rows <= PC_ROWS_MOST(vectors)) {                                                                           \
            PC_LOCAL(rows_body)(a, out, vec, last, limit, rows, vectors);                                              \
        }                                                                                                              \
        break;

/* All rows of one strip of `vectors` vectors, in blocks of even height. */
PC_INLINE void PC_LOCAL(rows_strip)(const pc_rows_args *a, T *out, const T *vec, int64_t last, const T *limit,
                                    const int vectors)
{
    const int64_t blocks = pc_ceil_div(a->rows, PC_ROWS_MOST(vectors));
    const int64_t height = pc_ceil_div(a->rows, blocks);
    for (int64_t j = 0; j < a->rows; j += height, out += height * a->out_step, vec += height * a->vec_step) {
        switch (pc_min(height, a->rows - j)) {
            PC_ROWS(1)
            PC_ROWS(2)
            PC_ROWS(3)
            PC_ROWS(4)
            PC_ROWS(5)
            PC_ROWS(6)
            PC_ROWS(7)
            PC_ROWS(8)
        }
    }
}

void PC_SYMBOL(conv_rows)(const pc_rows_args *a)
{
    T *out = a->out;
    const T *vec = a->vec, *limit = out + a->limit;
    enum { WIDE = PC_TILE_VECTORS * V_LANES };
    if (a->rows == 1 && a->columns > WIDE) { /* one long row: its pieces are the tile's rows, the rest overlaps */
        pc_rows_args pieces = *a;
        pieces.rows = a->columns / WIDE;
        pieces.columns = pieces.out_step = pieces.vec_step = WIDE;
        PC_LOCAL(rows_strip)(&pieces, out, vec, WIDE - V_LANES, limit, PC_TILE_VECTORS);
        const int64_t rest = a->columns - WIDE;
        PC_LOCAL(rows_body)(&pieces, out + rest, vec + rest, WIDE - V_LANES, limit, 1, PC_TILE_VECTORS);
        return;
    }
    for (int64_t q = 0; q < a->columns; q += WIDE) {
        const int64_t vectors = pc_ceil_div(pc_min(WIDE, a->columns - q), V_LANES);
        const int64_t last = pc_max(0, pc_min((vectors - 1) * V_LANES, a->columns - V_LANES - q));
        if (vectors == 1) {
            const int64_t back = pc_max(0, pc_min(q, a->columns - V_LANES));
            PC_LOCAL(rows_strip)(a, out + back, vec + back, 0, limit, 1);
        } else if (PC_TILE_VECTORS == 2 || vectors == 2) {
            PC_LOCAL(rows_strip)(a, out + q, vec + q, last, limit, 2);
        } else {
            PC_LOCAL(rows_strip)(a, out + q, vec + q, last, limit, PC_TILE_VECTORS);
        }
    }
}

#undef PC_ROWS
#undef PC_ROWS_MOST

/* ---- the weight gradient ---------------------------------------------------------------------------------------- */

/* One vector of grad_out meets one vector of the input for each tap: `taps` accumulators, a load for each multiply-add.
 *
 * Column q of a row goes to sum q % LANES, LANES being 64 bytes whatever the vector's length: a machine with shorter
 * vectors walks over the rows once for each of its vectors in 64 bytes. So the sums do not depend on the machine. */
PC_INLINE void PC_LOCAL(rows_weight_body)(const pc_rows_weight_args *a, int64_t tap, const int taps)
{
    enum { LANES = PC_ROWS_SUMS / sizeof(T) };
    static const T ends[2 * V_LANES - 1] = {[0 ... V_LANES - 2] = 1};
    T *sums = (T *)a->sums + tap * LANES;
    const T *x[10];
    PC_UNROLL(10)
    for (int k = 0; k < taps; k++) {
        x[k] = (const T *)a->vec + a->offset[tap + k];
    }
    for (int64_t part = 0; part < pc_min(LANES, a->columns); part += V_LANES) {
        v_t acc[10];
        PC_UNROLL(10)
        for (int k = 0; k < taps; k++) {
            acc[k] = v_load(sums + k * LANES + part);
        }
        const int64_t whole = a->columns - V_LANES;
        const int64_t end = part + pc_ceil_div(pc_max(0, whole - part + 1), LANES) * LANES, tail = a->columns - end;
        const v_mask mask = v_gt(v_load(ends + V_LANES - 1 - pc_max(0, pc_min(tail, V_LANES - 1))), v_zero());
        for (int64_t j = 0; j < a->rows; j++) {
            const T *grad = (const T *)a->grad + j * a->grad_step;
            const int64_t row = j * a->vec_step;
            for (int64_t q = part; q < end; q += LANES) {
                const v_t g = v_load(grad + q);
                PC_UNROLL(10)
                for (int k = 0; k < taps; k++) {
                    acc[k] = v_fma(g, v_load(x[k] + row + q), acc[k]);
                }
            }
            if (tail > 0) { /* lanes behind the row add 0 * 0, even where the slab holds an infinity */
                const v_t g = v_load_tail(grad + end, tail);
                PC_UNROLL(10)
                for (int k = 0; k < taps; k++) {
                    acc[k] = v_fma(g, v_select(mask, v_load(x[k] + row + end), v_zero()), acc[k]);
                }
            }
        }
        PC_UNROLL(10)
        for (int k = 0; k < taps; k++) {
            v_store(sums + k * LANES + part, acc[k]);
        }
    }
}

#define PC_TAPS(taps)                                                                                                  \
    case taps:                                                                                                         \
        PC_LOCAL(rows_weight_body)(a, k, taps);                                                                        \
        break;

void PC_SYMBOL(conv_rows_weight)(const pc_rows_weight_args *a)
{
    const int64_t count = pc_ceil_div(a->taps, pc_ceil_div(a->taps, 10));
    for (int64_t k = 0; k < a->taps; k += count) {
        switch (pc_min(count, a->taps - k)) {
            PC_TAPS(1)
            PC_TAPS(2)
            PC_TAPS(3)
            PC_TAPS(4)
            PC_TAPS(5)
            PC_TAPS(6)
            PC_TAPS(7)
            PC_TAPS(8)
            PC_TAPS(9)
            PC_TAPS(10)
        }
    }
}

#undef PC_TAPS

/* ---- taking a stride out and putting it in ----------------------------------------------------------------------- */

void PC_SYMBOL(split_rows)(const pc_rows_copy_args *a)
{
    const int64_t columns = a->columns, stride = a->stride;
    for (int64_t j = 0; j < a->rows; j++) {
        const T *wide = (const T *)a->wide + j * a->wide_step;
        T *narrow = (T *)a->narrow + j * a->narrow_step;
        if (a->wide_column != 1 || stride > 2) {
            for (int64_t p = 0; p < stride; p++) {
                for (int64_t i = 0; i * stride + p < columns; i++) {
                    narrow[p * a->phase_step + i] = wide[(i * stride + p) * a->wide_column];
                }
            }
        } else if (stride == 1) {
            if (columns < V_LANES) {
                v_store(narrow, v_load_tail(wide, columns));
                continue;
            }
            for (int64_t q = 0; q < columns; q += V_LANES) {
                const int64_t at = pc_min(q, columns - V_LANES);
                v_store(narrow + at, v_load(wide + at));
            }
        } else {
            T *odd = narrow + a->phase_step;
            for (int64_t q = 0; q < columns; q += 2 * V_LANES) {
                v_t first, second;
                int64_t at = q;
                if (q + 2 * V_LANES > columns && (columns % 2 || columns < 2 * V_LANES)) {
                    first = v_load_tail(wide + q, pc_min(V_LANES, columns - q));
                    second = columns - q > V_LANES ? v_load_tail(wide + q + V_LANES, columns - q - V_LANES) : v_zero();
                } else {
                    at = pc_min(q, columns - 2 * V_LANES);
                    first = v_load(wide + at);
                    second = v_load(wide + at + V_LANES);
                }
                v_store(narrow + at / 2, v_even(first, second));
                v_store(odd + at / 2, v_odd(first, second));
            }
        }
    }
}

void PC_SYMBOL(join_rows)(const pc_rows_copy_args *a)
{
    const int64_t columns = a->columns, stride = a->stride;
    const T *limit = (const T *)a->wide + a->limit;
    for (int64_t j = 0; j < a->rows; j++) {
        T *wide = (T *)a->wide + j * a->wide_step;
        const T *narrow = (const T *)a->narrow + j * a->narrow_step;
        if (stride > 2) {
            for (int64_t p = 0; p < stride; p++) {
                for (int64_t i = 0; i * stride + p < columns; i++) {
                    wide[i * stride + p] = narrow[p * a->phase_step + i];
                }
            }
            continue;
        }
        for (int64_t q = 0; q < columns; q += 2 * V_LANES) {
            const int64_t at = columns % 2 || columns < 2 * V_LANES ? q : pc_min(q, columns - 2 * V_LANES);
            const v_t even = v_load(narrow + at / 2), odd = v_load(narrow + a->phase_step + at / 2);
            T *to = wide + at;
            const int64_t rest = columns - at;
            if (rest >= 2 * V_LANES || to + 2 * V_LANES <= limit) {
                v_store(to, v_zip_low(even, odd));
                v_store(to + V_LANES, v_zip_high(even, odd));
            } else {
                v_store_tail(to, v_zip_low(even, odd), pc_min(rest, V_LANES));
                if (rest > V_LANES) {
                    v_store_tail(to + V_LANES, v_zip_high(even, odd), rest - V_LANES);
                }
            }
        }
    }
}
