/* conv.h: the object behind Conv2d and ConvTranspose2d. conv.c gives it its life and its attributes, parameters.c keeps
 * its arrays.
 *
 * The weight and the bias are ndarrays that the layer owns and everybody may write to: `conv.weight -= lr * g` is the
 * way to train. Nobody can be kept from reshaping such an array in place, so each call looks at it anew.
 */
#ifndef PC_PY_CONV_H
#define PC_PY_CONV_H

#include "py/convolve.h"
#include "py/layer.h"

typedef struct {
    pc_layer layer;
    pc_conv_config config;
    pc_dtype dtype;
    PyObject *parameters[2]; /* [PC_WEIGHT], [PC_BIAS]: ndarrays of the layer's own; the bias may be NULL for good */
    PyObject *gradients[2];  /* ndarrays, or NULL: none yet */
    bool requires_grad[2];
} pc_conv_layer;

enum { PC_WEIGHT, PC_BIAS };

/* Zeros of the forms that the configuration asks for; parameters[PC_BIAS] is NULL without a bias. */
bool pc_conv_new_parameters(const pc_conv_config *config, pc_dtype dtype, bool has_bias, const char *who,
                            PyObject *parameters[2]);

/* Are the arrays still what they were made as? Otherwise RuntimeError. */
bool pc_conv_check_parameters(const pc_conv_layer *self);

/* Adds new gradients (each may be NULL) to those that stand. All or nothing. */
bool pc_conv_add_gradients(pc_conv_layer *self, PyObject *const fresh[2]);

/* Attributes; the closure is PC_WEIGHT or PC_BIAS. */
PyObject *pc_conv_get_parameter(PyObject *object, void *which);
int pc_conv_set_parameter(PyObject *object, PyObject *value, void *which);
PyObject *pc_conv_get_gradient(PyObject *object, void *which);
int pc_conv_set_gradient(PyObject *object, PyObject *value, void *which);
PyObject *pc_conv_get_requires_grad(PyObject *object, void *which);
int pc_conv_set_requires_grad(PyObject *object, PyObject *value, void *which);

PyObject *pc_conv_set_dtype(PyObject *object, PyObject *value);

#endif
