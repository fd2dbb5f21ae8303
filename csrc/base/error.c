#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

pc_status pc_fail(pc_error *error, pc_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}
