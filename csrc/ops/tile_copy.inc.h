/* tile_copy.inc.h: between a tile's rows and the output, for outputs that are not neighbours in memory. For one T.
 *
 * Columns q .. q+columns-1 of a run count samples fastest, then positions of a row `extent` long, of which only the
 * first `width` are outputs; then rows. */
static void PC_LOCAL(tile_copy)(const pc_tile_place *place, T *tile, T *out, int64_t rows, int64_t q, int64_t columns,
                                bool load)
{
    const int64_t samples = place->samples;
    const int64_t row_length = place->extent * samples;
    int64_t count;
    for (int64_t done = 0; done < columns; done += count) {
        const int64_t first = (q + done) % row_length;
        T *line = out + (q + done) / row_length * place->y_step;
        count = pc_min(columns - done, row_length - first);
        if (samples == 1) {
            const int64_t useful = pc_min(count, place->width - first);
            const int64_t step = place->x_step;
            for (int64_t p = 0; p < rows; p++) {
                T *from = tile + p * place->tile_step + done;
                T *to = line + p * place->row_step + first * step;
                if (load) {
                    for (int64_t i = 0; i < useful; i++) {
                        from[i] = to[i * step];
                    }
                } else if (step == 1) {
                    for (int64_t i = 0; i < useful; i++) {
                        to[i] = from[i];
                    }
                } else {
                    for (int64_t i = 0; i < useful; i++) {
                        to[i * step] = from[i];
                    }
                }
            }
            continue;
        }
        for (int64_t i = 0; i < count; i++) {
            const int64_t x = (first + i) / samples, s = (first + i) % samples;
            if (x >= place->width) {
                break;
            }
            T *to = line + s * place->sample_step + x * place->x_step;
            T *from = tile + done + i;
            for (int64_t p = 0; p < rows; p++) {
                if (load) {
                    from[p * place->tile_step] = to[p * place->row_step];
                } else {
                    to[p * place->row_step] = from[p * place->tile_step];
                }
            }
        }
    }
}
