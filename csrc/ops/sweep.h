/* sweep.h: which sweeps a pass consists of, and how each is cut into items. Private to ops/; conv.c has the chapter. */
#ifndef PC_OPS_SWEEP_H
#define PC_OPS_SWEEP_H

#include "kernels/kernels.h"
#include "ops/slab.h"

enum { FLAT_CHAIN = 2 }; /* up to so many taps the channels share the tap list: no loop per channel */

typedef struct {
    pc_axis y, x;
    int64_t y0, x0; /* the first output of the sublattice, and the distance of the next */
    int64_t y_step, x_step;
} pc_sweep;

/* How a sweep is cut. */
typedef struct {
    int64_t samples, channels; /* of a slab */
    int64_t band_h, band_w;    /* outputs of a slab, at most */
    int64_t shares;            /* of the rows p */
    bool exact;                /* bands within which every tap is wholly inside the source or wholly outside */
    int64_t list;              /* offsets in the longest list */
    int64_t slab_elements;
} pc_cut;

/* How many taps there are before a remainder comes back, limited to the taps: one sweep for each. */
int64_t pc_remainders(int64_t stride, int64_t dilation, int64_t taps);

int64_t pc_sweep_count(const pc_conv_geom *geom, bool forward);
pc_sweep pc_sweep_at(const pc_conv_geom *geom, bool forward, int64_t index);

/* Does any tap of any output read outside the source? */
bool pc_sweep_leaves(const pc_sweep *sweep);

/* `skip`: taps that read only padding may be left out. */
pc_cut pc_cut_of(const pc_conv_geom *geom, const pc_sweep *sweep, bool skip, int64_t depth, int64_t rows,
                 const pc_kernels *kernels, pc_dtype dtype, int threads);

#endif
