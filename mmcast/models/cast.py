"""One detector for every training step of CAST: L_sup + l_semi L_semi + l_pxl L_pxl."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample, OptSampleList, SampleList
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcast.errors import CASTError, NonFiniteError
from mmcast.models.lora import LoRA, adapters_put_aside, add_adapters, plain_state
from mmcast.models.losses.pixel_contrastive_loss import NonFiniteInputError
from mmcast.models.online_labels import OnlineLabels
from mmcast.models.outputs import NetworkOutputs, PixelDecodingNetwork
from mmcast.models.preprocessing import prepare_for
from mmcast.registry import MODELS
from mmcast.spelling import hint

FILE_LABELS = ('keep', 'merge', 'replace')


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
        teacher: A detector that labels images on the fly, or ``'detector'`` for a second network
            like ``detector``. It never gets a gradient, stays in eval mode, and is managed by
            ``FrozenTeacherHook`` or ``EMATeacherHook``. It sees images as its own data preprocessor
            makes them; without one, as the student's.
        pixel_contrast: Config of :class:`PixelContrast`; ``None`` or a weight of 0 is l_pxl = 0.
            ``in_channels=None`` stands for those of the encoder's map.
        semi_train_cfg: ``semi_weight`` (l_semi, default 0) and ``ramp=(begin, end)``, iterations
            between which the weight grows from 0 to that; ``strong_view``, config of what the
            student sees of images that people have not labeled, such as ``PhotometricStrongView``
            (default: what the teacher sees). Of the online teacher: the options of
            :class:`OnlineLabels`, and ``file_labels``, what becomes of the labels of ``pseudo``
            images: ``keep`` (default: the teacher does not look at these images), ``merge`` (it
            adds objects that the file lacks) or ``replace``.
        semi_test_cfg: ``predict_on``: ``student`` (default) or ``teacher``.
        lora: Settings of :class:`~mmcast.models.lora.LoRA`: ``detector`` learns by adapters beside
            frozen weights, and so does a ``teacher`` of the same config, which ``EMATeacherHook``
            needs. ``None`` trains the weights themselves.
        data_preprocessor: Overrides the detector's.
        init_cfg: As everywhere in MMEngine.

    Attributes:
        labels_online: Whether the teacher labels images now; ``EMATeacherHook`` says when its
            burn-in is over. Until then ``unlabeled`` images teach nothing by labels.
        label_weights: Factors of ``sup_*`` and of ``unsup_*``, 1. Where only a part of the batches
            that make a step has such images, the inverse of that part: the step's objective is
            then that of one large batch, as L_pxl is in all of them. Training sets them.

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
        same = teacher == 'detector' or (
            bool(teacher) and _network_of(teacher) == _network_of(detector)
        )
        if data_preprocessor:  # a network that resizes by itself has to know how it was normalised
            detector = dict(detector, data_preprocessor=data_preprocessor)
        self.detector = MODELS.build(detector)
        teacher = detector if teacher == 'detector' else teacher
        self.teacher = MODELS.build(teacher) if teacher else None
        self.lora = None if lora is None else LoRA.of(lora)
        if self.lora is not None:
            for network in (self.detector, self.teacher) if same else (self.detector,):
                add_adapters(network, self.lora)
        self.labels_online = True
        self.label_weights = (1.0, 1.0)
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        self.pixel_contrast = None
        if pixel_contrast and pixel_contrast.get('loss_weight', 1) > 0:
            self.pixel_contrast = MODELS.build(_fit_projector(pixel_contrast, self.detector))
            self._check_normalised('pixel_contrast')
            if self.pixel_contrast.source == 'pixel_decoder' and not isinstance(
                self.detector, PixelDecodingNetwork
            ):
                raise CASTError(
                    f"pixel_contrast.source='pixel_decoder': {type(self.detector).__name__} has no "
                    "pixel decoder whose maps could be contrasted; set source='encoder'"
                )
        self.semi_train_cfg = self._read_semi(semi_train_cfg or {})
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

    def _read_semi(self, given: dict) -> dict:
        """``semi_train_cfg`` with its defaults; sets ``online`` and ``strong_view``."""
        own = dict(semi_weight=0.0, ramp=None, strong_view=None, file_labels='keep')
        online = {field.name: field.default for field in fields(OnlineLabels)}
        for key in given:
            if key not in own | online:
                raise CASTError(f'semi_train_cfg has no {key}; {hint(key, [*own, *online])}')
        options = own | online | dict(given)
        if options['file_labels'] not in FILE_LABELS or (
            options['file_labels'] != 'keep' and self.teacher is None
        ):
            raise CASTError(
                f'semi_train_cfg.file_labels={options["file_labels"]!r}: choose one of '
                f'{", ".join(FILE_LABELS)}, the last two with teacher= set'
            )
        ramp = options['ramp']
        if ramp is not None and not 0 <= ramp[0] < ramp[1]:
            raise CASTError(
                f'semi_train_cfg.ramp={ramp}: give two iterations, the first below the second'
            )
        self.online = OnlineLabels(**{name: options[name] for name in online})
        self.strong_view = None
        if options['strong_view']:
            self.strong_view = MODELS.build(options['strong_view'])
            self._check_normalised('semi_train_cfg.strong_view')
        return options

    def _check_normalised(self, option: str) -> None:
        """Raises CASTError where nobody knows how pixels were normalised."""
        if any(getattr(self.data_preprocessor, name, None) is None for name in ('mean', 'std')):
            raise CASTError(
                f'{option} makes strong views of pixels, so it must know how they were '
                f'normalised: set mean and std in data_preprocessor, or {option}=None'
            )

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
            ``sup_*``; ``unsup_*`` if l_semi > 0, already weighted; ``loss_pxl`` if l_pxl > 0, too;
            with both an online teacher and l_semi > 0, ``online_images`` and ``online_labels``: how
            many it labeled in this batch, and with how many objects. The same keys on every rank
            for every batch.

        Raises:
            NonFiniteError: If a term is not finite, naming term and images.
            CASTError: If images have no labels, no teacher makes any, and l_semi > 0.
        """
        semi = self.semi_train_cfg['semi_weight'] > 0
        sources = [sample.metainfo.get('source', 'labeled') for sample in batch_data_samples]
        taught = dict(labeled=True, pseudo=semi, unlabeled=semi and self.labels_online)
        keep = [i for i, source in enumerate(sources) if taught.get(source, semi)]
        if self.pixel_contrast is None and 0 < len(keep) < len(sources):
            # Nothing would be learned from the rest.
            batch_inputs, sources = batch_inputs[keep], [sources[i] for i in keep]
            batch_data_samples = [batch_data_samples[i] for i in keep]
        counts = {}
        if semi:
            counts = self.label_online(batch_inputs, batch_data_samples, sources)

        outputs = self.detector.forward_once(
            self._student_view(batch_inputs, sources), batch_data_samples
        )
        labeled = [i for i, source in enumerate(sources) if source == 'labeled']
        sup = self.detector.loss_on(outputs, batch_data_samples, labeled)
        weight, semi_weight = self.label_weights
        losses = _prefix('sup_', {name: weight * loss for name, loss in sup.items()})
        if semi:
            rest = [
                i for i in range(len(sources)) if taught.get(sources[i], True) and i not in labeled
            ]
            unsup = self.detector.loss_on(outputs, batch_data_samples, rest)
            weight = self.semi_weight() * semi_weight
            losses |= _prefix('unsup_', {name: weight * loss for name, loss in unsup.items()})
        if self.pixel_contrast is not None:
            losses['loss_pxl'] = self.pixel_loss(batch_inputs, batch_data_samples, outputs)
        self._check_finite(losses, batch_data_samples)
        return losses | counts

    def semi_weight(self) -> float:
        """l_semi at the current iteration."""
        weight, ramp = self.semi_train_cfg['semi_weight'], self.semi_train_cfg['ramp']
        if ramp is None:
            return weight
        begin, end = ramp
        return weight * min(1.0, max(0.0, (current_iteration() - begin) / (end - begin)))

    def _student_view(self, batch_inputs: Tensor, sources: Sequence[str]) -> Tensor:
        """The batch as the student sees it: strong views of what people have not labeled."""
        rest = [i for i, source in enumerate(sources) if source != 'labeled']
        if self.strong_view is None or not rest:
            return batch_inputs
        view, normaliser = batch_inputs.clone(), self.data_preprocessor
        view[rest] = self.strong_view(batch_inputs[rest], normaliser.mean, normaliser.std)
        return view

    def pixel_loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, outputs: NetworkOutputs
    ) -> Tensor:
        """L_pxl of the batch, weighted; the strong pass carries no gradient into the encoder.

        Strong views are of ``batch_inputs``, whatever view the student's ``outputs`` are of.
        """
        normaliser, decoded = self.data_preprocessor, self.pixel_contrast.source == 'pixel_decoder'
        weak = outputs.decoded if decoded else outputs.features
        with torch.no_grad(), running_statistics_kept(self.detector):
            strong = self.pixel_contrast.strong_view(batch_inputs, normaliser.mean, normaliser.std)
            strong = self._strong_maps(strong)
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

    def _strong_maps(self, strong: Tensor) -> tuple[Tensor, ...]:
        """Maps of strong views (B, 3, H, W) up to the contrasted one, or all of them."""
        if self.pixel_contrast.source == 'pixel_decoder':
            return self.detector.decode_pixels(self.detector.extract_feat(strong))
        index = self.pixel_contrast.feature_index
        if index >= 0 and hasattr(self.detector, 'extract_first_maps'):
            return self.detector.extract_first_maps(strong, index + 1)
        return self.detector.extract_feat(strong)

    @torch.no_grad()
    def label_online(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, sources: Sequence[str]
    ) -> dict[str, Tensor]:
        """Set the ``gt_instances`` of images from the teacher's confident masks.

        Returns:
            ``online_images`` and ``online_labels``, see :meth:`loss`; nothing without a teacher.
        """
        indices = self._labeled_online(sources)
        count = 0
        if indices:
            samples = [batch_data_samples[i] for i in indices]
            predictions = self._ask_teacher(batch_inputs[indices], samples, rescale=False)
            for sample, prediction in zip(samples, predictions):
                found = self.online.choose(prediction.pred_instances, batch_inputs.shape[-2:])
                count += self._use(found, sample)
        if self.teacher is None:
            return {}
        counts = dict(online_images=len(indices), online_labels=count)
        return {name: batch_inputs.new_tensor(float(value)) for name, value in counts.items()}

    def _labeled_online(self, sources: Sequence[str]) -> list[int]:
        """The images that the teacher labels now."""
        if self.teacher is None and 'unlabeled' in sources:
            raise CASTError(
                'images without labels and semi_weight > 0: set teacher= in CASTDetector, or read '
                'pseudo-labels from a file with PseudoLabelDataset'
            )
        if self.teacher is None or not self.labels_online:
            return []
        kinds = ('unlabeled', *(['pseudo'] if self.semi_train_cfg['file_labels'] != 'keep' else []))
        return [i for i, source in enumerate(sources) if source in kinds]

    def _use(self, found: InstanceData, sample: DetDataSample) -> int:
        """Give an image its online labels; how many they are."""
        before = 0
        if sample.metainfo['source'] == 'pseudo':
            if self.semi_train_cfg['file_labels'] == 'merge':
                before = len(sample.gt_instances.labels)
                found = self.online.add(sample.gt_instances, found)
            elif 'gt_sem_seg' in sample:
                del sample.gt_sem_seg  # the confidence of the file's teacher in its own labels
        sample.gt_instances = found
        return len(found.labels) - before

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
    return min(1.0, current_iteration() / max_iters) if max_iters else 0.0


def current_iteration() -> int:
    """Number of iterations of the current run that are done, 0 outside of a run."""
    return MessageHub.get_current_instance().get_info('iter', 0)


def _prefix(prefix: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """``d0.loss_cls`` becomes ``sup_d0.loss_cls``: MMEngine sums what has 'loss' in its name."""
    return {prefix + name: loss for name, loss in losses.items()}
