/* split_rows, join_rows: taking a stride out of rows and putting it in. */

void PC_SYMBOL(split_rows)(const pc_rows_copy_args *a)
{
    const int64_t columns = a->columns, stride = a->stride;
    if (stride == 1 && a->wide_column == 1 && columns < V_LANES) {
        const T *wide = a->wide;
        T *narrow = a->narrow;
        const int64_t rows = a->rows, wide_step = a->wide_step, narrow_step = a->narrow_step;
        for (int64_t j = 0; j < rows; j++, wide += wide_step, narrow += narrow_step) {
            v_store(narrow, v_load_tail(wide, columns));
        }
        return;
    }
    if (stride == 2 && a->wide_column == 1 && columns > V_LANES && columns <= 2 * V_LANES) { /* two loads a row */
        const T *wide = a->wide;
        T *narrow = a->narrow;
        for (int64_t j = 0; j < a->rows; j++, wide += a->wide_step, narrow += a->narrow_step) {
            const v_t first = v_load(wide), second = v_load_tail(wide + V_LANES, columns - V_LANES);
            v_store(narrow, v_even(first, second));
            v_store(narrow + a->phase_step, v_odd(first, second));
        }
        return;
    }
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
            for (int64_t q = 0; q < columns - V_LANES; q += V_LANES) {
                v_store(narrow + q, v_load(wide + q));
            }
            v_store(narrow + columns - V_LANES, v_load(wide + columns - V_LANES));
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
        int64_t q = 0;
        if (columns >= 2 * V_LANES && columns % 2 == 0) { /* whole vectors, the last overlapping */
            for (; q < columns; q += 2 * V_LANES) {
                q = pc_min(q, columns - 2 * V_LANES);
                const v_t even = v_load(narrow + q / 2), odd = v_load(narrow + a->phase_step + q / 2);
                /* Rows may leave rows out, which no prefetcher follows; see write_panel in ops/dense.inc.h. */
                __builtin_prefetch((const void *)((uintptr_t)(wide + q) + 1024), 1);
                v_store(wide + q, v_zip_low(even, odd));
                v_store(wide + q + V_LANES, v_zip_high(even, odd));
            }
        }
        for (; q < columns; q += 2 * V_LANES) {
            const v_t even = v_load(narrow + q / 2), odd = v_load(narrow + a->phase_step + q / 2);
            T *to = wide + q;
            const int64_t rest = columns - q;
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
