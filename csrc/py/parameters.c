/* parameters.c: the weight and the bias of a convolution layer, and their gradients. See conv.h. */
#include "py/conv.h"

static const char *const parameter_names[2] = {"weight", "bias"};
static const char *const gradient_names[2] = {"weight_grad", "bias_grad"};

/* What an array of this layer looks like. */
typedef struct {
    int rank;
    int64_t shape[4];
} form;

static form form_of(const pc_conv_config *config, int which)
{
    form wanted = {.rank = 1, .shape = {config->out_channels}};
    if (which == PC_WEIGHT) {
        wanted.rank = 4;
        pc_conv_weight_shape(config, wanted.shape);
    }
    return wanted;
}

static PyObject *form_object(const form *wanted)
{
    int64_t shape[4] = {0};
    for (int i = 0; i < wanted->rank; i++) {
        shape[4 - wanted->rank + i] = wanted->shape[i];
    }
    return pc_shape_object(shape, wanted->rank);
}

bool pc_conv_new_parameters(const pc_conv_config *config, pc_dtype dtype, bool has_bias, const char *who,
                            PyObject *parameters[2])
{
    parameters[PC_BIAS] = NULL;
    for (int i = 0; i < (has_bias ? 2 : 1); i++) {
        form wanted = form_of(config, i);
        parameters[i] =
            pc_parameter_new(wanted.rank, wanted.shape, dtype, who, i == PC_WEIGHT ? "the weight" : "the bias");
        if (!parameters[i]) {
            if (i == PC_BIAS) {
                Py_CLEAR(parameters[PC_WEIGHT]);
            }
            return false;
        }
    }
    return true;
}

/* ---- checks ---- */

static bool check_array(const pc_conv_layer *self, PyObject *array, int which, const char *name)
{
    form wanted = form_of(&self->config, which);
    if (pc_array_is(array, wanted.rank, wanted.shape, self->dtype)) {
        return true;
    }
    PyObject *expected = form_object(&wanted), *got = pc_array_describe(array);
    if (expected && got) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s: %s was changed in place: expected a C-contiguous %s array of shape %S, got a %S",
                     self->layer.name, name, pc_dtype_name(self->dtype), expected, got);
    }
    Py_XDECREF(expected);
    Py_XDECREF(got);
    return false;
}

bool pc_conv_check_parameters(const pc_conv_layer *self)
{
    for (int i = 0; i < 2; i++) {
        if (self->parameters[i] && !check_array(self, self->parameters[i], i, parameter_names[i])) {
            return false;
        }
    }
    return true;
}

static bool check_writeable(const pc_conv_layer *self, PyObject *array, const char *name)
{
    if (!pc_array_writeable(array)) {
        PyErr_Format(PyExc_ValueError, "%s: %s is read-only", self->layer.name, name);
        return false;
    }
    return true;
}

/* A contiguous array of the layer's type and the right shape from anything: a new reference, or NULL. */
static PyObject *fitting(const pc_conv_layer *self, PyObject *value, int which, const char *name)
{
    pc_dtype natural;
    PyObject *array = pc_array_open(value, self->layer.name, name, &natural);
    if (!array) {
        return NULL;
    }
    form wanted = form_of(&self->config, which);
    bool same = pc_array_rank(array) == wanted.rank;
    for (int i = 0; same && i < wanted.rank; i++) {
        same = pc_array_size(array, i) == wanted.shape[i];
    }
    PyObject *fit = NULL;
    if (same) {
        fit = pc_array_contiguous(array, self->dtype, self->layer.name, name);
    } else {
        PyObject *expected = form_object(&wanted), *got = pc_array_shape_object(array);
        if (expected && got) {
            PyErr_Format(PyExc_ValueError, "%s: expected %s of shape %S, got %.200S", self->layer.name, name, expected,
                         got);
        }
        Py_XDECREF(expected);
        Py_XDECREF(got);
    }
    Py_DECREF(array);
    return fit;
}

/* ---- parameters ---- */

PyObject *pc_conv_get_parameter(PyObject *object, void *which)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    if (!pc_layer_check(&self->layer)) {
        return NULL;
    }
    PyObject *array = self->parameters[(intptr_t)which];
    return Py_NewRef(array ? array : Py_None);
}

static bool check_set(pc_conv_layer *self, PyObject *value, const char *name)
{
    if (!value) {
        PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
        return false;
    }
    return pc_layer_check(&self->layer);
}

/* None, and arrays for what does not exist. */
static int set_without_array(const pc_conv_layer *self, PyObject *value, int which)
{
    if (which == PC_WEIGHT) {
        PyErr_Format(PyExc_TypeError, "%s: weight must be an array, got None", self->layer.name);
        return -1;
    }
    if (!self->parameters[PC_BIAS] && value == Py_None) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 self->parameters[PC_BIAS]
                     ? "%s: bias must be an array, got None; only bias=False makes a layer without"
                     : "%s: bias must stay None, the layer was made with bias=False",
                 self->layer.name);
    return -1;
}

int pc_conv_set_parameter(PyObject *object, PyObject *value, void *closure)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    int which = (int)(intptr_t)closure;
    const char *name = parameter_names[which];
    if (!check_set(self, value, name)) {
        return -1;
    }
    if (value == Py_None || !self->parameters[which]) {
        return set_without_array(self, value, which);
    }
    PyObject *fit = fitting(self, value, which, name);
    if (!fit) {
        return -1;
    }
    /* Looked at after the conversion, which may have run anything. `conv.weight -= g` ends here with the array itself. */
    PyObject *array = self->parameters[which];
    int result = -1;
    if (!array) {
        set_without_array(self, value, which);
    } else if (fit == array) {
        result = 0;
    } else if (check_array(self, array, which, name) && check_array(self, fit, which, name) &&
               check_writeable(self, array, name)) {
        pc_array_assign(array, fit, self->dtype);
        result = 0;
    }
    Py_DECREF(fit);
    return result;
}

/* ---- gradients ---- */

PyObject *pc_conv_get_gradient(PyObject *object, void *which)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    if (!pc_layer_check(&self->layer)) {
        return NULL;
    }
    PyObject *array = self->gradients[(intptr_t)which];
    return Py_NewRef(array ? array : Py_None);
}

int pc_conv_set_gradient(PyObject *object, PyObject *value, void *closure)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    int which = (int)(intptr_t)closure;
    const char *name = gradient_names[which];
    if (!check_set(self, value, name)) {
        return -1;
    }
    PyObject *fresh = NULL;
    if (value != Py_None) {
        if (!self->parameters[which]) {
            PyErr_Format(PyExc_ValueError, "%s: %s must stay None, the layer has no bias", self->layer.name, name);
            return -1;
        }
        PyObject *fit = fitting(self, value, which, name);
        if (!fit) {
            return -1;
        }
        /* `conv.weight_grad /= n` brings back what is here; everything else is copied, it belongs to somebody. */
        fresh = fit == self->gradients[which] ? Py_NewRef(fit) : pc_array_copy(fit);
        Py_DECREF(fit);
        if (!fresh) {
            return -1;
        }
    }
    Py_XSETREF(self->gradients[which], fresh);
    return 0;
}

bool pc_conv_add_gradients(pc_conv_layer *self, PyObject *const fresh[2])
{
    for (int i = 0; i < 2; i++) {
        form wanted = form_of(&self->config, i);
        if (!fresh[i]) {
            continue;
        }
        /* While the GIL was gone another thread may have made another layer of this, or set another gradient. */
        if (!self->parameters[i] || !pc_array_is(fresh[i], wanted.rank, wanted.shape, self->dtype)) {
            PyErr_Format(PyExc_RuntimeError, "%s: the layer was changed while its gradients were computed",
                         self->layer.name);
            return false;
        }
        if (self->gradients[i] && (!check_array(self, self->gradients[i], i, gradient_names[i]) ||
                                   !check_writeable(self, self->gradients[i], gradient_names[i]))) {
            return false;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (fresh[i] && self->gradients[i]) {
            pc_array_add(self->gradients[i], fresh[i], self->dtype);
        } else if (fresh[i]) {
            self->gradients[i] = Py_NewRef(fresh[i]);
        }
    }
    return true;
}

PyObject *pc_conv_get_requires_grad(PyObject *object, void *which)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    return pc_layer_check(&self->layer) ? PyBool_FromLong(self->requires_grad[(intptr_t)which]) : NULL;
}

int pc_conv_set_requires_grad(PyObject *object, PyObject *value, void *which)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    return check_set(self, value, "requires_grad") && pc_parse_truth(value, &self->requires_grad[(intptr_t)which]) ? 0
                                                                                                                   : -1;
}

/* ---- another type ---- */

PyObject *pc_conv_set_dtype(PyObject *object, PyObject *value)
{
    pc_conv_layer *self = (pc_conv_layer *)object;
    pc_dtype dtype = PC_F32;
    if (!pc_layer_check(&self->layer) || !pc_parse_dtype(value, self->layer.name, &dtype)) {
        return NULL;
    }
    if (dtype == self->dtype) {
        Py_RETURN_NONE;
    }
    /* Converting can warn, and a warning can run anything: what is converted is held, and looked at again after. */
    PyObject *old[2][2] = {{NULL, NULL}, {NULL, NULL}}, *converted[2][2] = {{NULL, NULL}, {NULL, NULL}};
    bool good = pc_conv_check_parameters(self);
    for (int i = 0; good && i < 4; i++) {
        PyObject *array = i < 2 ? self->parameters[i] : self->gradients[i - 2];
        if (!array) {
            continue;
        }
        const char *name = i < 2 ? parameter_names[i] : gradient_names[i - 2];
        old[i / 2][i % 2] = Py_NewRef(array);
        good = check_array(self, array, i % 2, name);
        PyObject *copy = good ? pc_array_contiguous(array, dtype, self->layer.name, name) : NULL;
        if (i < 2 && copy) { /* on storage of its own */
            form wanted = form_of(&self->config, i);
            PyObject *parameter = pc_parameter_new(wanted.rank, wanted.shape, dtype, self->layer.name, name);
            if (parameter && pc_array_is(copy, wanted.rank, wanted.shape, dtype)) {
                pc_array_assign(parameter, copy, dtype);
            }
            Py_SETREF(copy, parameter);
        }
        converted[i / 2][i % 2] = copy;
        good = good && copy;
    }
    for (int i = 0; good && i < 2; i++) {
        good = old[0][i] == self->parameters[i] && old[1][i] == self->gradients[i];
        if (!good) {
            PyErr_Format(PyExc_RuntimeError, "%s: the layer was changed while it was converted", self->layer.name);
        }
    }
    if (good) {
        for (int i = 0; i < 2; i++) {
            self->parameters[i] = converted[0][i];
            self->gradients[i] = converted[1][i];
            converted[0][i] = old[0][i];
            converted[1][i] = old[1][i];
        }
        self->dtype = dtype;
        pc_layer_forget(&self->layer);
    }
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(old[i / 2][i % 2]);
        Py_XDECREF(converted[i / 2][i % 2]);
    }
    if (!good) {
        return NULL;
    }
    Py_RETURN_NONE;
}
