/* all.inc.h: every kernel for one ISA and one dtype. isa/body.inc.h includes it twice, with the words of simd/ set. */
#include "kernels/conv_tile.inc.h"
#include "kernels/fma_chains.inc.h"
#include "kernels/map.inc.h"
#include "kernels/norm.inc.h"
#include "kernels/pool.inc.h"
