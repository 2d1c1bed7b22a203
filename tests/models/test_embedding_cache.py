"""Embeddings of a frozen encoder that are made once an image."""

import copy
import pickle
from unittest import mock

import pytest
import torch
from devices import DEVICES, comparable
from tiny_sam3 import sam3
from tiny_teacher import teacher, teacher_config
from torch import nn

from mmcast.errors import CASTError
from mmcast.models.embedding_cache import EmbeddingCache
from mmcast.testing.data import make_samples

SIZE = (64, 96)


def images_of(*seeds):
    """One image (3, 8, 8) of uint8 a seed."""
    return torch.stack(
        [
            torch.randint(
                256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
            )
            for seed in seeds
        ]
    )


class Encoder(nn.Conv2d):
    """Counts images; two maps an image."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(3, 4, 3)
        self.requires_grad_(False)
        self.encoded = 0

    def maps(self, pixels):
        self.encoded += len(pixels)
        found = self(pixels.float())
        return [found, found.mean(1)]


@pytest.mark.parametrize('device', DEVICES)
def test_an_image_is_encoded_once_whatever_batch_it_is_in(device):
    cache, encoder = EmbeddingCache(1), Encoder().to(device)
    for seeds, encoded in (((1, 2), 2), ((2, 3), 3), ((3, 1, 2), 3), ((4, 4), 4)):
        with comparable():
            found = cache.get(images_of(*seeds).to(device), encoder.maps, [encoder])
            expected = Encoder().to(device).maps(images_of(*seeds).to(device))
        assert encoder.encoded == encoded
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)  # of values of 0 to 255
    assert (cache.misses, cache.hits) == (4, 5)


@pytest.mark.parametrize('change', ['in place', 'loaded', 'autocast', 'canvas'])
def test_other_weights_sizes_and_precisions_are_encoded_anew(change):
    cache, encoder, images = EmbeddingCache(1), Encoder(), images_of(1)
    cache.get(images, encoder.maps, [encoder])
    if change == 'in place':
        with torch.no_grad():
            encoder.weight.mul_(2)
    elif change == 'loaded':
        encoder.load_state_dict({key: 2 * value for key, value in encoder.state_dict().items()})
    elif change == 'canvas':  # of the same bytes
        images = images.reshape(1, 3, 4, 16)
    with torch.autocast('cpu', torch.bfloat16, enabled=change == 'autocast'):
        found = cache.get(images, encoder.maps, [encoder])[0]
        assert torch.equal(found, encoder.maps(images)[0])
    assert encoder.encoded == 3


def test_what_does_not_fit_is_encoded_each_time():
    encoder = Encoder()
    size = 4 * sum(part[0].numel() for part in Encoder().maps(images_of(0)))
    cache = EmbeddingCache(2 * size / 2**30)
    for _ in range(2):
        cache.get(images_of(1, 2, 3), encoder.maps, [encoder])
    assert encoder.encoded == 4  # the first two are kept
    assert cache._bytes == 2 * size


def test_copies_and_pickles_begin_empty():
    cache, encoder = EmbeddingCache(1), Encoder()
    cache.get(images_of(1), encoder.maps, [encoder])
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        other.get(images_of(1), encoder.maps, [encoder])
        assert (other.max_gb, other.hits, other.misses) == (1, 0, 1)


# In the teacher


def masks_teacher(folder, **sam2):
    """SAM2's decoder learns, all else is frozen."""
    config = teacher_config(folder).sam2
    return teacher(
        folder, frozen=['grounding_dino'], sam2=dict(config, freeze_encoder=True, **sam2)
    ).train()


def tiny_sam3(folder, **options):
    return sam3(folder, frozen=['text_encoder', 'vision_encoder'], **options).train()


def losses_and_gradients(model, seed):
    model.zero_grad()
    torch.manual_seed(seed)
    images, samples = make_samples([2, 1], size=SIZE)
    losses = model.loss(images, samples)
    sum(losses.values()).backward()
    return losses, {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('build', [masks_teacher, tiny_sam3])
def test_a_frozen_encoder_learns_nothing_and_a_cache_changes_nothing(tmp_path, build):
    plain, cached = build(tmp_path), build(tmp_path, cache_gb=0.1)
    cached.load_state_dict(plain.state_dict())
    owner, method = (cached.network, 'encode') if build is tiny_sam3 else (cached.sam2, '_encode')
    with mock.patch.object(owner, method, side_effect=getattr(owner, method)) as encode:
        for seed in range(3):
            expected, found = losses_and_gradients(plain, seed), losses_and_gradients(cached, seed)
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.keys() == theirs.keys()
                for name, value in ours.items():
                    torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)
    assert encode.call_count == 1
    learning = {name for name, p in cached.named_parameters() if p.requires_grad}
    assert set(found[1]) == learning
    assert not any('vision_encoder' in name or 'conv_s' in name for name in learning)


def test_prediction_keeps_nothing(tmp_path):
    model = masks_teacher(tmp_path, cache_gb=0.1).eval()
    with torch.no_grad():
        model.sam2.encode(torch.zeros(1, 3, *SIZE, dtype=torch.uint8))
    assert model.sam2.embedding_cache.misses == 0


def test_settings_that_contradict_each_other_are_refused(tmp_path):
    sam2 = teacher_config(tmp_path).sam2
    with pytest.raises(CASTError, match='set freeze_encoder=True too'):
        teacher(tmp_path, sam2=dict(sam2, cache_gb=1))
    with pytest.raises(CASTError, match='put vision_encoder into frozen too'):
        sam3(tmp_path, cache_gb=1)
    with pytest.raises(CASTError, match='one whose encoder learns has the pixels'):
        teacher(tmp_path, sam2=dict(sam2, freeze_encoder=True), pixel_encoder='sam2')
    with pytest.raises(CASTError, match='pixel_contrast=None'):
        masks_teacher(tmp_path).extract_feat(torch.zeros(1, 3, *SIZE))
    with pytest.raises(CASTError, match='pixel_contrast=None'):
        tiny_sam3(tmp_path).extract_feat(torch.zeros(1, 3, *SIZE))
    with pytest.raises(CASTError, match='cache_gb=-1 must be above 0'):
        EmbeddingCache(-1)
