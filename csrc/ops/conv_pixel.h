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

/* The weight gradient of up to so many samples, which are one chunk: a pass without its data, if it can be one, and where
 * the input can be read in place, what runs it. */
enum { PC_PIXEL_CHUNK = 1024 };
bool pc_pixel_weight(const pc_conv_geom *geom, pc_dtype dtype, pc_call *call, pc_pass *pass);
bool pc_pixel_run_weight(pc_pass *pass, const pc_conv_geom *geom, void *grad_weight, const pc_tensor *grad_out,
                         const pc_tensor *in);

PC_COLD void pc_pixel_explain(const pc_pass *pass, pc_plan *plan);

#endif
