"""The strong view changes colours and nothing else."""

import pytest
import torch

from mmcast.models.strong_view import PhotometricStrongView

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
OFF = dict(brightness=0, contrast=0, saturation=0, hue=0, grayscale=0, blur_sigma=(1e-3, 1e-3))


def normalised(pixels):
    return (pixels - MEAN) / STD


def test_without_any_change_the_image_comes_back():
    inputs = normalised(torch.rand(2, 3, 16, 24) * 255)
    torch.testing.assert_close(
        PhotometricStrongView(**OFF)(inputs, MEAN, STD), inputs, rtol=0, atol=1e-5
    )


def test_brightness_scales_pixels_not_normalised_values():
    """Exactly twice as bright: of the pixels behind the normalisation, clipped where white."""
    pixels = torch.rand(1, 3, 8, 8) * 255
    strong = PhotometricStrongView(**dict(OFF, brightness=(2.0, 2.0)))(
        normalised(pixels), MEAN, STD
    )
    torch.testing.assert_close(strong * STD + MEAN, (2 * pixels).clamp(max=255), rtol=0, atol=1e-3)


def test_regions_stay_where_they_are():
    """Without blur, an image of constant regions is an image of the same constant regions."""
    regions = torch.randint(0, 4, (20, 28))
    inputs = normalised(torch.rand(4, 3)[regions].permute(2, 0, 1)[None] * 255)
    strong = PhotometricStrongView(blur_sigma=(1e-3, 1e-3))(inputs, MEAN, STD)[0]
    assert not torch.allclose(strong, inputs[0], atol=1e-2)
    for region in range(4):
        assert strong[:, regions == region].std(1).max() < 1e-5


def test_blur_is_centred():
    """A bright dot stays at its place."""
    inputs = normalised(torch.zeros(1, 3, 15, 15))
    inputs[0, :, 4, 9] = normalised(torch.full((3, 1, 1), 255.0)).flatten()
    strong = PhotometricStrongView(**dict(OFF, blur_sigma=(1.5, 1.5)))(inputs, MEAN, STD)
    assert all(divmod(int(channel.argmax()), 15) == (4, 9) for channel in strong[0])
    assert strong[0, 0, 4, 8] > strong[0, 0, 0, 0]


def test_every_image_draws_its_own_parameters():
    inputs = normalised(torch.rand(1, 3, 8, 8) * 255).expand(4, -1, -1, -1)
    strong = PhotometricStrongView()(inputs, MEAN, STD)
    assert all(
        not torch.allclose(strong[i], strong[j], atol=1e-3) for i in range(4) for j in range(i)
    )


def test_the_seed_decides():
    inputs = normalised(torch.rand(3, 3, 8, 8) * 255)
    views = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        views.append(PhotometricStrongView()(inputs, MEAN, STD))
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_inputs_keep_their_type(dtype):
    strong = PhotometricStrongView()(normalised(torch.rand(1, 3, 8, 8) * 255).to(dtype), MEAN, STD)
    assert strong.dtype == dtype and strong.isfinite().all()
