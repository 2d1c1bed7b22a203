"""SAM2 as the component of the teacher that turns boxes into masks; the network is
``transformers.Sam2Model``.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms.v2 import functional as image_functional
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model

from mmcast.errors import CASTError
from mmcast.models.activation_checkpointing import checkpoint_activations
from mmcast.models.embedding_cache import EmbeddingCache
from mmcast.models.losses.prompted_masks import prompted_mask_losses
from mmcast.models.pixel_confidence import confidence_of
from mmcast.models.student.postprocess import to_bytes
from mmcast.registry import MODELS

# The published SAM2.1 encoders (Ravi et al., arXiv 2408.00714, and Meta's sam2.1 configuration
# files).
SIZES = {
    'tiny': dict(
        hidden_size=96,
        num_attention_heads=1,
        blocks_per_stage=[1, 2, 7, 2],
        global_attention_blocks=[5, 7, 9],
    ),
    'small': dict(
        hidden_size=96,
        num_attention_heads=1,
        blocks_per_stage=[1, 2, 11, 2],
        global_attention_blocks=[7, 10, 13],
    ),
    'base_plus': dict(
        hidden_size=112,
        num_attention_heads=2,
        blocks_per_stage=[2, 3, 16, 3],
        global_attention_blocks=[12, 16, 20],
        window_positional_embedding_background_size=[14, 14],
    ),
    'large': dict(
        hidden_size=144,
        num_attention_heads=2,
        blocks_per_stage=[2, 6, 36, 4],
        global_attention_blocks=[23, 33, 43],
        window_size_per_stage=[8, 4, 16, 8],
    ),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1], RGB
_HIERA = 'model.vision_encoder.backbone.'  # the image encoder within BoxPromptedSAM2
LARGEST_JITTER = 20.0  # pixels of the square
LARGEST_LOGIT = 32.0  # of a mask that prompts, as SAM2 clamps them


@MODELS.register_module()
class BoxPromptedSAM2(BaseModule):
    """SAM2 without its video memory: one mask a box.

    The coordinates of boxes are pixels of the image that was encoded; SAM2 sees it stretched to a
    square.

    Args:
        size: ``tiny``, ``small``, ``base_plus`` or ``large``.
        image_size: Side of the square in pixels, a multiple of 32.
        boxes_per_chunk: So many boxes go through the mask decoder, and so many masks to full size,
            at a time. With activation checkpointing training needs no more at a time either.
        encoder: Options of ``transformers.Sam2HieraDetConfig`` that win over those of the size.
        decoder: The same of ``Sam2MaskDecoderConfig``.
        num_prompts: In training, so many ground truths of an image prompt it at most, chosen anew
            each time.
        box_jitter: Standard deviation of a prompting box's corners in training, in sides of the
            box.
        reprompts: So often a box prompts the decoder again together with the mask it just gave, as
            in SAM2's interactive use; in training the losses are means over all passes.
        mask_weight: Of the focal loss.
        dice_weight: Of the dice loss.
        quality_weight: Of the IoU loss.
        freeze_encoder: The image encoder does not learn, what the mask decoder makes of its maps
            alone included (``conv_s0``, ``conv_s1``). The pixel loss then needs another encoder.
        cache_gb: With a frozen encoder, most main memory in GB for embeddings of training images,
            which are then made once; 0 for none. An image of the large network has 17 MB, in bf16
            half of that.
        init_cfg: MMEngine's initialisation, of the checkpoint to start from for instance.

    Raises:
        CASTError: On an unknown size, or a cache for an encoder that learns.
    """

    def __init__(
        self,
        size: str = 'large',
        image_size: int = 1024,
        boxes_per_chunk: int = 32,
        encoder: dict | None = None,
        decoder: dict | None = None,
        num_prompts: int = 32,
        box_jitter: float = 0.1,
        reprompts: int = 0,
        mask_weight: float = 20.0,
        dice_weight: float = 1.0,
        quality_weight: float = 1.0,
        freeze_encoder: bool = False,
        cache_gb: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if size not in SIZES:
            raise CASTError(
                f'BoxPromptedSAM2: size={size!r} is unknown, use one of {", ".join(SIZES)}'
            )
        if image_size % 32:
            raise CASTError(f'BoxPromptedSAM2: image_size={image_size} must be a multiple of 32')
        self.image_size = image_size
        self.boxes_per_chunk = boxes_per_chunk
        self.num_prompts = num_prompts
        self.box_jitter = box_jitter
        self.reprompts = reprompts
        self.weights = dict(mask=mask_weight, dice=dice_weight, mask_quality=quality_weight)
        self.model = Sam2Model(
            _config(dict(SIZES[size], **(encoder or {})), image_size, decoder or {})
        )
        # One random matrix, which is a buffer of two modules; transformers 5 draws it twice.
        shared = self.model.shared_image_embedding.positional_embedding
        self.model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
        # A box always has an object, and without re-prompting no mask prompts it: these would get
        # no gradient.
        self.model.prompt_encoder.mask_embed.requires_grad_(reprompts > 0)
        self.model.mask_decoder.pred_obj_score_head.requires_grad_(False)
        self.freeze_encoder, self.embedding_cache = freeze_encoder, None
        self._checkpoint_losses = False
        if freeze_encoder:
            for part in self._encoder_parts:
                part.requires_grad_(False)
        if cache_gb and not freeze_encoder:
            raise CASTError(
                'BoxPromptedSAM2: cache_gb keeps what a frozen image encoder makes of an image; '
                'set freeze_encoder=True too'
            )
        if cache_gb:
            self.embedding_cache = EmbeddingCache(cache_gb)

    @property
    def _encoder_parts(self) -> list[nn.Module | nn.Parameter]:
        """All that :meth:`encode` runs."""
        model = self.model
        decoder = model.mask_decoder
        return [model.vision_encoder, decoder.conv_s0, decoder.conv_s1, model.no_memory_embedding]

    def preprocess(self, pixels: Tensor) -> Tensor:
        """SAM2's own input (B, 3, S, S) from images (B, 3, H, W) of uint8, RGB: stretched and
        normalised.
        """
        square = image_functional.resize(pixels, [self.image_size, self.image_size], antialias=True)
        mean, std = (
            square.new_tensor(values, dtype=torch.float32)[:, None, None] * 255
            for values in (MEAN, STD)
        )
        return (square.float() - mean) / std

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Embeddings of images (B, 3, H, W) of uint8: (B, C_i, S / s, S / s) at strides s = 4, 8
        and 16; without gradient where the encoder is frozen.
        """
        if self.training and self.embedding_cache is not None:
            return self.embedding_cache.get(pixels, self._encode, self._encoder_parts)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            return self._encode(pixels)

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        model = self.model
        found = model.get_image_features(self.preprocess(pixels))
        maps = found[0] if isinstance(found, tuple) else found.fpn_hidden_states  # each (HW, B, C)
        maps[-1] = maps[-1] + model.no_memory_embedding
        sides = [size[0] for size in model.backbone_feature_sizes]
        return [part.permute(1, 2, 0).unflatten(2, (side, side)) for part, side in zip(maps, sides)]

    def decode(
        self, embeddings: list[Tensor], boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Masks of one image.

        Args:
            embeddings: Of this image, (1, C_i, h_i, w_i).
            boxes: (N, 4) as x1, y1, x2, y2 in pixels of an image of ``size``.
            size: Its height and width.

        Returns:
            Mask logits (N, S / 4, S / 4) in SAM2's square frame, and SAM2's estimate of their IoU
            (N,).
        """
        if not len(boxes):
            side = self.image_size // 4
            return boxes.new_zeros((0, side, side)), boxes.new_zeros(0)
        return self.passes(embeddings, boxes, size)[-1]

    def passes(
        self, embeddings: list[Tensor], boxes: Tensor, size: tuple[int, int]
    ) -> list[tuple[Tensor, Tensor]]:
        """What :meth:`decode` returns, of at least one box, after the first pass and after every
        re-prompting.
        """
        scale = boxes.new_tensor([self.image_size / size[1], self.image_size / size[0]]).repeat(2)
        chunks = [
            self._passes_of_chunk(embeddings, chunk * scale)
            for chunk in boxes.split(self.boxes_per_chunk)
        ]
        return [tuple(map(torch.cat, zip(*parts))) for parts in zip(*chunks)]

    def _passes_of_chunk(
        self, embeddings: list[Tensor], boxes: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """The same of boxes (N, 4) in SAM2's square, all at a time."""
        found = self.model(
            image_embeddings=embeddings, input_boxes=boxes[None].clone(), multimask_output=False
        )
        passes = [(found.pred_masks[0, :, 0], found.iou_scores[0, :, 0])]
        for _ in range(self.reprompts):
            # A mask prompts a whole image, so every box has the image for itself.
            each = [part.expand(len(boxes), -1, -1, -1) for part in embeddings]
            found = self.model(
                image_embeddings=each,
                input_boxes=boxes[:, None].clone(),
                multimask_output=False,
                input_masks=passes[-1][0][:, None].detach().clamp(-LARGEST_LOGIT, LARGEST_LOGIT),
            )
            passes.append((found.pred_masks[:, 0, 0], found.iou_scores[:, 0, 0]))
        return passes

    def to_full_size(self, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (N, H, W) of bool from logits (N, h, w); few are held as logits of that size at a
        time.
        """
        masks = [
            F.interpolate(chunk[None].float(), size, mode='bilinear')[0] > 0
            for chunk in mask_logits.split(self.boxes_per_chunk)
            if len(chunk)
        ]
        empty = torch.zeros(0, *size, dtype=torch.bool, device=mask_logits.device)
        return torch.cat(masks) if masks else empty

    def logits_of_size(self, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, H, W) of float16 from logits (N, h, w)."""
        parts = [
            F.interpolate(chunk[None].float(), size, mode='bilinear')[0].half()
            for chunk in mask_logits.split(self.boxes_per_chunk)
            if len(chunk)
        ]
        return torch.cat(parts) if parts else mask_logits.new_zeros((0, *size), dtype=torch.half)

    def probabilities(self, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities (N, h', w') of uint8, 255 is 1, of a size, from logits (N, h, w)."""
        parts = [
            to_bytes(
                F.interpolate(chunk[None].float(), size, mode='bilinear', antialias=True)[
                    0
                ].sigmoid()
            )
            for chunk in mask_logits.split(self.boxes_per_chunk)
            if len(chunk)
        ]
        return torch.cat(parts) if parts else mask_logits.new_zeros((0, *size), dtype=torch.uint8)

    def losses(
        self, embeddings: list[Tensor], samples: SampleList, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """Losses on the images ``indices``, prompted with their ground truths' boxes under jitter.

        Args:
            embeddings: Of the batch's canvas, each (B, C_i, h_i, w_i).
            samples: With ``gt_instances`` and ``batch_input_shape``.
            indices: Images; of none, zeros with a graph. Their number of prompts is averaged over
                ranks.

        Returns:
            ``loss_mask``, ``loss_dice`` and ``loss_mask_quality``, weighted means over the prompts.
        """
        total, count = embeddings[-1].new_zeros(3, dtype=torch.float32), 0
        for i in indices:
            chosen = torch.randperm(len(samples[i].gt_instances))[: self.num_prompts]
            if len(chosen):
                of_image = [part[i : i + 1] for part in embeddings]
                total = total + self._losses_of_image(of_image, samples[i], chosen)
                count += len(chosen)
        if not count:  # the same graph as ever, from a box that counts for nothing
            passes = self.passes(
                [part[:1] for part in embeddings], total.new_tensor([[0, 0, 1, 1]]), (1, 1)
            )
            total = total + 0 * sum(
                output.float().sum() for outputs in passes for output in outputs
            )
        total = total / reduce_mean(total.new_tensor(count)).clamp(min=1)
        return {
            f'loss_{name}': weight * loss
            for (name, weight), loss in zip(self.weights.items(), total)
        }

    def _losses_of_image(
        self, embeddings: list[Tensor], sample: DetDataSample, chosen: Tensor
    ) -> Tensor:
        """The three unweighted sums (3,) over one image's ``chosen`` ground truths."""
        gt, size = sample.gt_instances, tuple(sample.batch_input_shape)
        boxes = gt.bboxes[chosen.to(gt.bboxes.device)].float()
        largest = LARGEST_JITTER / self.image_size * boxes.new_tensor([size[1], size[0]])
        prompts = jitter_boxes(boxes, self.box_jitter, largest, size)
        masks = gt.masks[chosen.numpy()].pad(size).to_tensor(torch.uint8, boxes.device)
        target = image_functional.resize(
            masks, [self.image_size] * 2, image_functional.InterpolationMode.NEAREST
        )
        confidence = confidence_of(sample)
        if confidence is not None:
            confidence = image_functional.resize(
                confidence[None], [self.image_size] * 2, antialias=True
            )
        total = torch.zeros(3, device=boxes.device)
        for boxes, masks in zip(
            prompts.split(self.boxes_per_chunk), target.split(self.boxes_per_chunk)
        ):
            arguments = (*embeddings, boxes, masks, confidence, size)
            if self._checkpoint_losses and self.training:
                losses = checkpoint(self._losses_of_prompts, *arguments, use_reentrant=False)
            else:
                losses = self._losses_of_prompts(*arguments)
            total = total + losses
        return total

    def _losses_of_prompts(self, *arguments: Any) -> Tensor:
        """The three sums (3,) of one image's embeddings, boxes (N, 4), targets (N, S, S), weights
        of the pixels and size; embeddings come singly, as checkpointing looks for tensors.
        """
        *embeddings, boxes, target, confidence, size = arguments
        outputs = self.passes(embeddings, boxes, size)
        with torch.autocast(boxes.device.type, enabled=False):
            return torch.stack(
                [
                    torch.stack(prompted_mask_losses(*output, target, confidence))
                    for output in outputs
                ]
            ).mean(0)

    def checkpoint_activations(self) -> None:
        """Trade a second forward pass of the encoder's blocks, and of the mask decoder with its
        losses, for the memory of the first.
        """
        checkpoint_activations(self.blocks)
        self._checkpoint_losses = True

    @property
    def blocks(self) -> nn.ModuleList:
        """Of the image encoder, from the input on."""
        return self.model.vision_encoder.backbone.blocks

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates, as mmpretrain's encoders tell it.

        Args:
            param_name: Its name.
            prefix: What of the name is this module's.

        Returns:
            0 for the embeddings, i + 1 for block i, and the largest depth for all that follows the
            image encoder's blocks; and the number of depths.
        """
        number = len(self.blocks) + 2
        name = param_name.removeprefix(prefix)
        inner = name.removeprefix(_HIERA)
        if inner == name:
            return number - 1, number
        return (int(inner.split('.')[1]) + 1 if inner.startswith('blocks.') else 0), number


def _config(backbone: dict, image_size: int, decoder: dict) -> Sam2Config:
    """The network's configuration around an encoder; each stage doubles widths and heads."""
    width, heads = backbone['hidden_size'], backbone['num_attention_heads']
    widths = [width * 2**stage for stage in range(4)]
    backbone = dict(
        dict(
            image_size=[image_size] * 2,
            embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        ),
        **backbone,
    )
    vision = dict(
        backbone_config=Sam2HieraDetConfig(**backbone),
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[image_size // stride] * 2 for stride in (4, 8, 16)],
    )
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config=dict(image_size=image_size),
        mask_decoder_config=decoder,
    )


def jitter_boxes(boxes: Tensor, amount: float, largest: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes whose corners moved at random and stayed in the image.

    Args:
        boxes: (N, 4) as (x1, y1, x2, y2).
        amount: Standard deviation in sides of the box.
        largest: (2,), no corner moves further than this, in x and in y.
        size: Height and width of the image.

    Returns:
        (N, 4).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    largest = largest.repeat(2)
    moved = boxes + (torch.randn_like(boxes) * amount * sides).clamp(-largest, largest)
    return moved.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0]]).repeat(2))
