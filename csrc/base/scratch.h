/* scratch.h: memory for one call, kept between calls.
 *
 * pc_scratch_take returns at least `bytes`, aligned to 64, or NULL. A few arenas are kept for the next call; each is
 * checked out by one call at a time, so calls on several threads never share one.
 */
#ifndef PC_BASE_SCRATCH_H
#define PC_BASE_SCRATCH_H

#include <stddef.h>

void *pc_scratch_take(size_t bytes);
void pc_scratch_give(void *scratch);
void pc_scratch_release(void); /* frees every arena that is not checked out */

#endif
