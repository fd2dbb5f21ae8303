/* array.h: the gate for arrays. array.c is the one file that sees NumPy's headers; here arrays are PyObject*.
 *
 * What comes in may be anything that NumPy takes for an array: lists, scalars, buffers, `__array__`, and objects with
 * nothing but `__dlpack__`. Subclasses are taken for what they are underneath. bool, integers, float16, float32 and
 * float64 are welcome, all else is a TypeError that names the argument. Memory order, signs of steps, byte order,
 * alignment and the writeable flag do not matter: one copy is made where ops/ could not read the array, none elsewhere.
 *
 * Functions that return bool say false with an exception set, those that return an object NULL.
 */
#ifndef PC_PY_ARRAY_H
#define PC_PY_ARRAY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "ops/ops.h"

bool pc_array_import(void);

/* ---- in ---- */

/* Any array-like as a plain ndarray; *natural is np.result_type(dtype, float32). May run any Python code. */
PyObject *pc_array_open(PyObject *value, const char *who, const char *name, pc_dtype *natural);

/* `array` itself where it is C-contiguous, aligned and of that type, else a copy that is. */
PyObject *pc_array_contiguous(PyObject *array, pc_dtype dtype, const char *who, const char *name);

/* The same elements on four axes: more are joined at the end, fewer than four get (N, C, 1, L) or (N, C, 1, 1). */
PyObject *pc_array_as_images(PyObject *array);

/* An array of three or four axes on its way to ops/. */
typedef struct {
    PyObject *array;  /* a strong reference, or NULL */
    int rank;         /* as the caller has it; `shape` holds only for 3 and 4 */
    int64_t shape[4]; /* n = 1 in front of three axes */
    pc_dtype natural; /* np.result_type(dtype, float32) */
    bool line;        /* `array` is a view with a height of 1 that its owner does not know of */
} pc_input;

/* Three steps. Opening looks at the array, and may run any Python code. Settling, once the geometry has agreed, makes
 * the copy that may be needed. Reading, right before ops/ runs, says where the elements are; it fails when somebody
 * has reshaped the array since it was opened. */
bool pc_input_open(pc_input *input, PyObject *value, const char *who, const char *name);
/* The same for (N, C, L) and (C, L), as images of height 1; of any other rank the input's is 0. */
bool pc_input_open_line(pc_input *input, PyObject *value, const char *who, const char *name);
bool pc_input_settle(pc_input *input, pc_dtype dtype, const char *who, const char *name);
bool pc_input_read(const pc_input *input, pc_dtype dtype, const char *who, pc_tensor *tensor);
/* The same for indices: any integer type that fits int64. `natural` has no meaning then. */
bool pc_input_open_indices(pc_input *input, PyObject *value, const char *who, const char *name);
bool pc_input_settle_indices(pc_input *input, const char *who, const char *name);
bool pc_input_read_indices(const pc_input *input, const char *who, pc_tensor *tensor);
void pc_input_close(pc_input *input);
/* The input's shape as its owner sees it, for messages: a tuple. */
PyObject *pc_input_shape(const pc_input *input);
/* Has a gradient the shape of what it is the gradient of? */
bool pc_check_grad_shape(const char *who, const pc_input *grad_output, const int64_t shape[4], int rank);
/* The same for an array of any rank; `shape` is a tuple. */
bool pc_check_grad_like(const char *who, PyObject *grad_output, PyObject *shape);

/* ---- out ---- */

/* New C-contiguous arrays, not filled. Rank 3 leaves out shape[0]. Not to be had: MemoryError. */
PyObject *pc_array_new(int rank, const int64_t shape[4], pc_dtype dtype, const char *who, const char *name);
/* The same without the height, which is 1: rank 3 and 4 give two and three axes. */
PyObject *pc_array_new_line(int rank, const int64_t shape[4], pc_dtype dtype, const char *who, const char *name);
PyObject *pc_array_new_indices(int rank, const int64_t shape[4], const char *who);
PyObject *pc_array_new_vector(int64_t size, pc_dtype dtype, const char *who, const char *name);
PyObject *pc_array_new_like(PyObject *array, pc_dtype dtype, const char *who, const char *name); /* of its shape */
PyObject *pc_array_copy(PyObject *array);

/* A parameter: zeros, on storage of its own that outlives whatever is done to the array object. */
PyObject *pc_parameter_new(int rank, const int64_t *shape, pc_dtype dtype, const char *who, const char *name);

/* ---- questions and small work; `array` is an ndarray ---- */

void *pc_array_data(PyObject *array);
int pc_array_rank(PyObject *array);
int64_t pc_array_size(PyObject *array, int axis);
int64_t pc_array_count(PyObject *array);          /* of its elements */
PyObject *pc_array_shape_object(PyObject *array); /* a tuple */
PyObject *pc_array_describe(PyObject *array);     /* "C-contiguous float32 array of shape (2, 3)" */
/* Has it exactly this type and shape, C-contiguous, aligned, in native byte order? */
bool pc_array_is(PyObject *array, int rank, const int64_t *shape, pc_dtype dtype);
bool pc_array_writeable(PyObject *array);
/* Is it an array of this very type, (size,), of any layout? May it be updated by pc_array_put(array, contiguous)? */
bool pc_array_is_vector(PyObject *object, int64_t size, pc_dtype dtype);
bool pc_array_put(PyObject *into, PyObject *from);
/* Where the number is, in a writeable int64 array of one element; NULL, without an exception, for all else. */
int64_t *pc_array_counter(PyObject *object);
/* into = from, and into += from: same type and shape, both C-contiguous. */
void pc_array_assign(PyObject *into, PyObject *from, pc_dtype dtype);
void pc_array_add(PyObject *into, PyObject *from, pc_dtype dtype);

bool pc_is_numpy_bool(PyObject *value);
/* What np.dtype takes, and then float32 or float64; NULL and None leave the default. */
bool pc_parse_dtype(PyObject *value, const char *who, pc_dtype *dtype);
PyObject *pc_dtype_object(pc_dtype dtype);
const char *pc_dtype_name(pc_dtype dtype);
/* Adds what is known about NumPy at build time. */
bool pc_array_build_info(PyObject *dict);

#endif
