/* conv_rows.inc.h: the end of a chunk of the weight gradient, for one T. conv_rows.c includes it once per dtype. */

/* total[k] = or += the sums of weight k, folded by halves. */
static void PC_LOCAL(fold_sums)(T *restrict total, T *restrict sums, int64_t weights, bool first)
{
    enum { LANES = PC_ROWS_SUMS / sizeof(T) };
    for (int64_t k = 0; k < weights; k++, sums += LANES) {
        for (int64_t half = LANES / 2; half > 0; half /= 2) {
            for (int64_t i = 0; i < half; i++) {
                sums[i] += sums[i + half];
            }
        }
        total[k] = first ? sums[0] : total[k] + sums[0];
    }
}
