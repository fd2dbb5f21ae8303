/* Batch normalisation: the sums over a channel, and the map that they give.
 *
 * The sums run in W virtual lanes, 128 bytes of T whatever the vector's length, so all instruction sets have the same
 * chains. A lane adds 16 elements in T and then hands its sum to a double: float's speed, and an error of a few units
 * however long the channel is. Everything is relative to a number near the mean (u0, v0), so a large mean costs no
 * digits. */
#define PC_NORM_VECTORS ((int)(128 / sizeof(T)) / V_LANES)
enum { PC_LOCAL(norm_lanes) = 128 / sizeof(T) };

/* One block: `rows` rows of `count` elements, at most 16 steps of W elements. With `square`, v is u. */
PC_INLINE void PC_LOCAL(norm_block)(const pc_norm_sums_args *a, const T *u, const T *v, int64_t rows, int64_t count,
                                    const bool square)
{
    const v_t u0 = v_set1((T)a->u0), v0 = v_set1((T)a->v0);
    v_t s[PC_NORM_VECTORS], q[PC_NORM_VECTORS];
    PC_UNROLL(8)
    for (int i = 0; i < PC_NORM_VECTORS; i++) {
        s[i] = q[i] = v_zero();
    }
    for (int64_t r = 0; r < rows; r++, u += a->u_step, v += a->v_step) {
        int64_t e = 0;
        for (; count - e >= PC_LOCAL(norm_lanes); e += PC_LOCAL(norm_lanes)) {
            PC_UNROLL(8)
            for (int i = 0; i < PC_NORM_VECTORS; i++) {
                const v_t du = v_sub(v_load(u + e + i * V_LANES), u0);
                const v_t dv = square ? du : v_sub(v_load(v + e + i * V_LANES), v0);
                s[i] = v_add(s[i], du);
                q[i] = v_fma(du, dv, q[i]);
            }
        }
        PC_UNROLL(8)
        for (int i = 0; i < PC_NORM_VECTORS; i++) {
            const int64_t at = e + i * V_LANES, rest = pc_min(count - at, V_LANES);
            if (rest > 0) {
                const v_mask mask = v_mask_first(rest);
                const v_t du = v_select(mask, v_sub(v_load_tail(u + at, rest), u0), v_zero());
                const v_t dv = square ? du : v_select(mask, v_sub(v_load_tail(v + at, rest), v0), v_zero());
                s[i] = v_add(s[i], du);
                q[i] = v_fma(du, dv, q[i]);
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

PC_INLINE v_t PC_LOCAL(norm_line)(v_t x, v_t mean, v_t scale, v_t shift) { return v_fma(v_sub(x, mean), scale, shift); }

void PC_SYMBOL(norm_map)(const pc_norm_map_args *a)
{
    const v_t mean = v_set1((T)a->mean), scale = v_set1((T)a->scale), shift = v_set1((T)a->shift);
    const v_t more = v_set1((T)a->more_scale);
    const T *in = a->in, *other = a->more;
    T *out = a->out;
    const int64_t whole = a->count - a->count % V_LANES, rest = a->count - whole;
    if (other) {
        for (int64_t q = 0; q < whole; q += V_LANES) {
            v_store(out + q, v_fma(v_load(other + q), more, PC_LOCAL(norm_line)(v_load(in + q), mean, scale, shift)));
        }
        if (rest) {
            const v_t line = PC_LOCAL(norm_line)(v_load_tail(in + whole, rest), mean, scale, shift);
            v_store_tail(out + whole, v_fma(v_load_tail(other + whole, rest), more, line), rest);
        }
        return;
    }
    for (int64_t q = 0; q < whole; q += V_LANES) {
        v_store(out + q, PC_LOCAL(norm_line)(v_load(in + q), mean, scale, shift));
    }
    if (rest) {
        v_store_tail(out + whole, PC_LOCAL(norm_line)(v_load_tail(in + whole, rest), mean, scale, shift), rest);
    }
}

#undef PC_NORM_VECTORS
