/* dense.inc.h: dense.c's copies, for one T. */

/* to[(c*taps + tap)*tall + p] = weight of row p, channel c, tap, where the taps do not lie side by side. Short loops
 * of a constant length are worth their lines here: they are a third of the time. */
PC_INLINE void PC_LOCAL(pack_taps)(const pc_weight_block *w, T *restrict to, const int64_t rows)
{
    for (int64_t c = 0; c < w->channels; c++) {
        const T *channel = (const T *)w->weight + c * w->c_step;
        for (int64_t r = 0; r < w->row_count; r++) {
            for (int64_t t = 0; t < w->column_count; t++, to += w->tall) {
                const T *from = channel + w->row[r] + w->column[t];
                for (int64_t p = 0; p < rows; p++) {
                    to[p] = from[p * w->p_step];
                }
            }
        }
    }
}

static void PC_LOCAL(pack_weights)(const pc_weight_block *w, T *to)
{
    if (w->rows == 6) {
        PC_LOCAL(pack_taps)(w, to, 6);
    } else if (w->rows == 8) {
        PC_LOCAL(pack_taps)(w, to, 8);
    } else {
        PC_LOCAL(pack_taps)(w, to, w->rows);
    }
}

static void PC_LOCAL(write_panel)(const pc_panel_place *a, T *restrict out, const T *restrict panel, int64_t planes)
{
    for (int64_t p = 0; p < planes; p++) {
        for (int64_t y = 0; y < a->rows; y++) {
            for (int64_t s = 0; s < a->samples; s++) {
                const T *from = panel + (p * a->rows + y) * a->width * a->samples + s;
                T *to = out + p * a->plane_step + y * a->y_step + s * a->sample_step;
                for (int64_t x = 0; x < a->width; x++) {
                    to[x * a->x_step] = from[x * a->samples];
                }
            }
        }
    }
}
