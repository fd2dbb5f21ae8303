/* sweep.h: which sweeps a pass consists of, and how each is cut into items. Private to ops/; conv.c has the chapter. */
#ifndef PC_OPS_SWEEP_H
#define PC_OPS_SWEEP_H

#include "kernels/kernels.h"
#include "ops/slab.h"

typedef struct {
    pc_axis y, x;
    int64_t y0, x0; /* the first output of the sublattice, and the distance of the next */
    int64_t y_step, x_step;
} pc_sweep;

/* How the sweeps of a pass are cut. A part is a band of outputs of one sweep, of a block of samples; an item is a run of
 * parts, of one group, with a share of the rows p. */
typedef struct {
    bool flat;        /* outputs run on over the rows of a band, and x axes are split (slab.h) */
    bool spread;      /* rows p are pixels of windows: all outputs go through the panel */
    bool exact;       /* every output is a band, and samples fill the vectors */
    bool paired;      /* all sweeps of a sample follow one another, and two phases of columns are written at once */
    int64_t samples;  /* of a slab */
    int64_t channels; /* of a slab, and of a block of packed weights */
    int64_t band_h, band_w; /* outputs of a slab, at most */
    int64_t run;            /* parts of an item, at most */
    int64_t item_taps;      /* and so many taps between them, */
    int64_t outputs;        /* and outputs */
    int64_t blocks;         /* of rows p: each a tile high */
    int64_t chunk;          /* so many of them have their weights packed at a time */
    int64_t panel;          /* so many go through the panel at a time, where outputs are no neighbours in memory */
    int64_t shares;         /* of the blocks */
    int64_t tile;           /* columns that the tile does at a time */
    int64_t columns;        /* that its rows run through while their weights stay in L1 */
    int64_t window;         /* taps of the weight */
    int64_t taps_y, taps_x; /* the most that a part has */
    int64_t list;           /* offsets in the longest list */
    int64_t slots;          /* for slabs: as many of an item's parts keep theirs */
    int64_t slab_elements, weight_elements, panel_elements;
    /* pc_band_end's: 0, or 1 if `exact`, or more where whole bands leave taps out; along x their outputs then run on. */
    int64_t least_y, least_x;
} pc_cut;

/* How many taps there are before a remainder comes back, limited to the taps: one sweep for each. */
int64_t pc_remainders(int64_t stride, int64_t dilation, int64_t taps);

int64_t pc_sweep_count(const pc_conv_geom *geom, bool forward);
pc_sweep pc_sweep_at(const pc_conv_geom *geom, bool forward, int64_t index);

/* Does any tap of any output read outside the source? */
bool pc_sweep_leaves(const pc_sweep *sweep);

/* Sweeps that are cut alike and may share items. */
typedef struct {
    int64_t first, end;
} pc_range;

/* All sweeps of a pass if that costs nothing or if their outputs fit into the panel together, else one by one, each with
 * a cut for its own taps. Begins with {0, 0}; false behind the last. */
bool pc_next_range(const pc_conv_geom *geom, bool forward, int64_t rows, pc_dtype dtype, pc_range *range);

/* `skip`: taps that read only padding may be left out. `spread`: see pc_cut. */
pc_cut pc_cut_of(const pc_conv_geom *geom, bool forward, pc_range range, bool skip, bool spread, int64_t depth,
                 int64_t rows, const pc_kernels *kernels, pc_dtype dtype, int threads);

/* Channels whose taps are one list, for a part with so many taps. */
int64_t pc_together(const pc_cut *cut, int64_t taps);

/* The first row of block `block` of so many. */
PC_INLINE int64_t pc_block_row(const pc_cut *cut, int64_t rows, int64_t block) { return block * rows / cut->blocks; }

#endif
