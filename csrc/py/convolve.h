/* convolve.h: one convolution, forward or backward, from opened arrays to new ones. All layers and functions go through
 * here; what they differ in is where the configuration and the weights come from.
 *
 * A transposed convolution runs the three primitives of ops/ crosswise: geom.h tells how.
 */
#ifndef PC_PY_CONVOLVE_H
#define PC_PY_CONVOLVE_H

#include "py/array.h"
#include "py/state.h"

#include "geom/geom.h"

typedef struct {
    bool transposed;
    bool line;     /* one dimension: images of height 1, and windows too */
    bool per_side; /* padding was written ((top, bottom), (left, right)) */
    int64_t in_channels, out_channels, groups;
    pc_window window;
    int64_t output_padding[2]; /* transposed only */
} pc_conv_config;

/* The defaults of every constructor and function. */
void pc_conv_config_init(pc_conv_config *config, bool transposed);

/* Sizes and padding of Conv1d (`line`) and Conv2d; a height is 1, or nothing. */
bool pc_conv_parse_size(PyObject *value, const char *who, const char *name, bool line, int64_t pair[2]);
bool pc_conv_parse_padding(PyObject *value, const char *who, pc_conv_config *config);

/* What can be said before an input: channels, window, output padding. */
bool pc_conv_check(pc_conv_config *config, const char *who);

/* (out, in/groups, kh, kw), transposed (in, out/groups, kh, kw) */
void pc_conv_weight_shape(const pc_conv_config *config, int64_t shape[4]);

/* pc_input_open, or for one dimension pc_input_open_line. */
bool pc_conv_open(const pc_conv_config *config, pc_input *input, PyObject *value, const char *who, const char *name);

/* A configuration met an input shape. */
typedef struct {
    bool transposed, line;
    int rank; /* 3 or 4: input, output and their gradients alike */
    int64_t in_shape[4];
    int64_t out_shape[4];
    pc_conv_geom geom; /* of the convolution that ops/ runs */
} pc_conv_plan;

/* `output_size` is NULL or two numbers. */
bool pc_conv_plan_shape(pc_conv_plan *plan, const pc_conv_config *config, const char *who, const int64_t shape[4],
                        int rank, const int64_t *output_size);
/* The same, with the rank and the channels of an array checked first, in torch's words. */
bool pc_conv_plan_input(pc_conv_plan *plan, const pc_conv_config *config, const char *who, const pc_input *input,
                        const int64_t *output_size);
/* Is this the shape of the output's gradient? */
bool pc_conv_check_grad(const pc_conv_plan *plan, const char *who, const pc_input *grad_output);

/* A new output. `input` is settled, `weight` and `bias` (or NULL) are contiguous ndarrays of `dtype`. */
PyObject *pc_conv_run_forward(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype,
                              const pc_input *input, PyObject *weight, PyObject *bias);

/* New gradients (input, weight, bias) where `mask` says so, NULL elsewhere and after a failure. Where neither the
 * first nor the second is wanted, `weight` and `input` are not looked at. */
bool pc_conv_run_backward(pc_state *state, const pc_conv_plan *plan, const char *who, pc_dtype dtype,
                          const pc_input *input, const pc_input *grad_output, PyObject *weight,
                          const int64_t weight_shape[4], const bool mask[3], PyObject *gradients[3]);

#endif
