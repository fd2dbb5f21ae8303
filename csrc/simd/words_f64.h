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
#undef v_even
#undef v_odd
#undef v_zip_low
#undef v_zip_high
#undef v_add_to
#undef v_gt
#undef v_isnan
#undef v_mask_or
#undef v_mask_first
#undef v_mask_bits
#undef v_mask_of
#undef v_select
#undef v_transpose
#undef v_keep
#undef v_load_where
#undef vi_load
#undef vi_store
#undef vi_set1
#undef vi_select
#undef v_any
#undef v_all
#undef v_mask_and
#undef vi_eq
#undef vi_load_narrow
#undef v_max_number
#undef v_max
#undef v_load_or
#undef v_evens
#undef v_odds
#undef v_in_order
#undef v_load_step
#undef vi_in_order
#undef vi_add
#undef vi_max
#undef vi_store_wide
#undef vi_store_wide_evens

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
#define v_even vf64_even
#define v_odd vf64_odd
#define v_zip_low vf64_zip_low
#define v_zip_high vf64_zip_high
#define v_add_to vf64_add_to
#define v_gt vf64_gt
#define v_isnan vf64_isnan
#define v_mask_or vf64_mask_or
#define v_mask_first vm64_first
#define v_mask_bits vm64_bits
#define v_mask_of vm64_of
#define v_select vf64_select
#define v_transpose vf64_transpose
#define v_keep vf64_keep
#define v_load_where vf64_load_where
#define vi_load vi64_load
#define vi_store vi64_store
#define vi_set1 vi64_set1
#define vi_select vi64_select
#define v_any vf64_any
#define v_max_number vf64_max_number
#define v_max vf64_max
#define v_load_or vf64_load_or
#define v_evens vf64_evens
#define v_odds vf64_odds
#define v_in_order vf64_in_order
#define v_load_step vf64_load_step
#define vi_in_order vi64_in_order
#define vi_add vi64_add
#define vi_max vi64_max
#define vi_store_wide vi64_store_wide
#define vi_store_wide_evens vi64_store_wide_evens
#define v_all vf64_all
#define v_mask_and vf64_mask_and
#define vi_eq vi64_eq
#define vi_load_narrow vi64_load_narrow
