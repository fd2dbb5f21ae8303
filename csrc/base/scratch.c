/* scratch.c: two shelves of blocks under one lock, oldest first.
 *
 * A block carries its size in front of the memory that the caller sees. Giving one back puts it on its shelf, and the
 * oldest make room for it; taking one looks for the smallest that fits. Nothing is cleared. */
#include "base/scratch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SLOTS = 64,
    ALIGNMENT = 64,
    HUGE_PAGE = 2 << 20,
    LARGE_SCRATCH = 1 << 20, /* of this size on, huge pages: half of one is in use, then */
    LARGE_RESULT = 4 << 20,
    SMALL_RESULT = 32 << 10, /* the C library keeps those itself, and here they would take the places of large ones */
};

typedef struct {
    size_t bytes; /* usable, behind the header */
    char pad[ALIGNMENT - sizeof(size_t)];
} header;

typedef struct {
    header *block[SLOTS];
    int count;
    const int slots;
    const size_t budget;
    size_t kept;
} shelf;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static shelf scratches = {.slots = 8, .budget = SIZE_MAX};
static shelf results = {.slots = SLOTS, .budget = 64 << 20};
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A fork while another thread holds the lock would leave it held for ever in the child. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void register_fork(void) { pthread_atfork(before_fork, after_fork, after_fork); }

static header *take_out(shelf *s, int i)
{
    header *block = s->block[i];
    s->kept -= block->bytes;
    s->count--;
    memmove(&s->block[i], &s->block[i + 1], (size_t)(s->count - i) * sizeof *s->block);
    return block;
}

/* The smallest block of `least` to `most` bytes. */
static header *take(shelf *s, size_t least, size_t most)
{
    int best = -1;
    pthread_once(&once, register_fork);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < s->count; i++) {
        const size_t bytes = s->block[i]->bytes;
        if (bytes >= least && bytes <= most && (best < 0 || bytes < s->block[best]->bytes)) {
            best = i;
        }
    }
    header *block = best < 0 ? NULL : take_out(s, best);
    pthread_mutex_unlock(&lock);
    return block;
}

/* Puts a block on the shelf, whose oldest make room for it. NULL empties the shelf. */
static void put(shelf *s, header *block)
{
    header *freed[SLOTS];
    int count = 0;
    pthread_mutex_lock(&lock);
    while (s->count > 0 && (!block || s->count == s->slots || s->kept + block->bytes > s->budget)) {
        freed[count++] = take_out(s, 0);
    }
    if (block) {
        s->block[s->count++] = block;
        s->kept += block->bytes;
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++) {
        free(freed[i]);
    }
}

/* Large blocks are huge pages: first touch is four times as fast. (Smaller ones gain nothing once they have been touched,
 * and two megabytes for each would be half of what a small network takes.) */
static void *allocate(size_t total, bool huge)
{
    void *memory = NULL;
    const size_t alignment = huge ? HUGE_PAGE : ALIGNMENT;
    if (posix_memalign(&memory, alignment, total) != 0) {
        pc_scratch_release();
        if (posix_memalign(&memory, alignment, total) != 0) {
            return NULL;
        }
    }
#ifdef MADV_HUGEPAGE
    if (huge) {
        madvise(memory, total, MADV_HUGEPAGE); /* advice: a refusal changes nothing */
    }
#endif
    header *block = memory;
    block->bytes = total - sizeof(header);
    return block;
}

void *pc_scratch_take(size_t bytes)
{
    header *block = take(&scratches, bytes, SIZE_MAX);
    if (!block && bytes <= SIZE_MAX / 2) {
        size_t total = bytes + sizeof(header);
        const bool large = total >= LARGE_SCRATCH;
        if (large) {
            total = (total + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        }
        block = allocate(total, large);
    }
    return block ? block + 1 : NULL;
}

void *pc_result_take(size_t bytes)
{
    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    header *block = take(&results, bytes, bytes + bytes / 8);
    block = block ? block : allocate(bytes + sizeof(header), bytes >= LARGE_RESULT);
    return block ? block + 1 : NULL;
}

void pc_scratch_give(void *scratch)
{
    if (scratch) {
        put(&scratches, (header *)scratch - 1);
    }
}

void pc_result_give(void *result)
{
    header *block = result ? (header *)result - 1 : NULL;
    if (block && (block->bytes < SMALL_RESULT || block->bytes > results.budget)) {
        free(block);
    } else if (block) {
        put(&results, block);
    }
}

void *pc_result_resize(void *result, size_t bytes)
{
    void *moved = pc_result_take(bytes);
    if (moved && result) {
        const size_t had = ((header *)result - 1)->bytes;
        memcpy(moved, result, had < bytes ? had : bytes);
        pc_result_give(result);
    }
    return moved;
}

void pc_scratch_release(void)
{
    put(&scratches, NULL);
    put(&results, NULL);
}
