/* Strips: a vector of neighbouring outputs, and what their taps across read where it lies (conv_walk, conv_rows_weight).
 * S is the stride along x, 1 or 2. */

/* Lanes low .. high-1 of a vector. */
PC_INLINE v_mask PC_LOCAL(strip_lanes)(int64_t low, int64_t high)
{
    low = pc_max(0, pc_min(low, V_LANES));
    high = pc_max(low, pc_min(high, V_LANES));
    return v_mask_of(((uint64_t)1 << high) - ((uint64_t)1 << low));
}

/* Which lanes of each load of W taps are there, for the outputs from q on: W of them, or one more for a last pair. True
 * if all are. */
PC_INLINE bool PC_LOCAL(strip_where)(const pc_rows_column *column, v_mask *where, int64_t q, const int W, const int S)
{
    bool whole = true;
    PC_UNROLL(7)
    for (int t = 0; t < W; t++) {
        const pc_rows_column c = column[t], d = column[t + (S == 2 && t + 1 < W)];
        whole &= (c.low <= q) & (q + V_LANES + (S == 2 && t + 1 == W) <= c.high); /* no branches, which multiply */
        if (S == 1) {
            where[t] = PC_LOCAL(strip_lanes)(c.low - q, c.high - q);
        } else if (t % 2 == 0) {
            const bool c_is = c.low < c.high, d_is = t + 1 < W && d.low < d.high;
            const int64_t low = pc_min(c_is ? 2 * (c.low - q) : INT64_MAX, d_is ? 2 * (d.low - q) + 1 : INT64_MAX);
            const int64_t high = pc_max(c_is ? 2 * (c.high - q) - 1 : 0, d_is ? 2 * (d.high - q) : 0);
            where[t] = PC_LOCAL(strip_lanes)(low, high);
            where[t + 1] = PC_LOCAL(strip_lanes)(pc_max(low, V_LANES) - V_LANES, high - V_LANES);
        }
    }
    return whole;
}

/* What tap t reads, from `from` on, taps in order: with S = 2 a tap's columns lie between those of the next, which are kept for
 * it in *odd. Zero where nothing is there. */
PC_INLINE v_t PC_LOCAL(strip_tap)(const T *from, const v_mask *where, const int t, const int S, const bool masked,
                                  const bool there, v_t *odd)
{
    if (!there) {
        return v_zero();
    }
    if (S == 1) {
        return masked ? v_load_where(where[t], from) : v_load(from);
    }
    if (t % 2 == 1) {
        return *odd;
    }
    const v_t one = masked ? v_load_where(where[t], from) : v_load(from);
    const v_t two = masked ? v_load_where(where[t + 1], from + V_LANES) : v_load(from + V_LANES);
    *odd = v_odd(one, two);
    return v_even(one, two);
}
