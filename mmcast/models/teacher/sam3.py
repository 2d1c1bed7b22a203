"""SAM3 as a teacher: one network finds the instances of every class by its name and segments them.

The network is ``transformers``'. Here it is asked for all classes of a data set with one encoding
of an image, and learns, which the library has no losses for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps, bbox_xyxy_to_cxcywh
from mmdet.structures.mask import mask2bbox
from mmdet.utils import OptConfigType, OptMultiConfig, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.transforms.v2 import functional as image_functional

from mmcast.errors import CASTError
from mmcast.masks.confidence import map_size
from mmcast.masks.tiling import Windows
from mmcast.models.embedding_cache import EmbeddingCache
from mmcast.models.losses.prompted_masks import focal_and_dice
from mmcast.models.losses.text_prompted import Matches, match_queries, query_losses
from mmcast.models.outputs import NetworkOutputs, OnDemand
from mmcast.models.pixel_confidence import confidence_of
from mmcast.models.teacher.class_texts import ClassTexts
from mmcast.models.teacher.foundation_teacher import FoundationTeacher
from mmcast.models.teacher.sam3_outputs import (
    ImageMaps,
    PairOutputs,
    binary_masks,
    byte_probabilities,
    logits_of_size,
    mask_ious,
    mask_quality,
)
from mmcast.optional import require
from mmcast.registry import MODELS
from mmcast.spelling import hint

COMPONENTS = ('text_encoder', 'vision_encoder')
SCORE_FACTORS = ('mask_quality', 'agreement')
#: Those of the published recipe, see ``mmcast.models.losses.text_prompted``.
LOSS_WEIGHTS = dict(cls=20.0, presence=20.0, bbox=5.0, iou=2.0, mask=200.0, dice=10.0)
TINY = 1e-6  # a normaliser where there is nothing to be normalised on any rank
TEST_CFG = dict(score_thr=0.05, max_per_img=100, synonym_iou=0.5)


@dataclass
class SAM3Outputs(NetworkOutputs):
    """What one forward pass of SAM3 in training returns.

    ``class_logits`` and ``mask_logits`` are those of the queries with the highest scores; they are
    made when they are first asked for, which is when the pixel loss is on, and without gradient.

    Attributes:
        encoded: Maps of the images.
        found: Of P pairs of image and text.
        images: (P,), the image of each pair.
        labels: (P,), the class that each pair asks for.
    """

    encoded: ImageMaps | None = None
    found: PairOutputs | None = None
    images: Tensor | None = None
    labels: Tensor | None = None


@MODELS.register_module()
class SAM3(FoundationTeacher):
    """SAM3 for a fixed list of classes; trains and predicts like any mmdet detector.

    The pipeline passes an image of any size; here it is stretched to a square and normalised. In
    training the network sees the batch's canvas, padding included. An image is encoded once, and
    each text has a pass of the remaining network, a few texts at a time.

    Predictions have ``class_scores``, SAM3's score of the class being in the image (presence),
    ``mask_quality``, the mean probability of the mask's pixels, ``agreement``, the IoU of SAM3's
    box and that of its mask, and ``scores``, the query's score times presence, times
    ``score_factors``. What two classes claim is in there twice.

    Args:
        classes: Names in the data set's order.
        prompts: Class names to a text that asks for the class in place of its name, or to several
            that mean the same. An object that several of a class find is kept once, with the
            highest score.
        tokenizer: Folder with CLIP's ``vocab.json`` and ``merges.txt``, or a name on Hugging Face.
        image_size: Side of the square in pixels, a multiple of 14.
        network: Options of ``transformers.Sam3Config`` that win over the published ones, nested.
        geometry_token: Whether the network reads a text as Meta's own does, or as the library's,
            see ``mmcast.models.teacher.prompted_sam3.PromptedSAM3``.
        frozen: Components that do not learn: ``text_encoder``, ``vision_encoder``. The pixel loss
            needs the latter to learn.
        cache_gb: With ``vision_encoder`` frozen, most main memory in GB for embeddings of training
            images, which are then made once; 0 for none. An image of the published network has
            112 MB, in bf16 half of that.
        texts_per_chunk: So many texts are asked for at a time in prediction.
        masks_per_chunk: So many masks are brought to full size at a time.
        texts_per_image: In training, an image is asked for so many classes at most: those that it
            has and others, chosen anew each time.
        absent_texts: Among them, so many at least that the image does not have, if there are any.
        masks_per_image: In training, so many objects of an image count in the mask losses at most,
            chosen anew each time.
        mask_loss_size: Side of the square that the mask losses see; default ``image_size``, the
            published recipe's.
        loss_weights: ``cls``, ``presence``, ``bbox``, ``iou``, ``mask``, ``dice``; what is not
            given is as published.
        num_pixel_queries: K of the pixel loss, the queries with the highest scores.
        score_factors: What ``scores`` are the product of, in addition to SAM3's scores:
            ``mask_quality``, ``agreement``.
        windows: Predict in overlapping windows of the image that the test pipeline gives, options
            of :class:`~mmcast.masks.tiling.Windows`; each window is stretched to the square.
            Default: the whole image.
        activation_checkpointing: Trade a second forward pass, of the mask losses too, for the
            memory of the first.
        test_cfg: ``score_thr`` (0.05), ``max_per_img`` (100), and ``synonym_iou`` (0.5), from where
            on the masks of two texts of a class are of one object.
        data_preprocessor: With the ``mean`` and ``std`` that the batch is normalised by.
        init_cfg: As everywhere in MMEngine.

    Raises:
        CASTError: If classes cannot be prompted, or an option is unknown.

    Attributes:
        lora_layers: Layers that LoRA adapts: all linear ones that text prompts reach, but for those
            of the text encoder, which is frozen in most runs.
        lora_learn_in_full: Nothing beside them.
    """

    lora_layers = (
        r'network\.vision_encoder\.backbone\.',
        r'network\.(detr_encoder|detr_decoder|dot_product_scoring|mask_decoder|text_projection)\b',
    )
    lora_learn_in_full = ()

    def __init__(
        self,
        classes: Sequence[str],
        prompts: Mapping[str, str | Sequence[str]] | None = None,
        tokenizer: str = 'openai/clip-vit-base-patch32',
        image_size: int = 1008,
        network: dict | None = None,
        geometry_token: bool = False,
        frozen: Sequence[str] = ('text_encoder',),
        cache_gb: float = 0.0,
        texts_per_chunk: int = 8,
        masks_per_chunk: int = 32,
        texts_per_image: int = 8,
        absent_texts: int = 2,
        masks_per_image: int = 32,
        mask_loss_size: int | None = None,
        loss_weights: Mapping[str, float] | None = None,
        num_pixel_queries: int = 50,
        score_factors: Sequence[str] = (),
        windows: dict | None = None,
        activation_checkpointing: bool = False,
        test_cfg: dict | None = None,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if any(getattr(self.data_preprocessor, name, None) is None for name in ('mean', 'std')):
            raise CASTError(
                'SAM3 brings images to its own size, so it must know how they were normalised: set '
                'mean and std in data_preprocessor'
            )
        _check_names('frozen', frozen, COMPONENTS)
        _check_names('score_factors', score_factors, SCORE_FACTORS)
        _check_names('loss_weights', loss_weights or (), LOSS_WEIGHTS)
        _check_names('test_cfg', test_cfg or (), TEST_CFG)
        require('transformers.models.sam3', 'pip install "transformers>=5.24"')
        from mmcast.models.teacher.prompted_sam3 import PromptedSAM3, sam3_config

        self.network = PromptedSAM3(sam3_config(image_size, network), geometry_token)
        length = self.network.config.text_config.max_position_embeddings
        self.texts = ClassTexts(classes, prompts, tokenizer, length)
        self.num_classes = len(classes)
        self.frozen = tuple(frozen)
        self.texts_per_chunk, self.masks_per_chunk = texts_per_chunk, masks_per_chunk
        self.texts_per_image, self.absent_texts = texts_per_image, absent_texts
        self.masks_per_image = masks_per_image
        self.mask_loss_size = mask_loss_size or image_size
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.num_pixel_queries = num_pixel_queries
        self.score_factors = tuple(score_factors)
        self.windows = Windows(**windows) if windows else None
        self.test_cfg = {**TEST_CFG, **(test_cfg or {})}
        for name in self.frozen:
            getattr(self.network, name).requires_grad_(False).eval()
        if cache_gb and 'vision_encoder' not in frozen:
            raise CASTError(
                'SAM3: cache_gb keeps what a frozen image encoder makes of an image; put '
                'vision_encoder into frozen too'
            )
        self.embedding_cache = EmbeddingCache(cache_gb) if cache_gb else None
        self.activation_checkpointing = activation_checkpointing
        if activation_checkpointing:
            self.network.checkpoint_activations()

    def train(self, mode: bool = True) -> 'SAM3':
        """Training mode for what learns; a frozen component stays in evaluation."""
        super().train(mode)
        for name in ('geometry_encoder', *self.frozen):
            getattr(self.network, name).eval()
        return self

    def _find(self, encoded: ImageMaps, images: Tensor, texts: Tensor) -> PairOutputs:
        """Ask images, by index (P,), for texts, by index (P,)."""
        states = self.texts.states(self.network.text_encoder, texts)
        mask = self.texts.attention_mask[texts].to(states.device)
        return self.network.find(encoded[images.to(states.device)], states, mask)

    # Prediction

    def predict_whole(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
        logits_above: float | None = None,
    ) -> SampleList:
        for pixels, sample in zip(self._pixels(batch_inputs), batch_data_samples):
            height, width = sample.img_shape[:2]
            size = tuple((sample.ori_shape if rescale else sample.img_shape)[:2])
            found = self._detect(self.network.encode(pixels[None, :, :height, :width]))
            if logits_above is not None:  # factors of scores are at most 1
                found = found[found.scores > logits_above]
            sample.pred_instances = self._finish(found, size, logits_above is not None)
        return batch_data_samples

    def _detect(self, encoded: ImageMaps) -> InstanceData:
        """The best instances of one image over all classes, as boxes in 0..1 and ``logits`` of
        masks in the square; of no more than two chunks at a time.
        """
        kept: InstanceData | None = None
        limit, thr = self.test_cfg['max_per_img'], self.test_cfg['score_thr']
        for texts in torch.arange(len(self.texts.texts)).split(self.texts_per_chunk):
            found = self._find(encoded, torch.zeros_like(texts), texts)
            best, order = found.scores.flatten().topk(min(limit, found.scores.numel()))
            full = kept is not None and len(kept) == limit
            floor = kept.scores[-1].clamp(min=thr) if full else thr  # what could still get in
            chosen = self._take(found, encoded, texts, order[best > floor])
            kept = chosen if kept is None else InstanceData.cat([kept, chosen])
            kept = kept[kept.scores.argsort(descending=True, stable=True)]
            kept = kept[self._unlike_synonyms(kept)][:limit]
        return kept

    def _take(
        self, found: PairOutputs, encoded: ImageMaps, texts: Tensor, order: Tensor
    ) -> InstanceData:
        """Queries of a chunk, by index among all its pairs' queries, with their masks."""
        number = found.queries.shape[1]
        order = order.sort().values  # those of a pair together, as the masks come
        pairs, queries = torch.div(order, number, rounding_mode='floor'), order % number
        masks = [
            self.network.masks(found, encoded, pair, 0, queries[pairs == pair]).float()
            for pair in pairs.unique().tolist()
        ]
        height, width = encoded.maps[0].shape[-2:]
        texts = texts.to(order.device)[pairs]
        none = found.memory.new_zeros((0, height, width), dtype=torch.float32)
        return InstanceData(
            scores=found.scores[pairs, queries],
            labels=self.texts.labels.to(order.device)[texts],
            texts=texts,
            class_scores=found.presence[-1].float().sigmoid()[pairs],
            bboxes=bbox_cxcywh_to_xyxy(found.boxes[-1].float())[pairs, queries],
            logits=torch.cat(masks) if masks else none,
        )

    def _unlike_synonyms(self, found: InstanceData) -> Tensor:
        """(N,) of bool: False where another text of the class found the object with a higher score.

        Args:
            found: Best first.
        """
        kept = torch.ones(len(found), dtype=torch.bool, device=found.scores.device)
        counts = self.texts.labels.bincount(minlength=self.num_classes).to(kept.device)
        for label in found.labels[counts[found.labels] > 1].unique():
            places = (found.labels == label).nonzero()[:, 0]
            texts = found.texts[places]
            same = mask_ious(found.logits[places] > 0) >= self.test_cfg['synonym_iou']
            same = (same & (texts[:, None] != texts)).cpu()
            alive = torch.ones(len(places), dtype=torch.bool)
            for i in range(len(places)):
                if alive[i]:
                    alive[i + 1 :] &= ~same[i, i + 1 :]
            kept[places] = alive.to(kept.device)
        return kept

    def _finish(
        self, found: InstanceData, size: tuple[int, int], with_logits: bool = False
    ) -> InstanceData:
        """Instances in an image of a size, from those in the square."""
        whole = found.bboxes.new_tensor([size[1], size[0]]).repeat(2)
        boxes = (found.bboxes * whole).clamp(min=0).minimum(whole)
        masks = binary_masks(found.logits, size, self.masks_per_chunk)
        instances = InstanceData(
            bboxes=boxes,
            labels=found.labels,
            scores=found.scores,
            masks=masks,
            class_scores=found.class_scores,
            mask_quality=mask_quality(found.logits),
            agreement=bbox_overlaps(boxes, mask2bbox(masks), is_aligned=True),
        )
        if with_logits:
            instances.logits = logits_of_size(found.logits, size, self.masks_per_chunk)
        elif self.mask_probabilities:
            instances.probabilities = byte_probabilities(
                found.logits, map_size(size), self.masks_per_chunk
            )
        return self._ranked(instances)

    # Training, as CASTDetector asks for it

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """One map (B, C, S / 14, S / 14) of the image encoder's neck."""
        if 'vision_encoder' in self.frozen:
            raise CASTError(
                "the pixel loss needs an encoder that learns, and SAM3's is frozen: set "
                'pixel_contrast=None'
            )
        return (self.network.coarsest_map(self._pixels(batch_inputs)),)

    def forward_once(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> SAM3Outputs:
        """Encode images (B, 3, H, W) and ask each for some classes."""
        encoded = self._encode(self._pixels(batch_inputs))
        labels = [self._draw_classes(sample) for sample in batch_data_samples]
        images = torch.cat([torch.full_like(each, i) for i, each in enumerate(labels)])
        labels = torch.cat(labels)
        found = self._find(encoded, images, self.texts.draw(labels))
        queries = cache(partial(self._pixel_queries, encoded, found, images, labels))
        return SAM3Outputs(
            tuple(encoded.maps[-1:]),
            class_logits=OnDemand(lambda: queries()[1]),
            mask_logits=OnDemand(lambda: queries()[0]),
            encoded=encoded,
            found=found,
            images=images,
            labels=labels,
        )

    def _encode(self, pixels: Tensor) -> ImageMaps:
        """Maps of training images (B, 3, H, W) of uint8, made before if they are kept."""
        if self.embedding_cache is None:
            return self.network.encode(pixels)

        def encode(some: Tensor) -> list[Tensor]:
            encoded = self.network.encode(some)
            return [*encoded.maps, encoded.position, encoded.tokens]

        frozen = [self.network.vision_encoder, self.network.geometry_encoder]
        *maps, position, tokens = self.embedding_cache.get(pixels, encode, frozen)
        return ImageMaps(maps, position, tokens)

    def _draw_classes(self, sample: DetDataSample) -> Tensor:
        """The classes that a training image is asked for, on the CPU: some that it has, others that
        it has not. One that a group (``iscrowd``) alone shows is neither, and is asked for only
        where there is no other.
        """
        number = min(self.texts_per_image, self.num_classes)
        order = torch.randperm(self.num_classes)
        is_present = torch.isin(order, sample.gt_instances.labels.cpu())
        present, absent = order[is_present], order[~is_present & ~_group_alone(sample, order)]
        if not len(present) + len(absent):
            return order[:1]  # the network wants a text; `loss_on` leaves it out
        reserved = min(self.absent_texts, len(absent), number - 1)
        present = present[: number - reserved]
        return torch.cat([present, absent[: number - len(present)]])

    def loss_on(
        self, outputs: SAM3Outputs, batch_data_samples: SampleList, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The losses on the images ``indices``, in float32; of none, zeros with a graph.

        ``loss_cls``, ``loss_presence``, ``loss_bbox``, ``loss_iou``, ``loss_mask`` and
        ``loss_dice`` are the last decoder layer's; of the others, ``d0.loss_cls`` and so on, all
        but the masks'. Normalisers are averaged over ranks.
        """
        found, targets = outputs.found, _targets_of(outputs, batch_data_samples, indices)
        pairs = torch.tensor([each.pair for each in targets], dtype=torch.long)
        boxes = [each.boxes for each in targets]
        with torch.autocast(found.logits.device.type, enabled=False):
            logits, predicted, presence = (
                part[:, pairs.to(part.device)].float()
                for part in (found.logits, found.boxes, found.presence)
            )
            counts = logits.new_tensor([len(boxes), sum(map(len, boxes))])
            num_pairs, num_targets = reduce_mean(counts).clamp(min=TINY)
            matches = match_queries(logits, predicted, boxes)
            losses = query_losses(
                logits, predicted, presence, boxes, matches, num_pairs, num_targets
            )
        matched = _split_by_pair(matches.of_layer(len(logits) - 1), targets)
        masks = self._mask_losses(outputs, batch_data_samples, matched)
        return {
            f'{f"d{layer}." if layer < len(of_layers) - 1 else ""}loss_{name}': loss
            * self.loss_weights[name]
            for name, of_layers in (losses | masks).items()
            for layer, loss in enumerate(of_layers)
        }

    def _mask_losses(
        self,
        outputs: SAM3Outputs,
        samples: SampleList,
        matched: Sequence[tuple['_PairTargets', Tensor, Tensor]],
    ) -> dict[str, Tensor]:
        """``mask`` and ``dice``, each (1,), means over the matched objects that count.

        Args:
            outputs: Of :meth:`forward_once`.
            samples: Of the batch.
            matched: Targets of a pair, and indices of queries and of the objects of the image that
                they are matched with.
        """
        total, count = outputs.found.logits.new_zeros(2, dtype=torch.float32), 0
        counting = [
            torch.randperm(len(sample.gt_instances))[: self.masks_per_image] for sample in samples
        ]
        for target, queries, objects in matched:
            counts = torch.isin(objects, counting[target.image])
            if counts.any():
                queries, objects = queries[counts.to(queries.device)], objects[counts]
                total = total + self._losses_of_masks(
                    self._masks_of(outputs, target.pair, target.image, queries),
                    samples[target.image],
                    objects,
                )
                count += len(objects)
        if not count:  # the same graph as ever, from a query that counts for nothing
            first = torch.zeros(1, dtype=torch.long, device=outputs.found.logits.device)
            total = total + 0 * self._masks_of(outputs, 0, 0, first).sum()
        total = total / reduce_mean(total.new_tensor(float(count))).clamp(min=TINY)
        return dict(zip(('mask', 'dice'), total.split(1)))

    def _masks_of(self, outputs: SAM3Outputs, pair: int, image: int, queries: Tensor) -> Tensor:
        return self.network.masks(outputs.found, outputs.encoded, pair, image, queries).float()

    def _losses_of_masks(self, logits: Tensor, sample: DetDataSample, objects: Tensor) -> Tensor:
        """(2,): sums of focal and dice loss of mask logits (N, h, w) and N objects of an image."""
        square = [self.mask_loss_size] * 2
        masks = sample.gt_instances.masks[objects.numpy()].pad(tuple(sample.batch_input_shape))
        target = image_functional.resize(
            masks.to_tensor(torch.uint8, logits.device),
            square,
            image_functional.InterpolationMode.NEAREST,
        )
        confidence = confidence_of(sample)
        if confidence is not None:
            confidence = image_functional.resize(confidence[None], square, antialias=True)
        with torch.autocast(logits.device.type, enabled=False):
            if self.activation_checkpointing and self.training:
                # Logits of the loss's size are ten times as large as the network's.
                return torch.stack(
                    checkpoint(focal_and_dice, logits, target, confidence, use_reentrant=False)
                )
            return torch.stack(focal_and_dice(logits, target, confidence))

    @torch.no_grad()
    def _pixel_queries(
        self, encoded: ImageMaps, found: PairOutputs, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (B, K, h, w) on the canvas and class logits (B, K, C + 1) of the K best
        queries of every image.

        As ``GroundedSAM`` has them: the softmax of the class logits is in proportion to the scores,
        and to one minus the highest of them for "no object". A query has the score of the class
        that it was asked for, and 0 for the others.
        """
        masks, classes = [], []
        queries = found.scores.shape[1]
        for image in range(len(encoded.position)):
            pairs = (images == image).nonzero()[:, 0]
            scores = found.scores[pairs.to(found.scores.device)].flatten()
            order = scores.topk(min(self.num_pixel_queries, len(scores))).indices.sort().values
            of_pair = torch.div(order, queries, rounding_mode='floor')
            masks.append(
                torch.cat(
                    [
                        self.network.masks(
                            found, encoded, int(pairs[i]), image, order[of_pair == i] % queries
                        ).float()
                        for i in of_pair.unique().tolist()
                    ]
                )
            )
            of_class = scores.new_zeros((len(order), self.num_classes))
            asked = labels[pairs].to(of_pair.device)[of_pair]
            of_class.scatter_(1, asked[:, None], scores[order][:, None])
            classes.append(torch.cat([of_class, 1 - of_class.amax(1, keepdim=True)], dim=1))
        return torch.stack(masks), torch.stack(classes).clamp(min=1e-6).log()


@dataclass
class _PairTargets:
    """What a pair of image and class should find.

    Attributes:
        pair: The pair's index.
        image: The image's.
        objects: (n,), indices among the image's objects, on the CPU.
        boxes: (n, 4) as cx, cy, w, h in 0..1 of the canvas.
    """

    pair: int
    image: int
    objects: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, pair: int, image: int, label: int, sample: DetDataSample) -> '_PairTargets':
        """The objects of a class in an image."""
        gt, (height, width) = sample.gt_instances, sample.batch_input_shape
        objects = (gt.labels == label).nonzero()[:, 0]
        boxes = gt.bboxes[objects].float()
        boxes = boxes / boxes.new_tensor([width, height]).repeat(2)
        return cls(pair, image, objects.cpu(), bbox_xyxy_to_cxcywh(boxes))


def _targets_of(
    outputs: SAM3Outputs, samples: SampleList, indices: Sequence[int]
) -> list['_PairTargets']:
    """What the pairs of the images ``indices`` are to find, but for classes of a group alone."""
    pairs = enumerate(zip(outputs.images.tolist(), outputs.labels))
    return [
        _PairTargets.of(pair, image, label.item(), samples[image])
        for pair, (image, label) in pairs
        if image in indices and not _group_alone(samples[image], label)
    ]


def _group_alone(sample: DetDataSample, labels: Tensor) -> Tensor:
    """Whether groups (``iscrowd``) alone show these classes in an image."""
    groups = sample.get('ignored_instances')
    if groups is None:
        return torch.zeros_like(labels, dtype=torch.bool)
    shown, whole = (part.labels.to(labels) for part in (groups, sample.gt_instances))
    return torch.isin(labels, shown) & ~torch.isin(labels, whole)


def _split_by_pair(
    matches: Matches, targets: Sequence[_PairTargets]
) -> list[tuple[_PairTargets, Tensor, Tensor]]:
    """For every pair: its targets, matched queries, and the image's objects that they match."""
    result, first = [], 0
    for number, each in enumerate(targets):
        chosen = matches.pairs == number
        objects = each.objects[(matches.targets[chosen] - first).cpu()]
        result.append((each, matches.queries[chosen], objects))
        first += len(each.objects)
    return result


def _check_names(option: str, names: Iterable[str], known: Sequence[str] | Mapping) -> None:
    for name in names:
        if name not in known:
            raise CASTError(f'SAM3: {option} has no {name!r}; {hint(name, list(known))}')
