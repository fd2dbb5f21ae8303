/* parameters.h: a layer that owns a weight and a bias: what Conv1d, Conv2d, ConvTranspose2d and BatchNorm2d share.
 *
 * The weight and the bias are ndarrays that the layer owns and everybody may write to: `conv.weight -= lr * g` is the
 * way to train. Nobody can be kept from reshaping such an array in place, so each call looks at it anew. Either may be
 * missing for good.
 */
#ifndef PC_PY_PARAMETERS_H
#define PC_PY_PARAMETERS_H

#include "py/layer.h"

#include <stddef.h>

enum { PC_WEIGHT, PC_BIAS };

/* What an array looks like; rank 0: there is none. */
typedef struct {
    int rank;
    int64_t shape[4];
} pc_form;

/* A type with parameters begins its struct with this. */
typedef struct {
    pc_layer layer;
    pc_dtype dtype;
    pc_form forms[2];
    PyObject *parameters[2]; /* [PC_WEIGHT], [PC_BIAS]: ndarrays of the layer's own, or NULL for good */
    PyObject *gradients[2];  /* ndarrays, or NULL: none yet */
    bool requires_grad[2];
} pc_owner;

/* New zeros of those forms. */
bool pc_owner_make(const pc_form forms[2], pc_dtype dtype, const char *who, PyObject *parameters[2]);

/* The last step of an __init__: takes over the new parameters, drops the old ones, and is ready. */
void pc_owner_become(pc_owner *self, const pc_form forms[2], pc_dtype dtype, PyObject *parameters[2], const char *name);

int pc_owner_traverse(PyObject *object, visitproc visit, void *arg);
int pc_owner_clear(PyObject *object);

/* Are the arrays still what they were made as? Otherwise RuntimeError. */
bool pc_owner_check_parameters(const pc_owner *self);

/* Adds new gradients (each may be NULL) to those that stand. All or nothing. */
bool pc_owner_add_gradients(pc_owner *self, PyObject *const fresh[2]);

/* Attributes; the closure is PC_WEIGHT or PC_BIAS. */
PyObject *pc_owner_get_parameter(PyObject *object, void *which);
int pc_owner_set_parameter(PyObject *object, PyObject *value, void *which);
PyObject *pc_owner_get_gradient(PyObject *object, void *which);
int pc_owner_set_gradient(PyObject *object, PyObject *value, void *which);
PyObject *pc_owner_get_requires_grad(PyObject *object, void *which);
int pc_owner_set_requires_grad(PyObject *object, PyObject *value, void *which);
PyObject *pc_owner_get_dtype(PyObject *object, void *unused);

PyObject *pc_owner_set_dtype(PyObject *object, PyObject *value);

#define PC_OWNER_METHODS                                                                                               \
    {                                                                                                                  \
        "_set_dtype", pc_owner_set_dtype, METH_O,                                                                      \
            "_set_dtype($self, dtype, /)\n--\n\nConvert the parameters and gradients; new arrays take their place."    \
    }

#define PC_OWNER_ATTRIBUTES                                                                                            \
    {"dtype", pc_owner_get_dtype, NULL, "The parameters' type.", NULL},                                                \
        {"weight", pc_owner_get_parameter, pc_owner_set_parameter,                                                     \
         "The layer's own array, or None for good; setting copies into it.", (void *)PC_WEIGHT},                       \
        {"bias", pc_owner_get_parameter, pc_owner_set_parameter, "The layer's own array, or None for good.",           \
         (void *)PC_BIAS},                                                                                             \
        {"weight_grad", pc_owner_get_gradient, pc_owner_set_gradient,                                                  \
         "The sum of gradients, or None before the first.", (void *)PC_WEIGHT},                                        \
        {"bias_grad", pc_owner_get_gradient, pc_owner_set_gradient, "The sum of gradients, or None before the first.", \
         (void *)PC_BIAS},                                                                                             \
        {"_weight_requires_grad", pc_owner_get_requires_grad, pc_owner_set_requires_grad,                              \
         "Does backward compute weight_grad?", (void *)PC_WEIGHT},                                                     \
    {                                                                                                                  \
        "_bias_requires_grad", pc_owner_get_requires_grad, pc_owner_set_requires_grad,                                 \
            "Does backward compute bias_grad?", (void *)PC_BIAS                                                        \
    }

#endif
