"""The pixel loss under the microscope: which pixels it compares, how its gradient lies to that of
the other losses, and what the features of a checkpoint tell apart.

    python benchmarks/pixel_loss.py samples CONFIG with=A.pth without=B.pth --out-dir DIR
    python benchmarks/pixel_loss.py gradients CONFIG with=A.pth without=B.pth
    python benchmarks/pixel_loss.py features CONFIG with=A.pth without=B.pth

CONFIG is of one training step with a pixel loss, such as the one that lies in the step's folder of
a pipeline. One or two checkpoints of its network, by names of your own. That of a run without the
pixel loss (`model.pixel_contrast=None`) will do, and another map or sampling than the run's
(`--cfg-options model.pixel_contrast.feature_index=1`); where a checkpoint has no projector that
fits, embeddings are those of a random one. Both see the same batches, views and random numbers.

samples: anchors, their strong view and the negatives of training steps, as a picture of each
checkpoint, and what is drawn: by the labels, what lies where a negative was drawn, its fraction of
all pixels and of the negatives, its part in the gradient by which the negatives push the anchor
away, and its cosine with the anchor.

gradients: of the weighted losses on training batches, with respect to the weights that the pixel
loss reaches, the map that it contrasts and the pixel decoder's finest map: norm, cosine with the
gradient of all other losses together, and how much of it is left when batches are averaged.

features: of validation images, without training. Retrieval: for a pixel of an instance, whether
the nearest pixels in cosine are of that instance, among those of other instances of its class, of
other classes, of all. A linear probe: logistic regression for the class (or no instance) of a
pixel, learned on the labeled training images. Intervals are of a bootstrap over images, paired.
"""

import argparse
import copy
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import mmcast  # noqa: F401  isort: skip  before mmdet
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from pixel_features import measure_features
from pixel_samples import draw_samples, look, prepared, report_samples
from torch import Tensor

from mmcast.cli.errors import report_errors
from mmcast.cli.options import add_config_options
from mmcast.configs import load_config
from mmcast.devices import check_device
from mmcast.errors import CASTError
from mmcast.models.cast import CASTDetector, running_statistics_kept
from mmcast.models.lora import without_adapters
from mmcast.models.weights.loading import load_weights
from mmcast.models.weights.reading import read_state_dict
from mmcast.registry import MODELS
from mmcast.training.overrides import override
from mmcast.training.randomness import seed_all

PROJECTOR = 'pixel_contrast.'
TITLES = dict(cls='class', pxl='pixel loss')


# ---- config, checkpoints, batches


@dataclass
class Subject:
    """A checkpoint under its name."""

    name: str
    model: CASTDetector
    has_projector: bool = True


def load_subject(
    cfg: Config, name: str, path: str, device: str, seed: int, new_parameters: Sequence[str] = ()
) -> Subject:
    """The config's model with a checkpoint's weights."""
    seed_all(seed)  # of a projector that the checkpoint does not have
    model = MODELS.build(without_adapters(cfg.model))
    wanted = {
        key: value.shape for key, value in model.state_dict().items() if key.startswith(PROJECTOR)
    }
    found = {key: value.shape for key, value in read_state_dict(path).items() if key in wanted}
    has_projector = found == wanted
    if not has_projector:
        new_parameters = (*new_parameters, PROJECTOR)
        print(
            f'{name}: {path} has no projector for this config, its embeddings are of a random one'
        )
    load_weights(model, path, new_parameters)
    return Subject(name, model.to(device), has_projector)


def check_config(cfg: Config) -> None:
    """Raises CASTError where there is no pixel loss to look at."""
    contrast = cfg.model.get('pixel_contrast')
    if not contrast or not contrast.get('loss_weight', 1):
        raise CASTError(
            f'{cfg.filename} has no pixel loss: give the config of a step with one, for a '
            'checkpoint of a run without it, too'
        )
    if cfg.model.get('teacher'):
        raise CASTError(
            f'{cfg.filename} has an online teacher, whose labels are not looked at here: set '
            '--cfg-options model.teacher=None, or give a step whose labels come from files'
        )


def training_batches(cfg: Config, number: int, seed: int) -> list[dict]:
    """The first batches of a run of this seed, but for the random numbers of their transforms."""
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.update(num_workers=0, persistent_workers=False)
    loader.pop('prefetch_factor', None)
    batches = iter(Runner.build_dataloader(loader, seed=seed))
    loaded = []
    for index in range(number):
        seed_all(seed, index)
        loaded.extend(islice(batches, 1))
    if not loaded:
        raise CASTError(f'{cfg.filename}: train_dataloader gives no batch')
    return loaded


@contextmanager
def as_in_training(cfg: Config, model: CASTDetector, progress: float) -> Iterator[None]:
    """Training mode at a fraction of the run, on which temperature and l_semi depend; running
    statistics stay.
    """
    iterations = cfg.train_cfg.get('max_iters', 10_000)
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', iterations)
    hub.update_info('iter', round(progress * iterations))
    model.train()
    with running_statistics_kept(model):
        yield
    model.eval()


# ---- samples


def samples(cfg: Config, subjects: Sequence[Subject], args: argparse.Namespace) -> None:
    """The sub-command."""
    paths = [args.out_dir / f'samples_{subject.name}.png' for subject in subjects]
    for path in paths:
        if path.exists():
            raise CASTError(f'{path} exists and is not overwritten; give another --out-dir')
    batches = training_batches(cfg, args.batches, args.seed)
    for subject, path in zip(subjects, paths):
        steps = []
        with as_in_training(cfg, subject.model, args.progress):
            for index, batch in enumerate(batches):
                seed_all(args.seed, index)
                steps.append(look(subject.model, batch, args.progress))
        print(f'{subject.name}:')
        report_samples(steps, args.anchors, args.seed)
        draw_samples(steps, args.rows, subject.name, path, args.seed)


# ---- gradients


def gradients(model: CASTDetector, batch: dict) -> dict[str, dict[str, Tensor]]:
    """Gradients of the weighted losses of one training step, summed over decoder layers.

    Returns:
        By place, by the kind of the loss ('cls', 'mask', 'dice', 'pxl', ...), one vector each. The
        places are 'weights of PART' for each part of the network that the pixel loss reaches; 'the
        contrasted map'; and 'the finest map of the pixel decoder', where there is one.

    Raises:
        CASTError: The pixel loss reaches no weight that learns.
    """
    network, contrast, passes = model.detector, model.pixel_contrast, []
    forward = network.forward_once

    def keep(*args: Any) -> Any:
        passes.append(forward(*args))
        return passes[-1]

    inputs, samples = prepared(model, batch)
    with mock.patch.object(network, 'forward_once', keep):
        losses = model.loss(inputs, samples)
    terms = defaultdict(list)
    for name, loss in losses.items():
        if kind := re.search(r'loss_(\w+)$', name):
            terms[kind[1]].append(loss)
    terms = {kind: sum(parts) for kind, parts in terms.items()}

    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    reached = torch.autograd.grad(
        terms['pxl'], list(weights.values()), retain_graph=True, allow_unused=True
    )
    places = defaultdict(list)
    for (name, weight), gradient in zip(weights.items(), reached):
        if gradient is not None:
            places[f'weights of {name.partition(".")[0]}'].append(weight)
    if not places:
        raise CASTError('the pixel loss reaches no weight that learns: its encoder is frozen')
    decoded = passes[0].decoded
    maps = decoded if contrast.source == 'pixel_decoder' else passes[0].features
    places['the contrasted map'].append(maps[contrast.feature_index])
    if decoded:
        places['the finest map of the pixel decoder'].append(decoded[-1])
    flat = [tensor for tensors in places.values() for tensor in tensors]
    found = defaultdict(dict)
    for kind, loss in terms.items():
        every = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
        for place, tensors in places.items():
            parts = [_or_zero(next(every), tensor).flatten() for tensor in tensors]
            found[place][kind] = torch.cat(parts).float().cpu()
    return dict(found)


def _or_zero(gradient: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if gradient is None else gradient


class GradientStatistics:
    """Norms and cosines of the gradients of one place, batch by batch."""

    def __init__(self) -> None:
        self.norms, self.cosines = defaultdict(list), defaultdict(list)
        self.means: dict[str, Tensor] = {}
        self.number = 0

    def add(self, vectors: Mapping[str, Tensor]) -> None:
        total = sum(vectors.values())
        others = total - vectors['pxl']
        self.number += 1
        for kind, vector in {**vectors, 'others': others}.items():
            self.norms[kind].append(float(vector.norm()))
            if kind != 'others':
                self.cosines[kind].append(_cosine(vector, total - vector))
            if vector.shape == self.means.get(kind, vector).shape:
                self.means[kind] = (
                    self.means.get(kind, 0) + (vector - self.means.get(kind, 0)) / self.number
                )

    def show(self, averaged: bool) -> None:
        """Print the table; ``averaged``: what is left of a gradient in the mean of batches, too."""
        others = np.mean(self.norms['others'])
        head = f'{"norm (sd)":>24}{"of others":>11}{"cosine with all others (sd)":>30}'
        print(f'    {"loss":14}{head}' + (f'{"left in the mean":>18}' if averaged else ''))
        for kind, norms in self.norms.items():
            cosines = np.array(self.cosines.get(kind, ()))
            title = 'all but pixel' if kind == 'others' else TITLES.get(kind, kind)
            cells = [
                f'{np.mean(norms):.3g} ({np.std(norms, ddof=1) if len(norms) > 1 else 0:.2g})',
                f'{np.mean(norms) / others:.3f}' if others else '-',
            ]
            known = cosines[~np.isnan(cosines)]
            spread = f' ({known.std(ddof=1):.3f})' if len(known) > 1 else ''
            cells.append(f'{known.mean():+.3f}{spread}' if len(known) else '-')
            line = f'    {title:14}{cells[0]:>24}{cells[1]:>11}{cells[2]:>30}'
            if averaged and np.mean(norms):
                line += f'{float(self.means[kind].norm()) / np.mean(norms):>18.3f}'
            print(line)
        if averaged:
            cosine = _cosine(self.means['pxl'], self.means['others'])
            print(f'    cosine of the means over batches, pixel loss and all others: {cosine:+.3f}')


def _cosine(a: Tensor, b: Tensor) -> float:
    """NaN where one is zero."""
    product = float(a.norm()) * float(b.norm())
    return float(a @ b) / product if product else float('nan')


def measure_gradients(
    cfg: Config, subjects: Sequence[Subject], args: argparse.Namespace
) -> dict[str, dict[str, GradientStatistics]]:
    """By checkpoint, by place."""
    batches = training_batches(cfg, args.batches, args.seed)
    found = {}
    for subject in subjects:
        statistics = defaultdict(GradientStatistics)
        with as_in_training(cfg, subject.model, args.progress):
            for index, batch in enumerate(batches):
                seed_all(args.seed, index)
                for place, vectors in gradients(subject.model, batch).items():
                    statistics[place].add(vectors)
        found[subject.name] = dict(statistics)
        print(
            f'{subject.name}: {len(batches)} batches of {len(batches[0]["inputs"])}, l_pxl '
            f'{subject.model.pixel_contrast.loss_weight:g}, temperature '
            f'{subject.model.pixel_contrast.loss.temperature_at(args.progress):.3g}'
        )
        for place, each in statistics.items():
            print(f'  gradient of {place}')
            each.show(averaged=place.startswith('weights'))
    return found


# ---- features


def features(cfg: Config, subjects: Sequence[Subject], args: argparse.Namespace) -> None:
    """The sub-command."""
    models = {subject.name: subject.model for subject in subjects}
    has_projector = all(subject.has_projector for subject in subjects)
    measure_features(cfg, models, has_projector, args)


# ---- the command line


class _Checkpoints(argparse.Action):
    """``NAME=PATH``, one or two."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        pairs = [value.partition('=') for value in values]
        found = {name: path for name, _, path in pairs}
        if not all(re.fullmatch(r'[\w.-]+', name) and path for name, _, path in pairs):
            parser.error('checkpoints are NAME=PATH, with a NAME of letters, digits, _ . and -')
        if len(found) != len(pairs) or len(pairs) > 2:
            parser.error('give one checkpoint, or two under different names')
        setattr(namespace, self.dest, found)


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return value


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    added = {}
    for name, what in dict(
        samples='anchors and negatives, as pictures and figures',
        gradients='of the losses, their norms and cosines',
        features='instance retrieval and a linear probe',
    ).items():
        added[name] = command = commands.add_parser(name, help=what)
        command.add_argument('config', help='of one training step with a pixel loss')
        command.add_argument(
            'checkpoints', nargs='+', action=_Checkpoints, metavar='NAME=PATH', help='one or two'
        )
        command.add_argument('--seed', type=int, default=0)
        command.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
        add_config_options(command, 'model.pixel_contrast.loss.sampling=uniform')
    for name, number in dict(samples=6, gradients=16).items():
        added[name].add_argument('--batches', type=_positive, default=number)
        added[name].add_argument(
            '--progress',
            type=_fraction,
            default=1.0,
            help='fraction of the training, which the temperature depends on; default the end',
        )
    command = added['samples']
    command.add_argument('--out-dir', type=Path, required=True, help='where pictures are written')
    command.add_argument('--rows', type=_positive, default=6, help='anchors in a picture')
    command.add_argument(
        '--anchors', type=_positive, default=1000, help='of a batch, of each kind, that are counted'
    )
    command = added['features']
    command.add_argument('--images', type=_positive, default=100, help='at most, of validation')
    command.add_argument(
        '--pixels', type=_positive, default=1000, help='of a map of an image, at most'
    )
    command.add_argument(
        '--maps',
        nargs='+',
        metavar='SOURCE.INDEX',
        help='encoder.INDEX and pixel_decoder.INDEX, as pixel_contrast counts them, and embedding; '
        "default the contrasted one, the pixel decoder's finest, and embedding",
    )
    return parser


@report_errors
def main(arguments: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(arguments)
    check_device(args.device)
    cfg = load_config(args.config)
    override(cfg, args.cfg_options, f'config {cfg.filename}')
    check_config(cfg)
    init_default_scope('mmcast')
    logging.disable(logging.INFO)
    new_parameters = cfg.get('new_parameters', ()) if args.command == 'features' else ()
    subjects = [
        load_subject(cfg, name, path, args.device, args.seed, new_parameters)
        for name, path in args.checkpoints.items()
    ]
    {'samples': samples, 'gradients': measure_gradients, 'features': features}[args.command](
        cfg, subjects, args
    )


if __name__ == '__main__':
    main()
