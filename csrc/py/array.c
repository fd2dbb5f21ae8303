/* array.c: see array.h. The one file that sees NumPy.
 *
 * A caller's array is never written, and never kept from being used by its owner: ops/ reads it where it lies, by
 * pointer and steps, whenever its elements are native, aligned floats of the right type at whole-element distances.
 * Otherwise NumPy makes one C-ordered copy, after the geometry has agreed, so that a wrong shape costs nothing.
 */
#include "py/array.h"

#ifndef NPY_NO_DEPRECATED_API
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#endif
#ifndef NPY_TARGET_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#endif
#include <numpy/arrayobject.h>

#include <string.h>

#include "base/checked.h"
#include "base/scratch.h"
#include "py/args.h"

#define AS_ARRAY(object) ((PyArrayObject *)(object))
#define PARAMETER "pyconv parameter"

enum { SMALL_RESULT = 64 << 10 }; /* bytes, about: the C library keeps those */

_Static_assert(sizeof(npy_intp) == sizeof(int64_t), "sizes are 64 bits wide here and in NumPy");

bool pc_array_import(void) { return PyArray_ImportNumPyAPI() == 0; }

static int type_number(pc_dtype dtype) { return dtype == PC_F32 ? NPY_FLOAT : NPY_DOUBLE; }

/* ---- types ---- */

/* np.result_type(dtype, float32) for the types that NumPy brings along; false for those that are not real numbers. */
static bool natural_dtype(PyArrayObject *array, pc_dtype *natural)
{
    switch (PyArray_TYPE(array)) {
    case NPY_BOOL:
    case NPY_BYTE:
    case NPY_UBYTE:
    case NPY_SHORT:
    case NPY_USHORT:
    case NPY_HALF:
    case NPY_FLOAT:
        *natural = PC_F32;
        return true;
    case NPY_INT:
    case NPY_UINT:
    case NPY_LONG:
    case NPY_ULONG:
    case NPY_LONGLONG:
    case NPY_ULONGLONG:
    case NPY_DOUBLE:
        *natural = PC_F64;
        return true;
    default:
        break;
    }
    if (!PyTypeNum_ISUSERDEF(PyArray_TYPE(array))) {
        return false;
    }
    /* Somebody else's numbers (bfloat16 and its kin): NumPy knows what they become. */
    PyArray_Descr *single = PyArray_DescrFromType(NPY_FLOAT);
    PyArray_Descr *pair[2] = {PyArray_DESCR(array), single};
    PyArray_Descr *common = PyArray_ResultType(0, NULL, 2, pair);
    Py_DECREF(single);
    if (!common) {
        PyErr_Clear();
        return false;
    }
    int number = common->type_num;
    Py_DECREF(common);
    *natural = number == NPY_DOUBLE ? PC_F64 : PC_F32;
    return number == NPY_DOUBLE || number == NPY_FLOAT;
}

bool pc_is_numpy_bool(PyObject *value) { return PyArray_IsScalar(value, Bool); }

bool pc_parse_dtype(PyObject *value, const char *who, pc_dtype *dtype)
{
    if (!value || value == Py_None) {
        return true;
    }
    PyArray_Descr *descr = NULL;
    if (!PyArray_DescrConverter(value, &descr)) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)) {
            return false;
        }
        PyErr_Clear();
    }
    int number = descr ? descr->type_num : NPY_NOTYPE;
    Py_XDECREF(descr);
    if (number != NPY_FLOAT && number != NPY_DOUBLE) {
        PyErr_Format(PyExc_TypeError, "%s: dtype must be float32 or float64, got %.100R", who, value);
        return false;
    }
    *dtype = number == NPY_FLOAT ? PC_F32 : PC_F64;
    return true;
}

PyObject *pc_dtype_object(pc_dtype dtype) { return (PyObject *)PyArray_DescrFromType(type_number(dtype)); }

const char *pc_dtype_name(pc_dtype dtype) { return dtype == PC_F32 ? "float32" : "float64"; }

/* ---- in ---- */

static PyObject *from_dlpack(PyObject *value)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *array = numpy ? PyObject_CallMethod(numpy, "from_dlpack", "O", value) : NULL;
    Py_XDECREF(numpy);
    if (array && !PyArray_CheckExact(array)) {
        Py_DECREF(array);
        PyErr_SetString(PyExc_TypeError, "numpy.from_dlpack returned no array");
        return NULL;
    }
    return array;
}

static PyObject *as_plain_array(PyObject *value)
{
    if (PyArray_CheckExact(value)) {
        return Py_NewRef(value);
    }
    if (PyArray_Check(value)) {
        return PyArray_View(AS_ARRAY(value), NULL, &PyArray_Type);
    }
    if (pc_speaks_dlpack_only(value)) {
        return from_dlpack(value);
    }
    return PyArray_FromAny(value, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
}

static void refuse_dtype(PyObject *array, PyObject *value, const char *who, const char *name, const char *wanted)
{
    PyErr_Format(PyExc_TypeError, "%s: %s must be an array of %s, got dtype %S (from %.100s)", who, name, wanted,
                 PyArray_DESCR(AS_ARRAY(array)), Py_TYPE(value)->tp_name);
}

PyObject *pc_array_open(PyObject *value, const char *who, const char *name, pc_dtype *natural)
{
    PyObject *array = as_plain_array(value);
    if (array && !natural_dtype(AS_ARRAY(array), natural)) {
        refuse_dtype(array, value, who, name, "real numbers");
        Py_CLEAR(array);
    }
    return array;
}

static void no_memory(const char *who, const char *what, const char *name, PyObject *shape, const char *type)
{
    PyErr_Format(PyExc_MemoryError, "%s: cannot allocate %s%s of shape %.200S and type %s", who, what, name, shape,
                 type);
    Py_XDECREF(shape);
}

/* NumPy says ValueError for what cannot be represented: here both are MemoryError, with the argument's name. */
static bool is_memory_failure(void)
{
    return PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_ValueError);
}

/* A C-ordered copy of that type number. Float warnings turned into errors come through as they are. */
static PyObject *converted(PyObject *array, int number, const char *who, const char *name)
{
    PyArray_Descr *descr = PyArray_DescrFromType(number);
    PyObject *copy = PyArray_FromArray(AS_ARRAY(array), descr,
                                       NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST |
                                           NPY_ARRAY_ENSURECOPY | NPY_ARRAY_ENSUREARRAY);
    if (!copy && is_memory_failure()) {
        PyErr_Clear();
        PyObject *shape = pc_array_shape_object(array);
        if (shape) {
            no_memory(who, "a copy of ", name, shape,
                      number == NPY_FLOAT    ? "float32"
                      : number == NPY_DOUBLE ? "float64"
                                             : "int64");
        }
    }
    return copy;
}

static bool is_native(PyArrayObject *array, int number)
{
    return PyArray_TYPE(array) == number && PyArray_ISALIGNED(array) && PyArray_ISNOTSWAPPED(array);
}

PyObject *pc_array_contiguous(PyObject *array, pc_dtype dtype, const char *who, const char *name)
{
    int number = type_number(dtype);
    if (is_native(AS_ARRAY(array), number) && PyArray_IS_C_CONTIGUOUS(AS_ARRAY(array))) {
        return Py_NewRef(array);
    }
    return converted(array, number, who, name);
}

PyObject *pc_array_as_images(PyObject *array)
{
    const int rank = PyArray_NDIM(AS_ARRAY(array));
    if (rank == 4) {
        return Py_NewRef(array);
    }
    if (rank < 2) { /* it had two when it was looked at */
        PyErr_SetString(PyExc_RuntimeError, "an array was given another shape while the call went on");
        return NULL;
    }
    const npy_intp *sizes = PyArray_DIMS(AS_ARRAY(array));
    npy_intp shape[4] = {sizes[0], sizes[1], rank > 4 ? sizes[2] : 1, 1};
    for (int i = rank > 4 ? 3 : 2; i < rank; i++) {
        shape[3] *= sizes[i];
    }
    PyArray_Dims dims = {shape, 4};
    return PyArray_Newshape(AS_ARRAY(array), &dims, NPY_CORDER);
}

static void read_shape(pc_input *input)
{
    PyArrayObject *array = AS_ARRAY(input->array);
    int rank = input->rank = PyArray_NDIM(array);
    if (rank == 3 || rank == 4) {
        input->shape[0] = 1;
        for (int i = 0; i < rank; i++) {
            input->shape[4 - rank + i] = PyArray_DIM(array, i);
        }
    }
}

bool pc_input_open_line(pc_input *input, PyObject *value, const char *who, const char *name)
{
    input->line = false;
    input->rank = 0;
    input->array = pc_array_open(value, who, name, &input->natural);
    const int rank = input->array ? PyArray_NDIM(AS_ARRAY(input->array)) : 0;
    if (rank != 2 && rank != 3) {
        return input->array != NULL;
    }
    npy_intp shape[4];
    for (int i = 0; i <= rank; i++) {
        shape[i] = i == rank - 1 ? 1 : PyArray_DIM(AS_ARRAY(input->array), i == rank ? i - 1 : i);
    }
    PyArray_Dims dims = {shape, rank + 1};
    PyObject *view = PyArray_Newshape(AS_ARRAY(input->array), &dims, NPY_CORDER);
    Py_SETREF(input->array, view);
    if (view) {
        read_shape(input);
        input->line = true;
    }
    return view != NULL;
}

bool pc_input_open(pc_input *input, PyObject *value, const char *who, const char *name)
{
    input->line = false;
    input->array = pc_array_open(value, who, name, &input->natural);
    if (input->array) {
        read_shape(input);
    }
    return input->array != NULL;
}

bool pc_input_open_indices(pc_input *input, PyObject *value, const char *who, const char *name)
{
    input->natural = PC_F32;
    input->line = false;
    input->array = as_plain_array(value);
    if (!input->array) {
        return false;
    }
    PyArray_Descr *wide = PyArray_DescrFromType(NPY_INT64);
    bool fits = PyTypeNum_ISINTEGER(PyArray_TYPE(AS_ARRAY(input->array))) &&
                PyArray_CanCastTypeTo(PyArray_DESCR(AS_ARRAY(input->array)), wide, NPY_SAFE_CASTING);
    Py_DECREF(wide);
    if (!fits) {
        refuse_dtype(input->array, value, who, name, "integers that fit int64");
        Py_CLEAR(input->array);
        return false;
    }
    read_shape(input);
    return true;
}

/* Can ops/ read it where it lies? An axis of one element may claim any step, so that is never looked at. */
static bool is_readable(PyArrayObject *array, int number)
{
    if (!is_native(array, number)) {
        return false;
    }
    bool whole = true;
    for (int i = 0; i < PyArray_NDIM(array); i++) {
        whole &= PyArray_DIM(array, i) <= 1 || PyArray_STRIDE(array, i) % PyArray_ITEMSIZE(array) == 0;
    }
    return whole;
}

static bool settle(pc_input *input, int number, const char *who, const char *name)
{
    if (is_readable(AS_ARRAY(input->array), number)) {
        return true;
    }
    PyObject *copy = converted(input->array, number, who, name);
    if (copy) {
        Py_SETREF(input->array, copy);
    }
    return copy != NULL;
}

bool pc_input_settle(pc_input *input, pc_dtype dtype, const char *who, const char *name)
{
    return settle(input, type_number(dtype), who, name);
}

bool pc_input_settle_indices(pc_input *input, const char *who, const char *name)
{
    return settle(input, NPY_INT64, who, name);
}

static bool read_tensor(const pc_input *input, int number, const char *who, pc_tensor *tensor)
{
    PyArrayObject *array = AS_ARRAY(input->array);
    int rank = input->rank;
    bool same = PyArray_NDIM(array) == rank && is_readable(array, number);
    tensor->data = PyArray_DATA(array);
    tensor->step[0] = 0;
    for (int i = 0; same && i < rank; i++) {
        npy_intp size = PyArray_DIM(array, i);
        same = size == input->shape[4 - rank + i];
        tensor->step[4 - rank + i] = size > 1 ? PyArray_STRIDE(array, i) / PyArray_ITEMSIZE(array) : 0;
    }
    if (!same) {
        PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape or type while the call went on", who);
    }
    return same;
}

bool pc_input_read(const pc_input *input, pc_dtype dtype, const char *who, pc_tensor *tensor)
{
    return read_tensor(input, type_number(dtype), who, tensor);
}

bool pc_input_read_indices(const pc_input *input, const char *who, pc_tensor *tensor)
{
    return read_tensor(input, NPY_INT64, who, tensor);
}

void pc_input_close(pc_input *input) { Py_CLEAR(input->array); }

PyObject *pc_input_shape(const pc_input *input)
{
    PyObject *shape = pc_array_shape_object(input->array);
    return input->line ? pc_shape_without_height(shape) : shape;
}

bool pc_check_grad_shape(const char *who, const pc_input *grad_output, const int64_t shape[4], int rank)
{
    return (grad_output->rank == rank && memcmp(grad_output->shape, shape, sizeof grad_output->shape) == 0) ||
           pc_refuse_grad_shape(who, pc_input_shape(grad_output),
                                grad_output->line ? pc_shape_without_height(pc_shape_object(shape, rank))
                                                  : pc_shape_object(shape, rank));
}

bool pc_check_grad_like(const char *who, PyObject *grad_output, PyObject *shape)
{
    PyObject *got = pc_array_shape_object(grad_output);
    int same = got ? PyObject_RichCompareBool(got, shape, Py_EQ) : -1;
    if (same == 0) {
        return pc_refuse_grad_shape(who, got, Py_NewRef(shape));
    }
    Py_XDECREF(got);
    return same > 0;
}

/* ---- out ---- */

static void *take_result(void *Py_UNUSED(context), size_t bytes) { return pc_result_take(bytes); }

static void *take_zeros(void *Py_UNUSED(context), size_t count, size_t size)
{
    void *result = size > 0 && count > SIZE_MAX / size ? NULL : pc_result_take(count * size);
    return result ? memset(result, 0, count * size) : NULL;
}

static void *resize_result(void *Py_UNUSED(context), void *had, size_t bytes) { return pc_result_resize(had, bytes); }

static void give_result(void *Py_UNUSED(context), void *result, size_t Py_UNUSED(bytes)) { pc_result_give(result); }

static const PyDataMem_Handler result_memory = {
    "pyconv", 1, {NULL, take_result, take_zeros, resize_result, give_result}};

/* What is not small lies in memory that is kept when the array goes (base/scratch.h). */
static PyObject *fresh_array(int rank, npy_intp *sizes, int number)
{
    double bytes = sizeof(double);
    for (int i = 0; i < rank; i++) {
        bytes *= (double)sizes[i];
    }
    if (bytes < SMALL_RESULT) {
        return PyArray_EMPTY(rank, sizes, number, 0);
    }
    PyObject *handler = PyCapsule_New((void *)&result_memory, "mem_handler", NULL);
    PyObject *before = handler ? PyDataMem_SetHandler(handler) : NULL;
    PyObject *array = before ? PyArray_EMPTY(rank, sizes, number, 0) : NULL;
    PyObject *after = before ? PyDataMem_SetHandler(before) : NULL;
    if (!after) {
        Py_CLEAR(array);
    }
    Py_XDECREF(handler);
    Py_XDECREF(before);
    Py_XDECREF(after);
    return array;
}

static PyObject *new_array(int rank, const int64_t *shape, int number, const char *who, const char *name)
{
    npy_intp sizes[4];
    for (int i = 0; i < rank; i++) {
        sizes[i] = (npy_intp)shape[i];
    }
    PyObject *array = fresh_array(rank, sizes, number);
    if (!array && is_memory_failure()) {
        PyErr_Clear();
        PyObject *tuple = PyArray_IntTupleFromIntp(rank, sizes);
        if (tuple) {
            no_memory(who, "", name, tuple,
                      number == NPY_FLOAT    ? "float32"
                      : number == NPY_DOUBLE ? "float64"
                                             : "int64");
        }
    }
    return array;
}

PyObject *pc_array_new(int rank, const int64_t shape[4], pc_dtype dtype, const char *who, const char *name)
{
    return new_array(rank, shape + 4 - rank, type_number(dtype), who, name);
}

PyObject *pc_array_new_line(int rank, const int64_t shape[4], pc_dtype dtype, const char *who, const char *name)
{
    const int64_t sizes[3] = {shape[0], shape[1], shape[3]};
    return new_array(rank - 1, sizes + 4 - rank, type_number(dtype), who, name);
}

PyObject *pc_array_new_indices(int rank, const int64_t shape[4], const char *who)
{
    return new_array(rank, shape + 4 - rank, NPY_INT64, who, "the indices");
}

PyObject *pc_array_new_vector(int64_t size, pc_dtype dtype, const char *who, const char *name)
{
    return new_array(1, &size, type_number(dtype), who, name);
}

PyObject *pc_array_new_like(PyObject *array, pc_dtype dtype, const char *who, const char *name)
{
    PyObject *fresh = fresh_array(PyArray_NDIM(AS_ARRAY(array)), PyArray_DIMS(AS_ARRAY(array)), type_number(dtype));
    if (!fresh && is_memory_failure()) {
        PyErr_Clear();
        PyObject *shape = pc_array_shape_object(array);
        if (shape) {
            no_memory(who, "", name, shape, pc_dtype_name(dtype));
        }
    }
    return fresh;
}

PyObject *pc_array_copy(PyObject *array) { return PyArray_NewCopy(AS_ARRAY(array), NPY_CORDER); }

static void free_storage(PyObject *capsule) { pc_result_give(PyCapsule_GetPointer(capsule, PARAMETER)); }

/* The memory belongs to a capsule, not to the array, so ndarray.resize always refuses: nothing that is done to the
 * array object can take the storage away while somebody computes with it. Between the two stands one more array: NumPy
 * lets a read-only array become writeable again only where it finds a writeable one below. */
PyObject *pc_parameter_new(int rank, const int64_t *shape, pc_dtype dtype, const char *who, const char *name)
{
    npy_intp sizes[4];
    int64_t bytes = (int64_t)pc_dtype_size(dtype);
    bool overflow = false;
    for (int i = 0; i < rank; i++) {
        sizes[i] = (npy_intp)shape[i];
        overflow |= pc_mul(&bytes, bytes, shape[i]);
    }
    void *data = overflow ? NULL : pc_result_take((size_t)bytes);
    if (!data) {
        PyObject *tuple = PyArray_IntTupleFromIntp(rank, sizes);
        if (tuple) {
            no_memory(who, "", name, tuple, pc_dtype_name(dtype));
        }
        return NULL;
    }
    memset(data, 0, (size_t)bytes);
    PyObject *capsule = PyCapsule_New(data, PARAMETER, free_storage);
    if (!capsule) {
        pc_result_give(data);
        return NULL;
    }
    PyObject *array = PyArray_SimpleNewFromData(rank, sizes, type_number(dtype), data);
    if (!array) {
        Py_DECREF(capsule);
        return NULL;
    }
    if (PyArray_SetBaseObject(AS_ARRAY(array), capsule) < 0) { /* takes the capsule in any case */
        Py_DECREF(array);
        return NULL;
    }
    Py_SETREF(array, PyArray_View(AS_ARRAY(array), NULL, NULL));
    return array;
}

/* ---- questions and small work ---- */

void *pc_array_data(PyObject *array) { return PyArray_DATA(AS_ARRAY(array)); }

int pc_array_rank(PyObject *array) { return PyArray_NDIM(AS_ARRAY(array)); }

int64_t pc_array_count(PyObject *array) { return PyArray_SIZE(AS_ARRAY(array)); }

int64_t pc_array_size(PyObject *array, int axis) { return PyArray_DIM(AS_ARRAY(array), axis); }

PyObject *pc_array_shape_object(PyObject *array)
{
    return PyArray_IntTupleFromIntp(PyArray_NDIM(AS_ARRAY(array)), PyArray_DIMS(AS_ARRAY(array)));
}

PyObject *pc_array_describe(PyObject *array)
{
    PyObject *shape = pc_array_shape_object(array);
    PyObject *text = shape ? PyUnicode_FromFormat("%s %.100S array of shape %.200S",
                                                  PyArray_IS_C_CONTIGUOUS(AS_ARRAY(array)) ? "C-contiguous" : "strided",
                                                  PyArray_DESCR(AS_ARRAY(array)), shape)
                           : NULL;
    Py_XDECREF(shape);
    return text;
}

bool pc_array_is(PyObject *object, int rank, const int64_t *shape, pc_dtype dtype)
{
    PyArrayObject *array = AS_ARRAY(object);
    bool same = is_native(array, type_number(dtype)) && PyArray_IS_C_CONTIGUOUS(array) && PyArray_NDIM(array) == rank;
    for (int i = 0; same && i < rank; i++) {
        same = PyArray_DIM(array, i) == shape[i];
    }
    return same;
}

bool pc_array_writeable(PyObject *array) { return PyArray_ISWRITEABLE(AS_ARRAY(array)); }

bool pc_array_is_vector(PyObject *object, int64_t size, pc_dtype dtype)
{
    PyArrayObject *array = AS_ARRAY(object);
    return PyArray_Check(object) && PyArray_TYPE(array) == type_number(dtype) && PyArray_ISNOTSWAPPED(array) &&
           PyArray_NDIM(array) == 1 && PyArray_DIM(array, 0) == size;
}

bool pc_array_put(PyObject *into, PyObject *from) { return PyArray_CopyInto(AS_ARRAY(into), AS_ARRAY(from)) == 0; }

int64_t *pc_array_counter(PyObject *object)
{
    PyArrayObject *array = AS_ARRAY(object);
    const bool fit =
        PyArray_Check(object) && is_native(array, NPY_INT64) && PyArray_ISWRITEABLE(array) && PyArray_SIZE(array) == 1;
    return fit ? PyArray_DATA(array) : NULL;
}

void pc_array_assign(PyObject *into, PyObject *from, pc_dtype dtype)
{
    /* memmove: the two may be one */
    memmove(PyArray_DATA(AS_ARRAY(into)), PyArray_DATA(AS_ARRAY(from)),
            (size_t)PyArray_SIZE(AS_ARRAY(into)) * pc_dtype_size(dtype));
}

void pc_array_add(PyObject *into, PyObject *from, pc_dtype dtype)
{
    npy_intp count = PyArray_SIZE(AS_ARRAY(into));
    if (dtype == PC_F32) {
        float *sum = PyArray_DATA(AS_ARRAY(into));
        const float *term = PyArray_DATA(AS_ARRAY(from));
        for (npy_intp i = 0; i < count; i++) {
            sum[i] += term[i];
        }
    } else {
        double *sum = PyArray_DATA(AS_ARRAY(into));
        const double *term = PyArray_DATA(AS_ARRAY(from));
        for (npy_intp i = 0; i < count; i++) {
            sum[i] += term[i];
        }
    }
}

bool pc_array_build_info(PyObject *dict)
{
    PyObject *feature = PyLong_FromLong(NPY_FEATURE_VERSION);
    bool good = feature && PyDict_SetItemString(dict, "numpy_c_api", feature) == 0;
    Py_XDECREF(feature);
    return good;
}
