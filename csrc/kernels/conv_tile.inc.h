/* conv_tile: acc[p][q] += scalar[p] * vector[q], `depth` times, with acc in registers.
 *
 *              q: pixels (or channels), NV vectors
 *            +----------------------+
 *      p     |  acc[0][0 .. NV-1]   |  <- scal[0] broadcast
 *    rows    |  acc[1][0 .. NV-1]   |  <- scal[1]
 *            |  ...                 |
 *            +----------------------+
 *               ^ one load per vector and step
 *
 * Each step of the depth costs NV loads, p broadcasts and p*NV multiply-adds; with 8 x 3 of them (24 accumulators,
 * 28 of the 32 registers) the multiply-adds are the bottleneck on any machine that does two a cycle. What the steps
 * mean is the caller's business: the offsets come from lists, so stride, dilation, the phases of a transposed
 * convolution, taps that are left out and the pixels of a weight gradient are all the same loop.
 *
 * One output element is one chain of fmas in the order of the loops. Nothing in here splits or reorders it, which is
 * why tiles may be cut anywhere.
 *
 * The body is a forced-inline function that takes the tile's size as a constant; PC_TILE lists the sizes. */

PC_INLINE void PC_LOCAL(tile_body)(const pc_tile_args *a, const int rows, const int vectors)
{
    v_t acc[PC_TILE_ROWS][PC_TILE_VECTORS];
    T *out = a->out;
    const int64_t whole = (int64_t)(vectors - 1) * V_LANES;
    const int64_t tail = a->columns - whole; /* 1 .. V_LANES in the last vector */

    if (a->accumulate) {
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            PC_UNROLL(4)
            for (int v = 0; v < vectors - 1; v++) {
                acc[p][v] = v_load(out + p * a->out_step + v * V_LANES);
            }
            acc[p][vectors - 1] = v_load_tail(out + p * a->out_step + whole, tail);
        }
    } else {
        const T *init = a->init;
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            v_t first = init ? v_set1(init[p * a->init_step]) : v_zero();
            PC_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                acc[p][v] = first;
            }
        }
    }

    const int64_t step = a->scal_step;
    const int64_t row_count = a->row_count, col_count = a->col_count;
    const int64_t *vec_col = a->vec_col, *scal_col = a->scal_col;
    for (int64_t o = 0; o < a->outer; o++) {
        for (int64_t r = 0; r < row_count; r++) {
            const T *vec_base = (const T *)a->vec + o * a->vec_outer + a->vec_row[r];
            const T *scal_base = (const T *)a->scal + o * a->scal_outer + a->scal_row[r];
            for (int64_t t = 0; t < col_count; t++) {
                const T *vec = vec_base + vec_col[t];
                const T *scal = scal_base + scal_col[t];
                v_t x[PC_TILE_VECTORS];
                PC_UNROLL(4)
                for (int v = 0; v < vectors; v++) {
                    x[v] = v_load(vec + v * V_LANES);
                }
                PC_UNROLL(8)
                for (int p = 0; p < rows; p++) {
                    v_t w = v_set1(scal[p * step]);
                    PC_UNROLL(4)
                    for (int v = 0; v < vectors; v++) {
                        acc[p][v] = v_fma(w, x[v], acc[p][v]);
                    }
                }
            }
        }
    }

    PC_UNROLL(8)
    for (int p = 0; p < rows; p++) {
        PC_UNROLL(4)
        for (int v = 0; v < vectors - 1; v++) {
            v_store(out + p * a->out_step + v * V_LANES, acc[p][v]);
        }
        v_store_tail(out + p * a->out_step + whole, acc[p][vectors - 1], tail);
    }
}

#define PC_TILE(rows)                                                                                                  \
    case rows:                                                                                                         \
        if (vectors == 1) {                                                                                            \
            PC_LOCAL(tile_body)(a, rows, 1);                                                                           \
        } else if (PC_TILE_VECTORS == 2 || vectors == 2) {                                                             \
            PC_LOCAL(tile_body)(a, rows, 2);                                                                           \
        } else {                                                                                                       \
            PC_LOCAL(tile_body)(a, rows, PC_TILE_VECTORS);                                                             \
        }                                                                                                              \
        break;

void PC_SYMBOL(conv_tile)(const pc_tile_args *a)
{
    const int64_t vectors = (a->columns + V_LANES - 1) / V_LANES;
    switch (a->rows) {
        PC_TILE(1)
        PC_TILE(2)
        PC_TILE(3)
        PC_TILE(4)
        PC_TILE(5)
        PC_TILE(6)
#if PC_TILE_ROWS >= 8
        PC_TILE(7)
        PC_TILE(8)
#endif
    }
}

#undef PC_TILE
