"""Element by element: flops of what multiplies nothing together, by torch's name for it.

FREE       what only makes, moves, looks up, searches or asks
MADE       flops for each number that comes out
TAKEN      flops for each number that goes in
WINDOWS    one for each number in each window of a pooling, by the axes of the window
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod

import torch
from torch._ops import OpOverload

from shoal.costing.counting.storage import numbers
from shoal.costing.counting.work import Call, Work

_MAKES = """
    empty empty_strided empty_permuted empty_quantized zeros ones full eye arange range linspace logspace scalar_tensor
    tril_indices triu_indices zero fill set resize _resize_output rand randn randint randperm normal normal_functional
    uniform exponential cauchy geometric log_normal random bernoulli binomial poisson multinomial _standard_gamma
    _sample_dirichlet bartlett_window blackman_window hamming_window hann_window kaiser_window fft_fftfreq fft_rfftfreq
    _efficientzerotensor _empty_affine_quantized _empty_per_channel_affine_quantized _cudnn_init_dropout_state
"""
_MOVES = """
    clone copy _copy_from lift alias _reshape_alias _lazy_clone _pin_memory complex resize_as resize_as_sparse cat stack
    _stack _chunk_cat block_diag split_with_sizes unsafe_split unsafe_split_with_sizes roll rot90 flip repeat
    repeat_interleave tril triu diag_embed as_strided_scatter slice_scatter select_scatter diagonal_scatter
    select_backward slice_backward diagonal_backward constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d im2col pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d max_unpool2d max_unpool3d int_repr quantized.cat
    _cudnn_rnn_flatten_weight _pack_padded_sequence _jagged_to_padded_dense_forward _padded_dense_to_jagged_forward
    to_padded_tensor _nested_tensor_from_tensor_list _nested_tensor_from_mask _nested_from_padded
    _nested_from_padded_tensor _to_dense _to_sparse _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc
    to_mkldnn _coalesce coalesce _coalesced sparse_mask _sparse_mask_projection sparse_resize sparse_coo_tensor
    _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors sparse_compressed_tensor
    _sparse_compressed_tensor_with_dims _spdiags _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo
    _mkldnn_reshape _mkldnn_transpose mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight
"""
_LOOKS = """
    index index_select _unsafe_index _unsafe_masked_index gather take embedding masked_select nonzero nonzero_static
    index_fill masked_scatter sort topk searchsorted bucketize kthvalue median nanmedian mode isin _unique _unique2
    unique_consecutive unique_dim unique_dim_consecutive
"""
_ASKS = """
    _local_scalar_dense is_same_size is_set_to is_pinned is_coalesced _nnz sparse_dim dense_dim _dimI _dimV qscheme
    _has_same_storage_numel _fused_sdp_choice _linalg_check_errors _assert_async _assert_scalar _functional_assert_async
    _functional_assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size record_stream
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size _print q_scale q_zero_point
    q_per_channel_scales q_per_channel_zero_points q_per_channel_axis _validate_compressed_sparse_indices
    _validate_sparse_coo_tensor_args _validate_sparse_csr_tensor_args _validate_sparse_compressed_tensor_args
    _nested_tensor_size _nested_tensor_strides _nested_tensor_storage_offsets sym_size sym_stride sym_numel
    sym_storage_offset sym_is_contiguous size stride storage_offset numel dim
"""
_MADE = {  # beside what torch itself marks as pointwise, which makes 1
    1: """__and __iand __or __ior __xor __ixor __lshift __ilshift __rshift __irshift floor_divide quantized.add
          quantized.add_relu quantized.mul quantized.mul_relu""",
    2: """leaky_relu _prelu_kernel rrelu_with_noise rrelu_with_noise_functional native_dropout _fused_dropout hardshrink
          hardtanh relu6 dequantize _masked_scale _add_relu _native_batch_norm_legit_no_training _batch_norm_no_update
          batch_norm_elemt quantized_batch_norm quantized.batch_norm2d quantized.batch_norm2d_relu
          quantized_decomposed.quantize_per_tensor quantized_decomposed.dequantize_per_tensor
          quantized_decomposed.quantize_per_channel quantized_decomposed.dequantize_per_channel
          quantized_decomposed.quantize_per_token quantized_decomposed.dequantize_per_token""",
    3: """hardsigmoid lerp addcmul addcdiv softshrink linalg_cross cross polar logit renorm embedding_renorm
          _weight_norm_interface""",
    4: """sigmoid log_sigmoid_forward log_sigmoid_backward softplus elu celu selu hardswish logaddexp logaddexp2
          _fused_rms_norm upsample_linear1d quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic
          fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
          _fake_quantize_per_tensor_affine_cachemask_tensor_qparams""",
    5: """silu gelu glu softmax _softmax _safe_softmax _masked_softmax _sparse_softmax log_softmax _log_softmax
          _sparse_log_softmax""",
    6: "mish",
    7: "native_layer_norm native_group_norm _batch_norm_with_update",
    8: "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d",
    16: "upsample_trilinear3d grid_sampler_3d",
    18: "_thnn_fused_gru_cell",
    22: "_thnn_fused_lstm_cell",
    32: "upsample_bicubic2d _upsample_bicubic2d_aa",
}
_TAKEN = {
    1: """sum mean prod amax amin aminmax _aminmax max min argmax argmin any all nansum trace count_nonzero equal
          allclose _is_all_true _is_any_true hash_tensor cumsum cumprod cummax cummin _cummax_helper _cummin_helper
          col2im unfold_backward bincount histc _sparse_sum _sparse_csr_sum _sparse_csr_prod adaptive_avg_pool1d
          adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d
          adaptive_max_pool3d mkldnn_adaptive_avg_pool2d nll_loss_forward nll_loss2d_forward nll_loss_backward""",
    2: "norm linalg_vector_norm _choose_qparams_per_tensor",
    3: "dist mse_loss logcumsumexp _logcumsumexp",
    4: "var std var_mean std_mean batch_norm_stats logsumexp smooth_l1_loss huber_loss soft_margin_loss",
    6: "binary_cross_entropy binary_cross_entropy_with_logits",
}
_WINDOWS = {
    1: "avg_pool1d quantized_max_pool1d",
    2: "avg_pool2d max_pool2d_with_indices mkldnn_max_pool2d quantized_max_pool2d fractional_max_pool2d",
    3: "avg_pool3d max_pool3d_with_indices mkldnn_max_pool3d quantized_max_pool3d fractional_max_pool3d",
}


def _by_name(lists: Mapping[int, str]) -> dict[str, int]:
    return {name: number for number, names in lists.items() for name in names.split()}


FREE = frozenset(name for names in (_MAKES, _MOVES, _LOOKS, _ASKS) for name in names.split())
MADE, TAKEN, WINDOWS = _by_name(_MADE), _by_name(_TAKEN), _by_name(_WINDOWS)
BATCH_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "cudnn_batch_norm",
)
VIEWS = ("detach", "_unsafe_view", "lift_fresh")  # views that torch does not call so

COMPLEX = 2  # flops of a simple step on a complex number, and of a product or a quotient:
COMPLEX_PRODUCT = 6


def element_work(name: str, call: Call) -> Work | None:
    """The flops of what works element by element; None when it is not known to."""
    if _is_free(name, call):
        return Work(0)
    if name in TAKEN:
        return Work(0, TAKEN[name] * numbers(call.args[0]))
    if name in WINDOWS:
        return Work(0, call.first.numel() * _window(call.args[1], WINDOWS[name]))
    if name in BATCH_NORMS:
        return Work(0, (7 if call.named("training") else 2) * numbers(call.args[0]))
    steps = MADE.get(name, 1 if _is_pointwise(name) else None)
    if steps is None:
        forward = name.removesuffix("_data").removesuffix("_backward")
        return element_work(forward, call) if forward != name else None
    if call.first.is_complex():
        steps = COMPLEX_PRODUCT if name in ("mul", "div") else COMPLEX * steps
    return Work(0, steps * numbers(call.first))


def is_view(call: Call) -> bool:
    """Whether an operation only looks at its input in another way, or turns it in place."""
    func = call.func
    if not isinstance(func, OpOverload):
        return False
    return func.is_view or torch.Tag.inplace_view in func.tags or call.key in VIEWS


def _is_free(name: str, call: Call) -> bool:
    if name in FREE or name.endswith(("_copy", "_like")) or name.startswith(("new_", "profiler.")):
        return True
    return is_view(call)


@cache
def _is_pointwise(name: str) -> bool:
    """Whether torch marks it so; what writes in place is often not marked, but then the other is."""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, each) for each in packet.overloads()] if packet is not None else []
    return any(torch.Tag.pointwise in each.tags for each in overloads)


def _window(kernel: Sequence[int], axes: int) -> int:
    return prod(kernel) if len(kernel) > 1 else kernel[0] ** axes
