/* The pools' gradients. Average: the gradients are divided once, into rows with zeros around them (stage_row of
 * pool.inc.h), and each input gathers from its windows: all inputs of one remainder modulo the stride have windows the
 * same steps away, so they are one load a window, and remainders are woven together when they are stored. */

/* The inputs x of one remainder (left + x) % sw: input number i of them gets windows i + first .. i + first + count - 1
 * of a staged row. */
typedef struct {
    int64_t first, count;
} PC_LOCAL(phase);

typedef struct {
    int64_t windows, end; /* windows of a remainder that may matter: from end - windows to end - 1 back */
    int64_t x;            /* the window that starts last at or before the first input */
} PC_LOCAL(reach);

PC_INLINE PC_LOCAL(phase) PC_LOCAL(phase_of)(const pc_pool_args *a, const PC_LOCAL(reach) * reach, int64_t k)
{
    const int64_t remainder = (a->left + k) % a->sw, begin = reach->end - reach->windows;
    const int64_t all = remainder < a->kw ? (a->kw - 1 - remainder) / a->sw + 1 : 0;
    const int64_t end = pc_min(reach->end, all);
    return (PC_LOCAL(phase)){(a->left + k) / a->sw - reach->x + reach->end - end, pc_max(0, end - begin)};
}

/* a[0], b[0], a[1], b[1], ...: two vectors. */
PC_INLINE void PC_LOCAL(store_pairs)(T *p, v_t a, v_t b)
{
    v_store(p, v_zip_low(a, b));
    v_store(p + V_LANES, v_zip_high(a, b));
}

PC_INLINE v_t PC_LOCAL(sum_of)(const T *row, int64_t row_step, const int64_t rows, const int64_t count)
{
    v_t sum = v_zero();
    for (int64_t i = 0; i < rows; i++, row += row_step) {
        for (int64_t t = 0; t < count; t++) {
            sum = v_add(sum, v_load(row + t));
        }
    }
    return sum;
}

PC_INLINE v_t PC_LOCAL(windows_sum)(const T *row, int64_t row_step, int64_t rows, int64_t count)
{
    if (rows == 1 && count == 1) {
        return PC_LOCAL(sum_of)(row, row_step, 1, 1);
    }
    if (rows == 3 && count == 3) {
        return PC_LOCAL(sum_of)(row, row_step, 3, 3);
    }
    return PC_LOCAL(sum_of)(row, row_step, rows, count);
}

/* One row of inputs from `rows` staged rows of divided gradients. */
PC_INLINE void PC_LOCAL(input_row)(const pc_pool_args *a, const PC_LOCAL(reach) * reach, const T *staged,
                                   int64_t staged_row, int64_t rows, T *out, const T *end)
{
    if (a->sw == 1) {
        const PC_LOCAL(phase) only = PC_LOCAL(phase_of)(a, reach, 0);
        for (int64_t q = 0; q < a->columns; q += V_LANES) {
            v_t sum = PC_LOCAL(windows_sum)(staged + q + only.first, staged_row, rows, only.count);
            if (out + q + V_LANES <= end) {
                v_store(out + q, sum);
            } else {
                v_store_tail(out + q, sum, a->columns - q);
            }
        }
    } else if (a->sw == 2) {
        const PC_LOCAL(phase) first = PC_LOCAL(phase_of)(a, reach, 0), second = PC_LOCAL(phase_of)(a, reach, 1);
        for (int64_t q = 0, i = 0; q < a->columns; q += 2 * V_LANES, i += V_LANES) {
            v_t even = PC_LOCAL(windows_sum)(staged + i + first.first, staged_row, rows, first.count);
            v_t odd = PC_LOCAL(windows_sum)(staged + i + second.first, staged_row, rows, second.count);
            if (out + q + 2 * V_LANES <= end) {
                PC_LOCAL(store_pairs)(out + q, even, odd);
            } else {
                T pairs[2 * V_LANES];
                PC_LOCAL(store_pairs)(pairs, even, odd);
                memcpy(out + q, pairs, (size_t)pc_min(2 * V_LANES, a->columns - q) * sizeof(T));
            }
        }
    } else {
        for (int64_t k = 0; k < pc_min(a->sw, a->columns); k++) {
            const PC_LOCAL(phase) phase = PC_LOCAL(phase_of)(a, reach, k);
            for (int64_t q = k, i = 0; q < a->columns; q += V_LANES * a->sw, i += V_LANES) {
                T lanes[V_LANES];
                v_store(lanes, PC_LOCAL(windows_sum)(staged + i + phase.first, staged_row, rows, phase.count));
                for (int64_t j = 0; j < V_LANES && q + j * a->sw < a->columns; j++) {
                    out[q + j * a->sw] = lanes[j];
                }
            }
        }
    }
}

/* Windows two wide and side by side: each gradient is divided once, and stored where its window was. Rows shorter than
 * a vector are stored as whole ones, before the next row comes: with a loop for all lengths they took nearly twice as
 * long. */
static __attribute__((noinline)) void PC_LOCAL(spread)(const pc_pool_args *a)
{
    const int64_t count = a->src_columns, width = a->out_row, kh = a->kh;
    const bool few = count < V_LANES;
    const T *src = a->src, *cells = a->cells;
    T *out = a->out;
    /* A gradient's row may be whole vectors if it begins at or before these. */
    const T *readable = few && a->readable == a->src_plane ? src + a->planes * a->src_plane - V_LANES : NULL;
    const T *writable = width == a->columns ? out + (a->planes * a->rows - kh + 1) * width - 2 * V_LANES : NULL;
    for (int64_t plane = 0; plane < a->planes; plane++, src += a->src_plane) {
        const T *grad = src, *row_cells = a->row_cells;
        int64_t rows = kh - a->top; /* of the window that lie inside */
        for (int64_t left = a->rows; left > 0; left -= rows, rows = kh, grad += a->src_row, row_cells++) {
            rows = pc_min(rows, left);
            T *const end = out + rows * width;
            const v_t height = v_set1(*row_cells);
            if (grad <= readable && out <= writable) {
                const v_t x = v_add(v_zero(), v_div(v_load(grad), v_fma(height, v_load(cells), v_zero())));
                const v_t low = v_zip_low(x, x), high = v_zip_high(x, x);
                do {
                    v_store(out, low);
                    v_store(out + V_LANES, high);
                    out += width;
                } while (out < end);
                continue;
            }
            for (int64_t next = 0; next < count; next += V_LANES) {
                const int64_t q = few ? 0 : pc_min(next, count - V_LANES);
                v_t x = few ? v_load_or(grad, count, v_zero()) : v_load(grad + q);
                x = v_add(v_zero(), v_div(x, v_fma(height, v_load(cells + q), v_zero())));
                const v_t low = v_zip_low(x, x), high = v_zip_high(x, x);
                for (T *to = out + 2 * q; to < end; to += width) {
                    if (few) {
                        v_store_tail(to, low, pc_min(V_LANES, 2 * count));
                        v_store_tail(to + V_LANES, high, pc_max(0, 2 * count - V_LANES));
                    } else {
                        v_store(to, low);
                        v_store(to + V_LANES, high);
                    }
                }
            }
            out = end;
        }
    }
}

/* The same where a gradient's row is half a vector: two rows at a time. */
static __attribute__((noinline)) void PC_LOCAL(short_spread)(const pc_pool_args *a)
{
    const int64_t count = a->src_columns, width = a->out_row;
    const v_mask upper = v_mask_first(count);
    T twice[V_LANES];
    for (int64_t i = 0; i < V_LANES; i++) {
        twice[i] = ((const T *)a->cells)[i % count];
    }
    const v_t widths = v_load(twice);
    const T *src = a->src;
    T *out = a->out;
    for (int64_t plane = 0; plane < a->planes; plane++, src += a->src_plane) {
        const T *height = a->row_cells;
        for (int64_t y = 0; y < a->src_rows; y += 2, height += 2) {
            const v_t heights = v_select(upper, v_set1(height[0]), v_set1(height[1]));
            const v_t x = v_add(v_zero(), v_div(v_load(src + y * count), v_fma(heights, widths, v_zero())));
            const v_t low = v_zip_low(x, x), high = v_zip_high(x, x);
            for (int64_t r = 0; r < a->kh; r++, out += width) {
                v_store(out, low);
                v_store(out + a->kh * width, high);
            }
            out += a->kh * width;
        }
    }
}

void PC_SYMBOL(avg_pool_backward_input)(const pc_pool_args *args)
{
    const pc_pool_args copy = *args, *a = &copy;
    const int64_t first = a->top < a->kh ? 0 : (a->top - a->kh) / a->sh + 1;
    const int64_t last = pc_min(a->src_rows, (a->top + a->rows - 1) / a->sh + 1);
    const int64_t low = a->left / a->sw, high = (a->left + a->columns - 1) / a->sw;
    const int64_t begin = pc_max(0, low - (a->src_columns - 1));
    const int64_t end = pc_max(begin, pc_min(high + 1, pc_ceil_div(a->kw, a->sw)));
    const PC_LOCAL(reach) reach = {end - begin, end, low};
    const int64_t width = high - low + reach.windows;
    const PC_LOCAL(columns) c = PC_LOCAL(columns_of)(a, low - (end - 1), width);

    if (a->kw == 2 && a->sw == 2 && a->kh == a->sh && a->left == 0 && a->columns == 2 * a->src_columns &&
        a->top < a->kh && a->top + a->rows <= a->src_rows * a->kh) {
        if (a->columns == V_LANES && a->src_row == a->src_columns && a->src_rows % 2 == 0 && a->top == 0 &&
            a->rows == a->src_rows * a->kh) {
            PC_LOCAL(short_spread)(a);
        } else {
            PC_LOCAL(spread)(a);
        }
        return;
    }
    for (int64_t plane = 0; plane < a->planes; plane++) {
        const T *src = (const T *)a->src + plane * a->src_plane;
        T *work = a->work;
        for (int64_t row = first; row < last; row++) {
            PC_LOCAL(stage_row)
            (a, &c, work + (row - first) * width, src + row * a->src_row, v_zero(), (const T *)a->row_cells + row);
        }
        for (int64_t y = 0; y < a->rows; y++) {
            /* The windows that cover the row: the last one starts at or before it, each other sh earlier. */
            const int64_t at = a->top + y, remainder = at % a->sh;
            const int64_t covers = remainder < a->kh ? (a->kh - 1 - remainder) / a->sh + 1 : 0;
            const int64_t above = pc_max(0, at / a->sh - covers + 1), below = pc_min(a->src_rows, at / a->sh + 1);
            T *out = (T *)a->out + (plane * a->rows + y) * a->out_row;
            PC_LOCAL(input_row)
            (a, &reach, work + (above < below ? above - first : 0) * width, width, pc_max(0, below - above), out,
             PC_LOCAL(writable)(a, out));
        }
    }
}

/* ---- largest values, backward, where windows of 2 x 2 lie side by side ----
 *
 * The winners are compared with all four places, and each row of inputs is written once: a third to half of the time
 * that it takes to zero a plane and add to it one by one (0.8 to 1.1 ns a window). */

void PC_SYMBOL(max_pool_backward_pairs)(const pc_pairs_args *args)
{
    const pc_pairs_args copy = *args, *a = &copy;
    T_INT steps[V_LANES];
    for (int i = 0; i < V_LANES; i++) {
        steps[i] = (T_INT)(-2 * i);
    }
    const v_int first = vi_set1(0), second = vi_set1(1);
    const v_int third = vi_set1((T_INT)a->width), fourth = vi_set1((T_INT)(a->width + 1));
    for (int64_t y = 0; y < a->rows; y++) {
        const int64_t corner = 2 * y * a->width;
        const int64_t *indices = a->indices + y * a->index_row;
        const T *grad = (const T *)a->grad_out + y * a->grad_row;
        T *top = (T *)a->grad_in + corner, *bottom = top + a->width;
        for (int64_t next = 0; next < a->columns; next += V_LANES) {
            const int64_t q = pc_min(next, a->columns - V_LANES);
            v_mask fit;
            v_int place = vi_load_narrow(indices + q, &fit);
            place = vi_add(place, vi_add(vi_load(steps), vi_set1((T_INT)(-corner - 2 * q))));
            const v_mask is_first = vi_eq(place, first), is_second = vi_eq(place, second);
            const v_mask is_third = vi_eq(place, third), is_fourth = vi_eq(place, fourth);
            const v_mask known = v_mask_or(v_mask_or(is_first, is_second), v_mask_or(is_third, is_fourth));
            if (!v_all(v_mask_and(fit, known))) {
                *a->strange = true;
                return;
            }
            const v_t g = v_load(grad + q);
            PC_LOCAL(store_pairs)(top + 2 * q, v_select(is_first, g, v_zero()), v_select(is_second, g, v_zero()));
            PC_LOCAL(store_pairs)(bottom + 2 * q, v_select(is_third, g, v_zero()), v_select(is_fourth, g, v_zero()));
        }
        if (a->width > 2 * a->columns) {
            top[a->width - 1] = 0;
            bottom[a->width - 1] = 0;
        }
    }
}
