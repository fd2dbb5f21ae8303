#include "isa/dispatch.h"

#include <string.h>

#include "base/cpu.h"

extern const pc_isa pc_isa__baseline;
#ifdef PC_HAVE_AVX2
extern const pc_isa pc_isa__avx2;
#endif
#ifdef PC_HAVE_AVX512
extern const pc_isa pc_isa__avx512;
#endif
#ifdef PC_HAVE_NEON
extern const pc_isa pc_isa__neon;
#endif

static const pc_isa *const compiled[] = {
    &pc_isa__baseline,
#ifdef PC_HAVE_AVX2
    &pc_isa__avx2,
#endif
#ifdef PC_HAVE_AVX512
    &pc_isa__avx512,
#endif
#ifdef PC_HAVE_NEON
    &pc_isa__neon,
#endif
    NULL,
};

/* Weakest first. A name above it in this list caps more; neon stands beside the x86 names and above baseline. */
static const char *const names[] = {"baseline", "neon", "avx2", "avx512"};

static const pc_isa *chosen = &pc_isa__baseline;

static int rank(const char *name)
{
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

bool pc_isa_choose(const char *cap)
{
    bool capped = cap && *cap;
    if (capped && rank(cap) < 0) {
        return false;
    }
    for (int i = 0; compiled[i]; i++) {
        if (pc_isa_usable(compiled[i]) && (!capped || rank(compiled[i]->name) <= rank(cap))) {
            chosen = compiled[i];
        }
    }
    return true;
}

const pc_isa *pc_isa_chosen(void) { return chosen; }

const pc_isa *const *pc_isa_compiled(void) { return compiled; }

bool pc_isa_usable(const pc_isa *isa)
{
    pc_cpu cpu = pc_cpu_detect();
    switch (rank(isa->name)) {
    case 1:
        return cpu.neon;
    case 2:
        return cpu.avx2;
    case 3:
        return cpu.avx512;
    default:
        return true;
    }
}
