/* Row kernels: depthwise convolutions, and those of few channels a group. Lanes are neighbouring outputs of one row.
 *
 * dense_tile shares one loaded vector among 8 output channels; with one output channel a group there is nobody to share
 * with, and 7 of its 8 rows stay idle. Here the tile's rows are rows of one output plane instead, and what they share is
 * the weight:
 *
 *                q: pixels, NV vectors            vec + offset[k] + j*vec_step
 *              +----------------------+
 *     row j    |  acc[0][0 .. NV-1]   |  += weight[k] * (the same rows of the slab, shifted by tap k)
 *     row j+1  |  acc[1][0 .. NV-1]   |
 *              +----------------------+
 *
 * That is a load for each multiply-add, and most loads are misaligned: one and a half reads of cache lines, of which
 * cores do two a cycle. So where the window slides by one row (stride 1, or the input gradient's mirror of it), a loaded
 * vector serves every output row that has it in its window: rows_slide.
 *
 * What is no multiple of the tile ends in a tile that overlaps its neighbour: the same pixels once more, with the same
 * bits. Only in rows shorter than a vector do lanes stay idle. */

/* A tile's place: its first row, and the distance to the next, negative where rows are taken from the last to the first.
 * The last vector of a row begins at column `last`. */
typedef struct {
    T *out;
    const T *vec;
    int64_t out_step, vec_step, last;
} PC_LOCAL(rows_place);

PC_INLINE void PC_LOCAL(rows_init)(const pc_rows_args *a, v_t acc[8][PC_TILE_VECTORS], const int rows,
                                   const int vectors)
{
    const v_t first = a->init ? v_set1(*(const T *)a->init) : v_zero();
    PC_UNROLL(8)
    for (int j = 0; j < rows; j++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            acc[j][v] = first;
        }
    }
}

/* A row of a map that is narrower than a vector. Rubbish behind it is allowed up to `limit`. */
PC_INLINE void PC_LOCAL(rows_store_narrow)(T *out, v_t a, const T *limit, int64_t columns)
{
    if (out + V_LANES <= limit) {
        v_store(out, a);
    } else {
        v_store_tail(out, a, columns);
    }
}

PC_INLINE void PC_LOCAL(rows_store)(const pc_rows_args *a, const PC_LOCAL(rows_place) * at, v_t acc[8][PC_TILE_VECTORS],
                                    const int rows, const int vectors)
{
    T *out = at->out;
    const int64_t step = at->out_step, last = at->last, columns = a->columns;
    const T *limit = (T *)a->out + a->limit;
    if (vectors > 1 || columns >= V_LANES) {
        PC_UNROLL(8)
        for (int j = 0; j < rows; j++) {
            PC_UNROLL(4)
            for (int v = 0; v < vectors - 1; v++) {
                v_store(out + j * step + v * V_LANES, acc[j][v]);
            }
            v_store(out + j * step + last, acc[j][vectors - 1]);
        }
    } else if (step > 0) { /* upward in memory: a row overwrites the rubbish of the one before */
        PC_UNROLL(8)
        for (int j = 0; j < rows; j++) {
            PC_LOCAL(rows_store_narrow)(out + j * step, acc[j][0], limit, columns);
        }
    } else {
        PC_UNROLL(8)
        for (int j = rows - 1; j >= 0; j--) {
            PC_LOCAL(rows_store_narrow)(out + j * step, acc[j][0], limit, columns);
        }
    }
}

/* ---- any list of taps ---- */

PC_INLINE void PC_LOCAL(rows_list)(const pc_rows_args *a, const PC_LOCAL(rows_place) * at, const int rows,
                                   const int vectors)
{
    v_t acc[8][PC_TILE_VECTORS];
    const int64_t step = at->vec_step, last = at->last, taps = a->taps, *offset = a->offset;
    const T *weight = a->weight;
    PC_LOCAL(rows_init)(a, acc, rows, vectors);
    for (int64_t k = 0; k < taps; k++) {
        const T *x = at->vec + offset[k];
        const v_t w = v_set1(weight[k]);
        PC_UNROLL(8)
        for (int j = 0; j < rows; j++) {
            PC_UNROLL(4)
            for (int v = 0; v < vectors - 1; v++) {
                acc[j][v] = v_fma(w, v_load(x + j * step + v * V_LANES), acc[j][v]);
            }
            acc[j][vectors - 1] = v_fma(w, v_load(x + j * step + last), acc[j][vectors - 1]);
        }
    }
    PC_LOCAL(rows_store)(a, at, acc, rows, vectors);
}

/* Rows of a tile, at most: one weight, no loaded vector in a register. */
#define PC_LIST_ROWS(vectors) (PC_TILE_VECTORS > 2 || (vectors) == 1 ? 8 : 6)

#define PC_LIST(rows)                                                                                                  \
    case rows:                                                                                                         \
        if (rows <= PC_LIST_ROWS(vectors)) {                                                                           \
            PC_LOCAL(rows_list)(a, &at, rows, vectors);                                                                \
        }                                                                                                              \
        break;

/* All rows of a strip of `vectors` vectors from column q on, in blocks of even height. */
PC_INLINE void PC_LOCAL(rows_list_strip)(const pc_rows_args *a, int64_t q, int64_t last, const int vectors)
{
    const int64_t height = pc_ceil_div(a->rows, pc_ceil_div(a->rows, PC_LIST_ROWS(vectors)));
    PC_LOCAL(rows_place) at = {(T *)a->out + q, (const T *)a->vec + q, a->out_step, a->vec_step, last};
    for (int64_t j = 0; j < a->rows; j += height) {
        switch (pc_min(height, a->rows - j)) {
            PC_LIST(1)
            PC_LIST(2)
            PC_LIST(3)
            PC_LIST(4)
            PC_LIST(5)
            PC_LIST(6)
            PC_LIST(7)
            PC_LIST(8)
        }
        at.out += height * at.out_step;
        at.vec += height * at.vec_step;
    }
}

PC_INLINE void PC_LOCAL(rows_list_all)(const pc_rows_args *a)
{
    enum { WIDE = PC_TILE_VECTORS * V_LANES };
    for (int64_t q = 0; q < a->columns; q += WIDE) {
        const int64_t vectors = pc_ceil_div(pc_min(WIDE, a->columns - q), V_LANES);
        const int64_t last = pc_min((vectors - 1) * V_LANES, a->columns - V_LANES - q);
        if (vectors == 1) {
            PC_LOCAL(rows_list_strip)(a, pc_max(0, pc_min(q, a->columns - V_LANES)), 0, 1);
        } else if (PC_TILE_VECTORS == 2 || vectors == 2) {
            PC_LOCAL(rows_list_strip)(a, q, last, 2);
        } else {
            PC_LOCAL(rows_list_strip)(a, q, last, PC_TILE_VECTORS);
        }
    }
}

#undef PC_LIST
#undef PC_LIST_ROWS

/* ---- windows that slide ---- */

/* One or two vectors at source row y and one column of the window, to all rows of outputs that see them. `kept` has the
 * weights in registers, else they lie `step` apart. v_pin holds the order: GCC would gather each output's chain at the
 * end, and spill all that was loaded (43 instead of 55 GFLOP/s), or load it for each output again, from two lines mostly
 * (1.2 to 1.4 times the time). */
PC_INLINE void PC_LOCAL(rows_slide_step)(v_t acc[8][PC_TILE_VECTORS], const T *from, int64_t last, const T *weight,
                                         int64_t step, const v_t *kept, const int y, const int rows, const int vectors,
                                         const int height)
{
    v_t first = v_load(vectors > 1 ? from : from + last), second = first;
    v_pin(first);
    if (vectors > 1) {
        second = v_load(from + last);
        v_pin(second);
    }
    const v_t x[2] = {first, second};
    PC_UNROLL(8)
    for (int r = 0; r < height; r++) {
        if (y - r >= 0 && y - r < rows) {
            const v_t w = kept ? kept[r * 3] : v_set1(weight[r * step]);
            PC_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                acc[y - r][v] = v_fma(w, x[v], acc[y - r][v]);
                v_pin(acc[y - r][v]);
            }
        }
    }
}

/* Going over the source rows in order goes over the taps of each output in order. A 3x3 window keeps its weights in
 * registers, and its columns are neighbours, `column` apart: 1 or -1. */
PC_INLINE void PC_LOCAL(rows_slide)(const pc_rows_args *a, const PC_LOCAL(rows_place) * at, const v_t *kept,
                                    const int rows, const int vectors, const int height, const int column)
{
    v_t acc[8][PC_TILE_VECTORS];
    const int64_t step = at->vec_step, last = at->last, width = a->width, taps = a->taps, *offset = a->offset;
    const T *weight = a->weight, *vec = at->vec;
    PC_LOCAL(rows_init)(a, acc, rows, vectors);
#define PC_STEP(y)                                                                                                     \
    if (kept && y < rows + 2) {                                                                                        \
        const T *from = vec + y * step;                                                                                \
        PC_LOCAL(rows_slide_step)(acc, from, last, NULL, 3, kept, y, rows, vectors, 3);                                \
        PC_LOCAL(rows_slide_step)(acc, from + column, last, NULL, 3, kept + 1, y, rows, vectors, 3);                   \
        PC_LOCAL(rows_slide_step)(acc, from + 2 * column, last, NULL, 3, kept + 2, y, rows, vectors, 3);               \
    } else if (y < rows + height - 1) {                                                                                \
        for (int64_t t = k; t < k + width; t++) {                                                                      \
            const T *from = vec + offset[t] + y * step;                                                                \
            PC_LOCAL(rows_slide_step)(acc, from, last, weight + t, width, NULL, y, rows, vectors, height);             \
        }                                                                                                              \
    }
    int64_t k = 0;
    do {
        PC_STEP(0)
        PC_STEP(1)
        PC_STEP(2)
        PC_STEP(3)
        PC_STEP(4)
        PC_STEP(5)
        PC_STEP(6)
        PC_STEP(7)
        PC_STEP(8)
        PC_STEP(9)
        k += height * width;
    } while (!kept && k < taps);
#undef PC_STEP
    PC_LOCAL(rows_store)(a, at, acc, rows, vectors);
}

/* All rows of a strip, a->rows >= `rows`. */
PC_INLINE void PC_LOCAL(rows_slide_strip)(const pc_rows_args *a, int64_t q, int64_t last, const v_t *kept,
                                          const int rows, const int vectors, const int height, const int column)
{
    const int64_t out_step = a->out_step, vec_step = a->vec_step, slide = a->slide;
    T *out = (T *)a->out + q;
    const T *vec = (const T *)a->vec + q + (kept ? a->offset[0] : 0);
    PC_LOCAL(rows_place) at = {.out_step = slide * out_step, .vec_step = slide * vec_step, .last = last};
    for (int64_t j = 0; j < a->rows; j += rows) {
        const int64_t top = pc_min(j, a->rows - rows) + (slide > 0 ? 0 : rows - 1);
        at.out = out + top * out_step;
        at.vec = vec + top * vec_step;
        PC_LOCAL(rows_slide)(a, &at, kept, rows, vectors, height, column);
    }
}

enum {
    PC_LOCAL(SLIDE_ROWS) = 4,
    PC_LOCAL(KEPT_ROWS) = PC_TILE_VECTORS > 2 ? 4 : 3 /* 9 weights, 3 x 2 accumulators and a load: 16 registers */
};

PC_INLINE void PC_LOCAL(rows_slide_all)(const pc_rows_args *a, const v_t *kept, const int height, const int column)
{
    int64_t q = 0;
    for (; q + V_LANES < a->columns; q += 2 * V_LANES) {
        const int64_t last = pc_min(V_LANES, a->columns - V_LANES - q);
        PC_LOCAL(rows_slide_strip)
        (a, q, last, kept, kept ? PC_LOCAL(KEPT_ROWS) : PC_LOCAL(SLIDE_ROWS), 2, height, column);
    }
    if (q < a->columns) {
        q = pc_max(0, a->columns - V_LANES);
        PC_LOCAL(rows_slide_strip)(a, q, 0, kept, PC_LOCAL(SLIDE_ROWS), 1, height, column);
    }
}

void PC_SYMBOL(conv_rows)(const pc_rows_args *a)
{
    enum { WIDE = PC_TILE_VECTORS * V_LANES };
    if (a->rows == 1 && a->columns > WIDE) { /* one long row: its pieces are the tile's rows */
        pc_rows_args pieces = *a;
        pieces.rows = a->columns / WIDE;
        pieces.columns = pieces.out_step = pieces.vec_step = WIDE;
        PC_LOCAL(rows_list_strip)(&pieces, 0, WIDE - V_LANES, PC_TILE_VECTORS);
        pieces.rows = 1;
        PC_LOCAL(rows_list_strip)(&pieces, a->columns - WIDE, WIDE - V_LANES, PC_TILE_VECTORS);
        return;
    }
    const int64_t height = a->slide && a->rows >= PC_LOCAL(SLIDE_ROWS) ? a->height : 0;
    if (height == 3 && a->taps == 9 && a->offset[1] - a->offset[0] == a->slide &&
        a->offset[2] - a->offset[1] == a->slide) {
        v_t kept[9];
        PC_UNROLL(9)
        for (int k = 0; k < 9; k++) {
            kept[k] = v_set1(((const T *)a->weight)[k]);
        }
        if (a->slide > 0) {
            PC_LOCAL(rows_slide_all)(a, kept, 3, 1);
        } else {
            PC_LOCAL(rows_slide_all)(a, kept, 3, -1);
        }
    } else if (height == 5) {
        PC_LOCAL(rows_slide_all)(a, NULL, 5, 0);
    } else if (height == 7) {
        PC_LOCAL(rows_slide_all)(a, NULL, 7, 0);
    } else {
        PC_LOCAL(rows_list_all)(a);
    }
}
