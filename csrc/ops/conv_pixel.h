/* conv_pixel.h: the pixel family: passes of a single output pixel a sample. Private to ops/; conv.c opens its doors to
 * it, conv_pixel.c has the chapter. The bits are those of the dense family. */
#ifndef PC_OPS_CONV_PIXEL_H
#define PC_OPS_CONV_PIXEL_H

#include "ops/dense.h"

/* Asks the geometry and the batch; `pass` may be without its data. */
bool pc_pixel_serves(const pc_pass *pass);

/* One thread's workspace. Negative: too large. */
int64_t pc_pixel_bytes(const pc_pass *pass, pc_dtype dtype, int threads);

void pc_pixel_run(const pc_pass *pass, int index, int count);

PC_COLD void pc_pixel_explain(const pc_pass *pass, pc_plan *plan);

#endif
