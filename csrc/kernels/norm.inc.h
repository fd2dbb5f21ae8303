/* Batch normalisation: the sums over a channel, and the map that they give.
 *
 * The sums run in W virtual lanes, 128 bytes of T whatever the vector's length, so all instruction sets have the same
 * chains. A lane adds 16 elements in T and then hands its sum to a double: float's speed, and an error of a few units
 * however long the channel is. Everything is relative to a number near the mean (u0, v0), so a large mean costs no
 * digits. */
#define PC_NORM_VECTORS ((int)(128 / sizeof(T)) / V_LANES)
enum { PC_LOCAL(norm_lanes) = 128 / sizeof(T) };

/* A vector's share of a block; `square`: v is u. */
PC_INLINE void PC_LOCAL(norm_add)(v_t *s, v_t *q, v_t du, v_t dv, const bool square)
{
    *s = v_add(*s, du);
    *q = v_fma(du, square ? du : dv, *q);
}

/* One block: `rows` rows of `count` elements, at most 16 steps of W elements. */
PC_INLINE void PC_LOCAL(norm_block)(const pc_norm_sums_args *a, const T *u, const T *v, int64_t rows, int64_t count,
                                    const bool square)
{
    const v_t u0 = v_set1((T)a->u0), v0 = v_set1((T)a->v0);
    const int64_t rest = count % PC_LOCAL(norm_lanes), whole = count - rest, part = rest % V_LANES;
    const v_mask mask = v_mask_first(part);
    v_t s[PC_NORM_VECTORS], q[PC_NORM_VECTORS];
    PC_UNROLL(8)
    for (int i = 0; i < PC_NORM_VECTORS; i++) {
        s[i] = q[i] = v_zero();
    }
    for (int64_t r = 0; r < rows; r++, u += a->u_step, v += a->v_step) {
        for (int64_t e = 0; e < whole; e += PC_LOCAL(norm_lanes)) {
            PC_UNROLL(8)
            for (int i = 0; i < PC_NORM_VECTORS; i++) {
                const int64_t at = e + i * V_LANES;
                PC_LOCAL(norm_add)(&s[i], &q[i], v_sub(v_load(u + at), u0), v_sub(v_load(v + at), v0), square);
            }
        }
        PC_UNROLL(8)
        for (int i = 0; i < PC_NORM_VECTORS; i++) {
            const int64_t at = whole + i * V_LANES;
            if ((i + 1) * V_LANES <= rest) {
                PC_LOCAL(norm_add)(&s[i], &q[i], v_sub(v_load(u + at), u0), v_sub(v_load(v + at), v0), square);
            } else if (i * V_LANES < rest) {
                const v_t du = v_keep(mask, v_sub(v_load_tail(u + at, part), u0));
                PC_LOCAL(norm_add)(&s[i], &q[i], du, v_keep(mask, v_sub(v_load_tail(v + at, part), v0)), square);
            }
        }
    }
    PC_UNROLL(8)
    for (int i = 0; i < PC_NORM_VECTORS; i++) {
        v_add_to(a->sums + i * V_LANES, s[i]);
        v_add_to(a->sums + PC_LOCAL(norm_lanes) + i * V_LANES, q[i]);
    }
}

void PC_SYMBOL(norm_sums)(const pc_norm_sums_args *a)
{
    const int64_t block = a->rows > 1 ? a->count : 16 * PC_LOCAL(norm_lanes);
    const T *u = a->u, *v = a->v;
    const bool square = u == v && a->u0 == a->v0 && a->u_step == a->v_step;
    for (int64_t e = 0; e < a->count; e += block) {
        const int64_t count = pc_min(block, a->count - e);
        if (square) {
            PC_LOCAL(norm_block)(a, u + e, v + e, a->rows, count, true);
        } else {
            PC_LOCAL(norm_block)(a, u + e, v + e, a->rows, count, false);
        }
    }
}

/* One row. Its last vector lies over the one before and is computed first: the row may be mapped in place, and nothing
 * is stored through a mask, which takes as long as a dozen stores on some processors: of 49 elements, a third of all. */
PC_INLINE void PC_LOCAL(norm_row)(T *out, const T *in, const T *more, const pc_norm_line *line, int64_t count,
                                  const bool both)
{
    const v_t mean = v_set1((T)line->mean), scale = v_set1((T)line->scale), shift = v_set1((T)line->shift);
    const v_t slope = v_set1((T)line->more);
    if (count < V_LANES) {
        v_t y = v_fma(v_sub(v_load_tail(in, count), mean), scale, shift);
        if (both) {
            y = v_fma(v_load_tail(more, count), slope, y);
        }
        v_store_tail(out, y, count);
        return;
    }
    const int64_t end = count - V_LANES;
    v_t last = v_fma(v_sub(v_load(in + end), mean), scale, shift);
    if (both) {
        last = v_fma(v_load(more + end), slope, last);
    }
    for (int64_t q = 0; q < end; q += V_LANES) {
        v_t y = v_fma(v_sub(v_load(in + q), mean), scale, shift);
        if (both) {
            y = v_fma(v_load(more + q), slope, y);
        }
        v_store(out + q, y);
    }
    v_store(out + end, last);
}

void PC_SYMBOL(norm_map)(const pc_norm_map_args *a)
{
    T *out = a->out;
    const T *in = a->in, *more = a->more;
    for (int64_t r = 0; r < a->rows; r++, out += a->out_step, in += a->in_step) {
        if (more) {
            PC_LOCAL(norm_row)(out, in, more + r * a->more_step, &a->lines[r], a->count, true);
        } else {
            PC_LOCAL(norm_row)(out, in, NULL, &a->lines[r], a->count, false);
        }
    }
}

#undef PC_NORM_VECTORS
