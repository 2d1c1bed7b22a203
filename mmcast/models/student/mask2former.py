"""The compact student: Mask2Former with a pixel decoder of standard operators, whose outputs can be
shared.

One forward pass serves every term of the objective: :meth:`CASTMask2Former.forward_once` runs the
network on the whole batch, :meth:`CASTMask2Former.loss_on` takes the head's losses on a part of it.
"""

import inspect
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from mmdet.models.detectors import Mask2Former
from mmdet.structures import SampleList
from mmdet.utils import ConfigType, OptConfigType
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.masks.tiling import Windows
from mmcast.models.outputs import NetworkOutputs
from mmcast.models.pixel_confidence import confidence_of
from mmcast.models.student.dpt import VIT_SCALES
from mmcast.models.student.postprocess import make_instances, path_weights, sizes_of
from mmcast.models.student.tiled_prediction import predict_in_windows
from mmcast.registry import MODELS


@MODELS.register_module()
class CASTMask2Former(Mask2Former):
    """Mask2Former that exposes its pixel outputs and takes its losses on a part of the batch.

    The head is usually ``CASTMask2FormerHead`` with the pixel decoder ``DPTPixelDecoder``. Where
    ``panoptic_head.in_channels`` or ``panoptic_head.pixel_decoder.scales`` are None, they follow
    from the encoder, see :func:`fit_head`. ``test_cfg.windows`` predicts window by window, see
    :class:`Windows`.

    Args:
        backbone: The encoder, such as ``DINOv2`` or ``TimmEncoder``.
        neck: As in mmdet; with one, ``panoptic_head`` has to be written out.
        args: The further arguments of mmdet's ``Mask2Former``.
        kwargs: The same by name.

    Attributes:
        mask_probabilities: Whether predictions have ``probabilities``, see
            ``mmcast.masks.confidence``.
        score_floor: Predictions leave out instances whose score cannot be above this; without
            ``test_cfg.windows``, which have a threshold of their own. None: no instance.
        cropped_masks: Whether predictions in windows have
            :class:`~mmcast.masks.cropped.CroppedMasks` in place of a tensor.
    """

    mask_probabilities = False
    score_floor: float | None = None
    cropped_masks = False

    def __init__(
        self, backbone: ConfigType, neck: OptConfigType = None, *args: Any, **kwargs: Any
    ) -> None:
        if not neck and kwargs.get('panoptic_head'):
            encoder = MODELS.build(backbone)
            backbone = dict(type=lambda: encoder)
            kwargs['panoptic_head'] = fit_head(kwargs['panoptic_head'], encoder)
        super().__init__(backbone, neck, *args, **kwargs)
        fusion = self.panoptic_fusion_head
        pairs = self.panoptic_head.num_queries * fusion.num_classes
        if (
            fusion.test_cfg
        ):  # mmdet's panoptic prediction fails where it is to keep more than there are
            kept = min(fusion.test_cfg.get('max_per_image', 100), pairs)
            fusion.test_cfg = ConfigDict(fusion.test_cfg, max_per_image=kept)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Encoder features of images (B, 3, H, W).

        Raises:
            CASTError: If H or W is not a multiple of a ViT's patch size. The encoder would pad by
                itself, and masks predicted on the padded canvas would not lie on the image.
        """
        patch = getattr(self.backbone, 'patch_size', 1)
        if any(side % patch for side in batch_inputs.shape[-2:]):
            raise CASTError(
                f'inputs of {tuple(batch_inputs.shape[-2:])} pixels do not divide into patches '
                f"of {patch}: set pad_size_divisor={patch} in the model's data_preprocessor"
            )
        return super().extract_feat(batch_inputs)

    def extract_first_maps(self, batch_inputs: Tensor, num_maps: int) -> tuple[Tensor, ...]:
        """The first of :meth:`extract_feat`'s maps; a ``TimmEncoder`` then stops after them."""
        takes_number = 'num_maps' in inspect.signature(self.backbone.forward).parameters
        if self.with_neck or not takes_number:
            return self.extract_feat(batch_inputs)[:num_maps]
        return self.backbone(batch_inputs, num_maps)

    def forward_once(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> NetworkOutputs:
        """Run encoder, pixel decoder and transformer decoder on images (B, 3, H, W)."""
        features = self.extract_feat(batch_inputs)
        *memories, mask_features = decoded = self.decode_pixels(features)
        outputs = self.panoptic_head.decode(mask_features, memories)
        return NetworkOutputs(tuple(features), *outputs, decoded=decoded)

    def decode_pixels(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The pixel decoder's maps of encoder features, coarsest first; the last is that of the
        masks.
        """
        mask_features, memories = self.panoptic_head.pixel_decoder(features)
        return (*memories, mask_features)

    def loss_on(
        self, outputs: NetworkOutputs, batch_data_samples: SampleList, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The head's losses on the images ``indices`` of a forward pass; of none, zeros with a
        graph.
        """
        head = self.panoptic_head
        if not len(indices):
            return head.empty_loss(outputs.class_logits, outputs.mask_logits)
        class_logits, mask_logits = outputs.class_logits, outputs.mask_logits
        if list(indices) != list(range(len(batch_data_samples))):
            class_logits = [logits[indices] for logits in class_logits]
            mask_logits = mask_logits.select(indices)
        samples = [batch_data_samples[i] for i in indices]
        gt_instances = head.preprocess_gt([s.gt_instances for s in samples], [None] * len(samples))
        return head.loss_by_feat(
            class_logits,
            mask_logits,
            gt_instances,
            [s.metainfo for s in samples],
            [confidence_of(s) for s in samples],
        )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses on the whole batch: the network also trains without :class:`CASTDetector`."""
        outputs = self.forward_once(batch_inputs, batch_data_samples)
        return self.loss_on(outputs, batch_data_samples, range(len(batch_data_samples)))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """:meth:`predict_whole`, or window by window where ``test_cfg.windows`` says so.

        Raises:
            CASTError: With windows, if other things than instances are asked for.
        """
        windows = self.test_cfg.get('windows')
        if not windows:
            return self.predict_whole(batch_inputs, batch_data_samples, rescale)
        if not self._only_instances():
            raise CASTError(
                'test_cfg.windows joins instances alone: set test_cfg.instance_on=True and '
                'test_cfg.panoptic_on=False, or test_cfg.windows=None'
            )
        return predict_in_windows(
            self.predict_whole,
            batch_inputs,
            batch_data_samples,
            Windows(**windows),
            rescale,
            self.mask_probabilities,
            self.cropped_masks,
        )

    @torch.no_grad()
    def predict_whole(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
        logits_above: float | None = None,
    ) -> SampleList:
        """mmdet's predictions, without a graph; of the masks only those that are kept are ever
        resized.

        Args:
            batch_inputs: (B, 3, H, W) normalised images.
            batch_data_samples: Their meta information.
            rescale: Whether masks and boxes are those of the original images.
            logits_above: Predict the mask ``logits`` as well, but only instances whose class score
                is above this.

        Returns:
            The samples with ``pred_instances``: scores, labels, bboxes, masks.
        """
        if not self._only_instances():
            return super().predict(batch_inputs, batch_data_samples, rescale)
        config, head = self.panoptic_fusion_head.test_cfg, self.panoptic_head
        pixels = head.pixel_decoder(self.extract_feat(batch_inputs))
        class_logits, masks = head.decode(*pixels, every_layer=False)
        # In half precision the products that resize masks would move their borders.
        with torch.autocast(batch_inputs.device.type, enabled=False):
            weights_of = cache(partial(path_weights, like=masks.features))  # once for one size
            for i, sample in enumerate(batch_data_samples):
                padded, image, original = sizes_of(sample.metainfo, rescale)
                rows, columns = (
                    weights_of(*sizes)
                    for sizes in zip(masks.features.shape[-2:], padded, image, original)
                )
                sample.pred_instances = make_instances(
                    class_logits[-1][i].float(),
                    masks.embeds[-1, i].float(),
                    masks.features[i].float(),
                    rows,
                    columns,
                    config.get('max_per_image', 100),
                    self.panoptic_fusion_head.num_things_classes,
                    self.mask_probabilities and logits_above is None,
                    logits_above,
                    self.score_floor if logits_above is None else None,
                )
        return batch_data_samples

    def _only_instances(self) -> bool:
        """Whether predictions are instances without a panoptic map, as mmdet decides it."""
        config = self.panoptic_fusion_head.test_cfg
        return config.get('instance_on', False) and not config.get('panoptic_on', True)


def fit_head(head: ConfigType, encoder: nn.Module) -> ConfigDict:
    """A head's config with what None leaves to the encoder.

    ``in_channels`` are those of the encoder's maps. ``pixel_decoder.scales`` leave a pyramid as it
    is, and make one of a plain ViT's four maps.

    Args:
        head: Of ``CASTMask2FormerHead``.
        encoder: With ``channels`` and ``strides`` of its maps, as ``TimmEncoder`` and ``DINOv2``
            have them, where something is left to it.

    Raises:
        CASTError: It has not, or its maps make no pyramid; says what to write.
    """
    head = ConfigDict(head)
    decoder = head.get('pixel_decoder') or {}
    wanted = {
        'in_channels': head.get('in_channels', 0) is None,
        'pixel_decoder.scales': decoder.get('scales', 0) is None,
    }
    if not any(wanted.values()):
        return head
    channels, strides = (getattr(encoder, name, None) for name in ('channels', 'strides'))
    if not channels or not strides:
        names = ' and '.join(f'panoptic_head.{name}' for name, missing in wanted.items() if missing)
        raise CASTError(
            f'{names}: {type(encoder).__name__} does not say what its maps are like; write one '
            'number for each of them, the finest first'
        )
    if wanted['in_channels']:
        head.in_channels = list(channels)
    if wanted['pixel_decoder.scales']:
        is_plain = len(set(strides)) == 1
        if is_plain and len(strides) != len(VIT_SCALES):
            raise CASTError(
                f'panoptic_head.pixel_decoder.scales: the {len(strides)} maps of the encoder have '
                f'one stride, {strides[0]}; write a factor for each, out of 4, 2, 1 and 0.5'
            )
        head.pixel_decoder = ConfigDict(
            decoder, scales=VIT_SCALES if is_plain else (1,) * len(strides)
        )
    return head
