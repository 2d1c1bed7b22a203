"""The student as one graph of standard operators, from images to instances."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.detectors import MaskFormer
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor, nn

from mmcast.deploy.deformable import decode_deformable
from mmcast.errors import CASTError
from mmcast.models.encoders.dinov2 import DINOv2
from mmcast.models.student.mask2former_head import CASTMask2FormerHead
from mmcast.models.student.postprocess import resize_weights

# Of every side of a mask, see resize_blocks.
BLOCKS = 8


class ExportableStudent(nn.Module):
    """Images to instances for batches and sizes that only the graph's input decides.

    The network is the student's own. New are preparation and post-processing, in tensor operations,
    with the values of mmdet's data preprocessor and ``MaskFormerFusionHead``; and the encoder's,
    whose own forward pass asks Python how large the image is, see :func:`encode`. Masks are
    upsampled for instances that can pass the threshold only: a score is a class score times a mask
    score of at most 1.

    Args:
        network: a Mask2Former, such as ``CASTMask2Former``, whose ``test_cfg`` has
            ``max_per_image``.
        fused_attention: whether a :class:`DINOv2` attends with onnxruntime's own operator instead
            of standard ones; such a module can be exported but not run.

    Raises:
        CASTError: it is not a MaskFormer of instances, or its encoder is another one and
            ``fused_attention`` is set.
    """

    def __init__(self, network: nn.Module, fused_attention: bool = False) -> None:
        super().__init__()
        if not isinstance(network, MaskFormer) or not network.test_cfg.get('instance_on'):
            raise CASTError(
                f'{type(network).__name__} is not a Mask2Former that segments instances '
                '(test_cfg.instance_on); only such a student is exported to ONNX'
            )
        self.backbone, self.head = network.backbone, network.panoptic_head
        self.attend = attend_in_onnxruntime if fused_attention else standard_attention
        if fused_attention and not isinstance(self.backbone, DINOv2):
            raise CASTError(
                f'{type(self.backbone).__name__} is not a DINOv2, whose attention alone '
                'onnxruntime can fuse here; export with standard operators'
            )
        self.neck = getattr(network, 'neck', None) or nn.Identity()
        preprocessor = network.data_preprocessor
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)
        self.bgr = not preprocessor._channel_conversion
        for name, neutral in (('mean', torch.zeros), ('std', torch.ones)):
            self.register_buffer(name, getattr(preprocessor, name, neutral(3, 1, 1)).clone())
        self.num_classes = network.panoptic_fusion_head.num_things_classes
        self.max_per_image = min(
            network.test_cfg.get('max_per_image', 100), self.head.num_queries * self.num_classes
        )

    def forward(
        self, images: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Segment.

        Args:
            images: (B, H, W, 3) of uint8, RGB.
            score_threshold: scalar; instances with a higher score are returned.

        Returns:
            Of the N instances of all images, image by image, the best first: boxes (N, 4) of
            float32, x1, y1, x2, y2 in pixels; masks (N, H, W) of bool; scores (N,); labels (N,) of
            int64; image_indices (N,) of int64.
        """
        height, width = images.shape[1:3]
        inputs = self.prepare(images)
        class_logits, mask_logits = self.decode(self.neck(self.encode(inputs)))
        scores, places = class_logits.softmax(-1)[..., :-1].flatten(1).topk(self.max_per_image)
        image, rank = torch.nonzero(scores > score_threshold, as_tuple=True)
        scores, places = scores[image, rank], places[image, rank]
        logits = mask_logits[image, places // self.num_classes]
        masks, areas, sums = full_size_masks(logits, inputs.shape[2:], (height, width))
        scores = scores * mean_probability(areas, sums)[:-1]
        (kept,) = torch.nonzero(scores > score_threshold, as_tuple=True)
        kept = kept[(scores[kept] - 2 * image[kept]).sort(descending=True).indices]
        return (
            boxes_from_sums(areas, sums)[kept],
            masks[kept],
            scores[kept],
            (places % self.num_classes)[kept],
            image[kept],
        )

    def prepare(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H', W'), padded at the bottom and right to multiples of the
        patch size.
        """
        height, width = images.shape[1:3]
        # As planes, or onnxruntime subtracts from three numbers at a time.
        pixels = images.permute(0, 3, 1, 2).flatten(2).float()
        if self.bgr:
            pixels = pixels.flip(1)
        # Rounded up without negative numbers: ONNX divides towards zero.
        bottom, right = (
            (side + self.divisor - 1) // self.divisor * self.divisor - side
            for side in (height, width)
        )
        pixels = (pixels - self.mean.flatten(1)) / self.std.flatten(1)
        pixels = pixels.unflatten(2, (height, width))
        return F.pad(pixels, (0, right, 0, bottom), value=self.pad_value)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (B, K, C + 1) and mask logits (B, K, h, w) of the last layer; the others'
        are not made.
        """
        if isinstance(self.head, CASTMask2FormerHead):
            outputs = self.head.decode(*self.decode_pixels(features), every_layer=False)
        else:
            outputs = self.head(features, None)
        return outputs[0][-1], outputs[1][-1]

    def decode_pixels(self, features: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """The pixel decoder's map of the masks, and those that the queries attend to."""
        if isinstance(self.head.pixel_decoder, MSDeformAttnPixelDecoder):
            return decode_deformable(self.head.pixel_decoder, features)
        return self.head.pixel_decoder(features)

    def encode(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps; those of a :class:`DINOv2` without its questions about the image's
        size.
        """
        if isinstance(self.backbone, DINOv2):
            return encode_images(self.backbone, inputs, self.attend)
        return self.backbone(inputs)


def standard_attention(attention: nn.Module, tokens: Tensor) -> Tensor:
    """Self attention (B, N, C) of mmpretrain's module, as it is."""
    return attention(tokens)


def attend_in_onnxruntime(attention: nn.Module, tokens: Tensor) -> Tensor:
    """The same as one operator of onnxruntime's, which never holds the weights of all pairs of
    tokens.
    """
    mixed = torch.onnx.ops.symbolic(
        'com.microsoft::MultiHeadAttention',
        attention.qkv(tokens).chunk(3, dim=-1),
        dict(num_heads=attention.num_heads),
        dtype=tokens.dtype,
        shape=tokens.shape,
        version=1,
    )
    return attention.gamma1(attention.proj(mixed))


def encode_images(
    backbone: DINOv2,
    inputs: Tensor,
    standard_attention: Callable[[nn.Module, Tensor], Tensor] = standard_attention,
) -> tuple[Tensor, ...]:
    """``backbone(inputs)`` for sides that are multiples of the patch size.

    The original pads where needed and interpolates the position embedding where its grid differs.
    An exporter would take either answer for all images; here the embedding is interpolated always,
    which changes nothing at equal size.
    """
    patches = backbone.patch_embed.projection(inputs)
    grid = patches.shape[-2:]
    positions = backbone.pos_embed[:, 1:].transpose(1, 2).unflatten(2, backbone.patch_resolution)
    # By matrices: far faster in onnxruntime than its cubic resize of all channels.
    rows, columns = (
        resize_weights(*sizes, positions, backbone.interpolate_mode)
        for sizes in zip(backbone.patch_resolution, grid)
    )
    positions = rows @ positions @ columns.T
    tokens = (patches + positions).flatten(2).transpose(1, 2)
    first = (backbone.cls_token + backbone.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
    tokens = torch.cat([first, tokens], dim=1)
    maps = []
    for index, layer in enumerate(backbone.layers):
        tokens = tokens + standard_attention(layer.attn, layer.ln1(tokens))
        tokens = layer.ffn(layer.ln2(tokens), identity=tokens)
        if index in backbone.out_indices:
            maps.append(backbone.ln1(tokens)[:, 1:].transpose(1, 2).unflatten(2, grid))
    return tuple(maps)


def full_size_masks(
    logits: Tensor, padded: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks at the size of the image, and what their scores and boxes are made of.

    A resized mask is a product with two matrices that are zero but for two numbers per row. Cut
    into blocks, there is a sixth of the work left. In a graph the masks are made one after the
    other: all at once they are larger than a processor's cache, and passes over them are what takes
    time.

    Args:
        logits: (N, h, w).
        padded: height and width of the network's input.
        size: (H, W) of the image in it.

    Returns:
        One more than there are logits, an empty one, as onnxruntime's Scan wants at least one:
        masks (N + 1, H, W) of bool; of every row, how many of its pixels are inside (N + 1, H); of
        every column, their summed ``2 p - 1`` (N + 1, W), p being the probability.
    """
    height, width = size
    rows, columns = (resize_blocks(*sizes, logits) for sizes in zip(logits.shape[1:], padded, size))
    column_weights = columns[1].transpose(1, 2).contiguous()
    # tanh(x / 2) is 2 sigmoid(x) - 1. Masks, scores and boxes all come from this one tensor.
    halved = torch.cat([logits / 2, torch.zeros_like(logits.sum(0, keepdim=True))])

    def make(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Transposed, as whole rows are copied faster than single numbers.
        mask = mask.transpose(-2, -1).index_select(-2, columns[0].flatten())
        mask = mask.unflatten(-2, columns[0].shape).transpose(-2, -1)
        mask = mask @ column_weights  # blocks of columns, h, columns of one
        mask = mask.index_select(-2, rows[0].flatten()).unflatten(-2, rows[0].shape)
        surplus = (rows[1] @ mask).flatten(-3, -2).relu().tanh()
        inside = (surplus > 0).transpose(-3, -2).flatten(-2)
        # A cast from bool runs on one thread in onnxruntime and takes ten times as long as ceil.
        areas = surplus.ceil().sum(-1).sum(-2)
        sums = surplus.sum(-2).flatten(-2)
        return inside[..., :height, :width], areas[..., :height], sums[..., :width]

    if not torch.compiler.is_exporting():
        return make(halved)
    from torch._higher_order_ops.scan import scan  # not public yet: no other than exports need it

    _, made = scan(lambda nothing, mask: (nothing.clone(), make(mask)), halved.new_zeros(1), halved)
    return made


def resize_blocks(
    size_in: int, size_out: int, size_kept: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """A resized dimension in blocks, see :func:`resize_weights`.

    Args:
        size_in: before.
        size_out: after; not smaller.
        size_kept: how much of it is needed, from the beginning.
        like: a tensor on the device of the result.

    Returns:
        What each of B blocks reads, as indices (B, m); and the weights (B, n, m) of its n outputs,
        zeros for what is beyond ``size_kept``.
    """
    weights = resize_weights(size_in, size_out, like)[:size_kept]
    outputs = (size_kept + BLOCKS - 1) // BLOCKS
    inputs = torch.sym_min((outputs * size_in + size_out - 1) // size_out + 2, size_in)
    block = torch.arange(BLOCKS, device=like.device)
    # Where the first output of a block lies between the inputs, in integers. Rounded down without
    # negative numbers: ONNX divides towards zero.
    first = ((2 * outputs * block + 1) * size_in - size_out).clamp(min=0) // (2 * size_out)
    places = first.clamp(max=size_in - inputs)[:, None] + torch.arange(inputs, device=like.device)
    weights = F.pad(weights, (0, 0, 0, outputs * BLOCKS - size_kept)).unflatten(0, (BLOCKS, -1))
    return places, weights.gather(2, places[:, None].expand(-1, outputs, -1))


def mean_probability(areas: Tensor, sums: Tensor) -> Tensor:
    """Mask scores (N,): the mean probability inside of masks, as in mmdet, of what
    :func:`full_size_masks` counts.
    """
    area = areas.sum(1)
    return (area + sums.sum(1)) / 2 / (area + 1e-6)


def boxes_from_sums(areas: Tensor, sums: Tensor) -> Tensor:
    """Tight boxes (N, 4) of masks that :func:`full_size_masks` counts, x2 and y2 exclusive; zeros
    for an empty mask.
    """
    sides = []
    for touched in (sums > 0, areas > 0):  # columns, rows
        place = torch.arange(touched.shape[1], device=touched.device)
        far = torch.where(touched, place + 1, 0).amax(1)
        near = torch.where(touched, place, touched.shape[1]).amin(1)
        sides.append((torch.minimum(near, far), far))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1).float()
