"""The step that chooses sizes, windows and queries where a CPU trains on own images."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcast.coco.data_facts import measure_data
from mmcast.configs import load_config, network_settings
from mmcast.pipeline.decisions import Decisions, number
from mmcast.pipeline.views import Limit, View, choose_view


def plan_sizes(
    out_dir: str | os.PathLike,
    labeled: str,
    val: str,
    unlabeled: str,
    classes: Sequence[str],
    configs: Sequence[str],
    config_dir: str | os.PathLike = '',
    crop_size: int | str = 256,
    max_queries: int | str = 300,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A pipeline's step: looks at the data and decides how teacher and student get the images.

    Args:
        out_dir: Folder of ``plan.json`` and ``plan.txt``.
        labeled: COCO file of the data step.
        val: Likewise.
        unlabeled: Likewise.
        classes: Names to learn.
        configs: Step configs of the networks; crops and windows are multiples of their
            ``pad_size_divisor``.
        config_dir: What relative paths of ``configs`` are relative to.
        crop_size: Side in pixels of the largest training crop, and of windows.
        max_queries: Most objects that are found in an image or window.
        given: ``image_size``, ``window`` and ``num_queries`` that win over the rules; None where a
            rule decides.

    Returns:
        ``short`` and ``long``, sides in pixels that an image is brought to; ``crop``, side of a
        training crop; ``num_queries``; ``class_weight``, the classes' in the loss and no object's;
        ``windows`` for a detector's ``test_cfg``; ``max_dets`` of the metric; ``decisions``, the
        rows of the table, and ``table``, the file with it.

    Raises:
        CASTError: A value is not what its setting takes.
    """
    data = measure_data(labeled, val, unlabeled, classes)
    decisions = Decisions(given or {})
    decisions.describe(data.facts)
    divisor = math.lcm(*(_divisor(load_config(name, config_dir)) for name in configs))
    crop = int(number(crop_size, 'crop_size', divisor)) // divisor * divisor
    limit = Limit(crop, 'variables.crop_size', divisor)
    view = choose_view(decisions, data, limit, int(number(max_queries, 'max_queries')))
    outputs = dict(
        short=view.short,
        long=view.long,
        crop=view.crop,
        num_queries=view.num_queries,
        class_weight=[1.0] * len(classes) + [_no_object(decisions, view)],
        windows=view.windows(),
        max_dets=decisions.max_dets(data.facts),
    )
    table = decisions.write(Path(out_dir), outputs, data.facts)
    return dict(outputs, decisions=[vars(row) for row in decisions.rows], table=table, weights=[])


def _divisor(config: Any) -> int:
    """What the sides of a network's input are multiples of."""
    return network_settings(config).data_preprocessor.get('pad_size_divisor', 1)


def _no_object(decisions: Decisions, view: View) -> float:
    """The weight of queries without an object in the loss; 0.1 is the paper's and mmdet's."""
    if view.window:
        why = 'joining windows drops what is found twice, so queries need not learn to'
        return decisions.add('no_object_weight', 0.01, why)
    return decisions.add('no_object_weight', 0.1, "the paper's")
