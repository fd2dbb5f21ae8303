/* args.h: Python values into numbers. Every message about a wrong argument that is not a size's arithmetic is here.
 *
 * The functions return true, or false with an exception set. `who` goes in front of the message ("conv2d",
 * "Conv2d(3, 16)"), `name` is the argument's. A wrong type is a TypeError (bool and float are no sizes), a wrong
 * length or a number beyond int64 a ValueError; whether a number makes sense is geom's to say.
 *
 * Converting may run any Python code (`__index__`, `__iter__`): read a layer's fields after it, not before.
 */
#ifndef PC_PY_ARGS_H
#define PC_PY_ARGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "geom/geom.h"

/* Raises what a room below said, the name in front; always returns false. */
bool pc_raise(const char *who, pc_status status, const pc_error *error);

/* ---- binding: which argument is which ---- */

enum { PC_MAX_ARGUMENTS = 12 };

typedef struct {
    const char *who;
    const char *names[PC_MAX_ARGUMENTS + 1]; /* in order, NULL behind the last */
    int required;                            /* so many of the first must be given */
    int positional;                          /* so many may be given by position; the rest by name only */
} pc_signature;

/* Fills one borrowed reference per name, NULL where nothing was given. */
bool pc_bind(const pc_signature *signature, PyObject *const *args, Py_ssize_t count, PyObject *names,
             PyObject **values);
bool pc_bind_tuple(const pc_signature *signature, PyObject *args, PyObject *kwargs, PyObject **values);

/* ---- values; NULL leaves the default that stands in the result ---- */

/* Whose words torch uses for a wrong length. */
typedef enum { PC_WORDS_CONV, PC_WORDS_POOL, PC_WORDS_ADAPTIVE, PC_WORDS_LINE } pc_words;

bool pc_parse_int(PyObject *value, const char *who, const char *name, int64_t *number);
bool pc_parse_pair(PyObject *value, const char *who, const char *name, pc_words words, int64_t pair[2]);
/* For one dimension: a number or a sequence of one; pair[0] becomes `height`. */
bool pc_parse_single(PyObject *value, const char *who, const char *name, int64_t height, int64_t pair[2]);
/* A pool's stride may also be None or empty: then it is the kernel's size. */
bool pc_parse_pool_stride(PyObject *value, const char *who, const int64_t kernel[2], int64_t stride[2]);
/* A number, a pair, ((top, bottom), (left, right)) (then *per_side is true), 'same' or 'valid'. */
bool pc_parse_padding(PyObject *value, const char *who, pc_window *window, bool *per_side);
/* The same for one dimension: a number, a sequence of one, ((left, right),), 'same' or 'valid'. */
bool pc_parse_line_padding(PyObject *value, const char *who, pc_window *window, bool *per_side);
/* One number or a pair, each for both sides of an axis. */
bool pc_parse_symmetric_padding(PyObject *value, const char *who, pc_words words, pc_window *window);
bool pc_parse_padding_mode(PyObject *value, const char *who, pc_pad_mode *mode);
const char *pc_padding_mode_name(pc_pad_mode mode);
/* What float() takes, but no string and no bool. */
bool pc_parse_float(PyObject *value, const char *who, const char *name, double *number);
/* bool and np.bool_ only */
bool pc_parse_flag(PyObject *value, const char *who, const char *name, bool *flag);
/* anything that has a truth value */
bool pc_parse_truth(PyObject *value, bool *flag);
bool pc_parse_mask(PyObject *value, const char *who, bool mask[3]);
/* None or a number that is not 0; `divisor` 0 stands for None */
bool pc_parse_divisor(PyObject *value, const char *who, int64_t *divisor);
/* (N, C, H, W) or (C, H, W): three numbers get n = 1 in front. Not negative. */
bool pc_parse_shape(PyObject *value, const char *who, const char *name, int64_t shape[4], int *rank);
/* None (then *given is false), or the last two numbers of what torch takes for an input of that rank. */
bool pc_parse_output_size(PyObject *value, const char *who, int rank, bool *given, int64_t size[2]);
bool pc_parse_device(PyObject *value, const char *who);

/* ---- and back ---- */

/* dict[name] = value; takes over the reference, passes on a failure that made it NULL. */
bool pc_dict_take(PyObject *dict, const char *name, PyObject *value);

PyObject *pc_pair_object(const int64_t pair[2]);
/* What torch would keep of the argument that was parsed into `pair`: an int, a list or a tuple; NULL and None count as
 * an int. */
PyObject *pc_pair_as_given(PyObject *value, const int64_t pair[2]);
/* (N, C, 1, L) as (N, C, L); takes over the reference */
PyObject *pc_shape_without_height(PyObject *shape);
/* Says that a gradient has another shape than its output; takes over both references. Always false. */
bool pc_refuse_grad_shape(const char *who, PyObject *got, PyObject *expected);
/* (n, c, h, w), or (c, h, w) for rank 3: a tuple */
PyObject *pc_shape_object(const int64_t shape[4], int rank);

/* Nothing that np.asarray understands, but DLPack: np.asarray would wrap it in an object array. */
bool pc_speaks_dlpack_only(PyObject *value);

#endif
