/* conv_walk: depthwise convolution from where the input lies, down strips of columns.
 *
 * Row i of the input is in the windows of (H - 1)/S + 1 rows of outputs or fewer. Their accumulators are a ring that moves
 * on with the input: each loaded vector goes to all of them, and each of theirs is complete, and stored, as the last of
 * its rows passes. The chain of an output is the same as ever, by rows and then columns of the window.
 *
 *         input row i  ->  x(t)  ->  acc[0] += w(0, t) * x        output row i         (S = 1, H = 3)
 *                                    acc[1] += w(1, t) * x                   i - 1
 *                                    acc[2] += w(2, t) * x                   i - 2, complete
 *
 * There is no slab and no border: rows that are not there are zero without being read, and columns are masked, in a row's
 * first and last strips. The last strip lies over the one before. Two strips go side by side where there are two, for
 * the chains of one wait for each other.
 *
 * Measured on Zen 4 against conv_rows and its slab: 1.1 to 1.4 times as fast with AVX-512, but 0.75 to 0.95 with AVX2,
 * where 16 registers do not hold weights and ring, and masks are vectors. */

/* No prefetcher follows rows that are written upward, or every second one. */
PC_INLINE void PC_LOCAL(walk_ahead)(const pc_walk_args *a, const T *out)
{
    __builtin_prefetch((const void *)((uintptr_t)out + (uintptr_t)a->out_ahead * sizeof(T)), 1);
}

PC_INLINE void PC_LOCAL(walk_store)(const pc_walk_args *a, T *out, v_t sum, const int strips)
{
    PC_LOCAL(walk_ahead)(a, out);
    if (strips == 2 || a->columns >= V_LANES) {
        v_store(out, sum);
    } else {
        v_store_tail(out, sum, a->columns);
    }
}

PC_INLINE void PC_LOCAL(walk_rows)(const pc_walk_args *a, const int64_t q[2], const v_mask where[2][7],
                                   const int64_t *offset, const v_t *kept, const int H, const int S, const int strips)
{
    const int behind = (H - 1) / S;
    const T *weight = a->weight;
    const v_t first = a->init ? v_set1(*(const T *)a->init) : v_zero();
    v_t acc[2][7];
    PC_UNROLL(7)
    for (int k = 0; k <= behind; k++) {
        acc[0][k] = acc[1][k] = first;
    }
    for (int64_t j = 0; j < a->rows + behind; j++) {
        PC_UNROLL(2)
        for (int s = 0; s < S; s++) {
            const int64_t i = a->first + j * S + s;
            const bool there = i >= 0 && i < a->vec_rows;
            const T *row = (const T *)a->vec + i * a->vec_step;
            v_t odd[2] = {v_zero(), v_zero()}, x[2];
            PC_UNROLL(7)
            for (int t = 0; t < H; t++) {
                PC_UNROLL(2)
                for (int v = 0; v < strips; v++) {
                    const T *from = row + q[v] * S;
                    if (t == 0) {
                        PC_LOCAL(look_ahead)(from, a->vec_ahead);
                    }
                    x[v] = PC_LOCAL(strip_tap)(from + offset[t], where[v], t, S, true, there, &odd[v]);
                    v_pin(x[v]);
                }
                PC_UNROLL(7)
                for (int r = s; r < H; r += S) {
                    const v_t w = kept ? kept[r * H + t] : v_set1(weight[r * H + t]);
                    PC_UNROLL(2)
                    for (int v = 0; v < strips; v++) {
                        acc[v][r / S] = v_fma(w, x[v], acc[v][r / S]);
                    }
                }
            }
        }
        PC_UNROLL(2)
        for (int v = 0; v < strips; v++) {
            if (j >= behind) {
                PC_LOCAL(walk_store)(a, (T *)a->out + (j - behind) * a->out_step + q[v], acc[v][behind], strips);
            }
            PC_UNROLL(7)
            for (int k = behind; k > 0; k--) {
                acc[v][k] = acc[v][k - 1];
            }
            acc[v][0] = first;
        }
    }
}

/* The same for windows whose first row is the lowest, 3 x 3: here the rows of input move on in registers, for an output's
 * chain begins with the last of them. (To take the rows upward instead halves the speed where memory feeds them.) */
PC_INLINE void PC_LOCAL(walk_up)(const pc_walk_args *a, const int64_t q[2], const v_mask where[2][7],
                                 const int64_t *offset, const v_t *kept, const int strips)
{
    const v_t first = a->init ? v_set1(*(const T *)a->init) : v_zero();
    v_t x[2][3][3]; /* rows i, i - 1, i - 2 */
    PC_UNROLL(3)
    for (int t = 0; t < 3; t++) {
        x[0][0][t] = x[0][1][t] = x[1][0][t] = x[1][1][t] = v_zero();
    }
    for (int64_t j = 0; j < a->rows + 2; j++) {
        const int64_t i = a->first + j;
        const bool there = i >= 0 && i < a->vec_rows;
        const T *row = (const T *)a->vec + i * a->vec_step;
        PC_UNROLL(2)
        for (int v = 0; v < strips; v++) {
            v_t none = first, acc = first;
            PC_LOCAL(look_ahead)(row + q[v], a->vec_ahead);
            PC_UNROLL(3)
            for (int t = 0; t < 3; t++) {
                x[v][2][t] = x[v][1][t];
                x[v][1][t] = x[v][0][t];
                x[v][0][t] = PC_LOCAL(strip_tap)(row + q[v] + offset[t], where[v], t, 1, true, there, &none);
                v_pin(x[v][0][t]);
            }
            if (j < 2) {
                continue;
            }
            PC_UNROLL(9)
            for (int k = 0; k < 9; k++) {
                acc = v_fma(kept[k], x[v][k / 3][k % 3], acc);
            }
            PC_LOCAL(walk_store)(a, (T *)a->out + (j - 2) * a->out_step + q[v], acc, strips);
        }
    }
}

PC_INLINE void PC_LOCAL(walk)(const pc_walk_args *args, const int H, const int S, const bool up)
{
    const pc_walk_args copy = *args, *a = &copy; /* which no store can change */
    int64_t offset[7];
    PC_UNROLL(7)
    for (int t = 0; t < H; t++) {
        offset[t] = a->column[t].offset;
    }
    v_t kept[9];
    const v_t *weights = H == 3 ? kept : NULL;
    PC_UNROLL(9)
    for (int k = 0; H == 3 && k < 9; k++) {
        kept[k] = v_set1(((const T *)a->weight)[k]);
    }
    const int64_t last = pc_max(0, a->columns - V_LANES);
    for (int64_t next = 0; next < a->columns; next += 2 * V_LANES) {
        const int64_t q[2] = {pc_min(next, last), pc_min(next + V_LANES, last)};
        v_mask where[2][7];
        PC_LOCAL(strip_where)(a->column, where[0], q[0], H, S);
        if (q[1] > q[0]) {
            PC_LOCAL(strip_where)(a->column, where[1], q[1], H, S);
            if (up) {
                PC_LOCAL(walk_up)(a, q, where, offset, weights, 2);
            } else {
                PC_LOCAL(walk_rows)(a, q, where, offset, weights, H, S, 2);
            }
        } else if (up) {
            PC_LOCAL(walk_up)(a, q, where, offset, weights, 1);
        } else {
            PC_LOCAL(walk_rows)(a, q, where, offset, weights, H, S, 1);
        }
    }
}

#define PC_WALK(name, H, S, up)                                                                                        \
    static __attribute__((noinline)) void PC_LOCAL(name)(const pc_walk_args *a) { PC_LOCAL(walk)(a, H, S, up); }

PC_WALK(walk_3, 3, 1, false)
PC_WALK(walk_3_up, 3, 1, true)
PC_WALK(walk_5, 5, 1, false)
PC_WALK(walk_7, 7, 1, false)
PC_WALK(walk_3_by_2, 3, 2, false)
PC_WALK(walk_5_by_2, 5, 2, false)

void PC_SYMBOL(conv_walk)(const pc_walk_args *a)
{
    if (a->size == 3) {
        (a->up ? PC_LOCAL(walk_3_up) : a->stride == 1 ? PC_LOCAL(walk_3) : PC_LOCAL(walk_3_by_2))(a);
    } else if (a->size == 5) {
        (a->stride == 1 ? PC_LOCAL(walk_5) : PC_LOCAL(walk_5_by_2))(a);
    } else {
        PC_LOCAL(walk_7)(a);
    }
}

#undef PC_WALK

/* The input gradient where both strides are 2, up the rows of grad_out. Row j is in the rows 2j + r of grad_in, counted
 * from the padding, for r < H: those of even r form one ring, those of odd r another, and the last of each is complete.
 *
 *     r = 0, 2, ..     even[0] -> even[1] -> stored as row 2j + H - 1        (H = 3)
 *     r = 1, 3, ..     odd[0]             -> stored as row 2j + H - 2
 *
 * Along a row the taps do the same: tap t meets every second column. Lanes are pairs of columns, in two vectors that are
 * interleaved on their way out, so a row needs no pass of its own to join its phases. P: the place, in its pair, of the
 * columns that tap 0 meets. */

/* Columns 2q .. of a row, the even and the odd ones. */
PC_INLINE void PC_LOCAL(back_store)(const pc_walk_args *a, int64_t y, int64_t q, v_t even, v_t odd)
{
    if (y < 0 || y >= a->rows) {
        return;
    }
    T *out = (T *)a->out + y * a->out_step + 2 * q;
    const int64_t left = a->columns - 2 * q;
    const v_t one = v_zip_low(even, odd), two = v_zip_high(even, odd);
    PC_LOCAL(walk_ahead)(a, out);
    PC_LOCAL(walk_ahead)(a, out + V_LANES);
    if (left >= 2 * V_LANES) {
        v_store(out, one);
        v_store(out + V_LANES, two);
        return;
    }
    v_store_tail(out, one, pc_min(left, V_LANES));
    if (left > V_LANES) {
        v_store_tail(out + V_LANES, two, left - V_LANES);
    }
}

PC_INLINE void PC_LOCAL(back_strip)(const pc_walk_args *a, int64_t q, const v_mask *where, const int64_t *offset,
                                    const v_t *kept, const int H, const int P)
{
    const int last = (H - 1) / 2;
    const T *weight = a->weight;
    const v_t first = a->init ? v_set1(*(const T *)a->init) : v_zero();
    v_t acc[2][3][2]; /* parity of r, place in the ring, parity of the column */
    PC_UNROLL(3)
    for (int k = 0; k <= last; k++) {
        acc[0][k][0] = acc[0][k][1] = acc[1][k][0] = acc[1][k][1] = first;
    }
    for (int64_t j = pc_floor_div(a->rows - 1 + a->first, 2); 2 * j + H > a->first; j--) {
        const bool there = j >= 0 && j < a->vec_rows;
        const T *row = (const T *)a->vec + j * a->vec_step + q;
        PC_LOCAL(look_ahead)(row, a->vec_ahead);
        v_t none = v_zero();
        PC_UNROLL(5)
        for (int t = 0; t < H; t++) {
            v_t x = PC_LOCAL(strip_tap)(row + offset[t], where, t, 1, true, there, &none);
            v_pin(x);
            PC_UNROLL(5)
            for (int r = 0; r < H; r++) {
                const v_t w = kept ? kept[r * H + t] : v_set1(weight[r * H + t]);
                acc[r % 2][r / 2][(t + P) % 2] = v_fma(w, x, acc[r % 2][r / 2][(t + P) % 2]);
            }
        }
        const int64_t y = 2 * j - a->first;
        PC_LOCAL(back_store)(a, y + H - 1, q, acc[0][last][0], acc[0][last][1]);
        PC_LOCAL(back_store)(a, y + H - 2, q, acc[1][last - 1][0], acc[1][last - 1][1]);
        PC_UNROLL(2)
        for (int p = 0; p < 2; p++) {
            PC_UNROLL(3)
            for (int k = last; k > 0; k--) {
                acc[p][k][0] = acc[p][k - 1][0];
                acc[p][k][1] = acc[p][k - 1][1];
            }
            acc[p][0][0] = acc[p][0][1] = first;
        }
    }
}

PC_INLINE void PC_LOCAL(back)(const pc_walk_args *args, const int H, const int P)
{
    const pc_walk_args copy = *args, *a = &copy;
    int64_t offset[5];
    PC_UNROLL(5)
    for (int t = 0; t < H; t++) {
        offset[t] = a->column[t].offset;
    }
    v_t kept[9];
    PC_UNROLL(9)
    for (int k = 0; H == 3 && k < 9; k++) {
        kept[k] = v_set1(((const T *)a->weight)[k]);
    }
    const int64_t pairs = pc_ceil_div(a->columns, 2), last = pc_max(0, pairs - V_LANES);
    for (int64_t next = 0; next < pairs; next += V_LANES) {
        v_mask where[5];
        const int64_t q = pc_min(next, last);
        PC_LOCAL(strip_where)(a->column, where, q, H, 1);
        PC_LOCAL(back_strip)(a, q, where, offset, H == 3 ? kept : NULL, H, P);
    }
}

#define PC_BACK(name, H, P)                                                                                            \
    static __attribute__((noinline)) void PC_LOCAL(name)(const pc_walk_args *a) { PC_LOCAL(back)(a, H, P); }

PC_BACK(back_3_even, 3, 0)
PC_BACK(back_3_odd, 3, 1)
PC_BACK(back_5_even, 5, 0)
PC_BACK(back_5_odd, 5, 1)

void PC_SYMBOL(conv_walk_back)(const pc_walk_args *a)
{
    if (a->size == 3) {
        (a->odd ? PC_LOCAL(back_3_odd) : PC_LOCAL(back_3_even))(a);
    } else {
        (a->odd ? PC_LOCAL(back_5_odd) : PC_LOCAL(back_5_even))(a);
    }
}

#undef PC_BACK
