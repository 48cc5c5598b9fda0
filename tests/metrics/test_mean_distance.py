"""Mean distance in every protocol: known answers, and nothing that depends on order."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dragstudy.drags import DragInstruction
from dragstudy.metrics.matching import BackboneFeatures, FeatureSettings
from dragstudy.metrics.mean_distance import (
    PROTOCOLS,
    MeanDistance,
    generator_for,
    mean_distance,
    point_distances,
    protocol_distances,
    tiny_protocols,
)

H, W = 48, 64
SHIFT = np.array([3.0, -2.0])
HANDLES = np.array([[30.0, 20.0], [50.4, 28.6], [12.0, 31.5]])
# the protocols at a size at which a test runs in no time, and a whole multiple of the image's
SMALL = {name: protocol.adapt(timestep=1, up_block=1, side=192) for name, protocol in PROTOCOLS.items()}
EVERYWHERE = np.ones((H, W), np.float32)


def texture(seed: int = 0) -> torch.Tensor:
    """An image that is different everywhere, `(1, 3, h, w)`."""
    return torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(seed))


def moved(image: torch.Tensor) -> torch.Tensor:
    """The image moved by `SHIFT`, round the edges."""
    return image.roll((int(SHIFT[1]), int(SHIFT[0])), dims=(2, 3))


def exact(image: torch.Tensor, settings, *, generator, prompt: str = "") -> torch.Tensor:
    """Features that know what is where: the colours around each pixel."""
    side = 7 if settings.side else 3
    columns = F.unfold(F.pad(image - 0.5, (side // 2,) * 4, mode="replicate"), side)
    return columns.view(1, -1, *image.shape[-2:])


def in_unit(name: str, vectors: np.ndarray) -> np.ndarray:
    """Lengths of vectors in pixels, as a protocol gives them."""
    percent = PROTOCOLS[name].unit == "percent"
    return np.linalg.norm(100 * vectors / (W, H) if percent else vectors, axis=-1)


def measure(name: str, edited: torch.Tensor, drags: DragInstruction, features=exact) -> np.ndarray:
    options = {"generator": generator_for("sample")}
    return point_distances(texture(), edited, drags, SMALL[name], features, **options)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_untouched_image_misses_by_the_length_of_every_drag(name):
    targets = HANDLES + [[6.0, 3.0], [-4.0, 7.5], [0.0, 0.0]]
    drags = DragInstruction(HANDLES, targets, EVERYWHERE)
    assert_close(measure(name, texture(), drags), in_unit(name, targets - HANDLES))


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "annotation"])
def test_a_translated_image_has_the_mean_distance_of_the_translation(name):
    anchored = DragInstruction(HANDLES, HANDLES, EVERYWHERE)
    distances = measure(name, moved(texture()), anchored)
    assert_close(distances, np.full(3, in_unit(name, SHIFT)))
    assert mean_distance([distances], PROTOCOLS[name].average) == pytest.approx(in_unit(name, SHIFT))
    followed = DragInstruction(HANDLES, HANDLES + SHIFT, EVERYWHERE)
    assert_close(measure(name, moved(texture()), followed), np.zeros(3), atol=1e-9, rtol=0)


def test_the_annotation_does_not_look_at_images():
    drags = DragInstruction(HANDLES, HANDLES + SHIFT)
    for edited in (texture(), texture(1)):
        assert_close(
            measure("annotation", edited, drags, features=None), np.full(3, in_unit("annotation", SHIFT))
        )


@pytest.mark.parametrize("name", ["draglora", "dragflow-md1"])
def test_inside_the_mask_nothing_outside_of_it_is_found(name):
    mask = np.zeros((H, W), np.float32)
    mask[10:40, 5:40] = 1
    drags = DragInstruction([[50.0, 20.0]], [[20.0, 20.0]], mask)
    assert measure("dragdiffusion", texture(), drags)[0] == 30
    assert measure(name, texture(), drags)[0] < np.hypot(20 - 5, 20) < 30
    with pytest.raises(ValueError, match="inside the mask, and the drags have none"):
        measure(name, texture(), DragInstruction([[50.0, 20.0]], [[20.0, 20.0]]))
    with pytest.raises(ValueError, match="inside the mask, and the drags have none"):
        measure(name, texture(), replace_mask(drags, np.zeros_like(mask)))


def replace_mask(drags: DragInstruction, mask: np.ndarray) -> DragInstruction:
    return DragInstruction(drags.handle_points, drags.target_points, mask)


def test_around_the_drag_nothing_far_from_it_is_found():
    """What lay under the handle went far away: the search stays within the drag's own reach."""
    far = texture().roll(25, dims=3)
    drags = DragInstruction([[20.0, 20.0]], [[26.0, 20.0]])
    assert measure("dragdiffusion", far, drags)[0] == 19
    assert measure("inpaint4drag", far, drags)[0] < in_unit("inpaint4drag", np.array([[6 + 5.0, 5.0]]))[0]


def test_drags_of_length_zero_count_and_have_a_reach_of_five_pixels():
    drags = DragInstruction([[20.0, 20.0]], [[20.0, 20.0]])
    for name in ("dragdiffusion", "inpaint4drag"):
        assert measure(name, texture(), drags)[0] == 0
    assert 0 < measure("regiondrag", texture(3), drags)[0] < in_unit("regiondrag", np.array([[5.0, 5.0]]))[0]


def test_the_published_settings_are_these():
    dragbench = FeatureSettings(261, 1, 8, None, "bilinear", sample_latents=True, prompt=True)
    squashed = FeatureSettings(261, 1, 8, 768, "nearest", sample_latents=False, prompt=True)
    settings = {name: protocol.features for name, protocol in PROTOCOLS.items()}
    assert settings == {
        "annotation": None,
        "dragdiffusion": dragbench,
        "dragdiffusion-per-image": dragbench,
        "draglora": dragbench,
        "dragflow-md1": replace(dragbench, prompt=False),
        "regiondrag": squashed,
        "inpaint4drag": replace(squashed, prompt=False),
    }


def test_the_shipped_backbone_changes_where_protocols_look_and_nothing_else():
    for name, protocol in tiny_protocols().items():
        published = PROTOCOLS[name]
        assert replace(protocol, features=published.features) == published
        if published.features is not None:
            assert (protocol.features.side is None) == (published.features.side is None)
            assert (protocol.features.timestep, protocol.features.up_block) == (1, 2)


# Real features, and their noise


@pytest.fixture(scope="module")
def tiny() -> BackboneFeatures:
    return BackboneFeatures.tiny()


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    face = torch.from_numpy(skimage.data.astronaut()[:192, 128:320].copy())
    return face.permute(2, 0, 1)[None].float() / 255


EYES = np.array([[74.0, 100.0], [113.0, 98.0], [97.0, 140.0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dragdiffusion", "inpaint4drag"])
def test_the_shipped_backbone_tracks_a_face_that_moved_or_stayed(tiny, photo, name):
    protocol, shift = tiny_protocols()[name], np.array([16.0, 8.0])
    drags = DragInstruction(EYES, EYES + shift)
    scale = 100 / 192 if protocol.unit == "percent" else 1
    there = photo.roll((8, 16), dims=(2, 3))
    options = {"generator": generator_for("astronaut")}
    stayed, came = (
        point_distances(photo, edited, drags, protocol, tiny, **options).mean() / scale
        for edited in (photo, there)
    )
    assert stayed == pytest.approx(np.linalg.norm(shift), abs=5)
    assert came < 0.7 * stayed


def test_a_number_depends_on_the_sample_s_name_and_not_on_its_place(tiny, photo):
    drags = DragInstruction(EYES, EYES + 5, np.ones((192, 192), np.float32))
    noisy = FeatureSettings(timestep=600, up_block=1, draws=1)
    protocols = {"noisy": replace(PROTOCOLS["draglora"], features=noisy)}

    def measure_all(ids):
        return {
            id: protocol_distances(photo, photo.flip(3), drags, tiny, id=id, protocols=protocols)["noisy"]
            for id in ids
        }

    forwards, backwards = measure_all(["one", "two"]), measure_all(["two", "one"])
    assert all(np.array_equal(forwards[id], backwards[id]) for id in forwards)
    assert not np.array_equal(forwards["one"], forwards["two"])
    before = torch.get_rng_state()
    measure_all(["one"])
    assert torch.equal(before, torch.get_rng_state())


def test_generators_differ_by_name_and_seed():
    firsts = [torch.rand(1, generator=generator_for(*which)).item() for which in (("a",), ("b",), ("a", 1))]
    assert len(set(firsts)) == 3
    assert generator_for("a").initial_seed() == generator_for("a", 42).initial_seed()


def test_all_protocols_at_once_are_each_alone_and_share_their_features():
    calls = []

    def noisy(image, settings, *, generator, prompt=""):
        calls.append((settings, prompt))
        maps = exact(image, settings, generator=generator)
        return maps + torch.randn(maps.shape, generator=generator)

    drags = DragInstruction(HANDLES, HANDLES + SHIFT, EVERYWHERE)
    together = protocol_distances(
        texture(), moved(texture()), drags, noisy, id="dog", protocols=SMALL, prompt="a dog"
    )
    assert list(together) == list(PROTOCOLS)
    assert len(calls) == 2 * 4, "two images, four ways of reading them"
    assert all(prompt == "a dog" for _, prompt in calls)
    for name, protocol in SMALL.items():
        options = {"generator": generator_for("dog"), "prompt": "a dog"}
        alone = point_distances(texture(), moved(texture()), drags, protocol, noisy, **options)
        assert np.array_equal(together[name], alone)


def test_without_a_mask_the_protocols_that_need_one_say_nothing():
    drags = DragInstruction(HANDLES, HANDLES + SHIFT)
    found = protocol_distances(texture(), texture(), drags, exact, id="a", protocols=SMALL)
    for name, distances in found.items():
        assert distances.shape == (3,)
        assert np.isnan(distances).all() == (PROTOCOLS[name].search == "mask")


@pytest.mark.parametrize(
    ("edited", "drags"),
    [
        (torch.zeros(1, 3, H, W + 1), DragInstruction(HANDLES, HANDLES)),
        (torch.zeros(1, 3, H, W), DragInstruction(HANDLES, HANDLES, image_size=(W, H + 9))),
    ],
)
def test_sizes_that_differ_are_refused(edited, drags):
    with pytest.raises(ValueError, match="must have one size"):
        measure("annotation", edited, drags)


# The mean


def test_pairs_and_images_weigh_differently():
    images = [np.array([4.0]), np.array([1.0, 2.0, 3.0, np.nan]), np.array([np.nan])]
    assert mean_distance(images, "pairs") == pytest.approx(10 / 4)
    assert mean_distance(images, "images") == pytest.approx((4 + 2) / 2)
    assert mean_distance(images[::-1], "images") == mean_distance(images, "images")
    assert np.isnan(mean_distance([np.array([np.nan])], "pairs")) and np.isnan(mean_distance([], "images"))


def test_the_metric_starts_anew_and_adds_up_across_processes():
    halves = [MeanDistance("images"), MeanDistance("images")]
    halves[0].update(torch.tensor([4.0]))
    halves[1].update(torch.tensor([1.0, 3.0]))
    halves[0].merge_state(halves[1])
    assert halves[0].compute() == 3
    halves[0].reset()
    halves[0].update(torch.tensor([7.0]))
    assert halves[0].compute() == 7
    with pytest.raises(ValueError, match="'pairs' or 'images'"):
        MeanDistance("drags")
