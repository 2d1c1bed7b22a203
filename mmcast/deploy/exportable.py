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
            Of the N instances of all images, image by image: boxes (N, 4) of float32, x1, y1, x2,
            y2 in pixels; masks (N, H, W) of bool; scores (N,); labels (N,) of int64; image_indices
            (N,) of int64.
        """
        height, width = images.shape[1:3]
        inputs = self.prepare(images)
        class_logits, mask_logits = self.decode(self.neck(self.encode(inputs)))
        scores, places = class_logits.softmax(-1)[..., :-1].flatten(1).topk(self.max_per_image)
        image, rank = torch.nonzero(scores > score_threshold, as_tuple=True)
        scores, places = scores[image, rank], places[image, rank]
        logits = mask_logits[image, places // self.num_classes]
        rows, columns = (
            resize_weights(*sizes, logits) for sizes in zip(logits.shape[1:], inputs.shape[2:])
        )
        surplus = surplus_probability(rows[:height] @ (logits / 2 @ columns[:width].T))
        scores = scores * mean_probability(surplus)
        (kept,) = torch.nonzero(scores > score_threshold, as_tuple=True)
        masks = surplus > 0
        return (
            boxes_from_surplus(surplus)[kept],
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
        pixels = images.permute(0, 3, 1, 2).float()
        if self.bgr:
            pixels = pixels.flip(1)
        # Rounded up without negative numbers: ONNX divides towards zero.
        bottom, right = (
            (side + self.divisor - 1) // self.divisor * self.divisor - side
            for side in (height, width)
        )
        return F.pad((pixels - self.mean) / self.std, (0, right, 0, bottom), value=self.pad_value)

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


def surplus_probability(halved_logits: Tensor) -> Tensor:
    """2 p - 1 where a pixel's probability p is above one half, else 0, of logits divided by two.

    tanh(x / 2) is 2 sigmoid(x) - 1. Masks, scores and boxes all come from this one tensor: passes
    over all pixels of all masks are what takes time here, and onnxruntime makes these two in place,
    as nothing else reads the logits.
    """
    return halved_logits.clamp(0, 100).tanh()


def mean_probability(surplus: Tensor) -> Tensor:
    """Mask scores (N,): the mean probability inside of masks (N, H, W), as in mmdet."""
    area = surplus.ceil().sum(
        (1, 2)
    )  # a cast from bool runs on one thread in onnxruntime and takes ten times as long
    return (area + surplus.sum((1, 2))) / 2 / (area + 1e-6)


def boxes_from_surplus(surplus: Tensor) -> Tensor:
    """Tight boxes (N, 4) of masks (N, H, W) that are positive inside, x2 and y2 exclusive; zeros
    for an empty mask.
    """
    sides = []
    for touched in (surplus.amax(1) > 0, surplus.amax(2) > 0):  # columns, rows
        place = torch.arange(touched.shape[1], device=surplus.device)
        far = torch.where(touched, place + 1, 0).amax(1)
        near = torch.where(touched, place, touched.shape[1]).amin(1)
        sides.append((torch.minimum(near, far), far))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1).float()
