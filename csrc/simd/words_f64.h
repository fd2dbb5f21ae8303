/* words_f64.h: from here on the words without a dtype mean double. May be included again after the other one. */
#undef T
#undef T_INT
#undef V_LANES
#undef v_t
#undef v_int
#undef v_mask
#undef v_load
#undef v_store
#undef v_load_tail
#undef v_store_tail
#undef v_zero
#undef v_set1
#undef v_add
#undef v_sub
#undef v_div
#undef v_fma
#undef v_add_to
#undef v_gt
#undef v_isnan
#undef v_mask_or
#undef v_mask_first
#undef v_mask_bits
#undef v_mask_of
#undef v_select
#undef vi_load
#undef vi_store
#undef vi_set1
#undef vi_select

#define T double
#define T_INT int64_t
#define V_LANES VF64_LANES
#define v_t vf64_t
#define v_int vi64_t
#define v_mask vm64_t
#define v_load vf64_load
#define v_store vf64_store
#define v_load_tail vf64_load_tail
#define v_store_tail vf64_store_tail
#define v_zero vf64_zero
#define v_set1 vf64_set1
#define v_add vf64_add
#define v_sub vf64_sub
#define v_div vf64_div
#define v_fma vf64_fma
#define v_add_to vf64_add_to
#define v_gt vf64_gt
#define v_isnan vf64_isnan
#define v_mask_or vf64_mask_or
#define v_mask_first vm64_first
#define v_mask_bits vm64_bits
#define v_mask_of vm64_of
#define v_select vf64_select
#define vi_load vi64_load
#define vi_store vi64_store
#define vi_set1 vi64_set1
#define vi_select vi64_select
