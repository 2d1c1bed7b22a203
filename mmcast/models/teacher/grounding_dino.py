"""Grounding-DINO as the component of the teacher that finds a data set's classes; the network is
mmdet's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.image import rescale_size
from mmdet.models.detectors import GroundingDINO
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as image_functional

from mmcast.errors import CASTError
from mmcast.models.teacher.prompts import ClassPrompts, Prompt, scores_of_classes
from mmcast.models.weights.initialization import load_last
from mmcast.registry import MODELS


@dataclass
class BoxOutputs:
    """One training pass of Grounding-DINO.

    Attributes:
        features: The backbone's maps, finest first, each (B, C_i, h_i, w_i).
        head_inputs: What the head takes.
        samples: Labels at the network's size, in the prompt's classes.
        prompt: What was asked for.
    """

    features: tuple[Tensor, ...]
    head_inputs: dict
    samples: SampleList
    prompt: Prompt


@MODELS.register_module()
class PromptedGroundingDINO(GroundingDINO):
    """mmdet's Grounding-DINO for a fixed list of classes, from images of any size.

    Parameters have mmdet's names. The language model is never trained, and runs once for a prompt
    instead of once for an image.

    Args:
        classes: Names in the data set's order.
        prompts: Class names to a text, or several that mean the same, to ask for in their place;
            of several, the highest score counts, and all are positive in training.
        box_scale: Longest long side and short side of the network's input in pixels, the ratio is
            kept.
        train_box_scales: In training, one of these is chosen at random for each batch; default
            ``box_scale``.
        test_cfg: ``score_thr`` (0.05) and ``max_per_img`` (100) of the boxes,
            ``classes_per_prompt`` (as many as the text length holds).
        kwargs: Those of ``GroundingDINO``; ``data_preprocessor`` with ``mean`` and ``std``.

    Raises:
        CASTError: If the classes cannot be prompted, or the normalisation is not given.
    """

    def __init__(
        self,
        *args: Any,
        classes: Sequence[str],
        prompts: Mapping[str, str | Sequence[str]] | None = None,
        box_scale: tuple[int, int] = (1333, 800),
        train_box_scales: Sequence[tuple[int, int]] | None = None,
        test_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        test_cfg = dict(
            dict(score_thr=0.05, max_per_img=100, classes_per_prompt=None), **(test_cfg or {})
        )
        super().__init__(*args, test_cfg=test_cfg, **kwargs)
        if any(getattr(self.data_preprocessor, name, None) is None for name in ('mean', 'std')):
            raise CASTError(
                'PromptedGroundingDINO resizes and normalises by itself: set mean and std in its '
                'data_preprocessor'
            )
        self.box_scale = tuple(box_scale)
        self.train_box_scales = [tuple(scale) for scale in train_box_scales or [box_scale]]
        self.current_scale = self.box_scale
        self.num_classes = len(classes)
        self.prompts = ClassPrompts(self, classes, test_cfg['classes_per_prompt'], prompts)
        self.language_model.requires_grad_(False).eval()
        nn.init.normal_(self.level_embed)  # mmdet leaves what the memory held until init_weights

    def init_weights(self) -> None:
        """mmdet's random weights, then the file that ``init_cfg`` names, which mmdet's would
        overwrite.
        """
        load_last(self, super().init_weights)

    def train(self, mode: bool = True) -> 'PromptedGroundingDINO':
        """Training mode for all but the language model, whose dropout would make its features
        random.
        """
        super().train(mode)
        self.language_model.eval()
        return self

    def draw_scale(self) -> None:
        """Choose the size of the next batch's input among ``train_box_scales``."""
        self.current_scale = self.train_box_scales[
            torch.randint(len(self.train_box_scales), ()).item()
        ]

    def preprocess(self, pixels: Tensor, scale: tuple[int, int]) -> Tensor:
        """The network's input from images (..., 3, H, W) of uint8, RGB: resized and normalised."""
        width, height = rescale_size(tuple(pixels.shape[:-3:-1]), scale)
        resized = image_functional.resize(pixels, [height, width], antialias=True)
        return (resized.float() - self.data_preprocessor.mean) / self.data_preprocessor.std

    def detect(self, images: Sequence[Tensor]) -> list[InstanceData]:
        """Boxes of images (3, H, W) of uint8, RGB, best first.

        Returns:
            Per image ``bboxes`` (N, 4) in normalised coordinates, ``scores`` (N,) and
            ``labels`` (N,).
        """
        if (
            len({image.shape for image in images}) > 1
        ):  # padding would enter the maps' normalisation
            return [self.detect([image])[0] for image in images]
        features, samples = self._encode(torch.stack(list(images)))
        found = [
            self._best_pairs(*self.score_queries(features, samples, prompt), prompt)
            for prompt in self.prompts.all
        ]
        return [
            self._keep(InstanceData.cat([of_prompt[i] for of_prompt in found]))
            for i in range(len(images))
        ]

    def queries(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (B, Q, C) and boxes (B, Q, 4), normalised, of all queries on (B, 3, H, W) of
        uint8.
        """
        features, samples = self._encode(pixels)
        found = [self.score_queries(features, samples, prompt) for prompt in self.prompts.all]
        scores = [
            self.spread(scores, prompt) for (scores, _), prompt in zip(found, self.prompts.all)
        ]
        return torch.cat(scores, dim=1), torch.cat([boxes for _, boxes in found], dim=1)

    def _encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], SampleList]:
        """Feature maps of images (B, 3, H, W) of uint8 at the network's size, and samples that tell
        it.
        """
        inputs = self.preprocess(pixels, self.box_scale)
        size = tuple(inputs.shape[2:])
        samples = [
            DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size)) for _ in inputs
        ]
        return self.extract_feat(inputs), samples

    def score_queries(
        self, features: tuple[Tensor, ...], samples: SampleList, prompt: Prompt
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, Q, n) of a prompt's classes and boxes (B, Q, 4) in normalised coordinates."""
        inputs = self.forward_transformer(features, self._text(prompt, len(samples)), samples)
        return self._read(self.bbox_head(**inputs), prompt)

    def _text(self, prompt: Prompt, batch_size: int) -> dict[str, Tensor]:
        text = self.prompts.features(prompt, batch_size)
        return dict(text, embedded=self.text_feat_map(text['embedded']))

    @staticmethod
    def _read(outputs: tuple[Tensor, Tensor], prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Class scores and clipped corners from the last layer of the head's outputs."""
        tokens, boxes = (layers[-1].float() for layers in outputs)
        return scores_of_classes(tokens.sigmoid(), prompt), bbox_cxcywh_to_xyxy(boxes).clamp(0, 1)

    def _best_pairs(self, scores: Tensor, boxes: Tensor, prompt: Prompt) -> list[InstanceData]:
        """The best pairs of query and class in every image, as mmdet chooses them."""
        number = len(prompt.classes)
        best, index = scores.flatten(1).topk(min(self.test_cfg['max_per_img'], scores[0].numel()))
        labels = index.new_tensor(prompt.classes)[index % number]
        queries = torch.div(index, number, rounding_mode='floor')
        return [
            InstanceData(scores=best[i], labels=labels[i], bboxes=boxes[i, queries[i]])
            for i in range(len(scores))
        ]

    def _keep(self, found: InstanceData) -> InstanceData:
        """Those above the threshold whose boxes have an area in the image, best first."""
        sides = found.bboxes[:, 2:] - found.bboxes[:, :2]
        found = found[(found.scores > self.test_cfg['score_thr']) & (sides > 0).all(1)]
        return found[
            found.scores.argsort(descending=True, stable=True)[: self.test_cfg['max_per_img']]
        ]

    def spread(self, scores: Tensor, prompt: Prompt) -> Tensor:
        """Scores (B, Q, C) of all classes from those of a prompt's; 0 where it does not ask."""
        everything = scores.new_zeros((*scores.shape[:2], self.num_classes))
        everything[..., list(prompt.classes)] = scores
        return everything

    # Training

    def forward_once(self, pixels: Tensor, samples: SampleList) -> BoxOutputs:
        """Run the network on a batch (B, 3, H, W) of uint8, RGB, at the scale that was chosen.

        The transformer is shown noisy ground truths in addition to its own queries (DINO's
        denoising), so that it needs the labels already.
        """
        inputs = self.preprocess(pixels, self.current_scale)
        prompt = self.prompts.for_training(
            torch.cat([sample.gt_instances.labels for sample in samples])
        )
        scale = [new / old for new, old in zip(inputs.shape[-2:], pixels.shape[-2:])]
        text = self._text(prompt, len(samples))
        samples = [
            self._resize_labels(sample, prompt, scale, inputs.shape[-2:]) for sample in samples
        ]
        for sample in samples:  # mmdet's matching looks for the prompt's length there
            mask = text['text_token_mask'][:1].expand(len(sample.gt_instances), -1)
            sample.gt_instances.text_token_mask = mask
        maps = self.backbone(inputs)
        head_inputs = self.forward_transformer(self.neck(maps), text, samples)
        return BoxOutputs(tuple(maps), head_inputs, samples, prompt)

    def _resize_labels(
        self, sample: DetDataSample, prompt: Prompt, scale: Sequence[float], canvas: Sequence[int]
    ) -> DetDataSample:
        """Labels of one image at the network's size; what the prompt does not name is not an
        object.
        """
        gt = sample.gt_instances
        position = gt.labels.new_full((self.num_classes,), -1)
        position[list(prompt.classes)] = torch.arange(len(prompt.classes), device=gt.labels.device)
        labels = position[gt.labels]
        boxes = gt.bboxes.float() * gt.bboxes.new_tensor(
            [scale[1], scale[0]], dtype=torch.float32
        ).repeat(2)
        labels, boxes = labels[labels >= 0], boxes[labels >= 0]
        size = tuple(
            min(round(side * factor), limit)
            for side, factor, limit in zip(sample.img_shape, scale, canvas)
        )
        resized = DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=tuple(canvas)))
        resized.gt_instances = InstanceData(
            labels=labels, bboxes=boxes, positive_maps=prompt.tokens_of_class.to(boxes)[labels]
        )
        return resized

    def losses(self, outputs: BoxOutputs, indices: Sequence[int]) -> dict[str, Tensor]:
        """mmdet's losses on the images ``indices`` in float32, as matching and focal loss need it.

        No image counts as one without objects, weighted 0: it adds nothing to a normaliser, takes
        part in the reductions over ranks, and leaves a graph.
        """
        chosen = list(indices) or [0]
        samples = [outputs.samples[i] for i in chosen]
        if not len(indices):
            samples = [
                DetDataSample(
                    metainfo=samples[0].metainfo, gt_instances=samples[0].gt_instances[:0]
                )
            ]
        inputs = outputs.head_inputs
        parts = {
            name: inputs[name][chosen].float()
            for name in ('memory_text', 'enc_outputs_class', 'enc_outputs_coord')
        }
        with torch.autocast(parts['memory_text'].device.type, enabled=False):
            losses = self.bbox_head.loss(
                hidden_states=inputs['hidden_states'][:, chosen].float(),  # (layers, B, queries, C)
                references=[reference[chosen].float() for reference in inputs['references']],
                text_token_mask=inputs['text_token_mask'][chosen],
                dn_meta=inputs['dn_meta'],
                batch_data_samples=samples,
                **parts,
            )
        # Nothing is denoised in a batch without objects, and DDP would wait for the labels'
        # embedding.
        graph = 0 * self.dn_query_generator.label_embedding.weight.sum()
        return {name: float(len(indices) > 0) * loss.sum() + graph for name, loss in losses.items()}

    def trained_queries(self, outputs: BoxOutputs) -> tuple[Tensor, Tensor]:
        """As :meth:`queries`, of a training pass; boxes in normalised coordinates of the batch's
        canvas.
        """
        inputs = outputs.head_inputs
        names = ('hidden_states', 'references', 'memory_text', 'text_token_mask')
        scores, boxes = self._read(
            self.bbox_head(**{name: inputs[name] for name in names}), outputs.prompt
        )
        first = inputs['dn_meta']['num_denoising_queries']
        of_canvas = boxes.new_tensor(
            [
                [side / limit for side, limit in zip(sample.img_shape, sample.batch_input_shape)][
                    ::-1
                ]
                * 2
                for sample in outputs.samples
            ]
        )
        return self.spread(scores[:, first:], outputs.prompt), boxes[:, first:] * of_canvas[:, None]
