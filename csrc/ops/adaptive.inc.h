/* adaptive.inc.h: one plane of an adaptive pool, for one T. adaptive.c includes it once per dtype. */

/* work->row = the sum of `rows` rows of a plane from `from` on. */
static void PC_LOCAL(sum_rows)(const adaptive_pass *p, const adaptive_work *work, const T *from, int64_t rows)
{
    const int64_t columns = p->geom->iw, *step = p->in->step;
    const pc_kernels *kernels = pc_kernels_for(p->call->dtype);
    pc_row_args args = {.out = work->row, .in = from, .rows = rows, .step = step[2], .columns = columns};
    if (step[3] == 1 || columns == 1) {
        kernels->row_sums(&args);
        return;
    }
    T *line = work->line;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t x = 0; x < columns; x++) {
            line[x] = from[r * step[2] + x * step[3]];
        }
        args.in = line;
        args.rows = 1;
        args.accumulate = r > 0;
        kernels->row_sums(&args);
    }
}

/* Windows of one element each: a copy. */
static void PC_LOCAL(copy_plane)(const pc_adaptive_geom *g, T *to, const T *from, const int64_t step[4])
{
    if (step[3] == 1 && step[2] == g->iw) {
        memcpy(to, from, (size_t)(g->ih * g->iw) * sizeof(T));
        return;
    }
    for (int64_t y = 0; y < g->ih; y++, to += g->iw) {
        for (int64_t x = 0; x < g->iw; x++) {
            to[x] = from[y * step[2] + x * step[3]];
        }
    }
}

/* The windows of every plane. */
static void PC_LOCAL(find_windows)(const adaptive_work *work, const pc_adaptive_geom *g)
{
    for (int64_t y = 0; y < g->oh; y++) {
        work->top[y] = pc_adaptive_window(g->ih, g->oh, y, &work->height[y]);
    }
    for (int64_t x = 0; x < g->ow; x++) {
        work->left[x] = pc_adaptive_window(g->iw, g->ow, x, &work->width[x]);
        ((T *)work->divisor)[x] = (T)work->width[x];
    }
}

static void PC_LOCAL(forward_plane)(const adaptive_pass *p, const adaptive_work *work, int64_t plane)
{
    const pc_adaptive_geom *g = p->geom;
    const T *in = (const T *)p->in->data + plane / g->c * p->in->step[0] + plane % g->c * p->in->step[1];
    if (is_identity(g)) {
        PC_LOCAL(copy_plane)(g, (T *)p->out + plane * g->oh * g->ow, in, p->in->step);
        return;
    }
    const T *row = work->row, *widths = work->divisor;
    T *restrict sums = work->sums;
    T *restrict out = (T *)p->out + plane * g->oh * g->ow;
    const bool large = pc_max(g->ih * g->iw, g->oh * g->ow) > PIECE;
    for (int64_t y = 0; y < g->oh && !(large && pc_poll(p->call)); y++, out += g->ow) {
        const int64_t top = work->top[y], height = work->height[y];
        PC_LOCAL(sum_rows)(p, work, in + top * p->in->step[2], height);
        for (int64_t x = 0; x < g->ow; x++) {
            const int64_t left = work->left[x], width = work->width[x];
            T sum = row[left];
            for (int64_t i = 1; i < width; i++) {
                sum += row[left + i];
            }
            sums[x] = sum;
        }
        for (int64_t x = 0; x < g->ow; x++) { /* by itself: the compiler makes vectors of it */
            out[x] = sums[x] / (T)height / widths[x];
        }
    }
}

static void PC_LOCAL(backward_plane)(const adaptive_pass *p, const adaptive_work *work, int64_t plane)
{
    const pc_adaptive_geom *g = p->geom;
    const int64_t *step = p->grad_out->step;
    const T *from = (const T *)p->grad_out->data + plane / g->c * step[0] + plane % g->c * step[1];
    const pc_kernels *kernels = pc_kernels_for(p->call->dtype);
    const T *widths = work->divisor;
    T *row = work->row, *to = (T *)p->out + plane * g->ih * g->iw;
    T *restrict shares = work->sums;
    if (is_identity(g)) {
        PC_LOCAL(copy_plane)(g, to, from, step);
        return;
    }
    if (g->oh == 0 || g->ow == 0) { /* no window, no gradient */
        memset(to, 0, (size_t)(g->ih * g->iw) * sizeof(T));
        return;
    }
    int64_t reached = 0; /* rows of the plane that hold a sum already */
    const bool large = pc_max(g->ih * g->iw, g->oh * g->ow) > PIECE;
    for (int64_t y = 0; y < g->oh && !(large && pc_poll(p->call)); y++, from += step[2]) {
        const int64_t top = work->top[y], height = work->height[y];
        int64_t filled = 0;
        for (int64_t x = 0; x < g->ow; x++) {
            shares[x] = from[x * step[3]] / (T)height / widths[x];
        }
        for (int64_t x = 0; x < g->ow; x++) {
            const int64_t left = work->left[x], width = work->width[x];
            const T share = shares[x];
            for (int64_t i = left; i < filled; i++) {
                row[i] += share;
            }
            for (int64_t i = pc_max(left, filled); i < left + width; i++) {
                row[i] = share;
            }
            filled = left + width;
        }
        for (int64_t r = top; r < pc_min(top + height, reached); r++) {
            const pc_row_args args = {
                .out = to + r * g->iw, .in = row, .rows = 1, .columns = g->iw, .accumulate = true};
            kernels->row_sums(&args);
        }
        for (int64_t r = pc_max(top, reached); r < top + height; r++) { /* the kernel's masked tails are slow */
            memcpy(to + r * g->iw, row, (size_t)g->iw * sizeof(T));
        }
        reached = top + height;
    }
}
