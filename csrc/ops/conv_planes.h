/* conv_planes.h: depthwise convolutions of small maps in place. Private to ops/: a form of the row family, whose doors it
 * is behind; the bits are the same. conv_planes.inc.h in kernels/ says how. */
#ifndef PC_OPS_CONV_PLANES_H
#define PC_OPS_CONV_PLANES_H

#include "ops/explain.h"

/* Asks the geometry alone. */
bool pc_planes_serve(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype);

/* Of those: can they be read where they lie? */
bool pc_planes_can_read(const pc_conv_geom *geom, const pc_tensor *source);

int64_t pc_planes_bytes(const pc_conv_geom *geom, pc_dtype dtype);

/* As pc_rows_run. */
void pc_planes_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                   const void *init, pc_call *call);

#endif
