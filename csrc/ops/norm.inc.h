/* norm.inc.h: what norm.c does element by element, for one T. */

static void PC_LOCAL(gather)(T *line, const pc_tensor *tensor, int64_t plane, int64_t first, int64_t count,
                             int64_t width)
{
    const T *data = (const T *)tensor->data + plane;
    for (int64_t done = 0, length; done < count; done += length) {
        const int64_t y = (first + done) / width, x = (first + done) % width;
        const T *row = data + y * tensor->step[2] + x * tensor->step[3];
        length = pc_min(width - x, count - done);
        for (int64_t i = 0; i < length; i++) {
            line[done + i] = row[i * tensor->step[3]];
        }
    }
}

static void PC_LOCAL(add_slowly)(double sums[2], const T *u, const T *v, double u0, double v0, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const double du = (double)u[i] - u0;
        sums[0] += du;
        sums[1] += du * ((double)v[i] - v0);
    }
}
