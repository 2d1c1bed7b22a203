"""One detector for every training step of CAST: L_sup + l_semi L_semi + l_pxl L_pxl."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import OptSampleList, SampleList
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcast.errors import CASTError, NonFiniteError
from mmcast.masks.overlaps import resolve_overlaps
from mmcast.models.lora import LoRA, adapters_put_aside, add_adapters, plain_state
from mmcast.models.losses.pixel_contrastive_loss import NonFiniteInputError
from mmcast.models.outputs import NetworkOutputs, PixelDecodingNetwork
from mmcast.models.preprocessing import prepare_for
from mmcast.registry import MODELS


@MODELS.register_module()
class CASTDetector(BaseDetector):
    """Train a :class:`CASTNetwork` on labeled, pseudo-labeled and unlabeled images.

    The four steps of the paper are configs of this class: which network, which weights, which data,
    which of ``pixel_contrast`` and ``semi_weight`` are on. An image's origin is
    ``metainfo['source']``: ``labeled`` (also when absent), ``pseudo`` (labels from a file) or
    ``unlabeled`` (labels from ``teacher``).

    Args:
        detector: The network that learns and predicts, such as ``CASTMask2Former``. Its data
            preprocessor is used.
        teacher: A detector that labels ``unlabeled`` images on the fly. It never gets a gradient,
            stays in eval mode, and is managed by ``FrozenTeacherHook`` or ``EMATeacherHook``. It
            sees images as its own data preprocessor makes them; without one, as the student's.
        pixel_contrast: Config of :class:`PixelContrast`; ``None`` or a weight of 0 is l_pxl = 0.
            ``in_channels=None`` stands for those of the encoder's map.
        semi_train_cfg: ``semi_weight`` (l_semi, default 0), and for the online teacher
            ``score_thr`` (default 0.3) and ``min_area`` in pixels (default 0).
        semi_test_cfg: ``predict_on``: ``student`` (default) or ``teacher``.
        lora: Settings of :class:`~mmcast.models.lora.LoRA`: ``detector`` learns by adapters beside
            frozen weights, and so does a ``teacher`` of the same config, which ``EMATeacherHook``
            needs. ``None`` trains the weights themselves.
        data_preprocessor: Overrides the detector's.
        init_cfg: As everywhere in MMEngine.

    Raises:
        CASTError: On settings that contradict each other, or l_pxl > 0 without ``mean`` and
            ``std``.
    """

    def __init__(
        self,
        detector: ConfigType,
        teacher: OptConfigType = None,
        pixel_contrast: OptConfigType = None,
        semi_train_cfg: OptConfigType = None,
        semi_test_cfg: OptConfigType = None,
        lora: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(data_preprocessor or detector.get('data_preprocessor'), init_cfg)
        same = bool(teacher) and _network_of(teacher) == _network_of(detector)
        if data_preprocessor:  # a network that resizes by itself has to know how it was normalised
            detector = dict(detector, data_preprocessor=data_preprocessor)
        self.detector = MODELS.build(detector)
        self.teacher = MODELS.build(teacher) if teacher else None
        self.lora = None if lora is None else LoRA.of(lora)
        if self.lora is not None:
            for network in (self.detector, self.teacher) if same else (self.detector,):
                add_adapters(network, self.lora)
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        self.pixel_contrast = None
        if pixel_contrast and pixel_contrast.get('loss_weight', 1) > 0:
            self.pixel_contrast = MODELS.build(_fit_projector(pixel_contrast, self.detector))
            if any(getattr(self.data_preprocessor, name, None) is None for name in ('mean', 'std')):
                raise CASTError(
                    'pixel_contrast makes strong views of pixels, so it must know how they were '
                    'normalised: set mean and std in data_preprocessor, or pixel_contrast=None'
                )
            if self.pixel_contrast.source == 'pixel_decoder' and not isinstance(
                self.detector, PixelDecodingNetwork
            ):
                raise CASTError(
                    f"pixel_contrast.source='pixel_decoder': {type(self.detector).__name__} has no "
                    "pixel decoder whose maps could be contrasted; set source='encoder'"
                )
        self.semi_train_cfg = dict(
            dict(semi_weight=0.0, score_thr=0.3, min_area=0), **(semi_train_cfg or {})
        )
        self.predict_on = (semi_test_cfg or {}).get('predict_on', 'student')
        if self.predict_on not in ('student', *(['teacher'] if teacher else [])):
            raise CASTError(
                f"semi_test_cfg.predict_on='{self.predict_on}': choose 'student', or 'teacher' "
                'with teacher= set'
            )
        self._register_load_state_dict_pre_hook(_accept_plain_detector, with_module=True)

    def init_weights(self) -> None:
        """As the networks do, whose own initialisation must not reach the adapters."""
        with adapters_put_aside(self):
            super().init_weights()

    def train(self, mode: bool = True) -> 'CASTDetector':
        """Training mode for everything but the teacher."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """The objective on one mixed batch.

        Args:
            batch_inputs: (B, 3, H, W) normalised images.
            batch_data_samples: Their labels (``gt_instances``; empty for ``unlabeled``) and
                ``source``.

        Returns:
            ``sup_*``; ``unsup_*`` if l_semi > 0, already weighted; ``loss_pxl`` if l_pxl > 0, too.
            The same keys on every rank for every batch.

        Raises:
            NonFiniteError: If a term is not finite, naming term and images.
            CASTError: If images have no labels, no teacher makes any, and l_semi > 0.
        """
        semi_weight = self.semi_train_cfg['semi_weight']
        sources = [sample.metainfo.get('source', 'labeled') for sample in batch_data_samples]
        if not semi_weight and self.pixel_contrast is None:
            # Nothing would be learned from the rest: the plain detector on its labeled images.
            keep = [i for i, source in enumerate(sources) if source == 'labeled']
            if len(keep) < len(sources) and keep:
                batch_inputs, batch_data_samples = (
                    batch_inputs[keep],
                    [batch_data_samples[i] for i in keep],
                )
                sources = ['labeled'] * len(keep)
        if semi_weight:
            self.label_online(batch_inputs, batch_data_samples, sources)

        outputs = self.detector.forward_once(batch_inputs, batch_data_samples)
        labeled = [i for i, source in enumerate(sources) if source == 'labeled']
        losses = _prefix('sup_', self.detector.loss_on(outputs, batch_data_samples, labeled))
        if semi_weight:
            rest = [i for i in range(len(sources)) if i not in labeled]
            unsup = self.detector.loss_on(outputs, batch_data_samples, rest)
            losses |= _prefix('unsup_', {name: semi_weight * loss for name, loss in unsup.items()})
        if self.pixel_contrast is not None:
            losses['loss_pxl'] = self.pixel_loss(batch_inputs, batch_data_samples, outputs)
        self._check_finite(losses, batch_data_samples)
        return losses

    def pixel_loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, outputs: NetworkOutputs
    ) -> Tensor:
        """L_pxl of the batch, weighted; the strong pass carries no gradient into the encoder."""
        normaliser, decoded = self.data_preprocessor, self.pixel_contrast.source == 'pixel_decoder'
        weak = outputs.decoded if decoded else outputs.features
        with torch.no_grad(), running_statistics_kept(self.detector):
            strong = self.pixel_contrast.strong_view(batch_inputs, normaliser.mean, normaliser.std)
            strong = self.detector.extract_feat(strong)
            strong = self.detector.decode_pixels(strong) if decoded else strong
            masks, classes = outputs.mask_logits[-1], outputs.class_logits[-1].detach()
        try:
            return self.pixel_contrast(
                weak, strong, masks.detach(), classes, training_progress(), batch_data_samples
            )
        except NonFiniteInputError as error:
            raise NonFiniteError.on_images(
                f'{", ".join(error.tensors)} of loss_pxl',
                [batch_data_samples[i].metainfo for i in error.images],
            ) from error

    @torch.no_grad()
    def label_online(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, sources: Sequence[str]
    ) -> None:
        """Set the ``gt_instances`` of ``unlabeled`` images from the teacher's confident masks."""
        indices = [i for i, source in enumerate(sources) if source == 'unlabeled']
        if not indices:
            return
        if self.teacher is None:
            raise CASTError(
                'images without labels and semi_weight > 0: set teacher= in CASTDetector, or read '
                'pseudo-labels from a file with PseudoLabelDataset'
            )
        predictions = self._ask_teacher(
            batch_inputs[indices], [batch_data_samples[i] for i in indices], rescale=False
        )
        for i, prediction in zip(indices, predictions):
            batch_data_samples[i].gt_instances = self._to_ground_truth(
                prediction.pred_instances, batch_inputs.shape[-2:]
            )

    def _to_ground_truth(self, pred: InstanceData, size: Sequence[int]) -> InstanceData:
        """Confident predictions of one image as disjoint ground truth on the padded canvas
        ``size``.
        """
        pred = pred[pred.scores > self.semi_train_cfg['score_thr']]
        masks = resolve_overlaps(pred.masks.cpu().numpy(), pred.scores.cpu().numpy())
        keep = masks.any((1, 2)) & (masks.sum((1, 2)) >= self.semi_train_cfg['min_area'])
        masks = BitmapMasks(masks[keep].astype(np.uint8), *masks.shape[1:]).pad(tuple(size))
        labels = pred.labels[torch.from_numpy(keep).to(pred.labels.device)]
        boxes = masks.get_bboxes('hbox').tensor.to(labels.device)
        return InstanceData(labels=labels, bboxes=boxes, masks=masks)

    @staticmethod
    def _check_finite(losses: dict[str, Tensor], batch_data_samples: SampleList) -> None:
        if torch.stack([loss.detach() for loss in losses.values()]).isfinite().all():
            return
        terms = ', '.join(name for name, loss in losses.items() if not loss.isfinite())
        raise NonFiniteError.on_images(terms, [sample.metainfo for sample in batch_data_samples])

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """The student's predictions and nobody else's, unless ``semi_test_cfg`` asks for the
        teacher's.
        """
        if self.predict_on == 'student':
            return self.detector.predict(batch_inputs, batch_data_samples, rescale=rescale)
        predictions = self._ask_teacher(batch_inputs, batch_data_samples, rescale)
        for sample, prediction in zip(batch_data_samples, predictions):
            for name, found in prediction.items():
                setattr(sample, name, found)
        return batch_data_samples

    def _ask_teacher(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool
    ) -> SampleList:
        """The teacher's predictions on images that were made ready for the student, in samples of
        their own.
        """
        inputs, samples = prepare_for(
            self.teacher.data_preprocessor, self.data_preprocessor, batch_inputs, batch_data_samples
        )
        return self.teacher.predict(inputs, samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> Any:
        return self.detector(batch_inputs, batch_data_samples, mode='tensor')

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The student's encoder features."""
        return self.detector.extract_feat(batch_inputs)


def _network_of(config: ConfigType) -> dict:
    return {key: value for key, value in config.items() if key != 'data_preprocessor'}


def _accept_plain_detector(model: CASTDetector, state_dict: dict, prefix: str, *_: Any) -> None:
    """Let a plain detector's checkpoint, such as a foundation teacher's, load into ``detector``."""
    names = plain_state(model.detector).keys()
    if not any(f'{prefix}detector.{name}' in state_dict for name in names):
        for name in names:
            if prefix + name in state_dict:
                state_dict[f'{prefix}detector.{name}'] = state_dict.pop(prefix + name)


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, batch normalisation normalises as it would (in training by the batch) but remembers
    nothing.

    Strong views are normalised by themselves, as the weak ones are, but only weak ones are like the
    images that the network predicts on.
    """
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _fit_projector(pixel_contrast: ConfigType, detector: nn.Module) -> dict:
    """The config of :class:`PixelContrast` with ``in_channels``, from the encoder where None."""
    config = dict(dict(type='PixelContrast'), **pixel_contrast)
    if config.get('in_channels', 0) is not None:
        return config
    channels = getattr(getattr(detector, 'backbone', None), 'channels', None)
    if not channels or config.get('source', 'encoder') != 'encoder':
        raise CASTError(
            'pixel_contrast.in_channels is None, which stands for the channels of the maps of a '
            'TimmEncoder or DINOv2: write the number of channels'
        )
    return config | dict(in_channels=channels[config.get('feature_index', -1)])


def training_progress() -> float:
    """Fraction of the current run's iterations that is done, 0 outside of a run."""
    hub = MessageHub.get_current_instance()
    max_iters = hub.get_info('max_iters') if 'max_iters' in hub.runtime_info else 0
    return min(1.0, hub.get_info('iter', 0) / max_iters) if max_iters else 0.0


def _prefix(prefix: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """``d0.loss_cls`` becomes ``sup_d0.loss_cls``: MMEngine sums what has 'loss' in its name."""
    return {prefix + name: loss for name, loss in losses.items()}
