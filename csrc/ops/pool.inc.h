/* pool.inc.h: the pools' arrays in memory, for one T. pool.c includes it once per dtype. */

/* What the columns of a band share: the numbers of the first taps inside, and where the windows lie. */
static void PC_LOCAL(number_columns)(const pc_pool_work *work, const pc_pool_pass_args *p, const pc_band *band,
                                     int64_t lanes)
{
    T_INT *start = work->start, *place = work->place;
    for (int64_t q = 0; q < band->columns; q++) {
        const int64_t tap = first_inside(&p->x, band->x + q);
        start[q] = (T_INT)(pc_max(0, tap - band->tap) * (p->giant ? 1 : p->geom->dw));
        place[q] = (T_INT)(p->giant ? 0 : q * p->geom->sw);
    }
    memset(start + band->columns, 0, (size_t)lanes * sizeof(T_INT));
    memset(place + band->columns, 0, (size_t)lanes * sizeof(T_INT));
}

/* Indices that number the taps of a window (a plane too large for 32 bits), and windows without a tap inside. */
static void PC_LOCAL(mend_indices)(const pc_pool_pass_args *p, const pc_band *band, int64_t *indices)
{
    const pc_pool_geom *g = p->geom;
    for (int64_t y = 0; y < band->rows; y++, indices += g->ow) {
        const int64_t corner = ((band->y + y) * g->sh - g->pt) * g->iw - g->pl;
        const bool empty = first_inside(&p->y, band->y + y) < 0;
        for (int64_t q = 0; q < band->columns; q++) {
            const int64_t x = band->x + q, k = indices[q];
            if (empty || first_inside(&p->x, x) < 0) {
                indices[q] = -1;
            } else if (p->giant) {
                indices[q] = corner + x * g->sw + k / g->kw * g->dh * g->iw + (k % g->kw + band->tap) * g->dw;
            }
        }
    }
}

/* counts[i] = the cells that output first + i counts along an axis: one factor of its divisor. Then ones, up to `room`.
 * A window without a cell (it cannot arise within the rules of geom.h) would sum to zero: divide it by one. */
static void PC_LOCAL(count_cells)(const pc_pool_pass_args *p, void *counts, const pc_axis *axis, int64_t first,
                                  int64_t count, int64_t room)
{
    T *to = counts;
    for (int64_t i = 0; i < count; i++) {
        const int64_t cells =
            pc_avg_pool_count(axis->size, first + i, axis->taps, axis->stride, -axis->base, p->include_pad);
        to[i] = (T)(p->divisor ? 1 : pc_max(1, cells));
        if (p->divisor && axis == &p->y) {
            to[i] = (T)p->divisor;
        }
    }
    for (int64_t i = count; i < room; i++) {
        to[i] = 1;
    }
}

static void PC_LOCAL(copy)(void *packed, const pc_tensor *t, const char *from, int64_t rows, int64_t columns)
{
    T *to = packed;
    const T *row = (const T *)from;
    const int64_t step = t->step[3];
    for (int64_t y = 0; y < rows; y++, row += t->step[2]) {
        for (int64_t x = 0; x < columns; x++) {
            *to++ = row[x * step];
        }
    }
}

/* Planes with a single output: what avg_pool_planes computes, for rows with gaps as well. */
static void PC_LOCAL(global_averages)(const pc_pool_pass_args *p, int64_t first, int64_t last)
{
    const pc_pool_geom *g = p->geom;
    const int64_t *step = p->in->step;
    const int64_t rows = pc_min(g->ih, g->kh - g->pt), columns = pc_min(g->iw, g->kw - g->pl);
    const int64_t most = pc_max(1, PIECE / pc_max(1, rows) / columns);
    T row_cells, cells;
    PC_LOCAL(count_cells)(p, &row_cells, &p->y, 0, 1, 1);
    PC_LOCAL(count_cells)(p, &cells, &p->x, 0, 1, 1);
    for (int64_t plane = first, together; plane < last && !pc_poll(p->call); plane += together) {
        const T *from = (const T *)p->in->data + plane / g->c * step[0] + plane % g->c * step[1];
        T *to = (T *)p->out + plane;
        if (step[3] == 1 && (rows == 1 || step[2] == columns)) {
            together = pc_min(most, pc_min(last - plane, g->c - plane % g->c));
            const pc_pool_args a = {.out = to,
                                    .src = from,
                                    .planes = together,
                                    .src_plane = step[1],
                                    .src_columns = rows * columns,
                                    .cells = &cells,
                                    .row_cells = &row_cells};
            pc_narrow_kernels_for(p->call->dtype)->avg_pool_planes(&a);
            continue;
        }
        together = 1;
        T sums[PC_POOL_SUMS] = {0};
        for (int64_t y = 0, k = 0; y < rows; y++) {
            for (int64_t x = 0; x < columns; x++, k++) {
                sums[k % PC_POOL_SUMS] += from[y * step[2] + x * step[3]];
            }
        }
        for (int width = PC_POOL_SUMS / 2; width > 0; width /= 2) {
            for (int i = 0; i < width; i++) {
                sums[i] += sums[i + width];
            }
        }
        *to = sums[0] / (row_cells * cells);
    }
}

/* The gradient of a plane with a single output: its share inside the window, nothing around it. */
static void PC_LOCAL(global_gradients)(const pc_pool_pass_args *p, int64_t first, int64_t last)
{
    const pc_pool_geom *g = p->geom;
    const int64_t *step = p->in->step;
    const int64_t bottom = g->kh - g->pt, right = pc_min(g->iw, g->kw - g->pl);
    T rows, columns;
    PC_LOCAL(count_cells)(p, &rows, &p->y, 0, 1, 1);
    PC_LOCAL(count_cells)(p, &columns, &p->x, 0, 1, 1);
    const int64_t most =
        pc_max(1, PIECE / pc_max(1, g->ih * g->iw)); /* asking after each plane took half of the time */
    T *to = (T *)p->out + first * g->ih * g->iw;
    for (int64_t plane = first; plane < last; plane++) {
        if ((plane - first) % most == 0 && pc_poll(p->call)) {
            return;
        }
        const T share = ((const T *)p->in->data)[plane / g->c * step[0] + plane % g->c * step[1]] / (rows * columns);
        if (bottom >= g->ih && right == g->iw) {
            const int64_t size = g->ih * g->iw;
            for (int64_t i = 0; i < size; i++) {
                to[i] = share;
            }
            to += size;
            continue;
        }
        for (int64_t y = 0; y < g->ih; y++, to += g->iw) {
            for (int64_t x = 0; x < g->iw; x++) {
                to[x] = y < bottom && x < right ? share : 0;
            }
        }
    }
}

/* ---- backward of max pooling ---- */

/* The planes that gradients are added to. Elements 0 .. zeroed-1, from `to` on, have a value so far. */
typedef struct {
    T *to;
    int64_t size; /* of a plane, */
    int64_t rest; /* and of all planes from this one on */
    int64_t zeroed;
} PC_LOCAL(sums);

/* Elements up to `end` have a value from here on, and a stretch of others: it is in L1 then when it is added to. */
static void PC_LOCAL(zero)(PC_LOCAL(sums) * s, int64_t end)
{
    if (end > s->zeroed) {
        end = pc_min(s->rest, pc_max(end, s->zeroed + STRETCH));
        memset(s->to + s->zeroed, 0, (size_t)(end - s->zeroed) * sizeof(T));
        s->zeroed = end;
    }
}

/* False when the index lies outside its plane. */
static bool PC_LOCAL(add_one)(PC_LOCAL(sums) * s, int64_t i, T grad)
{
    if (i == -1) {
        return true;
    }
    if (i < 0 || i >= s->size) {
        return false;
    }
    PC_LOCAL(zero)(s, i + 1);
    s->to[i] += grad;
    return true;
}

/* to[index] += grad, if the index is inside, else the caller returns `done`. */
#define ADD(to, index, grad, done)                                                                                     \
    do {                                                                                                               \
        const int64_t i = index;                                                                                       \
        if ((uint64_t)i >= inside) {                                                                                   \
            return done;                                                                                               \
        }                                                                                                              \
        (to)[i] += grad;                                                                                               \
    } while (0)

/* Adds gradients as long as indices are inside; how many. No call in here, or pointers move to the stack. */
static int64_t PC_LOCAL(add_apart)(T *to, const T *grad, const int64_t *index, int64_t count, uint64_t inside,
                                   int64_t grad_step, int64_t index_step)
{
    for (int64_t x = 0; x < count; x++) {
        ADD(to, index[x * index_step], grad[x * grad_step], x);
    }
    return count;
}

/* The same where they are side by side. Four in a round: with a loop around each it took 1.4 times as long, and twice
 * where another guest shares the core. */
static int64_t PC_LOCAL(add_close)(T *to, const T *grad, const int64_t *index, int64_t count, uint64_t inside)
{
    int64_t x = 0;
    for (; x + 4 <= count; x += 4) {
        ADD(to, index[x], grad[x], x);
        ADD(to, index[x + 1], grad[x + 1], x + 1);
        ADD(to, index[x + 2], grad[x + 2], x + 2);
        ADD(to, index[x + 3], grad[x + 3], x + 3);
    }
    for (; x < count; x++) {
        ADD(to, index[x], grad[x], x);
    }
    return x;
}

/* For four planes in turn, each `inside` elements large: neighbouring windows share their winner more often than
 * not, and sums of one plane wait for one another then (3 x 3 on 7 x 7: 1.45 times as fast, on 28 x 28: 1.04 times). */
static __attribute__((noinline)) int64_t PC_LOCAL(add_four)(T *to, const T *grad, const int64_t *index, int64_t count,
                                                            uint64_t inside, int64_t grad_plane, int64_t index_plane)
{
    T *second = to + inside, *third = second + inside, *fourth = third + inside;
    for (int64_t x = 0; x < count; x++) {
        ADD(to, index[x], grad[x], 4 * x);
        ADD(second, index[x + index_plane], grad[x + grad_plane], 4 * x + 1);
        ADD(third, index[x + 2 * index_plane], grad[x + 2 * grad_plane], 4 * x + 2);
        ADD(fourth, index[x + 3 * index_plane], grad[x + 3 * grad_plane], 4 * x + 3);
    }
    return 4 * count;
}
#undef ADD

/* `count` gradients of a plane. */
static bool PC_LOCAL(add_run)(PC_LOCAL(sums) * s, const T *grad, const int64_t *index, int64_t count, int64_t grad_step,
                              int64_t index_step)
{
    for (; count > 0; count--) {
        const uint64_t inside = (uint64_t)pc_max(0, pc_min(s->size, s->zeroed));
        const int64_t done = grad_step == 1 && index_step == 1
                                 ? PC_LOCAL(add_close)(s->to, grad, index, count, inside)
                                 : PC_LOCAL(add_apart)(s->to, grad, index, count, inside, grad_step, index_step);
        grad += done * grad_step;
        index += done * index_step;
        count -= done;
        if (count > 0 && !PC_LOCAL(add_one)(s, *index, *grad)) {
            return false;
        }
        grad += grad_step;
        index += index_step;
    }
    return true;
}

/* Of four planes. */
static bool PC_LOCAL(add_planes)(PC_LOCAL(sums) * s, const T *grad, const int64_t *index, int64_t count,
                                 int64_t grad_plane, int64_t index_plane)
{
    PC_LOCAL(zero)(s, 4 * s->size);
    for (; count > 0; count--, grad++, index++) {
        const int64_t done = PC_LOCAL(add_four)(s->to, grad, index, count, (uint64_t)s->size, grad_plane, index_plane);
        grad += done / 4;
        index += done / 4;
        count -= done / 4;
        for (int64_t k = done % 4; k < 4 && count > 0; k++) {
            PC_LOCAL(sums) one = {.to = s->to + k * s->size, .size = s->size, .zeroed = s->size};
            if (!PC_LOCAL(add_one)(&one, index[k * index_plane], grad[k * grad_plane])) {
                return false;
            }
        }
    }
    return true;
}

/* grad_in[index] += grad_out over the planes first .. last-1; false when an index lies outside its plane. */
static bool PC_LOCAL(scatter)(const pc_pool_pass_args *p, int64_t first, int64_t last)
{
    const pc_pool_geom *g = p->geom;
    const int64_t *grad = p->in->step, *index = p->indices_in->step, grad_step = grad[3], index_step = index[3];
    const bool gaps = grad[2] != g->ow * grad_step || index[2] != g->ow * index_step;
    const int64_t height = gaps ? g->oh : 1, width = gaps ? g->ow : g->oh * g->ow;
    const int64_t size = g->ih * g->iw;
    const bool small = !gaps && grad_step == 1 && index_step == 1 && size <= STRETCH;
    PC_LOCAL(sums) s = {.to = (T *)p->out + first * size, .size = size, .rest = (last - first) * size};
    int64_t work = 0, planes;
    for (int64_t plane = first; plane < last; plane += planes) {
        const int64_t n = plane / g->c, c = plane % g->c;
        const T *row = (const T *)p->in->data + n * grad[0] + c * grad[1];
        const int64_t *where = (const int64_t *)p->indices_in->data + n * index[0] + c * index[1];
        planes = small && pc_min(g->c - c, last - plane) >= 4 ? 4 : 1;
        if (planes == 4) {
            if (!PC_LOCAL(add_planes)(&s, row, where, width, grad[1], index[1])) {
                return false;
            }
        } else {
            for (int64_t y = 0; y < height; y++, row += grad[2], where += index[2]) {
                if (!PC_LOCAL(add_run)(&s, row, where, width, grad_step, index_step)) {
                    return false;
                }
            }
        }
        s.to += planes * size;
        s.rest -= planes * size;
        s.zeroed -= planes * size;
        work += planes * size;
        if (work >= PIECE) {
            work = 0;
            if (pc_poll(p->call)) {
                return true;
            }
        }
    }
    memset(s.to + s.zeroed, 0, (size_t)-s.zeroed * sizeof(T));
    return true;
}

/* How many planes from `first` on max_pool_backward_pairs could do. */
static int64_t PC_LOCAL(pairs)(const pc_pool_pass_args *p, int64_t first, int64_t last)
{
    const pc_pool_geom *g = p->geom;
    const pc_kernels *kernels = pc_narrow_kernels_for(p->call->dtype);
    const int64_t *grad = p->in->step, *index = p->indices_in->step, size = g->ih * g->iw;
    if (!may_be_pairs(g, kernels) || grad[3] != 1 || index[3] != 1) {
        return 0;
    }
    bool strange = false;
    int64_t plane = first, work = 0;
    for (; plane < last; plane++) {
        const int64_t n = plane / g->c, c = plane % g->c;
        T *to = (T *)p->out + plane * size;
        const pc_pairs_args a = {.grad_in = to,
                                 .grad_out = (const T *)p->in->data + n * grad[0] + c * grad[1],
                                 .indices = (const int64_t *)p->indices_in->data + n * index[0] + c * index[1],
                                 .grad_row = grad[2],
                                 .index_row = index[2],
                                 .rows = g->oh,
                                 .columns = g->ow,
                                 .width = g->iw,
                                 .strange = &strange};
        kernels->max_pool_backward_pairs(&a);
        if (strange) {
            break;
        }
        memset(to + 2 * g->oh * g->iw, 0, (size_t)(g->ih % 2 * g->iw) * sizeof(T));
        work += size;
        if (work >= PIECE) {
            work = 0;
            if (pc_poll(p->call)) {
                return last - first;
            }
        }
    }
    return plane - first;
}

static bool PC_LOCAL(scatter_planes)(const pc_pool_pass_args *p, int64_t first, int64_t last)
{
    return PC_LOCAL(scatter)(p, first + PC_LOCAL(pairs)(p, first, last), last);
}
