/* weight_tile: acc[p][q] += scalar[p] * vector[q], once per pixel, with acc in registers. The weight gradient's loop.
 *
 *                 q: output channels, NV vectors
 *               +----------------------+
 *      p        |  acc[0][0 .. NV-1]   |  <- scal[offset[0] + pixel], broadcast
 *    weights    |  acc[1][0 .. NV-1]   |  <- scal[offset[1] + pixel]
 *   (c, r, s)   |  ...                 |
 *               +----------------------+
 *                  ^ one load per vector and pixel: vec[pixel][q]
 *
 * The rows are any weights (channel, kernel row, kernel column): each has a pointer of its own, which stays in a
 * register, and one index walks along the pixels for all of them. So a step is the loads, the broadcasts, the
 * multiply-adds and four instructions more: 24 of the 36 that fit beside the 6 cycles of an AVX2 tile's 12
 * multiply-adds. A list of offsets for each step and the multiplications of a row step, as a tile of lists has them,
 * cost a quarter of the speed here. Rows that are taps of one channel read the same few cache lines. */

PC_INLINE void PC_LOCAL(weight_body)(const pc_weight_args *a, int64_t first, const int rows, const int vectors)
{
    v_t acc[PC_TILE_ROWS][PC_TILE_VECTORS];
    const T *scal[PC_TILE_ROWS];
    const int64_t width = (int64_t)vectors * V_LANES;
    T *out = (T *)a->out + first * width;
    PC_UNROLL(8)
    for (int p = 0; p < rows; p++) {
        scal[p] = (const T *)a->scal + a->offset[first + p];
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            acc[p][v] = a->accumulate ? v_load(out + p * width + v * V_LANES) : v_zero();
        }
    }

    const T *vec = a->vec;
    const int64_t step = a->pixel_step;
    for (int64_t r = 0; r < a->row_count; r++) {
        int64_t at = a->row[r];
        for (int64_t t = a->columns; t > 0; t--) {
            v_t x[PC_TILE_VECTORS];
            PC_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                x[v] = v_load(vec + v * V_LANES);
            }
            PC_UNROLL(8)
            for (int p = 0; p < rows; p++) {
                v_t w = v_set1(scal[p][at]);
                PC_UNROLL(4)
                for (int v = 0; v < vectors; v++) {
                    acc[p][v] = v_fma(w, x[v], acc[p][v]);
                }
            }
            at += step;
            vec += width;
        }
    }

    PC_UNROLL(8)
    for (int p = 0; p < rows; p++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            v_store(out + p * width + v * V_LANES, acc[p][v]);
        }
    }
}

#define PC_REST(rows)                                                                                                  \
    case rows:                                                                                                         \
        PC_LOCAL(weight_body)(a, first, rows, vectors);                                                                \
        break;

PC_INLINE void PC_LOCAL(weight_rows)(const pc_weight_args *a, const int vectors)
{
    int64_t first = 0;
    for (; first + PC_TILE_ROWS <= a->rows; first += PC_TILE_ROWS) {
        PC_LOCAL(weight_body)(a, first, PC_TILE_ROWS, vectors);
    }
    switch (a->rows - first) {
        PC_REST(1)
        PC_REST(2)
        PC_REST(3)
        PC_REST(4)
        PC_REST(5)
#if PC_TILE_ROWS >= 8
        PC_REST(6)
        PC_REST(7)
#endif
    }
}

#undef PC_REST

void PC_SYMBOL(weight_tile)(const pc_weight_args *a)
{
    if (a->vectors == 1) {
        PC_LOCAL(weight_rows)(a, 1);
    } else if (PC_TILE_VECTORS == 2 || a->vectors == 2) {
        PC_LOCAL(weight_rows)(a, 2);
    } else {
        PC_LOCAL(weight_rows)(a, PC_TILE_VECTORS);
    }
}
