/* conv_rows.inc.h: the end of a chunk of the weight gradient, for one T. conv_rows.c includes it once per dtype. */

/* to[i] = the sum of two neighbours. */
static void PC_LOCAL(add_pairs)(T *restrict to, const T *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = from[2 * i] + from[2 * i + 1];
    }
}

/* total[k] = or += the sums of weight k. There is room for as many in `other`. */
static void PC_LOCAL(fold_sums)(T *restrict total, T *sums, T *other, int64_t weights, bool first)
{
    for (int64_t lanes = PC_ROWS_SUMS / sizeof(T) / 2; lanes > 0; lanes /= 2) {
        PC_LOCAL(add_pairs)(other, sums, weights * lanes);
        T *folded = other;
        other = sums;
        sums = folded;
    }
    for (int64_t k = 0; k < weights; k++) {
        total[k] = first ? sums[k] : total[k] + sums[k];
    }
}
