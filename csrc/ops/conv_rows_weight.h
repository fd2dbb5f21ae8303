/* conv_rows_weight.h: the row family's weight gradient. Private to ops/; conv_weight.c opens its door to it.
 *
 * For a geometry that pc_rows_weight_serve accepts, pc_rows_weight_bytes is what a thread needs, and pc_rows_weight_run
 * takes the place of the others. */
#ifndef PC_OPS_CONV_ROWS_WEIGHT_H
#define PC_OPS_CONV_ROWS_WEIGHT_H

#include "ops/explain.h"

/* Asks the geometry alone. */
bool pc_rows_weight_serve(const pc_conv_geom *geom, pc_dtype dtype);

/* Negative: too large. */
int64_t pc_rows_weight_bytes(const pc_conv_geom *geom, pc_dtype dtype);

void pc_rows_weight_run(const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out, const pc_tensor *in,
                        pc_call *call);

PC_COLD void pc_rows_weight_explain(const pc_conv_geom *geom, const pc_call *call, pc_plan *plan);

#endif
