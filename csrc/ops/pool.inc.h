/* pool.inc.h: the pools' rows in memory, for one T. pool.c includes it once per dtype. */

/* taps[q] = number of the window's first tap inside the image. work->start holds the columns' first taps. */
static void PC_LOCAL(start_taps)(const pc_pool_work *work, const pc_pool_geom *g, int64_t row, int64_t columns)
{
    T_INT *taps = work->taps;
    for (int64_t q = 0; q < columns; q++) {
        taps[q] = (T_INT)(row < 0 || work->start[q] < 0 ? -1 : row * g->kw + work->start[q]);
    }
}

static void PC_LOCAL(indices)(int64_t *restrict indices, const pc_pool_work *work, const pc_pool_geom *g,
                              const pc_band *band, int64_t y)
{
    const T_INT *taps = work->taps;
    const bool table = g->kh <= TABLE && g->kw <= TABLE && g->kh * g->kw <= TABLE;
    const int64_t corner = (y * g->sh - g->pt) * g->iw + band->x * g->sw - g->pl;
    for (int64_t q = 0; q < band->columns; q++) {
        const int64_t k = taps[q];
        if (k < 0) {
            indices[q] = -1;
        } else {
            const int64_t inside = table ? work->table[k] : k / g->kw * g->dh * g->iw + k % g->kw * g->dw;
            indices[q] = corner + q * g->sw + inside;
        }
    }
}

/* cells[q] = the cells that output x + q counts along x: one factor of its divisor. */
static void PC_LOCAL(count_cells)(const pc_pool_work *work, const pc_pool_pass_args *p, int64_t x, int64_t columns)
{
    const pc_pool_geom *g = p->geom;
    T *cells = work->cells;
    for (int64_t q = 0; q < columns; q++) {
        cells[q] = (T)pc_avg_pool_count(g->iw, x + q, g->kw, g->sw, g->pl, p->include_pad);
    }
}

/* A window without a cell (it cannot arise within the rules of geom.h) would sum to zero: divide it by one. */
static void PC_LOCAL(divisors)(const pc_pool_work *work, const pc_pool_pass_args *p, int64_t y, int64_t columns)
{
    const pc_pool_geom *g = p->geom;
    const T rows = (T)pc_avg_pool_count(g->ih, y, g->kh, g->sh, g->pt, p->include_pad);
    const T *cells = work->cells;
    T *divisor = work->divisor;
    for (int64_t q = 0; q < columns; q++) {
        divisor[q] = p->divisor ? (T)p->divisor : rows * cells[q] > 0 ? rows * cells[q] : 1;
    }
}

/* Planes with a single output: their chains wait for each add, so a few planes go side by side. Each plane's sum has
 * the order that the kernel's has, straight from the input. */
static void PC_LOCAL(global_averages)(const pc_pool_pass_args *p, const pc_pool_work *work, int64_t first, int64_t last)
{
    const pc_pool_geom *g = p->geom;
    const int64_t *step = p->in->step;
    const int64_t top = pc_max(0, -g->pt), bottom = pc_min(g->ih, g->kh - g->pt);
    const int64_t left = pc_max(0, -g->pl), right = pc_min(g->iw, g->kw - g->pl);
    PC_LOCAL(count_cells)(work, p, 0, 1);
    PC_LOCAL(divisors)(work, p, 0, 1);
    for (int64_t plane = first; plane < last && !pc_poll(p->call); plane += TOGETHER) {
        const T *from[TOGETHER];
        T sums[TOGETHER] = {0};
        for (int64_t k = 0; k < TOGETHER; k++) {
            const int64_t q = pc_min(plane + k, last - 1);
            from[k] = (const T *)p->in->data + q / g->c * step[0] + q % g->c * step[1];
        }
        for (int64_t y = top; y < bottom; y++) {
            for (int64_t x = left; x < right; x++) {
                for (int64_t k = 0; k < TOGETHER; k++) {
                    sums[k] += from[k][y * step[2] + x * step[3]];
                }
            }
        }
        for (int64_t k = 0; k < pc_min(TOGETHER, last - plane); k++) {
            ((T *)p->out)[plane + k] = sums[k] / *(const T *)work->divisor;
        }
    }
}

/* work->row = grad_out / divisor, for output row y, with whole vectors readable behind. */
static void PC_LOCAL(divided_row)(const pc_pool_work *work, const pc_pool_pass_args *p, int64_t plane, int64_t y,
                                  int64_t x, int64_t columns)
{
    const pc_tensor *t = p->grad_out;
    const T *from = (const T *)t->data + plane / p->geom->c * t->step[0] + plane % p->geom->c * t->step[1] +
                    y * t->step[2] + x * t->step[3];
    T *row = work->row, *divisor = work->divisor;
    PC_LOCAL(divisors)(work, p, y, columns);
    for (int64_t q = 0; q < columns; q++) {
        row[q] = from[q * t->step[3]] / divisor[q];
    }
}

/* One row of the input gradient out of the slab; -1 is a place that no window reaches. */
static void PC_LOCAL(read_back)(void *out, int64_t at, const pc_pool_work *work, int64_t from, int64_t columns)
{
    T *to = (T *)out + at;
    const T *slab = (const T *)work->slab + (from < 0 ? 0 : from);
    for (int64_t i = 0; i < columns; i++) {
        to[i] = from < 0 || work->start[i] < 0 ? 0 : slab[work->start[i]];
    }
}

/* The gradient of a band that one window alone touches: work->row[0] inside the window, nothing around it. */
static void PC_LOCAL(one_window)(void *out, const pc_pool_work *work, const pc_pool_geom *g, const pc_band *band,
                                 int64_t plane, int64_t oy, int64_t ox)
{
    const T value = *(const T *)work->row;
    const int64_t top = oy * g->sh - g->pt, left = ox * g->sw - g->pl;
    for (int64_t y = band->y; y < band->y + band->rows; y++) {
        T *row = (T *)out + (plane * g->ih + y) * g->iw;
        const bool inside = y >= top && y - top < g->kh;
        for (int64_t x = band->x; x < band->x + band->columns; x++) {
            row[x] = inside && x >= left && x - left < g->kw ? value : 0;
        }
    }
}

/* grad_in[index] += grad_out over one plane; false when an index lies outside it. */
static bool PC_LOCAL(scatter)(const pc_pool_pass_args *p, int64_t plane)
{
    const pc_pool_geom *g = p->geom;
    const int64_t size = g->ih * g->iw;
    const pc_tensor *grad = p->grad_out, *index = p->indices_in;
    T *to = (T *)p->out + plane * size;
    memset(to, 0, (size_t)size * sizeof(T));
    for (int64_t y = 0; y < g->oh; y++) {
        const T *row =
            (const T *)grad->data + plane / g->c * grad->step[0] + plane % g->c * grad->step[1] + y * grad->step[2];
        const int64_t *where = (const int64_t *)index->data + plane / g->c * index->step[0] +
                               plane % g->c * index->step[1] + y * index->step[2];
        for (int64_t x = 0; x < g->ow; x++) {
            const int64_t i = where[x * index->step[3]];
            if (i < -1 || i >= size) {
                return false;
            }
            if (i >= 0) {
                to[i] += row[x * grad->step[3]];
            }
        }
    }
    return true;
}
