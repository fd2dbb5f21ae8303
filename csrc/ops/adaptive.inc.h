/* adaptive.inc.h: what adaptive.c does element by element, for one T. */

/* Rows y .. y+rows-1 of some planes of what is read, side by side. */
static void PC_LOCAL(gather)(const adaptive_pass *p, T *to, int64_t plane, int64_t planes, int64_t y, int64_t rows)
{
    const int64_t width = p->backward ? p->geom->ow : p->geom->iw, *step = p->from->step;
    for (int64_t i = plane; i < plane + planes; i++) {
        const T *from = (const T *)p->from->data + i / p->geom->c * step[0] + i % p->geom->c * step[1] + y * step[2];
        for (int64_t r = 0; r < rows; r++, to += width, from += step[2]) {
            if (step[3] == 1) {
                memcpy(to, from, (size_t)width * sizeof(T));
                continue;
            }
            for (int64_t x = 0; x < width; x++) {
                to[x] = from[x * step[3]];
            }
        }
    }
}

static void PC_LOCAL(divide)(const adaptive_pass *p, const adaptive_work *work, int64_t planes, int64_t y, int64_t rows)
{
    T *restrict sums = work->sums, *restrict heights = work->heights;
    const int64_t lanes = planes * rows;
    for (int64_t i = 0; i < planes; i++) {
        for (int64_t r = 0; r < rows; r++) {
            heights[i * rows + r] = (T)p->y.count[y + r];
        }
    }
    for (int64_t x = 0; x < p->geom->ow; x++, sums += lanes) {
        const T width = (T)p->x.count[x], share = 1 / width;
        if (is_power_of_two(p->x.count[x])) { /* the same, and a division less */
            for (int64_t l = 0; l < lanes; l++) {
                sums[l] = sums[l] / heights[l] * share;
            }
            continue;
        }
        for (int64_t l = 0; l < lanes; l++) {
            sums[l] = sums[l] / heights[l] / width;
        }
    }
}
