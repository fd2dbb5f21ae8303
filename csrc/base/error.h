/* error.h: how a room below Python says what is wrong.
 *
 * A function that can fail returns a pc_status and, when it is not PC_OK, has written one sentence into `error->text`:
 * what was expected, what came, and the arithmetic. It does not name the layer: `py/` puts that in front.
 */
#ifndef PC_BASE_ERROR_H
#define PC_BASE_ERROR_H

typedef enum {
    PC_OK,
    PC_VALUE_ERROR,  /* a wrong value, or shapes that disagree */
    PC_MEMORY_ERROR, /* too big to represent, or not to be had */
} pc_status;

typedef struct {
    char text[640];
} pc_error;

/* Writes the text (printf's rules) and returns `status`, so that a check is one line. Cuts a text that is too long. */
pc_status pc_fail(pc_error *error, pc_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
