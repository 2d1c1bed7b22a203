"""What the features of a checkpoint tell apart: the sub-command `features` of pixel_loss.py.

Statistics are kept by image, as sums and numbers of cases, so that a bootstrap over images gives
their intervals, and that of the difference of two checkpoints on the same images.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmcast.data.config_data import labeled_data
from mmcast.errors import CASTError
from mmcast.models.losses.functional import l2_normalize
from mmcast.models.outputs import PixelDecodingNetwork
from mmcast.registry import DATASETS

RESAMPLES = 2000
NO_INSTANCE, LEFT_OUT = -1, -2
#: Among which other pixels of the image an instance's are looked for.
AMONG = ('its class', 'other classes', 'all')
METRICS = ('recall@1', 'mAP')
L2 = 1e-3  # of the probe's weights, on standardised features


# ---- statistics


@dataclass
class Estimate:
    """A figure with the 95 % interval of a bootstrap."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f'{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})'


def figure(totals: np.ndarray) -> np.ndarray:
    """Mean over the groups that occur of sum / number; totals are (..., groups, 2)."""
    with np.errstate(invalid='ignore', divide='ignore'):
        ratios = totals[..., 0] / totals[..., 1]
    known = totals[..., 1] > 0
    number = known.sum(-1)
    return np.where(number > 0, np.where(known, ratios, 0).sum(-1) / np.maximum(number, 1), np.nan)


def _resampled(cases: np.ndarray, seed: int) -> np.ndarray:
    """(resamples,) figures of images drawn with replacement, the same ones for equal sizes."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(cases), np.full(len(cases), 1 / len(cases)), size=RESAMPLES)
    return figure(np.einsum('si,igt->sgt', weights, cases))


def _interval(value: float, figures: np.ndarray) -> Estimate:
    known = figures[~np.isnan(figures)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def estimate(cases: np.ndarray, seed: int = 0) -> Estimate:
    """Of cases (images, groups, 2): sums and numbers."""
    return _interval(figure(cases.sum(0)), _resampled(cases, seed))


def compare(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Estimate:
    """The first less the second, measured on the same images."""
    value = figure(first.sum(0)) - figure(second.sum(0))
    return _interval(value, _resampled(first, seed) - _resampled(second, seed))


# ---- images and their maps


def dataset_of(cfg: Config, labeled: bool) -> Dataset:
    """The validation images, or the labeled training images made ready in the same way."""
    config = dict(cfg.val_dataloader.dataset)
    if labeled:
        ann_file, folder = labeled_data(cfg)
        config.update(ann_file=ann_file, data_root='', data_prefix=dict(img=folder))
    return DATASETS.build(config)


def chosen_images(dataset: Dataset, number: int, seed: int) -> list[int]:
    """Indices of ``number`` of the images, or of all."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    return sorted(order[:number].tolist())


def map_name(source: str, index: int, count: int) -> str:
    return f'{source}.{index % count}'


def default_maps(model: nn.Module, has_projector: bool) -> list[str]:
    """The contrasted map, the pixel decoder's finest, and the embeddings."""
    contrast = model.pixel_contrast
    names = [f'{contrast.source}.{contrast.feature_index}']
    if isinstance(model.detector, PixelDecodingNetwork):
        names.append('pixel_decoder.-1')
    return [*dict.fromkeys(names), *(['embedding'] if has_projector else [])]


def maps_of(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Maps (C, h, w) of one image (1, 3, H, W), by name; negative indices are counted from the end.

    Raises:
        CASTError: The network has no such map.
    """
    network, contrast = model.detector, model.pixel_contrast
    maps = dict(encoder=network.extract_feat(inputs))
    decoded = contrast.source if 'embedding' in names else ''
    if any(name.startswith('pixel_decoder') for name in (*names, decoded)):
        if not isinstance(network, PixelDecodingNetwork):
            raise CASTError(f'{type(network).__name__} has no pixel decoder: leave its maps out')
        maps['pixel_decoder'] = network.decode_pixels(maps['encoder'])
    found = {}
    for name in names:
        if name == 'embedding':
            found[name] = contrast.project(maps[contrast.source])[0]
            continue
        source, _, index = name.partition('.')
        try:
            found[map_name(source, int(index), len(maps[source]))] = maps[source][int(index)][0]
        except (KeyError, ValueError, IndexError) as error:
            known = {name: len(each) for name, each in maps.items()}
            raise CASTError(
                f'--maps {name} is none: give encoder.INDEX, pixel_decoder.INDEX or embedding '
                f'(maps of this network: {known})'
            ) from error
    return found


def truth_at(sample: DetDataSample, size: Sequence[int], canvas: Sequence[int]) -> Tensor:
    """(h w,) the instance under the centre of each pixel of a map, or ``NO_INSTANCE``, or
    ``LEFT_OUT`` on padding and where labels say to ignore.

    Args:
        sample: Of validation; its masks are of the image's size before or after resizing.
        size: (h, w) of the map.
        canvas: (H, W) of what the network got.
    """
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(size, canvas))
    inside = (rows < sample.img_shape[0])[:, None] & (columns < sample.img_shape[1])
    found = np.full(inside.shape, NO_INSTANCE)
    for masks, ignore in (
        (sample.gt_instances.get('masks'), False),
        (sample.get('ignored_instances', {}).get('masks'), True),
    ):
        if masks is None or not len(masks):
            continue
        bitmaps = masks.to_ndarray().astype(bool)
        at = [
            np.minimum((centres * full / shown).astype(int), full - 1)
            for centres, full, shown in zip((rows, columns), bitmaps.shape[1:], sample.img_shape)
        ]
        bitmaps = bitmaps[:, at[0]][:, :, at[1]]
        lies = bitmaps.any(0) & (found == NO_INSTANCE)
        found[lies] = LEFT_OUT if ignore else bitmaps.argmax(0)[lies]
    found[~inside] = LEFT_OUT
    return torch.from_numpy(found.ravel())


@dataclass
class Pixels:
    """Pixels of a map of one image, by the number of the map's pixels that were left, P.

    Attributes:
        vectors: (P, C).
        places: (P, 2), rows and columns.
        instance: (P,).
        label: (P,), the class; that of no instance is the number of classes.
        size: (h, w) of the map.
        objects: How many instances are labeled in the image.
    """

    vectors: Tensor
    places: Tensor
    instance: Tensor
    label: Tensor
    size: tuple[int, int]
    objects: int


@torch.no_grad()
def pixels_of(
    model: nn.Module, dataset: Dataset, indices: Sequence[int], names: Sequence[str]
) -> Iterator[dict[str, Pixels]]:
    """All pixels of the named maps whose truth is known, image by image."""
    num_classes = len(dataset.metainfo['classes'])
    for index in indices:
        data = model.data_preprocessor(pseudo_collate([dataset[index]]), training=False)
        inputs, (sample,) = data['inputs'], data['data_samples']
        found = {}
        for name, each in maps_of(model, inputs, names).items():
            size = tuple(each.shape[-2:])
            truth = truth_at(sample, size, inputs.shape[-2:])
            known = (truth != LEFT_OUT).nonzero().flatten()
            labels = torch.cat([sample.gt_instances.labels.cpu(), torch.tensor([num_classes])])
            found[name] = Pixels(
                vectors=each.flatten(1).T.float().cpu()[known],
                places=torch.stack([known // size[1], known % size[1]], dim=1),
                instance=truth[known],
                label=labels[truth[known]],  # the last one for -1
                size=size,
                objects=len(labels) - 1,
            )
        yield found


def _some(pixels: Tensor, number: int, seed: Sequence[int]) -> Tensor:
    """``number`` of the indices of pixels, or all of them."""
    order = np.random.default_rng(seed).permutation(len(pixels))[:number]
    return pixels[torch.from_numpy(np.sort(order))]


# ---- retrieval


def retrieve(vectors: Tensor, instance: Tensor, label: Tensor) -> dict[tuple[str, str], np.ndarray]:
    """Whether the pixels nearest in cosine are of the same instance.

    Args:
        vectors: (P, C) of pixels on instances.
        instance: (P,).
        label: (P,), their classes.

    Returns:
        By entry of ``AMONG`` and ``METRICS``, (2,): sum over instances of the mean over their
        pixels, and the number of instances. A pixel counts where there is another one of its
        instance and one that is not.
    """
    unit = l2_normalize(vectors)
    similar = (unit @ unit.T).fill_diagonal_(-torch.inf)
    same = instance[:, None] == instance
    same.fill_diagonal_(False)
    own_class = label[:, None] == label
    others = ~(instance[:, None] == instance)
    found = {}
    for name, negatives in zip(AMONG, (others & own_class, others & ~own_class, others)):
        kept = similar.masked_fill(~(same | negatives), -torch.inf)
        counted = same.any(1) & negatives.any(1)
        order = kept[counted].argsort(dim=1, descending=True, stable=True)
        right = same[counted].gather(1, order).float()  # those that are left out come last
        ranks = torch.arange(1, right.shape[1] + 1)
        precision = (right.cumsum(1) / ranks * right).sum(1) / right.sum(1)
        for metric, values in zip(METRICS, (right[:, :1].sum(1), precision)):
            means = _mean_by(instance[counted], values)
            found[name, metric] = np.array([float(means.sum()), len(means)])
    return found


def _mean_by(groups: Tensor, values: Tensor) -> Tensor:
    """Mean of the values of each group that there is."""
    _, member, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts)).index_add_(0, member, values.float())
    return sums / counts


def baselines(pixels: Pixels, kept: Tensor, seed: Sequence[int]) -> dict[str, Tensor]:
    """Vectors that know nothing of the image: its pixels' places, and random ones."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))
    places = pixels.places[kept] + 0.01 * torch.rand((len(kept), 2), generator=generator)  # no ties
    # On a sphere whose radius is far above the map's size, cosines rank as distances do.
    centred = places - places.mean(0)
    radius = torch.full((len(kept), 1), 100.0 * max(pixels.size))
    return {
        'position': torch.cat([centred, radius], dim=1).double(),
        'random': torch.randn((len(kept), 16), generator=generator),
    }


# ---- linear probe


class Probe:
    """Multinomial logistic regression with classes weighted alike, by L-BFGS.

    Args:
        vectors: (N, C), standardised here.
        label: (N,), in 0..num_classes - 1.
        num_classes: Those that do not occur are never predicted.
    """

    def __init__(self, vectors: Tensor, label: Tensor, num_classes: int) -> None:
        self.mean, self.std = vectors.mean(0), vectors.std(0).clamp(min=1e-6)
        counts = torch.bincount(label, minlength=num_classes).float()
        self.bias = torch.zeros(num_classes)
        self.bias[counts == 0] = -torch.inf
        self.linear = nn.Linear(vectors.shape[1], num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        weights = (1 / counts).where(counts > 0, torch.zeros(()))
        inputs = (vectors - self.mean) / self.std
        optimizer = torch.optim.LBFGS(
            self.linear.parameters(), max_iter=200, line_search_fn='strong_wolfe'
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(self.linear(inputs) + self.bias, label, weight=weights)
            value = value + L2 / 2 * self.linear.weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)

    @torch.no_grad()
    def predict(self, vectors: Tensor) -> Tensor:
        """(N,) classes."""
        return (self.linear((vectors - self.mean) / self.std) + self.bias).argmax(1)


def right_by_class(predicted: Tensor, label: Tensor, num_classes: int) -> np.ndarray:
    """(classes, 2): right ones and all, of the pixels of one image."""
    right = torch.bincount(label[predicted == label], minlength=num_classes)
    return torch.stack([right, torch.bincount(label, minlength=num_classes)], dim=1).numpy()


# ---- measuring


def train_probes(
    model: nn.Module, dataset: Dataset, names: Sequence[str], number: int, seed: int
) -> dict[str, Probe]:
    """A probe of each map, learned on all labeled images."""
    parts = {}
    for image, found in enumerate(pixels_of(model, dataset, range(len(dataset)), names)):
        for name, each in found.items():
            kept = _some(torch.arange(len(each.label)), number, (seed, image))
            parts.setdefault(name, []).append((each.vectors[kept], each.label[kept]))
    num_classes = len(dataset.metainfo['classes']) + 1
    return {
        name: Probe(*(torch.cat(every) for every in zip(*each)), num_classes)
        for name, each in parts.items()
    }


@dataclass
class MapResult:
    """Of one map of one checkpoint; cases are (images, groups, 2).

    Attributes:
        retrieval: By entry of ``AMONG`` and ``METRICS``.
        baselines: The same of 'position' and 'random'.
        probe: Groups are classes, the last one no instance.
        size: (h, w) of the map of the first image.
        objects: Labeled instances; those with the centres of two pixels or more.
    """

    retrieval: dict[tuple[str, str], np.ndarray]
    baselines: dict[str, dict[tuple[str, str], np.ndarray]]
    probe: np.ndarray
    size: tuple[int, int]
    objects: tuple[int, int]


def measure(
    model: nn.Module,
    dataset: Dataset,
    indices: Sequence[int],
    names: Sequence[str],
    probes: Mapping[str, Probe],
    number: int,
    seed: int,
) -> dict[str, MapResult]:
    """By map."""
    rows: dict[str, list] = {}
    num_classes = len(dataset.metainfo['classes']) + 1
    for index, found in zip(indices, pixels_of(model, dataset, indices, names)):
        for name, pixels in found.items():
            on_instance = (pixels.instance >= 0).nonzero().flatten()
            kept = _some(on_instance, number, (seed, index, 0))
            truth = pixels.instance[kept], pixels.label[kept]
            vectors = dict(
                features=pixels.vectors[kept], **baselines(pixels, kept, (seed, index, 1))
            )
            tested = _some(torch.arange(len(pixels.label)), number, (seed, index, 2))
            predicted = probes[name].predict(pixels.vectors[tested])
            _, counts = pixels.instance[on_instance].unique(return_counts=True)
            rows.setdefault(name, []).append(
                dict(
                    retrieved={key: retrieve(each, *truth) for key, each in vectors.items()},
                    probe=right_by_class(predicted, pixels.label[tested], num_classes),
                    size=pixels.size,
                    objects=(pixels.objects, int((counts > 1).sum())),
                )
            )
    return {name: _collect(each) for name, each in rows.items()}


def _collect(rows: Sequence[Mapping]) -> MapResult:
    def cases(key: str) -> dict[tuple[str, str], np.ndarray]:
        kinds = rows[0]['retrieved'][key]
        return {
            kind: np.stack([row['retrieved'][key][kind] for row in rows])[:, None] for kind in kinds
        }

    return MapResult(
        retrieval=cases('features'),
        baselines={name: cases(name) for name in ('position', 'random')},
        probe=np.stack([row['probe'] for row in rows]),
        size=rows[0]['size'],
        objects=tuple(np.sum([row['objects'] for row in rows], axis=0).tolist()),
    )


def measure_features(
    cfg: Config, models: Mapping[str, nn.Module], has_projector: bool, args: argparse.Namespace
) -> dict[str, dict[str, MapResult]]:
    """By checkpoint, by map; prints the tables."""
    validation, labeled = (dataset_of(cfg, which) for which in (False, True))
    indices = chosen_images(validation, args.images, args.seed)
    results = {}
    for name, model in models.items():
        model.eval()
        names = args.maps or default_maps(model, has_projector)
        probes = train_probes(model, labeled, names, args.pixels, args.seed)
        results[name] = measure(model, validation, indices, names, probes, args.pixels, args.seed)
    print(
        f'{len(indices)} validation images, probes of {len(labeled)} labeled images; 95 % '
        'intervals of a bootstrap over validation images'
    )
    for name in next(iter(results.values())):
        show(name, {checkpoint: found[name] for checkpoint, found in results.items()})
    return results


def show(name: str, results: Mapping[str, MapResult]) -> None:
    """The table of one map."""
    first = next(iter(results.values()))
    objects, usable = first.objects
    print(
        f'\n{name}, {first.size[0]}x{first.size[1]} in the first image; {usable} of {objects} '
        'instances have two pixels or more'
    )
    columns = list(results)
    difference = f'{columns[0]} - {columns[1]}' if len(columns) == 2 else ''
    print(
        f'  {"same instance among":28}'
        + ''.join(f'{title:>25}' for title in [*columns, *filter(None, [difference])])
        + ''.join(f'{title:>10}' for title in first.baselines)
    )
    one_class = not first.retrieval['other classes', METRICS[0]][..., 1].any()
    for kind in first.retrieval:
        cases = [each.retrieval[kind] for each in results.values()]
        if cases[0][..., 1].any() and not (one_class and kind[0] == 'all'):
            nothing = [f'{figure(each[kind].sum(0)):.3f}' for each in first.baselines.values()]
            print(
                _line(f'{kind[0]}, {kind[1]}', cases) + ''.join(f'{text:>10}' for text in nothing)
            )
    classes = int((first.probe.sum(0)[:, 1] > 0).sum())
    print(_line(f'probe, recall of {classes} classes', [each.probe for each in results.values()]))


def _line(title: str, cases: Sequence[np.ndarray]) -> str:
    cells = [f'{estimate(each):.3f}' for each in cases]
    if len(cases) == 2:
        cells.append(f'{compare(*cases):+.3f}')
    return f'  {title:28}' + ''.join(f'{cell:>25}' for cell in cells)
