"""The inpainting U-Net starts as the backbone, and its masks free what they should."""

import torch
from torch.testing import assert_close

from dragstudy.models.inpainting import draw_masks, inpainting_conditions, make_inpainting

from ..tiny import tiny_backbone


def test_untrained_it_is_the_backbone():
    backbone = tiny_backbone()
    unet = make_inpainting(backbone)
    assert unet.config.in_channels == 9
    latents, other = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([latents, inpainting_conditions(other, torch.ones(1, 1, 8, 8))], dim=1)
    prompt = torch.zeros(1, 1, 64)
    with torch.no_grad():
        assert_close(unet(inputs, 10, prompt).sample, backbone(latents, 10, prompt).sample)


def test_conditions_hide_what_may_change():
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    conditions = inpainting_conditions(latents, mask)
    assert torch.equal(conditions[:, :1], mask)
    assert not conditions[:, 1:, :, :4].any()
    assert torch.equal(conditions[:, 1:, :, 4:], latents[..., 4:])


def test_masks_are_binary_of_every_size_and_sometimes_everything():
    masks = draw_masks(400, (32, 24), torch.Generator().manual_seed(0))
    assert masks.shape == (400, 1, 32, 24) and set(masks.unique().tolist()) == {0, 1}
    share = masks.mean(dim=(1, 2, 3))
    assert 0.15 < (share == 1).float().mean() < 0.3
    assert share.min() < 0.1 and (share > 0).all()
    assert torch.equal(masks, draw_masks(400, (32, 24), torch.Generator().manual_seed(0)))
