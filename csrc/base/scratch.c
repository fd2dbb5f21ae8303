/* scratch.c: a short shelf of arenas under one lock.
 *
 * An arena carries its size in front of the memory that the caller sees. Giving one back puts it on the shelf, or
 * frees it when the shelf is full; taking one looks for the smallest that fits. Nothing is cleared.
 */
#include "base/scratch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SHELF = 8, ALIGNMENT = 64, HUGE_PAGE = 2 << 20, LARGE = 128 << 10 };

typedef struct {
    size_t bytes; /* usable, behind the header */
    char pad[ALIGNMENT - sizeof(size_t)];
} header;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static header *shelf[SHELF];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A fork while another thread holds the lock would leave it held for ever in the child. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void register_fork(void) { pthread_atfork(before_fork, after_fork, after_fork); }

void *pc_scratch_take(size_t bytes)
{
    pthread_once(&once, register_fork);
    header *arena = NULL;
    int best = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < SHELF; i++) {
        if (shelf[i] && shelf[i]->bytes >= bytes && (best < 0 || shelf[i]->bytes < shelf[best]->bytes)) {
            best = i;
        }
    }
    if (best >= 0) {
        arena = shelf[best];
        shelf[best] = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (!arena) {
        if (bytes > SIZE_MAX / 2) {
            return NULL;
        }
        /* Large arenas are huge pages: first touch is four times as fast, and a slab that spreads over seventy small
         * pages misses the first-level TLB with every other load. */
        size_t total = bytes + sizeof(header);
        const bool large = total >= LARGE;
        if (large) {
            total = (total + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
            bytes = total - sizeof(header);
        }
        void *memory = NULL;
        if (posix_memalign(&memory, large ? HUGE_PAGE : ALIGNMENT, total) != 0) {
            return NULL;
        }
#ifdef MADV_HUGEPAGE
        if (large) {
            madvise(memory, total, MADV_HUGEPAGE); /* advice: a refusal changes nothing */
        }
#endif
        arena = memory;
        arena->bytes = bytes;
    }
    return arena + 1;
}

void pc_scratch_give(void *scratch)
{
    if (!scratch) {
        return;
    }
    header *arena = (header *)scratch - 1;
    pthread_mutex_lock(&lock);
    int slot = -1;
    for (int i = 0; i < SHELF; i++) {
        if (!shelf[i]) {
            slot = i;
        }
    }
    if (slot < 0) { /* full: the smallest of all goes */
        for (int i = 0; i < SHELF; i++) {
            if (shelf[i]->bytes < arena->bytes) {
                header *smaller = shelf[i];
                shelf[i] = arena;
                arena = smaller;
            }
        }
    } else {
        shelf[slot] = arena;
        arena = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(arena);
}

void pc_scratch_release(void)
{
    header *freed[SHELF];
    pthread_mutex_lock(&lock);
    for (int i = 0; i < SHELF; i++) {
        freed[i] = shelf[i];
        shelf[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < SHELF; i++) {
        free(freed[i]);
    }
}
