/* conv_pixel.inc.h: how conv_pixel.c packs the source, for one T. */

/* to[k*width + s] = element first + k of sample s, for k < count. */
static void PC_LOCAL(take_source)(T *restrict to, int64_t width, const T *restrict from, const pc_walk *walk,
                                  int64_t first, int64_t count, int64_t samples)
{
    for (int64_t i = 0, run; i < count; i += run, first += run) {
        const int64_t line = first / walk->wide, at = first % walk->wide;
        const T *start = from + line / walk->high * walk->channel + line % walk->high * walk->row + at * walk->column;
        run = pc_min(count - i, walk->wide - at);
        for (int64_t s = 0; s < samples; s++) {
            for (int64_t j = 0; j < run; j++) {
                to[(i + j) * width + s] = start[s * walk->sample + j * walk->column];
            }
        }
    }
}
