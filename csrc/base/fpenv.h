/* fpenv.h: the floating-point environment is defined, not inherited.
 *
 * A thread that computes enters the default environment (round to nearest, subnormals alive, exceptions masked) and
 * leaves it again; what it found comes back, exception flags included. So a host that flushes subnormals, or a lane
 * that multiplies rubbish nobody will read, changes neither our bits nor the host's.
 */
#ifndef PC_BASE_FPENV_H
#define PC_BASE_FPENV_H

#include "base/base.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned pc_fpenv;
PC_INLINE pc_fpenv pc_fpenv_enter(void)
{
    pc_fpenv found = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return found;
}
PC_INLINE void pc_fpenv_leave(pc_fpenv found) { _mm_setcsr(found); }
#else
#include <fenv.h>
typedef fenv_t pc_fpenv;
PC_INLINE pc_fpenv pc_fpenv_enter(void)
{
    pc_fpenv found;
    fegetenv(&found);
    fesetenv(FE_DFL_ENV);
    return found;
}
PC_INLINE void pc_fpenv_leave(pc_fpenv found) { fesetenv(&found); }
#endif

#endif
