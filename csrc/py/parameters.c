/* parameters.c: see parameters.h. */
#include "py/parameters.h"

#include <string.h>

static const char *const parameter_names[2] = {"weight", "bias"};
static const char *const gradient_names[2] = {"weight_grad", "bias_grad"};

static PyObject *form_object(const pc_form *wanted)
{
    int64_t shape[4] = {0};
    for (int i = 0; i < wanted->rank; i++) {
        shape[4 - wanted->rank + i] = wanted->shape[i];
    }
    return pc_shape_object(shape, wanted->rank);
}

bool pc_owner_make(const pc_form forms[2], pc_dtype dtype, const char *who, PyObject *parameters[2])
{
    static const char *const words[2] = {"the weight", "the bias"};
    parameters[0] = parameters[1] = NULL;
    for (int i = 0; i < 2; i++) {
        if (forms[i].rank > 0 &&
            !(parameters[i] = pc_parameter_new(forms[i].rank, forms[i].shape, dtype, who, words[i]))) {
            Py_CLEAR(parameters[0]);
            return false;
        }
    }
    return true;
}

void pc_owner_become(pc_owner *self, const pc_form forms[2], pc_dtype dtype, PyObject *parameters[2], const char *name)
{
    PyObject *old[4] = {self->parameters[0], self->parameters[1], self->gradients[0], self->gradients[1]};
    self->dtype = dtype;
    for (int i = 0; i < 2; i++) {
        self->forms[i] = forms[i];
        self->parameters[i] = parameters[i];
        self->gradients[i] = NULL;
        self->requires_grad[i] = true;
    }
    pc_layer_ready(&self->layer, name);
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(old[i]);
    }
}

int pc_owner_traverse(PyObject *object, visitproc visit, void *arg)
{
    pc_owner *self = (pc_owner *)object;
    for (int i = 0; i < 2; i++) {
        Py_VISIT(self->parameters[i]);
        Py_VISIT(self->gradients[i]);
    }
    return pc_layer_traverse(object, visit, arg);
}

int pc_owner_clear(PyObject *object)
{
    pc_owner *self = (pc_owner *)object;
    self->layer.ready = false; /* a layer without its arrays is none */
    for (int i = 0; i < 2; i++) {
        Py_CLEAR(self->parameters[i]);
        Py_CLEAR(self->gradients[i]);
    }
    return pc_layer_clear(object);
}

/* ---- checks ---- */

static bool check_array(const pc_owner *self, PyObject *array, int which, const char *name)
{
    pc_form wanted = self->forms[which];
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

bool pc_owner_check_parameters(const pc_owner *self)
{
    for (int i = 0; i < 2; i++) {
        if (self->parameters[i] && !check_array(self, self->parameters[i], i, parameter_names[i])) {
            return false;
        }
    }
    return true;
}

static bool check_writeable(const pc_owner *self, PyObject *array, const char *name)
{
    if (!pc_array_writeable(array)) {
        PyErr_Format(PyExc_ValueError, "%s: %s is read-only", self->layer.name, name);
        return false;
    }
    return true;
}

/* A contiguous array of the layer's type and the right shape from anything: a new reference, or NULL. */
static PyObject *fitting(const pc_owner *self, PyObject *value, int which, const char *name)
{
    pc_dtype natural;
    PyObject *array = pc_array_open(value, self->layer.name, name, &natural);
    if (!array) {
        return NULL;
    }
    pc_form wanted = self->forms[which];
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

PyObject *pc_owner_get_parameter(PyObject *object, void *which)
{
    pc_owner *self = (pc_owner *)object;
    if (!pc_layer_check(&self->layer)) {
        return NULL;
    }
    PyObject *array = self->parameters[(intptr_t)which];
    return Py_NewRef(array ? array : Py_None);
}

static bool check_set(pc_owner *self, PyObject *value, const char *name)
{
    if (!value) {
        PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
        return false;
    }
    return pc_layer_check(&self->layer);
}

/* None, and arrays for what does not exist. */
static int set_without_array(const pc_owner *self, PyObject *value, int which)
{
    const char *name = parameter_names[which];
    if (!self->parameters[which] && value == Py_None) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 self->parameters[which] ? "%s: %s must be an array, got None; only a new layer can be without"
                                         : "%s: %s must stay None, the layer was made without",
                 self->layer.name, name);
    return -1;
}

int pc_owner_set_parameter(PyObject *object, PyObject *value, void *closure)
{
    pc_owner *self = (pc_owner *)object;
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

PyObject *pc_owner_get_gradient(PyObject *object, void *which)
{
    pc_owner *self = (pc_owner *)object;
    if (!pc_layer_check(&self->layer)) {
        return NULL;
    }
    PyObject *array = self->gradients[(intptr_t)which];
    return Py_NewRef(array ? array : Py_None);
}

int pc_owner_set_gradient(PyObject *object, PyObject *value, void *closure)
{
    pc_owner *self = (pc_owner *)object;
    int which = (int)(intptr_t)closure;
    const char *name = gradient_names[which];
    if (!check_set(self, value, name)) {
        return -1;
    }
    PyObject *fresh = NULL;
    if (value != Py_None) {
        if (!self->parameters[which]) {
            PyErr_Format(PyExc_ValueError, "%s: %s must stay None, the layer was made without", self->layer.name, name);
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

bool pc_owner_add_gradients(pc_owner *self, PyObject *const fresh[2])
{
    for (int i = 0; i < 2; i++) {
        pc_form wanted = self->forms[i];
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

PyObject *pc_owner_get_requires_grad(PyObject *object, void *which)
{
    pc_owner *self = (pc_owner *)object;
    return pc_layer_check(&self->layer) ? PyBool_FromLong(self->requires_grad[(intptr_t)which]) : NULL;
}

int pc_owner_set_requires_grad(PyObject *object, PyObject *value, void *which)
{
    pc_owner *self = (pc_owner *)object;
    return check_set(self, value, "requires_grad") && pc_parse_truth(value, &self->requires_grad[(intptr_t)which]) ? 0
                                                                                                                   : -1;
}

/* ---- another type ---- */

PyObject *pc_owner_get_dtype(PyObject *object, void *Py_UNUSED(unused))
{
    return pc_layer_check((pc_layer *)object) ? pc_dtype_object(((pc_owner *)object)->dtype) : NULL;
}

PyObject *pc_owner_set_dtype(PyObject *object, PyObject *value)
{
    pc_owner *self = (pc_owner *)object;
    pc_dtype dtype = PC_F32;
    if (!pc_layer_check(&self->layer) || !pc_parse_dtype(value, self->layer.name, &dtype)) {
        return NULL;
    }
    if (dtype == self->dtype) {
        Py_RETURN_NONE;
    }
    /* Converting can warn, and a warning can run anything: what is converted is held, and looked at again after. */
    PyObject *old[2][2] = {{NULL, NULL}, {NULL, NULL}}, *converted[2][2] = {{NULL, NULL}, {NULL, NULL}};
    bool good = pc_owner_check_parameters(self);
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
            pc_form wanted = self->forms[i];
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
