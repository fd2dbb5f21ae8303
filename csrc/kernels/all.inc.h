/* all.inc.h: every kernel for one ISA and one dtype. isa/body.inc.h includes it twice, with the words of simd/ set. */
#include "kernels/copies.inc.h" /* and its look_ahead, for others */
#include "kernels/strips.inc.h"
#include "kernels/conv_planes.inc.h"
#include "kernels/conv_rows_weight.inc.h"
#include "kernels/dense_tile.inc.h"
#include "kernels/fma_chains.inc.h"
#include "kernels/map.inc.h"
#include "kernels/norm.inc.h"
#include "kernels/row_copies.inc.h"
#include "kernels/strip_sums.inc.h"
#include "kernels/transpose.inc.h"
#include "kernels/weight_tile.inc.h"
#ifdef PC_ISA_NARROWEST
#include "kernels/conv_rows.inc.h"
#include "kernels/pool.inc.h"
#include "kernels/max_pool_indices.inc.h"
#include "kernels/pool_backward.inc.h"
#else
#include "kernels/conv_walk.inc.h"
#endif
