"""Mask2Former's head for any pixel decoder; the losses of all decoder layers in one go."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.task_modules.assigners import CrossEntropyLossCost
from mmdet.structures import SampleList
from mmdet.utils import ConfigType, InstanceList, reduce_mean
from mmengine.config import ConfigDict
from mmengine.model import initialize
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmcast.errors import NonFiniteError
from mmcast.models.student.lazy_masks import LazyMasks
from mmcast.models.student.masked_attention import decoder_layer
from mmcast.models.student.positions import positions_of
from mmcast.models.weights.initialization import split_init_cfg
from mmcast.registry import MODELS


def match_cost(term: Callable, pred: InstanceData, gt: InstanceData, meta: dict) -> Tensor:
    """One term of the matching cost, (L K, G).

    mmdet's cross entropy takes two logarithms a point, as if it were foreground and background;
    they differ by the logit, so one and a matrix product do.
    """
    if type(term) is not CrossEntropyLossCost or not term.use_sigmoid:
        return term(pred, gt, img_meta=meta)
    as_background = F.softplus(pred.masks).sum(1, keepdim=True)
    return (as_background - pred.masks @ gt.masks.T) * (term.weight / pred.masks.shape[1])


def at_points(maps: Tensor, uncertain: Tensor, anywhere: Tensor, padding: str = 'zeros') -> Tensor:
    """Values of maps (G, H, W), or of one map (1, H, W) for all, where the mask losses sample.

    Args:
        maps: (G, H, W) or (1, H, W).
        uncertain: (G, L, U, 2) points of each layer.
        anywhere: (G, R, 2) points of all layers.
        padding: What is around a map, as in ``grid_sample``.

    Returns:
        (G, L, U + R).
    """
    num_gts, num_layers, num_uncertain, _ = uncertain.shape
    points = torch.cat([uncertain.flatten(1, 2), anywhere], dim=1)
    values = point_sample(
        maps[:, None], points.reshape(len(maps), -1, 2), padding_mode=padding
    ).view(num_gts, -1)
    own, shared = values.split([num_layers * num_uncertain, anywhere.shape[1]], dim=1)
    return torch.cat(
        [own.view(num_gts, num_layers, -1), shared[:, None].expand(-1, num_layers, -1)], dim=2
    )


def weights_at_points(
    confidence: Sequence[tuple[int, Tensor | None]], uncertain: Tensor, anywhere: Tensor
) -> Tensor:
    """Weights (G, L, U + R) of the points: per image the number of its ground truths and its map
    (H, W).
    """
    sizes = [size for size, _ in confidence]
    parts = []
    for (size, weights), own, shared in zip(
        confidence, uncertain.split(sizes), anywhere.split(sizes)
    ):
        if weights is None:
            parts.append(own.new_ones((size, own.shape[1], own.shape[2] + shared.shape[1])))
        elif size:  # an interpolation of weights does not end in 0 at the border
            parts.append(at_points(weights[None], own, shared, padding='border'))
    return torch.cat(parts)


def indices_of_least(values: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest of values (..., N) are, in any order: (..., count) of int64.

    On a CPU NumPy selects them with vector instructions, five times as fast as ``topk``.
    """
    if values.is_cpu and count:
        indices = np.argpartition(values.numpy(), count - 1)[..., :count]
        return torch.from_numpy(np.ascontiguousarray(indices))
    return values.topk(count, largest=False, sorted=False).indices


@MODELS.register_module()
class CASTMask2FormerHead(Mask2FormerHead):
    """mmdet's Mask2Former head for any pixel decoder, with the losses of all decoder layers taken
    together.

    In one process the loss values are mmdet's at the same sampled points; as there, an image
    without objects counts as one mask in the normaliser of the mask losses. Two things differ. The
    decoder layers share what points are sampled at random: one cost matrix of an image serves them
    all. The classification loss is normalised over all ranks like the mask losses are, so that
    splitting a batch over processes does not change the gradient.

    Args:
        pixel_decoder: Config of the pixel decoder; mmdet's, or ``DPTPixelDecoder``.
        num_transformer_feat_level: Maps of the pixel decoder that the decoder layers attend to.
        in_channels: Channels of the encoder's maps.
        feat_channels: Width of the transformer.
        out_channels: Channels of the pixel features and of the mask embeddings.
        transformer_decoder: Config of the transformer decoder.
    """

    def __init__(
        self,
        *args: Any,
        pixel_decoder: ConfigType,
        num_transformer_feat_level: int = 3,
        in_channels: list[int],
        feat_channels: int,
        out_channels: int,
        transformer_decoder: ConfigType,
        **kwargs: Any,
    ) -> None:
        # The parent reads the number of levels from a deformable decoder's config and builds that
        # decoder. An identity with that one entry satisfies it; ours, which may have no such entry,
        # is built right after.
        levels = dict(
            encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_transformer_feat_level)))
        )
        super().__init__(
            *args,
            in_channels=in_channels,
            feat_channels=feat_channels,
            out_channels=out_channels,
            num_transformer_feat_level=num_transformer_feat_level,
            transformer_decoder=ConfigDict(transformer_decoder),
            pixel_decoder=ConfigDict(type=nn.Identity, **levels),
            **kwargs,
        )
        self.pixel_decoder = MODELS.build(
            dict(
                pixel_decoder,
                in_channels=in_channels,
                feat_channels=feat_channels,
                out_channels=out_channels,
            )
        )

    def init_weights(self) -> None:
        """mmdet's random weights, then what ``init_cfg`` says, which mmdet's head does not read."""
        super().init_weights()
        random, pretrained = split_init_cfg(self.init_cfg)
        initialize(self, random + pretrained)

    def decode(
        self, mask_features: Tensor, memories: Sequence[Tensor], every_layer: bool = True
    ) -> tuple[list[Tensor], LazyMasks]:
        """The transformer decoder: mmdet's ``forward`` with the same modules and values.

        What a query attends to is decided on mask features resized once per level, instead of on
        resized masks of every layer: both are linear. Mask logits are not made here at all.

        Args:
            mask_features: (B, C, H, W) of the pixel decoder.
            memories: Its maps that the layers attend to in turn, coarsest first.
            every_layer: Whether to classify after each layer, as the losses need; otherwise after
                the last.

        Returns:
            Class logits (B, K, C + 1) and masks of the starting queries and after each layer.
        """
        memories = memories[: self.num_transformer_feat_level]
        values = [
            project(memory).flatten(2).transpose(1, 2) + level
            for project, memory, level in zip(
                self.decoder_input_projs, memories, self.level_embed.weight
            )
        ]  # (B, h w, C) each
        keys = [value + self._positions(memory) for value, memory in zip(values, memories)]
        with torch.no_grad():
            small = [
                F.interpolate(
                    mask_features, memory.shape[-2:], mode='bilinear', align_corners=False
                ).flatten(2)
                for memory in memories
            ]
        query = self.query_feat.weight.expand(
            mask_features.shape[0], -1, -1
        )  # len() would fix it in an export
        position = self.query_embed.weight.expand_as(query)
        queries = [self.transformer_decoder.post_norm(query)]
        embeds = [self.mask_embed(queries[0])]
        for i, layer in enumerate(self.transformer_decoder.layers):
            level = i % len(memories)
            with torch.no_grad():
                allowed = embeds[-1] @ small[level] >= 0  # (B, K, h w)
                allowed |= ~allowed.any(
                    -1, keepdim=True
                )  # a query without any pixel attends everywhere
            query = decoder_layer(
                layer, query, position, keys[level], values[level], allowed[:, None]
            )
            queries.append(self.transformer_decoder.post_norm(query))
            embeds.append(self.mask_embed(queries[-1]))
        if not every_layer:
            queries, embeds = queries[-1:], embeds[-1:]
        return list(self.cls_embed(torch.stack(queries))), LazyMasks(
            torch.stack(embeds), mask_features
        )

    def _positions(self, memory: Tensor) -> Tensor:
        """(1, h w, C), the same for every image: padding is not masked, as in mmdet."""
        positions = positions_of(self.decoder_positional_encoding, memory)
        return positions.flatten(2).transpose(1, 2).to(memory.dtype)

    def forward(
        self, x: Sequence[Tensor], batch_data_samples: SampleList
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits and mask logits (B, K, H, W) of all layers as tensors, as mmdet's head has
        them.
        """
        class_logits, masks = self.decode(*self.pixel_decoder(x))
        return class_logits, list(masks)

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses from encoder maps, for mmdet's own ``Mask2Former``."""
        gt_instances = self.preprocess_gt(
            [sample.gt_instances for sample in batch_data_samples], [None] * len(batch_data_samples)
        )
        outputs = self.decode(*self.pixel_decoder(x))
        return self.loss_by_feat(*outputs, gt_instances, [s.metainfo for s in batch_data_samples])

    def loss_by_feat(
        self,
        all_cls_scores: list[Tensor],
        all_mask_preds: LazyMasks,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_confidence: Sequence[Tensor | None] = (),
    ) -> dict[str, Tensor]:
        """Losses of L decoder layers for B images, all layers in one batch.

        Args:
            all_cls_scores: L tensors (B, K, C + 1) of class logits.
            all_mask_preds: The masks of the same layers and images.
            batch_gt_instances: Per image ``labels`` (G_b,) and ``masks`` (G_b, H, W).
            batch_img_metas: Per image meta information.
            batch_confidence: Per image a weight (H, W) of each pixel in the mask loss, or None for
                1.

        Returns:
            ``loss_cls``, ``loss_mask``, ``loss_dice`` of the last layer and ``d{i}.*`` of the
            others, as in mmdet.
        """
        # fp32 from here on: matching costs and log-sums are not safe in half precision.
        class_logits = torch.stack(
            [scores.float() for scores in all_cls_scores]
        )  # (L, B, K, C + 1)
        num_layers, _, num_queries, _ = class_logits.shape
        sizes = [len(gt.labels) for gt in batch_gt_instances]
        gt_labels = torch.cat([gt.labels for gt in batch_gt_instances])  # (G,)
        query_of_gt, matched = self._match(
            class_logits, all_mask_preds, batch_gt_instances, batch_img_metas
        )

        # Everything about indices is worked out on the host, where the matching is.
        image_of_gt = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        layer, gt = matched.nonzero(as_tuple=True)
        row = (layer * len(sizes) + image_of_gt[gt]) * num_queries + query_of_gt[layer, gt]
        row, gt = torch.stack([row, gt]).to(gt_labels.device)
        labels = gt_labels.new_full(class_logits.shape[:3], self.num_classes)
        labels.view(-1)[row] = gt_labels[gt]

        # The normalisers, averaged over the ranks in one call: class weights by layer, matched
        # masks of any.
        class_weight = class_logits.new_tensor(self.class_weight)
        num_masks = sum(min(max(size, 1), num_queries) for size in sizes)
        normalisers = reduce_mean(
            torch.cat([class_weight[labels].sum((1, 2)), class_weight.new_tensor([num_masks])])
        )
        weight_sum, num_masks = normalisers[:-1], normalisers[-1]

        loss_cls = self.loss_cls(
            class_logits.flatten(0, 2), labels.flatten(), reduction_override='none'
        )
        loss_cls = loss_cls.view(num_layers, -1).sum(1) / weight_sum
        if len(gt_labels):
            mask_logits = all_mask_preds.of(query_of_gt.to(gt_labels.device), sizes).float()
            gt_masks = torch.cat([gt.masks for gt in batch_gt_instances])
            loss_mask, loss_dice = self._mask_losses(
                mask_logits,
                gt_masks,
                matched.to(gt_labels.device),
                num_masks,
                list(zip(sizes, batch_confidence)),
            )
        else:
            loss_mask = loss_dice = all_mask_preds.zero().expand(num_layers)
        return self._name_losses(loss_cls, loss_mask, loss_dice)

    @torch.no_grad()
    def _match(
        self,
        class_logits: Tensor,
        masks: LazyMasks,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
    ) -> tuple[Tensor, Tensor]:
        """Hungarian matching of every layer of every image, one transfer to the host for all of
        them.

        Returns:
            The query of each ground truth, (L, G) of int64, and whether it has one, (L, G) of bool
            (a ground truth stays alone where an image has more of them than queries); both on the
            host.

        Raises:
            NonFiniteError: If a cost is NaN or infinite, naming the images.
        """
        num_layers, num_images, num_queries, _ = class_logits.shape
        points = torch.rand((num_images, self.num_points, 2), device=class_logits.device)
        costs = []
        for i, (gt, meta) in enumerate(zip(batch_gt_instances, batch_img_metas)):
            # Objects of one image share the points, so they can be channels of one sampling call.
            target = gt.masks.new_zeros((0, self.num_points))
            if len(gt.labels):
                target = point_sample(gt.masks[None], points[i : i + 1])[0]
            preds = masks.at(points[i], i).float().flatten(0, 1)  # (L K, P)
            pred = InstanceData(scores=class_logits[:, i].flatten(0, 1), masks=preds)
            gt = InstanceData(labels=gt.labels, masks=target)
            with torch.autocast(
                class_logits.device.type, enabled=False
            ):  # sums overflow in float16
                cost = sum(match_cost(term, pred, gt, meta) for term in self.assigner.match_costs)
            costs.append(cost.view(num_layers, num_queries, -1))
        sizes = [cost.shape[2] for cost in costs]
        costs = torch.cat(costs, dim=2).cpu().split(sizes, dim=2)
        broken = [meta for cost, meta in zip(costs, batch_img_metas) if not cost.isfinite().all()]
        if broken:
            raise NonFiniteError.on_images('matching cost', broken)
        query_of_gt = torch.zeros((num_layers, sum(sizes)), dtype=torch.long)
        matched = torch.zeros_like(query_of_gt, dtype=torch.bool)
        start = 0
        for part in costs:
            for i in range(num_layers):
                queries, gts = linear_sum_assignment(part[i])
                query_of_gt[i, start + gts] = torch.from_numpy(queries)
                matched[i, start + gts] = True
            start += part.shape[2]
        return query_of_gt, matched

    def _mask_losses(
        self,
        mask_logits: Tensor,
        gt_masks: Tensor,
        matched: Tensor,
        num_masks: Tensor,
        confidence: Sequence[tuple[int, Tensor | None]] = (),
    ) -> tuple[Tensor, Tensor]:
        """Point-sampled mask and dice loss of each layer.

        Args:
            mask_logits: (L, G, h, w) logits of the query matched to each ground truth.
            gt_masks: (G, H, W) in {0, 1}, floating point.
            matched: (L, G), False where the pair is a filler.
            num_masks: Scalar normaliser.
            confidence: Per image how many of the G are its, and the weights (H, W) of its pixels or
                None for 1.
        """
        num_layers, num_gts = matched.shape
        logits = mask_logits.transpose(0, 1)  # (G, L, h, w): layers are channels
        uncertain, anywhere = self._loss_points(logits.detach())
        preds = point_sample(logits.flatten(0, 1)[:, None], uncertain.flatten(0, 1))  # (G L, 1, U)
        preds = torch.cat(
            [preds.view(num_gts, num_layers, -1), point_sample(logits, anywhere)], dim=2
        )
        preds = preds.flatten(0, 1)  # (G L, P)
        targets = at_points(gt_masks, uncertain, anywhere).flatten(0, 1)
        loss_dice = self.loss_dice(preds, targets, reduction_override='none')
        loss_mask = self.loss_mask(preds.flatten(), targets.flatten(), reduction_override='none')
        loss_mask = loss_mask.view(num_gts, num_layers, -1)
        if any(weights is not None for _, weights in confidence):
            loss_mask = loss_mask * weights_at_points(confidence, uncertain, anywhere)
        loss_mask = loss_mask.mean(2)
        return tuple(
            (loss.view(num_gts, num_layers) * matched.T).sum(0) / num_masks
            for loss in (loss_mask, loss_dice)
        )

    @torch.no_grad()
    def _loss_points(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Where the mask losses sample: mostly where the logits (G, L, h, w) are nearest to 0, as
        in PointRend.

        The candidates are those of mmdet, but shared by the layers of one ground truth.

        Returns:
            Uncertain points (G, L, U, 2) of each layer and random ones (G, P - U, 2) of all of
            them.
        """
        num_uncertain = int(self.importance_sample_ratio * self.num_points)
        candidates = torch.rand(
            (len(logits), int(self.num_points * self.oversample_ratio), 2), device=logits.device
        )
        distance = point_sample(logits, candidates).abs_()  # (G, L, S)
        chosen = indices_of_least(distance, num_uncertain)
        # As one complex number a point is picked in one piece.
        uncertain = torch.view_as_complex(candidates).gather(1, chosen.flatten(1))
        anywhere = torch.rand(
            (len(logits), self.num_points - num_uncertain, 2), device=logits.device
        )
        return torch.view_as_real(uncertain).view(*chosen.shape, 2), anywhere

    def preprocess_gt(
        self, batch_gt_instances: InstanceList, batch_gt_semantic_segs: Sequence
    ) -> InstanceList:
        """Labels and masks as tensors, the masks in floating point at once: points are sampled of
        them.
        """
        if any(semantic is not None for semantic in batch_gt_semantic_segs):
            return super().preprocess_gt(batch_gt_instances, batch_gt_semantic_segs)
        return [
            InstanceData(
                labels=gt.labels, masks=gt.masks.to_tensor(torch.float32, gt.labels.device)
            )
            for gt in batch_gt_instances
        ]

    def empty_loss(
        self, all_cls_scores: list[Tensor], all_mask_preds: LazyMasks
    ) -> dict[str, Tensor]:
        """Zeros with a graph for a rank without images of some origin; joins the reduction."""
        reduce_mean(all_cls_scores[0].new_zeros(len(all_cls_scores) + 1, dtype=torch.float32))
        zeros = (
            torch.stack([classes.float().sum() * 0 for classes in all_cls_scores])
            + all_mask_preds.zero()
        )
        return self._name_losses(zeros, zeros, zeros)

    @staticmethod
    def _name_losses(loss_cls: Tensor, loss_mask: Tensor, loss_dice: Tensor) -> dict[str, Tensor]:
        """mmdet's names: the last layer plain, the earlier ones with their number."""
        last = len(loss_cls) - 1
        losses = {}
        for i in (last, *range(last)):
            prefix = '' if i == last else f'd{i}.'
            losses |= {
                f'{prefix}loss_cls': loss_cls[i],
                f'{prefix}loss_mask': loss_mask[i],
                f'{prefix}loss_dice': loss_dice[i],
            }
        return losses
