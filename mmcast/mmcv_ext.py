"""Stand-in for ``mmcv._ext``, mmcv's compiled operators: what instance segmentation needs, in plain
torch.

``compat.py`` offers this file to Python under the name ``mmcv._ext`` where mmcv was built without
operators. Names, argument order and in-place outputs are those of mmcv's compiled module
(mmcv/ops/*.py call it). An operator that is not here raises ``CASTError`` when it is called.
"""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor

from mmcast.errors import CASTError


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        bboxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: A box that overlaps a better one by more than this is dropped.
        offset: 1 if a box's width is x2 - x1 + 1, else 0.

    Returns:
        Indices of the kept boxes, best first.
    """
    corner = bboxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(bboxes + corner, scores, iou_threshold)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    height: int,
    width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    if pool_mode != 1:
        raise CASTError(_how_to_get("roi_align(pool_mode='max')"))
    return torchvision.ops.roi_align(
        features, rois, (height, width), spatial_scale, sampling_ratio, aligned
    )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average bilinear samples of ``input`` (B, C, H, W) in each bin of each region.

    ``rois`` is (N, 5): image, x1, y1, x2, y2. Fills ``output`` (N, C, aligned_height,
    aligned_width).
    """
    output.copy_(
        _roi_align(
            input,
            rois,
            aligned_height,
            aligned_width,
            spatial_scale,
            sampling_ratio,
            pool_mode,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (B, C, H, W); RoIAlign is linear, so the input does not matter."""
    with torch.enable_grad():
        features = torch.zeros_like(grad_input, requires_grad=True)
        output = _roi_align(
            features,
            rois,
            aligned_height,
            aligned_width,
            spatial_scale,
            sampling_ratio,
            pool_mode,
            aligned,
        )
    grad_input.copy_(torch.autograd.grad(output, features, grad_output)[0])


def _deformable_attention(
    value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """mmcv's own plain torch version, in float32 or better whatever autocast says; (B, Q, heads *
    dims).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    dtype = torch.promote_types(value.dtype, torch.float32)
    shapes = spatial_shapes.tolist()  # else a GPU is waited for at every use of one of its numbers
    with torch.autocast(value.device.type, enabled=False):
        return multi_scale_deformable_attn_pytorch(
            value.to(dtype), shapes, locations.to(dtype), weights.to(dtype)
        )


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, equation 3).

    Args:
        value: (B, sum of H * W over the L levels, heads, dims).
        spatial_shapes: (L, 2), height and width of each level.
        level_start_index: (L,), follows from ``spatial_shapes``.
        sampling_locations: (B, Q, heads, L, P, 2), x and y, 0 to 1 across the level.
        attention_weights: (B, Q, heads, L, P).
        im2col_step: How the compiled operator splits the batch; without meaning here.

    Returns:
        (B, Q, heads * dims) in the type of ``value``.
    """
    return _deformable_attention(value, spatial_shapes, sampling_locations, attention_weights).to(
        value.dtype
    )


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of the three inputs of ``ms_deform_attn_forward``, by running it once
    more, one image at a time: what that keeps is twenty times as large as the output.
    """
    inputs = (value, sampling_locations, attention_weights)
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for i in range(len(value)):
        one = slice(i, i + 1)
        with torch.enable_grad():
            of_image = [part[one].detach().requires_grad_() for part in inputs]
            output = _deformable_attention(of_image[0], spatial_shapes, of_image[1], of_image[2])
        gradients = torch.autograd.grad(output, of_image, grad_output[one].to(output.dtype))
        for target, gradient in zip(targets, gradients):
            target[one].copy_(gradient)


def get_compiler_version() -> str:
    """What ``mmcv.utils.collect_env`` prints about the compiler."""
    return 'n/a (operators in plain torch, from mmcast)'


def get_compiling_cuda_version() -> str:
    """What ``mmcv.utils.collect_env`` prints about CUDA."""
    return 'n/a (operators in plain torch, from mmcast)'


def _how_to_get(name: str) -> str:
    return (
        f'mmcv operator {name} is not compiled and mmcast has no replacement for it; compile mmcv '
        'for the installed torch (over 20 minutes): MMCV_WITH_OPS=1 pip install '
        '--no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv==2.3.6'
    )


def __getattr__(name: str) -> Callable:
    """mmcv asks for every operator by name at import; only a call of a missing one is an error."""
    if name.startswith('_'):
        raise AttributeError(name)

    def missing_operator(*args: Any, **kwargs: Any) -> None:
        raise CASTError(_how_to_get(name))

    return missing_operator
