/* normalise.c: see normalise.h. Statistics travel as a bytes object: it cannot be changed or reshaped by anybody while
 * it waits for a backward. Running arrays are the caller's, of any layout: their new values are made beside them and
 * copied in when all else has succeeded. */
#include "py/normalise.h"

#include <assert.h>
#include <string.h>

#include "py/args.h"
#include "py/run.h"

static bool is_given(PyObject *value) { return value && value != Py_None; }

/* ---- arrays of one value per channel ---- */

/* A vector of `size` elements from anything, in `dtype` and contiguous: a new reference. */
static PyObject *vector_of(PyObject *value, int64_t size, pc_dtype dtype, const char *who, const char *name)
{
    pc_dtype natural;
    PyObject *array = pc_array_open(value, who, name, &natural), *vector = NULL;
    if (!array) {
        return NULL;
    }
    if (pc_array_rank(array) == 1 && pc_array_size(array, 0) == size) {
        vector = pc_array_contiguous(array, dtype, who, name);
    } else {
        PyObject *shape = pc_array_shape_object(array);
        if (shape) {
            PyErr_Format(PyExc_ValueError, "%s: %s should contain %lld elements, one per channel, got shape %.200S",
                         who, name, (long long)size, shape);
        }
        Py_XDECREF(shape);
    }
    Py_DECREF(array);
    return vector;
}

bool pc_norm_vector(PyObject *value, int64_t size, pc_dtype dtype, const char *who, const char *name, PyObject **vector)
{
    *vector = is_given(value) ? vector_of(value, size, dtype, who, name) : NULL;
    return *vector || !is_given(value);
}

static bool read_vector(PyObject *value, int64_t size, const char *who, const char *name, double *numbers)
{
    PyObject *vector = vector_of(value, size, PC_F64, who, name);
    if (vector && size > 0) {
        memcpy(numbers, pc_array_data(vector), (size_t)size * sizeof(double));
    }
    Py_XDECREF(vector);
    return vector != NULL;
}

/* May a running array be updated in place? */
static bool check_running(PyObject *value, int64_t size, pc_dtype dtype, const char *who, const char *name)
{
    if (pc_array_is_vector(value, size, dtype) && pc_array_writeable(value)) {
        return true;
    }
    if (pc_array_is_vector(value, size, dtype)) {
        PyErr_Format(PyExc_ValueError, "%s: %s is updated and must not be read-only", who, name);
        return false;
    }
    PyObject *vector = vector_of(value, size, dtype, who, name); /* says what is wrong with a shape */
    if (vector) {
        PyErr_Format(PyExc_TypeError, "%s: %s is updated and must be an array of %s, got %.200R", who, name,
                     pc_dtype_name(dtype), value);
        Py_DECREF(vector);
    }
    return false;
}

/* Both or none; whether they can be read, or with `batch` updated. */
static bool check_running_pair(const pc_norm_call *call, const char *who, pc_dtype dtype, int64_t size)
{
    const bool mean = is_given(call->running_mean), var = is_given(call->running_var);
    if (call->batch && mean != var) {
        PyErr_Format(PyExc_ValueError, "%s: running_mean and running_var must either both be None or neither be None",
                     who);
        return false;
    }
    if (!call->batch && (!mean || !var)) {
        PyErr_Format(PyExc_ValueError, "%s: %s must be defined in evaluation mode, got None", who,
                     mean ? "running_var" : "running_mean");
        return false;
    }
    return !call->batch || !mean ||
           (check_running(call->running_mean, size, dtype, who, "running_mean") &&
            check_running(call->running_var, size, dtype, who, "running_var"));
}

/* ---- the plan ---- */

/* Is the batch large enough, and eps fit for it? */
static bool check_call(const pc_norm_call *call, const char *who, PyObject *array)
{
    /* No channels say nothing about their size, so sizes are multiplied here as torch does. */
    int64_t count = 1;
    for (int i = 0; i < pc_array_rank(array) && count < 2; i++) {
        count = i == 1 ? count : count * pc_array_size(array, i);
        if (pc_array_size(array, i) == 0 && i != 1) {
            count = 2;
        }
    }
    if (call->batch && count == 1) {
        PyObject *shape = pc_array_shape_object(array), *list = shape ? PySequence_List(shape) : NULL;
        if (list) {
            PyErr_Format(PyExc_ValueError,
                         "%s: Expected more than 1 value per channel when training, got input size %R", who, list);
        }
        Py_XDECREF(shape);
        Py_XDECREF(list);
        return false;
    }
    if (call->batch ? call->eps > 0 : call->eps >= 0) {
        return true;
    }
    PyObject *eps = PyFloat_FromDouble(call->eps);
    if (eps) {
        PyErr_Format(PyExc_ValueError,
                     call->batch ? "%s: batch_norm eps must be positive during training, but got %R"
                                 : "%s: batch_norm eps must be non-negative, but got %R",
                     who, eps);
    }
    Py_XDECREF(eps);
    return false;
}

/* The input as four axes that ops/ can read. */
static bool open_images(pc_input *input, PyObject *array, pc_dtype dtype, const char *who, const char *name)
{
    PyObject *images = pc_array_as_images(array);
    bool good = images && pc_input_open(input, images, who, name);
    Py_XDECREF(images);
    if (good && !pc_input_settle(input, dtype, who, name)) {
        pc_input_close(input);
        good = false;
    }
    return good;
}

/* Room for the statistics, filled with the running ones where those count. */
static PyObject *new_statistics(const pc_norm_call *call, const char *who, int64_t channels)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (2 * channels + 1) * (Py_ssize_t)sizeof(double));
    double *numbers = bytes ? (double *)PyBytes_AS_STRING(bytes) : NULL;
    if (bytes && !call->batch &&
        (!read_vector(call->running_mean, channels, who, "running_mean", numbers) ||
         !read_vector(call->running_var, channels, who, "running_var", numbers + channels))) {
        Py_CLEAR(bytes);
    }
    if (bytes) {
        numbers[2 * channels] = call->eps;
    }
    return bytes;
}

static bool is_consistent(PyObject *result, const pc_input *input, const char *who)
{
    const int64_t *shape = input->shape;
    if (pc_array_count(result) == shape[0] * shape[1] * shape[2] * shape[3]) {
        return true;
    }
    PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape while the call went on", who);
    return false;
}

static pc_norm norm_of(const pc_norm_call *call, const pc_input *input, PyObject *statistics)
{
    double *numbers = (double *)PyBytes_AS_STRING(statistics);
    pc_norm norm = {.batch = call->batch,
                    .eps = numbers[2 * input->shape[1]],
                    .mean = numbers,
                    .variance = numbers + input->shape[1],
                    .weight = is_given(call->weight) ? pc_array_data(call->weight) : NULL,
                    .bias = is_given(call->bias) ? pc_array_data(call->bias) : NULL};
    memcpy(norm.shape, input->shape, sizeof norm.shape);
    return norm;
}

static bool begin(pc_state *state, const pc_norm *norm, const char *who, pc_dtype dtype, pc_run *run)
{
    int threads = pc_threads(state);
    if (threads < 0) {
        return false;
    }
    pc_error error;
    pc_status status = pc_norm_begin(norm, dtype, threads, &run->call, &error);
    if (status != PC_OK) {
        return pc_raise(who, status, &error);
    }
    pc_run_start(run);
    return true;
}

/* ---- forward ---- */

/* Fills the statistics, and the output where it is not NULL. */
static bool forward(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype, const pc_input *input,
                    PyObject *statistics, PyObject *output)
{
    const pc_norm norm = norm_of(call, input, statistics);
    pc_tensor in;
    pc_run run;
    if (!pc_input_read(input, dtype, who, &in) || !begin(state, &norm, who, dtype, &run)) {
        return false;
    }
    pc_norm_forward(&norm, output ? pc_array_data(output) : NULL, &in, &run.call);
    return pc_run_finish(&run);
}

PyObject *pc_norm_run_forward(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype,
                              PyObject *array, PyObject **statistics)
{
    const int64_t channels = call->channels;
    pc_input input = {.array = NULL};
    PyObject *output = NULL;
    *statistics = NULL;
    bool good = check_running_pair(call, who, dtype, channels) && check_call(call, who, array) &&
                (*statistics = new_statistics(call, who, channels)) &&
                open_images(&input, array, dtype, who, "input") &&
                (output = pc_array_new_like(array, dtype, who, "the output")) && input.shape[1] == channels &&
                is_consistent(output, &input, who) && forward(state, call, who, dtype, &input, *statistics, output);
    pc_input_close(&input);
    if (!good) {
        Py_CLEAR(output);
        Py_CLEAR(*statistics);
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape while the call went on", who);
        }
    }
    return output;
}

PyObject *pc_norm_statistics(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype,
                             PyObject *array)
{
    const int64_t channels = call->channels;
    pc_input input = {.array = NULL};
    pc_norm_call own = *call;
    if (call->batch) {
        own.running_mean = own.running_var = NULL; /* nothing is updated in a backward */
    }
    PyObject *statistics = NULL;
    bool good = check_running_pair(&own, who, dtype, channels) && check_call(&own, who, array) &&
                (statistics = new_statistics(&own, who, channels));
    if (good && call->batch) {
        good = open_images(&input, array, dtype, who, "input") && is_consistent(input.array, &input, who) &&
               input.shape[1] == channels && forward(state, &own, who, dtype, &input, statistics, NULL);
        pc_input_close(&input);
    }
    if (!good) {
        Py_CLEAR(statistics);
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape while the call went on", who);
        }
    }
    return statistics;
}

/* A new vector: (1 - momentum) * running + momentum * scale * batch. */
static PyObject *moved(PyObject *running, const double *batch, int64_t size, double scale, double momentum,
                       pc_dtype dtype, const char *who, const char *name)
{
    PyObject *fresh = pc_array_new_vector(size, dtype, who, name);
    double *old = fresh ? PyMem_New(double, (size_t)size + 1) : NULL;
    bool good = old && read_vector(running, size, who, name, old);
    if (fresh && !old) {
        PyErr_NoMemory();
    }
    for (int64_t i = 0; good && i < size; i++) {
        const double value = (1 - momentum) * old[i] + momentum * (batch[i] * scale);
        if (dtype == PC_F32) {
            ((float *)pc_array_data(fresh))[i] = (float)value;
        } else {
            ((double *)pc_array_data(fresh))[i] = value;
        }
    }
    PyMem_Free(old);
    if (!good) {
        Py_CLEAR(fresh);
    }
    return fresh;
}

bool pc_norm_move(const pc_norm_call *call, const char *who, pc_dtype dtype, PyObject *statistics, PyObject *output,
                  double momentum)
{
    const int64_t size = call->channels, count = pc_array_count(output) / pc_max(size, 1);
    const double *numbers = (const double *)PyBytes_AS_STRING(statistics);
    if (!call->batch || !is_given(call->running_mean) || count < 2) {
        return true;
    }
    /* Looked at once more: while the GIL was gone somebody may have changed them. */
    if (!check_running_pair(call, who, dtype, size)) {
        return false;
    }
    const double unbiased = (double)count / (double)(count - 1);
    PyObject *mean = moved(call->running_mean, numbers, size, 1, momentum, dtype, who, "running_mean");
    PyObject *var =
        mean ? moved(call->running_var, numbers + size, size, unbiased, momentum, dtype, who, "running_var") : NULL;
    bool good = var && pc_array_put(call->running_mean, mean) && pc_array_put(call->running_var, var);
    Py_XDECREF(mean);
    Py_XDECREF(var);
    return good;
}

/* ---- backward ---- */

bool pc_norm_run_backward(pc_state *state, const pc_norm_call *call, const char *who, pc_dtype dtype, PyObject *array,
                          PyObject *grad_output, PyObject *statistics, const bool mask[3], PyObject *gradients[3])
{
    static const char *const names[3] = {"the input's gradient", "the weight's gradient", "the bias' gradient"};
    const int64_t channels = call->channels;
    pc_input input = {.array = NULL}, grad = {.array = NULL};
    gradients[0] = gradients[1] = gradients[2] = NULL;
    bool good =
        open_images(&input, array, dtype, who, "input") && open_images(&grad, grad_output, dtype, who, "grad_output");
    for (int i = 0; good && i < 3; i++) {
        if (mask[i]) {
            gradients[i] = i == 0 ? pc_array_new_like(array, dtype, who, names[i])
                                  : pc_array_new_vector(channels, dtype, who, names[i]);
            good = gradients[i] && (i > 0 || is_consistent(gradients[i], &input, who));
        }
    }
    assert(PyBytes_GET_SIZE(statistics) == (2 * channels + 1) * (Py_ssize_t)sizeof(double));
    if (good && (memcmp(input.shape, grad.shape, sizeof input.shape) != 0 || input.shape[1] != channels)) {
        PyErr_Format(PyExc_RuntimeError, "%s: an array was given another shape while the call went on", who);
        good = false;
    }
    pc_tensor in, out;
    good = good && pc_input_read(&input, dtype, who, &in) && pc_input_read(&grad, dtype, who, &out);
    if (good && (mask[0] || mask[1] || mask[2])) {
        const pc_norm norm = norm_of(call, &input, statistics);
        void *results[3];
        for (int i = 0; i < 3; i++) {
            results[i] = gradients[i] ? pc_array_data(gradients[i]) : NULL;
        }
        pc_run run;
        good = begin(state, &norm, who, dtype, &run);
        if (good) {
            pc_norm_backward(&norm, results[0], results[1], results[2], &out, &in, &run.call);
            good = pc_run_finish(&run);
        }
    }
    for (int i = 0; !good && i < 3; i++) {
        Py_CLEAR(gradients[i]);
    }
    pc_input_close(&input);
    pc_input_close(&grad);
    return good;
}
