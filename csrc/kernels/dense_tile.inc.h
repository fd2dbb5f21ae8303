/* dense_tile: acc[p][q] += scalar[p] * vector[q], `depth` times, with acc in registers, for a run of columns.
 *
 *              q: pixels, NV vectors
 *            +----------------------+
 *      p     |  acc[0][0 .. NV-1]   |  <- scal[0] broadcast
 *    rows    |  acc[1][0 .. NV-1]   |  <- scal[1]
 *            |  ...                 |
 *            +----------------------+
 *               ^ one load per vector and step
 *
 * A step of the depth costs NV loads, p broadcasts, an offset from the list and p*NV multiply-adds. Two fused
 * multiply-adds a cycle with a latency of four want eight accumulators in flight, and registers allow 12 (of 16) or 24
 * (of 32) beside the operands; so the fewer the rows, the wider the tile (PC_DENSE_VECTORS). What the steps mean is
 * the caller's business: stride, dilation, the phases of a transposed convolution and taps that are left out are
 * offsets in the list.
 *
 * The scalars come packed, in the order of the steps. Read where the weight has them they would need a list and three
 * more addresses: as fast on a core of one's own, but a fifth slower (77 of 97 GFLOP/s against 91, AVX2) where another
 * guest has the core's second thread and the window in which loads can run ahead is half as long. Steps go in pairs
 * for the same reason, where the registers allow (PC_DENSE_PAIRS), and v_pin keeps a vector that several rows use in
 * one: compilers like to load it once more for each. And the nest is two deep: with three levels (channel, kernel row,
 * kernel column) the ends of a 3x3 window's loops cost as much as its arithmetic. Four rows of three vectors, two loads
 * fewer for as many multiply-adds, are as fast (0.97 to 1.05) if no register is spilled, and three quarters as fast if
 * one is; compilers need the step as assembly for that.
 *
 * One pixel more than the vectors hold (49 of 7 x 7: 3 vectors of 16 and one) would take a tile of its own, a third of
 * the time again. It is done beside them, in a vector whose lanes are the rows: the packed scalars of a step are that
 * vector, and the pixel is broadcast.
 *
 * One output element is one chain of fmas in the order of the loops. Nothing in here splits or reorders it, which is
 * why runs and tiles may be cut anywhere. */

/* One of at most four. (Two of them that a loop puts into an array GCC stores in each step.) */
PC_INLINE v_t PC_LOCAL(dense_vector)(const T *vec, const int v, const int vectors)
{
    v_t one = v_zero();
    if (v < vectors) {
        one = v_load(vec + v * V_LANES);
        v_pin(one);
    }
    return one;
}

PC_INLINE void PC_LOCAL(dense_step)(v_t acc[PC_DENSE_ROWS][PC_DENSE_WIDEST], const T *vec, const T *scal,
                                    const int rows, const int vectors)
{
    if (vectors >= rows) {
        v_t scalars[PC_DENSE_ROWS];
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            scalars[p] = v_set1(scal[p]);
        }
        PC_UNROLL(8)
        for (int v = 0; v < vectors; v++) {
            v_t one = v_load(vec + v * V_LANES);
            v_pin(one);
            PC_UNROLL(8)
            for (int p = 0; p < rows; p++) {
                acc[p][v] = v_fma(scalars[p], one, acc[p][v]);
            }
        }
    } else {
        const v_t ones[] = {PC_LOCAL(dense_vector)(vec, 0, vectors), PC_LOCAL(dense_vector)(vec, 1, vectors),
                            PC_LOCAL(dense_vector)(vec, 2, vectors), PC_LOCAL(dense_vector)(vec, 3, vectors)};
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            const v_t scalar = v_set1(scal[p]);
            PC_UNROLL(8)
            for (int v = 0; v < vectors; v++) {
                acc[p][v] = v_fma(scalar, ones[v], acc[p][v]);
            }
        }
    }
}

PC_INLINE const T *PC_LOCAL(dense_steps)(v_t acc[PC_DENSE_ROWS][PC_DENSE_WIDEST], v_t *beside, const T *vec,
                                         const T *scal, const int64_t *list, const int64_t count, const int rows,
                                         const int vectors)
{
    int64_t k = 0;
    for (; PC_DENSE_PAIRS(rows) && !beside && k + 2 <= count; k += 2) {
        PC_LOCAL(dense_step)(acc, vec + list[k], scal, rows, vectors);
        PC_LOCAL(dense_step)(acc, vec + list[k + 1], scal + PC_DENSE_ROWS, rows, vectors);
        scal += 2 * PC_DENSE_ROWS;
    }
    for (; k < count; k++) {
        PC_LOCAL(dense_step)(acc, vec + list[k], scal, rows, vectors);
        if (beside) {
            const v_t pixel = v_set1(vec[list[k] + vectors * V_LANES]);
            *beside = v_fma(v_load_tail(scal, pc_min(V_LANES, PC_DENSE_ROWS)), pixel, *beside);
        }
        scal += PC_DENSE_ROWS;
    }
    return scal;
}

/* The column beside a tile, lane p for row p. */
PC_INLINE v_t PC_LOCAL(dense_beside)(const pc_dense_args *a, const T *out, const int rows)
{
    T lanes[V_LANES + PC_DENSE_ROWS] = {0};
    for (int p = 0; p < rows; p++) {
        lanes[p] = a->accumulate ? out[p * a->out_step] : a->init ? ((const T *)a->init)[p * a->init_step] : 0;
    }
    return v_load(lanes);
}

/* `columns`: of this tile, more than vectors - 1 vectors hold; and one more if `beside`. */
PC_INLINE void PC_LOCAL(dense_body)(const pc_dense_args *a, T *out, const int64_t ahead, const T *vec,
                                    const int64_t columns, const int rows, const int vectors, const bool beside)
{
    v_t acc[PC_DENSE_ROWS][PC_DENSE_WIDEST], last_column = v_zero();
    const int64_t whole = (int64_t)(vectors - 1) * V_LANES;
    const int64_t tail = columns - whole; /* 1 .. V_LANES in the last vector */
    if (beside) {
        last_column = PC_LOCAL(dense_beside)(a, out + columns, rows);
    }

    if (a->accumulate) {
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            PC_UNROLL(8)
            for (int v = 0; v < vectors - 1; v++) {
                acc[p][v] = v_load(out + p * a->out_step + v * V_LANES);
            }
            const T *last = out + p * a->out_step + whole;
            acc[p][vectors - 1] = tail == V_LANES ? v_load(last) : v_load_tail(last, tail);
        }
    } else {
        const T *init = a->init;
        PC_UNROLL(8)
        for (int p = 0; p < rows; p++) {
            const v_t first = init ? v_set1(init[p * a->init_step]) : v_zero();
            PC_UNROLL(8)
            for (int v = 0; v < vectors; v++) {
                acc[p][v] = first;
            }
        }
    }

    PC_UNROLL(8)
    for (int p = 0; p < rows; p++) { /* a line holds two vectors or more, and rows begin anywhere in it */
        PC_LOCAL(look_ahead)(out + p * a->out_step, ahead);
        PC_LOCAL(look_ahead)(out + p * a->out_step, ahead + vectors * V_LANES - 1);
    }

    const T *scal = a->scal;
    for (int64_t o = 0; o <= a->outer; o++) {
        const int64_t count = o < a->outer ? a->count : a->rest;
        scal = PC_LOCAL(dense_steps)(acc, beside ? &last_column : NULL, vec, scal, a->list, count, rows, vectors);
        vec += a->vec_outer;
    }

    PC_UNROLL(8)
    for (int p = 0; p < rows; p++) {
        PC_UNROLL(8)
        for (int v = 0; v < vectors - 1; v++) {
            v_store(out + p * a->out_step + v * V_LANES, acc[p][v]);
        }
        T *last = out + p * a->out_step + whole;
        if (tail == V_LANES) {
            v_store(last, acc[p][vectors - 1]);
        } else {
            v_store_tail(last, acc[p][vectors - 1], tail);
        }
    }
    if (beside) {
        T lanes[V_LANES + PC_DENSE_ROWS];
        v_store(lanes, last_column);
        for (int p = 0; p < rows; p++) {
            out[p * a->out_step + columns] = lanes[p];
        }
    }
}

/* The widest tiles as long as they fit, then one for what is left. Each number of rows is a function of its own: the
 * compilers handle eight small ones better than one large. */
#define PC_DENSE_LAST(rows, number)                                                                                    \
    case number:                                                                                                       \
        if (number <= PC_DENSE_VECTORS(rows)) {                                                                        \
            PC_LOCAL(dense_body)                                                                                       \
            (a, out, a->ahead, vec, left, rows, number <= PC_DENSE_VECTORS(rows) ? number : 1, false);                 \
        }                                                                                                              \
        break;

#define PC_DENSE_RUN(rows)                                                                                             \
    static __attribute__((noinline)) void PC_LOCAL(dense_rows##rows)(const pc_dense_args *a)                           \
    {                                                                                                                  \
        T *out = a->out;                                                                                               \
        const T *vec = a->vec;                                                                                         \
        int64_t left = a->columns;                                                                                     \
        const int64_t wide = PC_DENSE_VECTORS(rows) * V_LANES;                                                         \
        for (; left > wide; left -= wide) {                                                                            \
            if (PC_DENSE_BESIDE(rows) && left == wide + 1) {                                                           \
                PC_LOCAL(dense_body)(a, out, a->ahead, vec, wide, rows, PC_DENSE_VECTORS(rows), true);                 \
                return;                                                                                                \
            }                                                                                                          \
            PC_LOCAL(dense_body)(a, out, wide, vec, wide, rows, PC_DENSE_VECTORS(rows), false);                        \
            out += wide;                                                                                               \
            vec += wide;                                                                                               \
        }                                                                                                              \
        switch ((left + V_LANES - 1) / V_LANES) {                                                                      \
            PC_DENSE_LAST(rows, 1)                                                                                     \
            PC_DENSE_LAST(rows, 2)                                                                                     \
            PC_DENSE_LAST(rows, 3)                                                                                     \
            PC_DENSE_LAST(rows, 4)                                                                                     \
            PC_DENSE_LAST(rows, 5)                                                                                     \
            PC_DENSE_LAST(rows, 6)                                                                                     \
            PC_DENSE_LAST(rows, 7)                                                                                     \
            PC_DENSE_LAST(rows, 8)                                                                                     \
        }                                                                                                              \
    }

PC_DENSE_RUN(1)
PC_DENSE_RUN(2)
PC_DENSE_RUN(3)
PC_DENSE_RUN(4)
PC_DENSE_RUN(5)
PC_DENSE_RUN(6)
#if PC_DENSE_ROWS >= 8
PC_DENSE_RUN(7)
PC_DENSE_RUN(8)
#endif

void PC_SYMBOL(dense_tile)(const pc_dense_args *a)
{
    static void (*const by_rows[])(const pc_dense_args *) = {
        PC_LOCAL(dense_rows1),
        PC_LOCAL(dense_rows2),
        PC_LOCAL(dense_rows3),
        PC_LOCAL(dense_rows4),
        PC_LOCAL(dense_rows5),
        PC_LOCAL(dense_rows6),
#if PC_DENSE_ROWS >= 8
        PC_LOCAL(dense_rows7),
        PC_LOCAL(dense_rows8),
#endif
    };
    by_rows[a->rows - 1](a);
}

#undef PC_DENSE_LAST
#undef PC_DENSE_RUN
