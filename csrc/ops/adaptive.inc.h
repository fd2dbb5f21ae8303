/* adaptive.inc.h: what adaptive.c does element by element, for one T. */

/* Row y of a plane of what is read. */
static const T *PC_LOCAL(row_of)(const adaptive_pass *p, int64_t plane, int64_t y)
{
    const int64_t *step = p->from->step;
    return (const T *)p->from->data + plane / p->geom->c * step[0] + plane % p->geom->c * step[1] + y * step[2];
}

/* Rows y .. y+rows-1 of some planes, one after the other: row l goes to to[l * row_step + x * column_step]. */
static void PC_LOCAL(gather)(const adaptive_pass *p, T *to, int64_t row_step, int64_t column_step, int64_t plane,
                             int64_t planes, int64_t y, int64_t rows)
{
    const int64_t width = p->backward ? p->geom->ow : p->geom->iw;
    for (int64_t l = 0; l < planes * rows; l++) {
        const T *from = PC_LOCAL(row_of)(p, plane + l / rows, y + l % rows);
        for (int64_t x = 0; x < width; x++) {
            to[l * row_step + x * column_step] = from[x * p->from->step[3]];
        }
    }
}

/* span_sums for rows that are not side by side. */
static void PC_LOCAL(sum_rows)(const adaptive_pass *p, T *to, int64_t plane, int64_t planes, int64_t y, int64_t rows)
{
    const int64_t width = p->geom->iw;
    memset(to, 0, (size_t)(planes * rows * width) * sizeof(T));
    for (int64_t l = 0; l < planes * rows; l++, to += width) {
        const int64_t first = p->y.first[y + l % rows];
        for (int64_t r = first; r < first + p->y.count[y + l % rows]; r++) {
            const T *from = PC_LOCAL(row_of)(p, plane + l / rows, r);
            for (int64_t x = 0; x < width; x++) {
                to[x] += from[x * p->from->step[3]];
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
