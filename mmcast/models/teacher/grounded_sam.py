"""The foundation teacher: Grounding-DINO finds boxes by class names, SAM2 turns every box into a
mask.

Both components are existing networks, ``mmdet``'s and ``transformers``'. Here they are joined,
predict in the data set's classes, and learn on the same batches as every other detector of this
package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import mask2bbox
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from mmengine.structures import InstanceData
from torch import Tensor

from mmcast.errors import CASTError
from mmcast.masks.confidence import map_size
from mmcast.masks.tiling import Windows
from mmcast.models.activation_checkpointing import checkpoint_activations
from mmcast.models.outputs import NetworkOutputs, OnDemand
from mmcast.models.teacher.foundation_teacher import FoundationTeacher
from mmcast.models.teacher.grounding_dino import BoxOutputs
from mmcast.registry import MODELS

COMPONENTS = ('grounding_dino', 'sam2')
SCORE_FACTORS = ('mask_quality', 'agreement')


@dataclass
class TeacherOutputs(NetworkOutputs):
    """What one forward pass of the teacher in training returns.

    ``class_logits`` and ``mask_logits`` are those of the kept queries, one tensor each. They cost a
    pass of SAM2's decoder, so they are made when they are first asked for, which is when the pixel
    loss is on, and without gradient.

    Attributes:
        boxes: Grounding-DINO's pass; ``None`` where that component is frozen.
        embeddings: SAM2's image embeddings, each (B, C_i, h_i, w_i); ``None`` where that component
            is frozen.
    """

    boxes: BoxOutputs | None = None
    embeddings: list[Tensor] | None = None


@MODELS.register_module()
class GroundedSAM(FoundationTeacher):
    """Grounding-DINO's boxes prompt SAM2's masks; trains and predicts like any mmdet detector.

    The pipeline passes an image once, of any size; each component brings it to its own size
    and normalises it by itself. In training both see the batch's canvas, padding included.

    Predictions have ``class_scores`` of Grounding-DINO, ``mask_quality``, SAM2's estimate of the
    mask's IoU, ``agreement``, the IoU of Grounding-DINO's box and that of SAM2's mask, and
    ``scores``, the class scores times ``score_factors``.

    Args:
        grounding_dino: ``PromptedGroundingDINO``, without ``classes``.
        sam2: ``BoxPromptedSAM2``.
        classes: Names in the data set's order; they are the prompt.
        prompts: What to ask for in place of a class's name, a text or several that mean the same,
            see ``PromptedGroundingDINO``.
        frozen: Components that do not learn, ``grounding_dino`` or ``sam2``; their losses are left
            out.
        pixel_encoder: The component whose features the pixel loss contrasts: ``sam2`` (one map of
            256 channels, stride 16 of its square) or ``grounding_dino`` (its backbone's maps).
            Default ``sam2`` if its encoder learns; where no encoder does, there is no pixel loss.
        num_pixel_queries: K of the pixel loss, the queries with the highest class scores.
        score_factors: What ``scores`` are the product of, in addition to the class scores:
            ``mask_quality``, ``agreement``.
        windows: Predict in overlapping windows of the image that the test pipeline gives, options
            of :class:`~mmcast.masks.tiling.Windows`; each window is a whole image to the two
            components. Default: the whole image.
        activation_checkpointing: Trade a second forward pass for the memory of the first.
        data_preprocessor: With the ``mean`` and ``std`` that the batch is normalised by.
        init_cfg: As everywhere in MMEngine.

    Raises:
        CASTError: If classes cannot be prompted, nothing is left to learn, or a component is
            unknown or frozen.

    Attributes:
        lora_layers: Layers that LoRA adapts: all linear ones but those of the language model, which
            never learns, and of SAM2's outputs that one mask for a box does not use.
        lora_learn_in_full: The biases of the class scores, seven numbers.
    """

    lora_layers = (
        r'grounding_dino\.(?!language_model\.)',
        r'sam2\.model\.vision_encoder\.',
        r'sam2\.model\.mask_decoder\.(transformer|output_hypernetworks_mlps\.0|iou_prediction_head)\.',
    )
    lora_learn_in_full = (r'grounding_dino\.bbox_head\.cls_branches\.',)

    def __init__(
        self,
        grounding_dino: ConfigType,
        sam2: ConfigType,
        classes: Sequence[str],
        prompts: Mapping[str, str | Sequence[str]] | None = None,
        frozen: Sequence[str] = (),
        pixel_encoder: str | None = None,
        num_pixel_queries: int = 50,
        score_factors: Sequence[str] = (),
        windows: dict | None = None,
        activation_checkpointing: bool = False,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if any(getattr(self.data_preprocessor, name, None) is None for name in ('mean', 'std')):
            raise CASTError(
                'GroundedSAM brings images to two sizes, so it must know how they were normalised: '
                'set mean and std in data_preprocessor'
            )
        self.frozen = tuple(frozen)
        learning = [name for name in COMPONENTS if name not in frozen]
        encoders = [
            name for name in learning if name != 'sam2' or not sam2.get('freeze_encoder', False)
        ]
        self.pixel_encoder = pixel_encoder or (encoders or [None])[-1]
        if set(frozen) - set(COMPONENTS) or not learning or pixel_encoder not in (None, *encoders):
            raise CASTError(
                f'GroundedSAM: frozen={self.frozen}, pixel_encoder={self.pixel_encoder!r}: the '
                f'components are {" and ".join(COMPONENTS)}, at most one is frozen, '
                'and one whose encoder learns has the pixels'
            )
        self.grounding_dino = MODELS.build(dict(grounding_dino, classes=classes, prompts=prompts))
        self.sam2 = MODELS.build(sam2)
        self.num_pixel_queries = num_pixel_queries
        self.score_factors = tuple(score_factors)
        self.windows = Windows(**windows) if windows else None
        if set(score_factors) - set(SCORE_FACTORS):
            raise CASTError(
                f'GroundedSAM: score_factors={self.score_factors}: use '
                f'{" and ".join(SCORE_FACTORS)}'
            )
        for name in self.frozen:
            getattr(self, name).requires_grad_(False).eval()
        if activation_checkpointing:
            transformer = self.grounding_dino.encoder, self.grounding_dino.decoder
            swin = getattr(self.grounding_dino.backbone, 'stages', ())
            checkpoint_activations(
                [
                    *(layer for part in transformer for layer in part.layers),
                    *transformer[0].fusion_layers,
                    *(block for stage in swin for block in stage.blocks),
                ]
            )
            self.sam2.checkpoint_activations()

    def train(self, mode: bool = True) -> 'GroundedSAM':
        """Training mode for what learns; a frozen component stays in evaluation."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    # Prediction

    def predict_whole(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
        logits_above: float | None = None,
    ) -> SampleList:
        images = [
            image[:, : sample.img_shape[0], : sample.img_shape[1]]
            for image, sample in zip(self._pixels(batch_inputs), batch_data_samples)
        ]
        for image, sample, found in zip(
            images, batch_data_samples, self.grounding_dino.detect(images)
        ):
            size = tuple((sample.ori_shape if rescale else sample.img_shape)[:2])
            if logits_above is not None:  # factors of scores are at most 1
                found = found[found.scores > logits_above]
            sample.pred_instances = self._segment(image, found, size, logits_above is not None)
        return batch_data_samples

    def _segment(
        self, image: Tensor, found: InstanceData, size: tuple[int, int], with_logits: bool = False
    ) -> InstanceData:
        """The instances of one image at a size; it is encoded once for any number of boxes."""
        boxes = found.bboxes * found.bboxes.new_tensor([size[1], size[0]]).repeat(2)
        if len(boxes):
            logits, quality = self.sam2.decode(self.sam2.encode(image[None]), boxes, size)
        else:
            logits, quality = boxes.new_zeros((0, 1, 1)), found.scores
        masks = self.sam2.to_full_size(logits, size)
        instances = InstanceData(
            bboxes=boxes,
            labels=found.labels,
            scores=found.scores,
            masks=masks,
            class_scores=found.scores,
            mask_quality=quality.float(),
            agreement=bbox_overlaps(boxes, mask2bbox(masks), is_aligned=True),
        )
        if with_logits:
            instances.logits = self.sam2.logits_of_size(logits, size)
        elif self.mask_probabilities:
            instances.probabilities = self.sam2.probabilities(logits, map_size(size))
        return self._ranked(instances)

    # Training, as CASTDetector asks for it

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The maps of ``pixel_encoder``, Grounding-DINO's at the scale that :meth:`forward_once`
        drew last.

        So weak and strong view of a batch share their pixels.
        """
        pixels = self._pixels(batch_inputs)
        if self.pixel_encoder is None:
            raise CASTError(
                'the pixel loss needs an encoder that learns, and none of GroundedSAM does: set '
                'pixel_contrast=None'
            )
        if self.pixel_encoder == 'sam2':
            return tuple(self.sam2.encode(pixels)[-1:])
        return tuple(
            self.grounding_dino.backbone(
                self.grounding_dino.preprocess(pixels, self.grounding_dino.current_scale)
            )
        )

    def forward_once(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> TeacherOutputs:
        """Run the components that learn on images (B, 3, H, W)."""
        pixels, boxes, embeddings = self._pixels(batch_inputs), None, None
        if 'grounding_dino' not in self.frozen:
            self.grounding_dino.draw_scale()
            boxes = self.grounding_dino.forward_once(pixels, batch_data_samples)
        if 'sam2' not in self.frozen:
            embeddings = self.sam2.encode(pixels)
        features = boxes.features if self.pixel_encoder == 'grounding_dino' else embeddings[-1:]
        queries = cache(partial(self._pixel_queries, pixels, boxes, embeddings))
        return TeacherOutputs(
            tuple(features),
            class_logits=OnDemand(lambda: queries()[1]),
            mask_logits=OnDemand(lambda: queries()[0]),
            boxes=boxes,
            embeddings=embeddings,
        )

    def loss_on(
        self, outputs: TeacherOutputs, batch_data_samples: SampleList, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The learning components' losses on the images ``indices``; of none, zeros with a
        graph.
        """
        losses = {}
        if outputs.boxes is not None:
            losses |= self.grounding_dino.losses(outputs.boxes, indices)
        if outputs.embeddings is not None:
            losses |= self.sam2.losses(outputs.embeddings, batch_data_samples, indices)
        return losses

    @torch.no_grad()
    def _pixel_queries(
        self, pixels: Tensor, boxes: BoxOutputs | None, embeddings: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (B, K, h, w) on the canvas and class logits (B, K, C + 1) of the K best
        queries.

        Grounding-DINO scores every class by itself. The logits are such that their softmax is in
        proportion to these scores, and to one minus the highest of them for "no object".
        """
        network = self.grounding_dino
        scores, corners = (
            network.queries(pixels) if boxes is None else network.trained_queries(boxes)
        )
        number = min(self.num_pixel_queries, scores.shape[1])
        kept = scores.amax(2).topk(number).indices[..., None]  # (B, K, 1)
        scores, corners = (
            part.gather(1, kept.expand(-1, -1, part.shape[2])) for part in (scores, corners)
        )
        embeddings = self.sam2.encode(pixels) if embeddings is None else embeddings
        masks = torch.stack(
            [
                self.sam2.decode([part[i : i + 1] for part in embeddings], of_image, (1, 1))[0]
                for i, of_image in enumerate(corners)
            ]
        )
        probabilities = torch.cat([scores, 1 - scores.amax(2, keepdim=True)], dim=2)
        return masks, probabilities.clamp(min=1e-6).log()
