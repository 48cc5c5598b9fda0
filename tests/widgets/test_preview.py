import numpy as np
import pytest
import torch
from PIL import Image

from dragstudy.flow import pixel_grid
from dragstudy.pipelines import WarpPipeline
from dragstudy.widgets.mask import Fill, Invert, Loaded, Stroke, rasterise
from dragstudy.widgets.preview import PreviewMaker, flow_arrows
from dragstudy.widgets.sketch import Sketch

from ..tiny import picture


def preview_of(image, *drags, mask=()):
    return PreviewMaker()(WarpPipeline(), image, Sketch(drags=drags, mask=mask))


def test_a_preview_moves_what_is_dragged_to_where_it_is_dragged():
    image = Image.new("RGB", (256, 256), "white")
    image.paste("black", (96, 96, 128, 128))
    shown = np.asarray(preview_of(image, ((112, 112), (142, 118))).image.convert("L"))
    y, x = np.nonzero(shown < 128)
    assert abs(x.mean() - (111.5 + 30)) < 3 and abs(y.mean() - (111.5 + 6)) < 3


def test_what_the_mask_protects_stays():
    image, mask = picture(192, 128), np.zeros((128, 192))
    mask[:, :90] = 1
    preview = preview_of(image, ((40, 60), (60, 60)), mask=(Loaded.from_mask(mask),))
    kept = np.asarray(image.resize(preview.image.size)).astype(int)[:, -100:]
    assert np.abs(np.asarray(preview.image)[:, -100:] - kept).max() <= 30
    assert preview.flow[..., -100:].abs().max() < 1


def test_a_preview_has_the_photographs_shape_and_a_size_of_its_own():
    for size in ((2000, 1000), (50, 90)):
        preview = preview_of(picture(*size), ((10, 10), (20, 15)))
        w, h = preview.image.size
        assert abs(w / h / (size[0] / size[1]) - 1) < 0.02 and abs(w * h / 256**2 - 1) < 0.02
        assert preview.flow.shape == (1, 2, h, w) and preview.seconds > 0


def test_arrows_are_the_flow_in_pixels_of_the_picture():
    x, y = pixel_grid(32, 64)[0]
    flow = torch.stack([0.1 * x, -0.2 * y])[None]  # linear, so that every reading of it is exact
    arrows = flow_arrows(flow, (640, 320), columns=8)
    assert len(arrows) == 8 * 4
    small = (arrows[:, :2] + 0.5) / 10 - 0.5  # the same places in pixels of the flow's grid
    np.testing.assert_allclose(arrows[:, 2], 10 * 0.1 * small[:, 0], atol=1e-4)
    np.testing.assert_allclose(arrows[:, 3], -10 * 0.2 * small[:, 1], atol=1e-4)
    assert (arrows[:, 0] > -0.5).all() and (arrows[:, 0] < 639.5).all()


def test_what_is_kept_from_preview_to_preview_is_not_kept_too_long():
    make, pipe = PreviewMaker(), WarpPipeline()
    image, other = picture(96, 64), picture(96, 64, phase=1.0)
    free, held = (Sketch(drags=(((20, 20), (40, 30)),), mask=mask) for mask in ((), (Fill(0),)))
    for picture_, sketch in ((image, free), (image, held), (other, held), (other, free), (image, free)):
        found = make(pipe, picture_, sketch)
        fresh = PreviewMaker()(pipe, picture_, sketch)
        assert found.image.tobytes() == fresh.image.tobytes() and found.flow.equal(fresh.flow)


def test_a_mask_on_a_large_photograph_is_the_same_small_one_and_takes_no_time():
    image, strokes = picture(3000, 2000), (Stroke(((500.0, 600.0), (1700.0, 900.0)), 400.0), Invert())
    loaded = Loaded.from_mask(rasterise(strokes, image.size))
    drag = ((700, 1500), (900, 1500))
    make, pipe = PreviewMaker(), WarpPipeline()
    exact = make(pipe, image, Sketch(drags=(drag,), mask=(loaded,)))
    quick = make(pipe, image, Sketch(drags=(drag,), mask=strokes))
    difference = np.abs(np.asarray(exact.image).astype(int) - np.asarray(quick.image)).max(axis=2)
    assert (difference > 20).mean() < 0.01 and exact.image.size == quick.image.size
    assert not np.array_equal(
        np.asarray(quick.image), np.asarray(make(pipe, image, Sketch(drags=(drag,))).image)
    )


def test_a_preview_that_fails_leaves_nothing_behind():
    make, pipe, drag = PreviewMaker(), WarpPipeline(), ((20, 20), (40, 30))
    wrong = Loaded.from_mask(np.ones((9, 9)))
    held = Sketch(drags=(drag,), mask=(Fill(0),))
    make(pipe, picture(96, 64), held)
    other = picture(80, 60)
    with pytest.raises(ValueError, match="80, 60"):
        make(pipe, other, Sketch(drags=(drag,), mask=(wrong,)))
    assert make(pipe, other, held).image.size == PreviewMaker()(pipe, other, held).image.size
