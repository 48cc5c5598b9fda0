"""The inpainting U-Net starts as the backbone, and its masks free what they should."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.models.backbone import make_inpainting_scheduler
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


def test_the_sampler_ends_at_clean_latents():
    """With perfect predictions DDIM gives the picture, and not the picture with some noise."""
    scheduler = make_inpainting_scheduler()
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == 999
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha_bar = scheduler.alphas_cumprod[999]
    assert alpha_bar.sqrt().item() == pytest.approx(0.0683, abs=1e-3)  # what is left of the picture there
    latents = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod[t]
        velocity = (a.sqrt() * latents - clean) / (1 - a).sqrt()
        latents = scheduler.step(velocity, t, latents).prev_sample
    assert_close(latents, clean, atol=1e-4, rtol=0)


def test_masks_are_binary_of_every_size_and_sometimes_everything():
    masks = draw_masks(400, (32, 24), torch.Generator().manual_seed(0))
    assert masks.shape == (400, 1, 32, 24) and set(masks.unique().tolist()) == {0, 1}
    share = masks.mean(dim=(1, 2, 3))
    assert 0.15 < (share == 1).float().mean() < 0.3
    assert share.min() < 0.1 and (share > 0).all()
    assert torch.equal(masks, draw_masks(400, (32, 24), torch.Generator().manual_seed(0)))
