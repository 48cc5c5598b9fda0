"""Adding the photograph's own detail to an edit."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dragstudy.images import to_tensor
from dragstudy.pipelines.detail import check_detail, compose, gaussian_blur, look_back, transfer
from dragstudy.warping import pixel_grid

from ..tiny import picture, tiny_instantdrag
from .contract import STEP, seeded


@pytest.fixture
def photo():
    return to_tensor(picture(96, 80))


def rough(width, height):
    """A photograph with detail of two pixels everywhere."""
    noise = torch.rand(height // 2, width // 2, 3, generator=seeded()).mul(255).byte()
    grain = Image.fromarray(noise.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(picture(width, height), grain, 0.5)


def sharpness(image):
    """Mean square difference of neighbours, away from what moves in from the left."""
    return image[..., 100:-100].diff(dim=-1).square().mean().item()


def moving(x, width=96, height=80):
    flow = torch.zeros(1, 2, height, width)
    flow[:, 0] = x
    return flow


def test_without_motion_the_photograph_itself_comes_back(photo):
    assert_close(compose(photo, torch.zeros_like(photo), moving(0)), photo)


def test_a_moved_photograph_shows_its_own_pixels_where_they_went(photo):
    result = compose(photo, torch.zeros_like(photo), moving(6))
    assert_close(result[..., 12:90], photo[..., 6:84], atol=1e-4, rtol=0)


def test_what_the_motion_uncovers_has_the_edits_content_in_the_photographs_colours(photo):
    flow = moving(0)
    flow[..., 48:] = 20  # the right half leaves, a gap opens
    grey = torch.full_like(photo, 0.4)
    stripes = 0.1 * torch.sin(torch.arange(96.0))
    result = compose(grey, grey - 0.2 + stripes, flow)  # a cast of 0.2 everywhere
    gap = result[:, :, 20:60, 54:62]
    assert (gap - 0.4 - stripes[54:62]).abs().max() < 0.06
    assert gap.std(dim=-1).min() > 0.04


def test_what_moves_further_hides_what_it_comes_to_lie_on():
    photo, flow = torch.zeros(1, 3, 80, 96), moving(0)
    photo[..., 30:50, 30:50] = 1
    flow[:, 0, 30:50, 30:50] = 8
    result = compose(photo, torch.full_like(photo, 0.5), flow)
    assert result[..., 32:48, 42:55].min() > 0.95, "the square in its new place, its leading edge too"
    assert result[..., 60:, :].max() == 0 and result[..., :20, :].max() == 0


def test_a_large_photograph_at_rest_comes_back_pixel_by_pixel():
    photo = to_tensor(rough(2000, 500))
    result = compose(photo, torch.zeros_like(photo), moving(0, 256, 64))
    assert_close(result, photo, atol=0.1 / 255, rtol=0)


@pytest.mark.parametrize("shift", [0.4, 8.0])  # 3.125 and 62.5 pixels of the photograph
def test_a_large_photograph_that_moves_stays_sharp(shift):
    photo = to_tensor(rough(2000, 500))
    blurred = gaussian_blur(photo, 4)
    flow = moving(shift, 256, 64)
    edited = blurred.roll(round(shift * 2000 / 256), dims=-1)
    assert sharpness(edited) < 0.1 * sharpness(photo)
    assert sharpness(compose(photo, edited, flow)) > 0.8 * sharpness(photo)
    assert sharpness(transfer(photo, edited, blurred, flow)) > 0.8 * sharpness(photo)


def test_transfer_gives_back_what_the_autoencoder_lost(photo):
    lossy = gaussian_blur(photo, 2)
    assert_close(transfer(photo, lossy, lossy, moving(0)), photo)
    moved = transfer(photo, lossy.roll(6, dims=-1), lossy, moving(6))
    assert_close(moved[..., 12:90], photo[..., 6:84], atol=1e-4, rtol=0)


def test_transfer_leaves_the_edit_alone_where_nothing_of_the_photograph_is_seen(photo):
    flow = moving(0)
    flow[..., 48:] = 20
    edited = torch.full_like(photo, 0.123)
    result = transfer(photo, edited, gaussian_blur(photo, 2), flow)
    assert_close(result[:, :, 20:60, 54:60], edited[:, :, 20:60, 54:60])


def test_looking_back_undoes_a_smooth_motion_at_any_size():
    x, y = pixel_grid(64, 64).unbind(1)
    flow = 2 * torch.stack([torch.sin(y / 16), torch.cos(x / 16)], dim=1)
    came_from, visible = look_back(flow, (128, 128))
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    assert visible[inner].min() == 1
    landed = came_from / 2 - 0.25  # in pixels of the flow
    x, y = landed.unbind(1)
    there = landed + 2 * torch.stack([torch.sin(y / 16), torch.cos(x / 16)], dim=1)
    assert (there - (pixel_grid(128, 128) / 2 - 0.25))[inner].abs().max() < 0.1


def test_blur_keeps_the_mean_of_a_constant_and_a_ramps_middle():
    assert_close(gaussian_blur(torch.full((1, 2, 9, 9), 0.7), 1.5), torch.full((1, 2, 9, 9), 0.7))
    ramp = torch.arange(21.0).expand(1, 1, 5, 21)
    assert_close(gaussian_blur(ramp, 1.0)[..., 5:-5], ramp[..., 5:-5])


def test_an_unknown_detail_is_refused():
    with pytest.raises(ValueError, match="detail must be one of none, transfer, compose, got 'more'"):
        check_detail("more")


@pytest.fixture(scope="module")
def edits():
    """A photograph of 400 x 300, worked at 64 x 64, with a flow of nothing, under each `detail`."""
    pipe, photo = tiny_instantdrag("splat"), rough(400, 300)
    options = {"flow": torch.zeros(1, 2, 8, 8), "num_inference_steps": 2, "output_type": "pt"}
    drag = ([[30, 30]], [[36, 26]])
    images = {
        detail: pipe(photo, *drag, detail=detail, generator=seeded(), **options).images[0]
        for detail in ("none", "transfer", "compose")
    }
    request = pipe.check_inputs(photo, *drag, None, pipe.config.working_area)[0][0]
    return to_tensor(photo)[0], images, to_tensor(request.fit.image_back(pipe.reconstruct([request])))[0]


def test_composing_with_no_flow_gives_the_photograph_byte_for_byte(edits):
    photo, images, _ = edits
    assert torch.equal(images["compose"], photo)
    assert not torch.equal(images["none"], photo)


def test_the_pipeline_transfers_what_its_autoencoder_loses(edits):
    photo, images, reconstructed = edits
    expected = (images["none"] + photo - reconstructed).clamp(0, 1)
    assert_close(images["transfer"], expected, atol=STEP, rtol=0)


def test_the_same_request_gives_the_same_bytes(photo):
    flow = torch.randn(1, 2, 20, 24, generator=seeded())
    first, second = (compose(photo, 1 - photo, flow) for _ in range(2))
    assert np.array_equal(first.numpy(), second.numpy())
