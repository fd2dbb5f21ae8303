/* words_f32.h: from here on the words without a dtype mean float. May be included again after the other one. */
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

#define T float
#define T_INT int32_t
#define V_LANES VF32_LANES
#define v_t vf32_t
#define v_int vi32_t
#define v_mask vm32_t
#define v_load vf32_load
#define v_store vf32_store
#define v_load_tail vf32_load_tail
#define v_store_tail vf32_store_tail
#define v_zero vf32_zero
#define v_set1 vf32_set1
#define v_add vf32_add
#define v_sub vf32_sub
#define v_div vf32_div
#define v_fma vf32_fma
#define v_even vf32_even
#define v_odd vf32_odd
#define v_zip_low vf32_zip_low
#define v_zip_high vf32_zip_high
#define v_add_to vf32_add_to
#define v_gt vf32_gt
#define v_isnan vf32_isnan
#define v_mask_or vf32_mask_or
#define v_mask_first vm32_first
#define v_mask_bits vm32_bits
#define v_mask_of vm32_of
#define v_select vf32_select
#define v_transpose vf32_transpose
#define v_keep vf32_keep
#define v_load_where vf32_load_where
#define vi_load vi32_load
#define vi_store vi32_store
#define vi_set1 vi32_set1
#define vi_select vi32_select
#define v_any vf32_any
#define v_max_number vf32_max_number
#define v_max vf32_max
#define v_load_or vf32_load_or
#define v_evens vf32_evens
#define v_odds vf32_odds
#define v_in_order vf32_in_order
#define v_load_step vf32_load_step
#define vi_in_order vi32_in_order
#define vi_add vi32_add
#define vi_max vi32_max
#define vi_store_wide vi32_store_wide
#define vi_store_wide_evens vi32_store_wide_evens
#define v_all vf32_all
#define v_mask_and vf32_mask_and
#define vi_eq vi32_eq
#define vi_load_narrow vi32_load_narrow
