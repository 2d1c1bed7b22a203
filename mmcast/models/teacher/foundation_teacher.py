"""What the foundation teachers have in common: images, windows, order of predictions."""

from typing import NoReturn

from mmdet.models.detectors import BaseDetector
from mmdet.structures import OptSampleList, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from mmcast.masks.tiling import Windows
from mmcast.models.student.tiled_prediction import predict_in_windows


class FoundationTeacher(BaseDetector):
    """A detector that brings images to its networks' sizes by itself.

    Subclasses have :meth:`predict_whole`, and the methods of a ``CASTNetwork``.

    Attributes:
        windows: Where predictions are made in overlapping windows, which; else None.
        score_factors: Fields of the predictions that ``scores`` are multiplied by.
        mask_probabilities: Whether predictions have ``probabilities``, see
            ``mmcast.masks.confidence``.
        cropped_masks: Whether predictions in windows have
            :class:`~mmcast.masks.cropped.CroppedMasks` in place of a tensor.
    """

    windows: Windows | None = None
    score_factors: tuple[str, ...] = ()
    mask_probabilities = False
    cropped_masks = False

    def _pixels(self, batch_inputs: Tensor) -> Tensor:
        """(B, 3, H, W) of uint8, RGB, as they were loaded."""
        normaliser = self.data_preprocessor
        return (
            (batch_inputs.float() * normaliser.std + normaliser.mean).round().clamp(0, 255).byte()
        )

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Instances of every image.

        Args:
            batch_inputs: (B, 3, H, W) normalised images, padded at the bottom and right.
            batch_data_samples: With ``img_shape``, and ``ori_shape`` for ``rescale``.
            rescale: Boxes and masks in the size ``ori_shape``, else in ``img_shape``.

        Returns:
            The samples with ``pred_instances``, best first: ``bboxes`` (N, 4), ``labels`` (N,),
            ``masks`` (N, H, W) of bool, ``scores`` (N,), and ``class_scores``, ``mask_quality`` and
            ``agreement`` (N,), which the class describes.
        """
        if self.windows is None:
            return self.predict_whole(batch_inputs, batch_data_samples, rescale)
        return predict_in_windows(
            self.predict_whole,
            batch_inputs,
            batch_data_samples,
            self.windows,
            rescale,
            self.mask_probabilities,
            self.cropped_masks,
        )

    def predict_whole(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
        logits_above: float | None = None,
    ) -> SampleList:
        """:meth:`predict` on whole images.

        Args:
            batch_inputs: As of :meth:`predict`.
            batch_data_samples: As of :meth:`predict`.
            rescale: As of :meth:`predict`.
            logits_above: Predict the mask ``logits`` (N, H, W) as well, but only instances whose
                score is above this.
        """
        raise NotImplementedError

    def _ranked(self, instances: InstanceData) -> InstanceData:
        """Instances, best first, with ``scores`` times ``score_factors``; without any, as given."""
        for name in self.score_factors:
            instances.scores = instances.scores * instances[name].clamp(0, 1)
        if not self.score_factors:
            return instances
        return instances[instances.scores.argsort(descending=True, stable=True)]

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses on the whole batch: the teacher also trains without :class:`CASTDetector`."""
        outputs = self.forward_once(batch_inputs, batch_data_samples)
        return self.loss_on(outputs, batch_data_samples, range(len(batch_data_samples)))

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> NoReturn:
        raise NotImplementedError('the teacher only predicts and trains')
