"""Weights to start from where another data set has other classes and more instances in an image, or
another network has another encoder.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmcast.configs import load_config, network_settings
from mmcast.errors import CASTError
from mmcast.models.weights.initialization import initialization_unlogged
from mmcast.models.weights.reading import read_state_dict, write_state_dict
from mmcast.models.weights.sources import describe_weights
from mmcast.registry import MODELS

QUERIES = ('panoptic_head.query_embed.weight', 'panoptic_head.query_feat.weight')
CLASS_HEAD = 'panoptic_head.cls_embed.'
NEAR = 0.02  # of the standard deviation: 127 and 127.5 are one normalisation
NOISE = (
    0.3  # of the queries' standard deviation: copies part, and still find what the original found
)


def fit_start_weights(
    out_dir: str | os.PathLike,
    num_queries: int,
    seed: int = 0,
    configs: Mapping[str, str] | None = None,
    encoders: Mapping[str, str | Sequence[str]] | None = None,
    config_dir: str | os.PathLike = '',
    **weights: str,
) -> dict[str, Any]:
    """A pipeline's step that fits weights of a plain Mask2Former-style detector to more queries,
    other classes and, where a config is given, another network.

    Learned queries are repeated, with noise on the copies; the class head is left out, so a config
    that starts from such a file lists ``panoptic_head.cls_embed.`` under ``new_parameters``. All
    else stays as it is, or is what :func:`fit_to_network` makes of it.

    Args:
        out_dir: folder of the new files.
        num_queries: of the new network, at least as many as an image has instances.
        seed: of the noise, and of what starts at random.
        configs: step configs by name, whose networks are to start so.
        encoders: weights of these networks' encoders by name, as ``read_encoder_weights`` takes
            them, in place of those in the file; None or nothing leaves these. Two for a
            ``FoundationGuidedEncoder``.
        config_dir: what relative paths of ``configs`` are relative to.
        weights: weights files by name.

    Returns:
        The new files by the same names and ``weights``, dicts with ``path``, ``sha256`` and
        ``licence`` of all that they start from, for the model card.

    Raises:
        CASTError: a file or package is missing or holds no weights, or an encoder takes none.
    """
    written: dict[str, Any] = {}
    for name, path in weights.items():
        state = read_state_dict(path)
        generator = torch.Generator().manual_seed(seed)
        fitted = {
            key: repeat_queries(value, num_queries, generator) if key in QUERIES else value
            for key, value in state.items()
            if not key.startswith(CLASS_HEAD)
        }
        if configs and name in configs:
            network = build_start(load_config(configs[name], config_dir), num_queries, seed)
            encoder = (encoders or {}).get(name)
            fitted = fit_to_network(fitted, network, encoder, name)
        written[name] = str(Path(out_dir, f'{name}_{num_queries}queries.pth'))
        write_state_dict(written[name], fitted)
    used = set(weights.values()).union(*(_sources((encoders or {}).get(name)) for name in weights))
    written['weights'] = [describe_weights(source) for source in sorted(used)]
    return written


def build_start(config: Config, num_queries: int, seed: int) -> nn.Module:
    """A step config's network with its own start weights, random ones from ``seed``."""
    settings = network_settings(config)
    settings.panoptic_head.num_queries = num_queries
    with (
        DefaultScope.overwrite_default_scope('mmcast'),
        torch.random.fork_rng(devices=[]),
        initialization_unlogged(),
    ):
        torch.manual_seed(seed)
        network = MODELS.build(settings)
        network.init_weights()
    return network


def fit_to_network(
    state: Mapping[str, Tensor],
    network: nn.Module,
    encoder: str | Sequence[str] | None,
    name: str,
) -> dict[str, Tensor]:
    """All weights of a network but its class head: those of ``state`` that have its name and shape,
    the others its own; prints what starts at random, and whether images are normalised otherwise
    than the encoder's weights want.

    Args:
        state: of a similar network.
        network: with random weights.
        encoder: weights for its encoder, see :func:`fit_start_weights`.
        name: of the network, for the message.

    Raises:
        CASTError: the encoder takes no weights, or not these.
    """
    sources = _sources(encoder)
    if sources:
        _load_encoder(network.backbone, sources, name)
        _say_other_normalisation(network, name)
    own = {k: v for k, v in network.state_dict().items() if not k.startswith(CLASS_HEAD)}
    given = {k: v for k, v in own.items() if encoder and k.startswith('backbone.')}
    taken = {
        key: state[key].to(value.dtype)
        for key, value in own.items()
        if key not in given and key in state and state[key].shape == value.shape
    }
    parts = dict.fromkeys(
        key.rpartition('.')[0] for key in own if key not in given and key not in taken
    )
    origin = f'encoder of {" and ".join(sources)}, ' if sources else ''
    shown = ', '.join(list(parts)[:6]) + (f' and {len(parts) - 6} more' if len(parts) > 6 else '')
    print(
        f'{name}: {origin}{len(taken)} of {len(own) - len(given)} {"other " if sources else ""}'
        f'tensors from the start weights; at random: {shown + ", " if shown else ""}the class head'
    )
    return own | taken


def _sources(encoder: str | Sequence[str] | None) -> list[str]:
    """The weights of one encoder."""
    return list(filter(None, [encoder] if isinstance(encoder, str) else encoder or ()))


def _load_encoder(encoder: nn.Module, sources: Sequence[str], name: str) -> None:
    if not hasattr(encoder, 'load_pretrained'):
        raise CASTError(
            f'{name}: weights {", ".join(sources)} are for a TimmEncoder or DINOv2, the encoder of '
            f'its config is a {type(encoder).__name__}: leave them out (None), or set backbone to '
            "dict(type='TimmEncoder', name=...)"
        )
    wanted = getattr(encoder, 'num_sources', 1)
    if len(sources) != wanted:
        raise CASTError(
            f'{name}: the encoder of its config, a {type(encoder).__name__}, starts from {wanted} '
            f'weights file{"s" * (wanted > 1)}, and {len(sources)} came: {", ".join(sources)}. '
            'cast_custom.py is for one, cast_custom_dinov2.py for two, none of them None: change '
            f'the pipeline, or variables.{name}'
        )
    encoder.load_pretrained(*sources)


def _say_other_normalisation(network: nn.Module, name: str) -> None:
    """Prints it where images are normalised clearly otherwise than the encoder's published weights
    want. Weights of one's own may well want that.
    """
    images, encoder = network.data_preprocessor, network.backbone
    if getattr(images, 'mean', None) is None or not hasattr(encoder, 'mean'):
        return
    used, wanted = (
        torch.tensor([torch.as_tensor(values).flatten().tolist() for values in (mean, std)])
        for mean, std in ((images.mean, images.std), (encoder.mean, encoder.std))
    )
    if ((used - wanted).abs() > NEAR * wanted[1]).any():
        mean, std = ([round(value, 2) for value in row] for row in wanted.tolist())
        print(
            f"{name}: images are not normalised as for timm's {encoder.name}; for its published "
            f'weights set data_preprocessor=dict(mean={mean}, std={std})'
        )


def repeat_queries(queries: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """``queries`` (Q, C) over and over up to (number, C); from the second round on with noise."""
    rounds = -(-number // len(queries))
    repeated = queries.repeat(rounds, 1)[:number]
    noise = NOISE * queries.float().std() * torch.randn(repeated.shape, generator=generator)
    noise[: len(queries)] = 0
    return (repeated.float() + noise).to(queries.dtype)
