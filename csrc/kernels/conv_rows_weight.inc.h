/* conv_rows_weight: the weight gradient of depthwise convolutions, from where grad_out and the input lie.
 *
 * Tap (r, t) sums grad(j, q) * x(j*S + r, q + t) over a plane; lanes are neighbouring outputs q. Done tap by tap that is
 * a load of x, across two lines mostly, for each multiply-add. But down a strip of columns, x(i, q + t) meets a gradient
 * for each tap row r that S and i allow: so the H gradients above a row stay in registers and move down with it, and a
 * window of H x W has W loads of x and one gradient for each H*W multiply-adds (S = 1):
 *
 *          grad rows              x row i, W loads
 *     g[2]  j - 2   --- r = 2 --->
 *     g[1]  j - 1   --- r = 1 --->  x(i, q + t)          acc[r][t] += g[r] * x
 *     g[0]  j       --- r = 0 --->
 *
 * Nothing is copied and no border is laid around x: what is not there is zero without being read, by a branch for rows
 * and by a mask for columns, which matters only in a row's first and last strips. With a slab, and a load for each multiply-add, planes
 * took 1.3 to 2.7 times as long (32 samples) or 1.2 to 1.8 times (one), AVX-512.
 *
 * Column q goes to sum q % LANES, LANES being 64 bytes whatever the vector's length: a machine with shorter vectors walks
 * over the rows once for each of its vectors in 64 bytes. So the sums do not depend on the machine. */

/* What all rows of a strip have in common. */
typedef struct {
    const T *grad, *vec;      /* at the strip's first column */
    v_mask columns, where[6]; /* of grad, and of x for each load across */
    int64_t first;            /* the row of vec that tap row 0 meets: first + j*S */
    int64_t low, high;        /* rows j of grad for which all is there: low .. high-1 */
} PC_LOCAL(sums_strip);

/* The rows of x that row j of grad brings along, for H x W taps. */
PC_INLINE void PC_LOCAL(sums_row)(const pc_rows_weight_args *a, const PC_LOCAL(sums_strip) * at, v_t acc[7][5],
                                  const v_t g[7], int64_t j, const int H, const int W, const int S, const bool masked,
                                  const bool edge)
{
    const int64_t first = at->first + j * S, vec_step = a->vec_step;
    const pc_rows_column *column = a->column;
    PC_UNROLL(2)
    for (int s = 0; s < (S < H ? S : H); s++) {
        const bool there = !edge || (first + s >= 0 && first + s < a->vec_rows);
        const T *row = at->vec + (first + s) * vec_step;
        PC_LOCAL(look_ahead)(row, a->vec_ahead);
        v_t odd = v_zero();
        PC_UNROLL(5)
        for (int t = 0; t < W; t++) {
            v_t x = PC_LOCAL(strip_tap)(row + column[t].offset, at->where, t, S, masked, there, &odd);
            v_pin(x);
            PC_UNROLL(7)
            for (int r = s; r < H; r += S) {
                if (!edge || (j >= r / S && j - r / S < a->rows)) {
                    acc[r][t] = v_fma(g[r / S], x, acc[r][t]);
                }
            }
        }
    }
}

PC_INLINE void PC_LOCAL(sums_rows)(const pc_rows_weight_args *a, const PC_LOCAL(sums_strip) * at, v_t acc[7][5],
                                   const int H, const int W, const int S, const bool masked)
{
    const int behind = (H - 1) / S;
    v_t g[7];
    PC_UNROLL(7)
    for (int r = 0; r <= behind; r++) {
        g[r] = v_zero();
    }
    for (int64_t j = 0; j < a->rows + behind; j++) {
        PC_UNROLL(7)
        for (int r = behind; r > 0; r--) {
            g[r] = g[r - 1];
        }
        if (j < a->rows) {
            const T *grad = at->grad + j * a->grad_step;
            PC_LOCAL(look_ahead)(grad, a->grad_ahead);
            g[0] = masked ? v_load_where(at->columns, grad) : v_load(grad);
        }
        if (j >= at->low && j < at->high) {
            PC_LOCAL(sums_row)(a, at, acc, g, j, H, W, S, masked, false);
        } else {
            PC_LOCAL(sums_row)(a, at, acc, g, j, H, W, S, masked, true);
        }
    }
}

/* H x W taps from tap row r and the first of a->column on, whose sums begin at `sums`. */
PC_INLINE void PC_LOCAL(sums_taps)(const pc_rows_weight_args *a, T *sums, int64_t r, const int H, const int W,
                                   const int S)
{
    enum { LANES = PC_ROWS_SUMS / sizeof(T) };
    const int64_t width = a->width, rows = S < H ? S : H; /* of x, for one of grad */
    PC_LOCAL(sums_strip) at;
    at.first = a->first + r * a->dilation;
    at.low = pc_max((H - 1) / S, -pc_floor_div(at.first, S));
    at.high = pc_min(a->rows, pc_floor_div(a->vec_rows - rows - at.first, S) + 1);
    for (int64_t part = 0; part < pc_min(LANES, a->columns); part += V_LANES) {
        v_t acc[7][5];
        PC_UNROLL(7)
        for (int k = 0; k < H; k++) {
            PC_UNROLL(5)
            for (int t = 0; t < W; t++) {
                acc[k][t] = v_load(sums + (k * width + t) * LANES + part);
            }
        }
        for (int64_t q = part; q < a->columns; q += LANES) {
            const bool whole = PC_LOCAL(strip_where)(a->column, at.where, q, W, S) & (q + V_LANES <= a->columns);
            at.grad = (const T *)a->grad + q;
            at.vec = (const T *)a->vec + q * S;
            at.columns = PC_LOCAL(strip_lanes)(0, a->columns - q);
            if (PC_MASKS_COST && whole) {
                PC_LOCAL(sums_rows)(a, &at, acc, H, W, S, false);
            } else {
                PC_LOCAL(sums_rows)(a, &at, acc, H, W, S, true);
            }
        }
        PC_UNROLL(7)
        for (int k = 0; k < H; k++) {
            PC_UNROLL(5)
            for (int t = 0; t < W; t++) {
                v_store(sums + (k * width + t) * LANES + part, acc[k][t]);
            }
        }
    }
}

/* All taps of H rows from row r on, W at a time. Functions of their own: the compilers handle small ones better. */
#define PC_SUMS(name, H, W, S)                                                                                         \
    static __attribute__((noinline)) void PC_LOCAL(name)(const pc_rows_weight_args *a, int64_t r)                      \
    {                                                                                                                  \
        enum { LANES = PC_ROWS_SUMS / sizeof(T) };                                                                     \
        pc_rows_weight_args some = *a;                                                                                 \
        for (int64_t t = 0; t < a->width; t += W, some.column += W) {                                                  \
            PC_LOCAL(sums_taps)(&some, (T *)a->sums + (r * a->width + t) * LANES, r, H, W, S);                         \
        }                                                                                                              \
    }

/* ---- any list of taps ---- */

typedef struct {
    pc_rows_column column[9]; /* their offsets lead to row 0 of grad */
    int64_t from[9], end[9];  /* rows of grad that each meets */
    v_mask where[10];         /* columns; those of grad are the last */
} PC_LOCAL(sums_list);

/* Rows j .. last-1 of grad, from column q on, against K taps, each with its own row: a load for each multiply-add. */
PC_INLINE void PC_LOCAL(list_rows)(const pc_rows_weight_args *a, const PC_LOCAL(sums_list) * list, v_t acc[9],
                                   int64_t q, int64_t j, int64_t last, const int K, const bool masked, const bool edge)
{
    const T *grad = (const T *)a->grad + q, *x[9];
    PC_UNROLL(9)
    for (int k = 0; k < K; k++) {
        x[k] = (const T *)a->vec + list->column[k].offset + q;
    }
    for (; j < last; j++) {
        const int64_t row = j * a->stride * a->vec_step;
        const v_t g = masked ? v_load_where(list->where[9], grad + j * a->grad_step) : v_load(grad + j * a->grad_step);
        PC_UNROLL(9)
        for (int k = 0; k < K; k++) {
            v_t y = v_zero();
            if (!edge || (j >= list->from[k] && j < list->end[k])) {
                y = masked ? v_load_where(list->where[k], x[k] + row) : v_load(x[k] + row);
            }
            acc[k] = v_fma(g, y, acc[k]);
        }
    }
}

/* Taps tap .. tap + K-1. */
PC_INLINE void PC_LOCAL(list_taps)(const pc_rows_weight_args *a, int64_t tap, const int K)
{
    enum { LANES = PC_ROWS_SUMS / sizeof(T) };
    T *sums = (T *)a->sums + tap * LANES;
    PC_LOCAL(sums_list) list;
    int64_t low = 0, high = a->rows; /* rows that meet all */
    int64_t r = tap / a->width, t = tap % a->width, from = 0, end = 0, row = 0;
    PC_ROLLED()
    for (int k = 0; k < K; k++) {
        if (k == 0 || t == a->width) {
            r += k > 0;
            t = k > 0 ? 0 : t;
            const int64_t first = a->first + r * a->dilation, last = a->vec_rows - 1 - first;
            from = a->stride == 1 ? -first : -pc_floor_div(first, a->stride);
            end = (a->stride == 1 ? last : pc_floor_div(last, a->stride)) + 1;
            row = first * a->vec_step;
            low = pc_max(low, pc_min(from, a->rows));
            high = pc_min(high, end);
        }
        list.column[k] = a->column[t++];
        list.column[k].offset += row;
        list.from[k] = from;
        list.end[k] = end;
    }
    high = pc_max(low, high);
    for (int64_t part = 0; part < pc_min(LANES, a->columns); part += V_LANES) {
        v_t acc[9];
        PC_UNROLL(9)
        for (int k = 0; k < K; k++) {
            acc[k] = v_load(sums + k * LANES + part);
        }
        for (int64_t q = part; q < a->columns; q += LANES) {
            bool whole = q + V_LANES <= a->columns;
            list.where[9] = PC_LOCAL(strip_lanes)(0, a->columns - q);
            PC_ROLLED() /* nine times the code wins nothing */
            for (int k = 0; k < K; k++) {
                const pc_rows_column c = list.column[k];
                whole = whole && c.low <= q && q + V_LANES <= c.high;
                list.where[k] = PC_LOCAL(strip_lanes)(c.low - q, c.high - q);
            }
            for (int side = 0; side < 2; side++) {
                PC_LOCAL(list_rows)(a, &list, acc, q, side ? high : 0, side ? a->rows : low, K, true, true);
                if (PC_MASKS_COST && side == 0 && whole) {
                    PC_LOCAL(list_rows)(a, &list, acc, q, low, high, K, false, false);
                } else if (side == 0) {
                    PC_LOCAL(list_rows)(a, &list, acc, q, low, high, K, true, false);
                }
            }
        }
        PC_UNROLL(9)
        for (int k = 0; k < K; k++) {
            v_store(sums + k * LANES + part, acc[k]);
        }
    }
}

#define PC_LIST(K)                                                                                                     \
    static __attribute__((noinline)) void PC_LOCAL(list_##K)(const pc_rows_weight_args *a, int64_t tap)                \
    {                                                                                                                  \
        PC_LOCAL(list_taps)(a, tap, K);                                                                                \
    }

PC_LIST(1)
PC_LIST(2)
PC_LIST(4)
PC_LIST(8)
PC_LIST(9)

/* Nine at a time, or eight if no few are left then: two additions a cycle with a latency of four want eight. */
static void PC_LOCAL(list_all)(const pc_rows_weight_args *a)
{
    for (int64_t k = 0, left = a->height * a->width, some; left > 0; k += some, left -= some) {
        some = left % 9 == 0 ? 9 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        (some == 9   ? PC_LOCAL(list_9)
         : some == 8 ? PC_LOCAL(list_8)
         : some == 4 ? PC_LOCAL(list_4)
         : some == 2 ? PC_LOCAL(list_2)
                     : PC_LOCAL(list_1))(a, k);
    }
}

/* ---- which ---- */

PC_SUMS(sums_3, 3, 3, 1)
PC_SUMS(sums_5, 5, PC_TILE_VECTORS > 2 ? 5 : 1, 1) /* sums, gradients and x in registers */
PC_SUMS(sums_7, 7, 1, 1)
PC_SUMS(sums_3_by_2, 3, 3, 2)
PC_SUMS(sums_5_by_2, 5, PC_TILE_VECTORS > 2 ? 5 : 1, 2)
PC_SUMS(sums_1_by_2, 1, 1, 2)

void PC_SYMBOL(conv_rows_weight)(const pc_rows_weight_args *a)
{
    const int64_t height = a->dilation == 1 && a->stride == a->across && a->width == a->height ? a->height : 0;
    const bool by_2 = a->across == 2;
    if (PC_ISA_FMA && height == 3) {
        (by_2 ? PC_LOCAL(sums_3_by_2) : PC_LOCAL(sums_3))(a, 0);
    } else if (PC_ISA_FMA && height == 5) {
        (by_2 ? PC_LOCAL(sums_5_by_2) : PC_LOCAL(sums_5))(a, 0);
    } else if (PC_ISA_FMA && height == 7 && !by_2) {
        PC_LOCAL(sums_7)(a, 0);
    } else if (!by_2) {
        PC_LOCAL(list_all)(a);
    } else { /* a last resort has no code of its own for it */
        for (int64_t r = 0; r < a->height; r++) {
            PC_LOCAL(sums_1_by_2)(a, r);
        }
    }
}

#undef PC_SUMS
#undef PC_LIST
