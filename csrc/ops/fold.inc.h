/* fold.inc.h: a padded channel's gradient back onto the channel, for one T. conv.c includes it once per dtype.
 *
 * First each cell takes its own copy in the middle of the padded plane (none where padding cropped it), then the
 * border's cells are added to where they were read from, row by row. */
static void PC_LOCAL(fold)(const pc_fold *f, int64_t channel)
{
    const pc_conv_geom *g = f->geom, *b = f->block;
    const T *padded = (const T *)f->padded + channel * b->ih * b->iw;
    T *grad = (T *)f->grad_in + channel * g->ih * g->iw;
    for (int64_t y = 0; y < g->ih; y++) {
        for (int64_t x = 0; x < g->iw; x++) {
            const int64_t py = y + g->pt, px = x + g->pl;
            const bool inside = py >= 0 && py < b->ih && px >= 0 && px < b->iw;
            grad[y * g->iw + x] = inside ? padded[py * b->iw + px] : 0;
        }
    }
    for (int64_t py = 0; py < b->ih; py++) {
        const int64_t y = pc_pad_source(g->pad_mode, py - g->pt, g->ih);
        const bool middle = py >= g->pt && py < g->pt + g->ih;
        for (int64_t px = 0; px < b->iw; px++) {
            if (middle && px >= g->pl && px < g->pl + g->iw) {
                px = pc_min(b->iw, g->pl + g->iw) - 1; /* taken above */
                continue;
            }
            const int64_t x = pc_pad_source(g->pad_mode, px - g->pl, g->iw);
            grad[y * g->iw + x] += padded[py * b->iw + px];
        }
    }
}
