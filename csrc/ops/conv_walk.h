/* conv_walk.h: depthwise convolutions of usual windows in place. Private to ops/: a form of the row family, whose doors it
 * is behind; the bits are the same. conv_walk.inc.h in kernels/ says how. */
#ifndef PC_OPS_CONV_WALK_H
#define PC_OPS_CONV_WALK_H

#include "ops/explain.h"

/* Asks the geometry, of one that pc_rows_serve accepts, and whether the machine has the kernel. */
bool pc_walk_serves(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype);

/* Of those: can it be read where it lies? */
bool pc_walk_can_read(const pc_tensor *source);

int64_t pc_walk_bytes(const pc_conv_geom *geom);

/* As pc_rows_run. */
void pc_walk_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                 const void *init, pc_call *call);

PC_COLD void pc_walk_explain(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype, pc_plan *plan);

#endif
