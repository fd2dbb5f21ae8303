/* conv_rows.h: the row family: convolutions with so few channels a group that a register tile of channels would stay
 * empty. Private to ops/; conv.c opens its doors to it. conv_rows.c has the chapter, and
 * conv_rows_weight.c that of the weight gradient.
 *
 * For a geometry and a pass that pc_rows_serve accepts, pc_rows_bytes is what a thread needs, and the run functions take
 * the place of the others. The forward pass and the input gradient have the same bits either way. */
#ifndef PC_OPS_CONV_ROWS_H
#define PC_OPS_CONV_ROWS_H

#include "kernels/kernels.h"
#include "ops/explain.h"

enum { PC_ROWS_GRAIN = 1 << 19 }; /* multiply-adds for which a thread is worth waking: about 30 us */

/* Of a tap that reads column q*stride + offset for output q: which of the `outputs` find it among `size` columns. */
pc_rows_column pc_rows_column_of(int64_t offset, int64_t stride, int64_t outputs, int64_t size);

/* Asks the geometry alone. */
bool pc_rows_serve(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype);

/* Negative: too large. */
int64_t pc_rows_bytes(const pc_conv_geom *geom, pc_conv_pass pass, pc_dtype dtype);

/* `source` is the input of the forward pass, or grad_out of the input gradient, for which all weights must be finite: the
 * zeros around grad_out are multiplied. */
void pc_rows_run(const pc_conv_geom *geom, pc_conv_pass pass, void *out, const pc_tensor *source, const void *weight,
                 const void *init, pc_call *call);

PC_COLD void pc_rows_explain(const pc_conv_geom *geom, pc_conv_pass pass, const pc_call *call, pc_plan *plan);

#endif
