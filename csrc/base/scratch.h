/* scratch.h: memory that is kept for the next call: workspaces, and what results lie in.
 *
 * The system hands out memory page by page, at the first touch, which costs more than to compute what is written there;
 * and a library that frees a few megabytes gives them back to it. So blocks go on a shelf, and come back from there.
 *
 * pc_scratch_take returns at least `bytes`, aligned to 64, or NULL; pc_result_take does, of nearly the same size. Each
 * block is checked out by one owner at a time, so calls on several threads never share one. At most 64 MB of results
 * are kept, the youngest; small ones are not.
 */
#ifndef PC_BASE_SCRATCH_H
#define PC_BASE_SCRATCH_H

#include <stddef.h>

void *pc_scratch_take(size_t bytes);
void pc_scratch_give(void *scratch);

void *pc_result_take(size_t bytes);
void *pc_result_resize(void *result, size_t bytes); /* as realloc: NULL leaves the result as it is */
void pc_result_give(void *result);

void pc_scratch_release(void); /* frees every block that is not checked out */

#endif
