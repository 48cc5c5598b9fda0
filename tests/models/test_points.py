"""Point maps say where points are dragged from and to, and the embedding has the U-Net's grids."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.testing import assert_close

from dragstudy.models.points import (
    ORIGIN_CHANNELS,
    WAVELENGTHS,
    PointEmbedding,
    attention_levels,
    identifier_maps,
    origin_maps,
)

from ..tiny import tiny_backbone, tiny_points

SIZE = (64, 96)
LATENTS = (8, 12)


def points(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def random_drags(count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([95.0, 63.0])
    return tuple(torch.rand(1, count, 2, generator=generator) * scale for _ in range(2))


def test_the_published_network_has_its_parameters():
    dims = {0: 320, 1: 640, 2: 1280, 3: 1280}
    counts = {0: 5, 1: 5, 2: 5, 3: 1}
    layers = {f"{level}.{k}.attn1": (level, dims[level]) for level in dims for k in range(counts[level])}
    with torch.device("meta"):
        network = PointEmbedding(layers)
    found = {name: value.numel() for name, value in network.named_parameters()}
    convolutions = {name: count for name, count in found.items() if name.startswith(("conv_in", "downs"))}
    assert sum(convolutions.values()) == 75_479_616 and len(convolutions) == 13
    assert sum(found.values()) - sum(convolutions.values()) == 5_622_528


def test_identifiers_stand_at_their_pixels():
    maps = identifier_maps(points([3.4, 10.6]), points([95, 63]), torch.tensor([[7]]), SIZE)
    assert maps.nonzero().tolist() == [[0, 0, 11, 3], [0, 1, 63, 95]]
    assert maps.amax() == 7


@pytest.mark.parametrize("count", [2, 20])
def test_the_order_of_pairs_with_their_identifiers_changes_nothing(count):
    handles, targets = random_drags(count)
    handles[:, 1:4] = handles[:, :1].clone()  # points that meet as well
    identifiers = 1 + torch.randperm(count, generator=torch.Generator().manual_seed(1))[None]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    for maps, again in (
        (
            identifier_maps(handles, targets, identifiers, SIZE),
            identifier_maps(handles[:, order], targets[:, order], identifiers[:, order], SIZE),
        ),
        (origin_maps(handles, targets, SIZE), origin_maps(handles[:, order], targets[:, order], SIZE)),
    ):
        assert_close(again, maps, atol=1e-5, rtol=1e-5)
    network = tiny_points(tiny_backbone())
    shown = network(network.maps(handles, targets, SIZE, identifiers))
    swapped = network.maps(handles[:, order], targets[:, order], SIZE, identifiers[:, order])
    for name, parts in network(swapped).items():
        assert_close(parts, shown[name])
    other = network(network.maps(handles, targets, SIZE, identifiers.roll(1, dims=1)))
    assert any((a - b).abs().max() > 1e-4 for n in other for a, b in zip(other[n], shown[n], strict=True))


@pytest.mark.parametrize("maps", ["identifiers", "origins"])
def test_missing_points_change_nothing(maps):
    network = tiny_points(tiny_backbone(), maps)
    handles, targets = random_drags(3)
    nothing = torch.full((1, 2, 2), torch.nan)
    padded = (torch.cat([drags, nothing], dim=1) for drags in (handles, targets))
    assert_close(network.maps(*padded, SIZE), network.maps(handles, targets, SIZE))


def test_the_place_a_target_shows_is_its_handle():
    """At a target in the middle of a latent the code is that of the handle's place."""
    cells = torch.tensor([[2.0, 5.0]]), torch.tensor([[7.0, 3.0]])
    handles, targets = (8 * one[None] + 3.5 for one in cells)
    maps = origin_maps(handles, targets, SIZE)
    codes = 4 * len(WAVELENGTHS)
    of_handle = maps[0, :codes, 5, 2]
    at_target = maps[0, ORIGIN_CHANNELS : ORIGIN_CHANNELS + codes, 3, 7]
    assert_close(at_target, of_handle, atol=0.02, rtol=0)
    assert (maps[0, ORIGIN_CHANNELS : ORIGIN_CHANNELS + codes, 0, 0] - of_handle).abs().max() > 0.5


def test_an_anchor_holds_the_place_that_another_drag_would_move():
    handles, targets = points([30, 30], [60, 30]), points([38, 30], [60, 30])
    shift = 4 * len(WAVELENGTHS)
    moved = origin_maps(handles, targets, SIZE)[0, ORIGIN_CHANNELS + shift]
    free = origin_maps(handles[:, :1], targets[:, :1], SIZE)[0, ORIGIN_CHANNELS + shift]
    row, column = 3, 7  # the anchor's latent
    assert free[row, column].abs() > 4 * moved[row, column].abs()


@pytest.mark.parametrize("maps", ["identifiers", "origins"])
@pytest.mark.parametrize("size", [(64, 64), (64, 192), (128, 64), (72, 88)])
def test_the_embeddings_have_the_attention_layers_shapes(maps, size):
    unet = tiny_backbone()
    network = tiny_points(unet, maps)
    seen = {}
    for name in network.config.layers:
        unet.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: seen.__setitem__(name, tuple(args[0].shape))
        )
    with torch.no_grad():
        unet(torch.zeros(1, 4, size[0] // 8, size[1] // 8), 0, torch.zeros(1, 1, 64))
        embeddings = network(network.maps(*random_drags(2), size))
    for half in (0, 1):
        assert {name: tuple(parts[half].shape) for name, parts in embeddings.items()} == seen


def test_the_blocks_tell_the_level_though_token_counts_agree():
    """On a strip one latent high two levels have as many tokens; neither is taken for the other."""
    levels = attention_levels(tiny_backbone())
    assert {level for level, _ in levels.values()} == {0, 1, 2, 3}
    assert levels["mid_block.attentions.0.transformer_blocks.0.attn1"][0] == 3
    unet = UNet2DConditionModel(
        block_out_channels=(32, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, norm_num_groups=8,
        cross_attention_dim=64,
    )  # fmt: skip
    assert {level for name, (level, _) in attention_levels(unet).items() if "up_blocks" in name} == {0}


def test_the_paper_s_embedding_is_zero_before_training():
    network = PointEmbedding(attention_levels(tiny_backbone()), "identifiers", (4, 8, 8, 16, 16, 16, 16))
    embeddings = network(network.maps(*random_drags(2), SIZE))
    assert not any(half.any() for parts in embeddings.values() for half in parts)


def test_without_points_identifiers_are_silent_and_origins_at_rest():
    nowhere = torch.full((1, 2, 2), torch.nan)
    for maps in ("identifiers", "origins"):
        network = tiny_points(tiny_backbone(), maps)
        for norm in network.norms.values():
            torch.nn.init.normal_(norm.bias)  # as after training
        embeddings = network(network.maps(nowhere, nowhere, SIZE))
        assert any(half.any() for parts in embeddings.values() for half in parts) == (maps == "origins")
        if maps == "origins":
            assert all(torch.equal(handle, target) for handle, target in embeddings.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_target_attends_to_its_handle_before_training(seed):
    """The logits of Eq. 4 that points alone give are largest at the handle's place."""
    torch.manual_seed(seed)
    network = PointEmbedding({"layer": (1, 96)}, "origins", (64, 64, 96, 96))
    handles, targets = points([71.5, 39.5]), points([39.5, 71.5])
    handle, target = network(network.maps(handles, targets, (128, 128)))["layer"]
    row, column = (71.5 - 7.5) / 16, (39.5 - 7.5) / 16  # of the target, of 8 x 8 tokens of 16 pixels
    logits = target[0, round(8 * row + column)] @ handle[0].mT
    assert divmod(int(logits.argmax()), 8) == (round((39.5 - 7.5) / 16), round((71.5 - 7.5) / 16))


def test_it_is_what_it_was_after_saving(tmp_path):
    network = tiny_points(tiny_backbone(), "origins")
    network.save_pretrained(tmp_path)
    again = PointEmbedding.from_pretrained(tmp_path)
    maps = network.maps(*random_drags(2), SIZE)
    for name, parts in network(maps).items():
        assert_close(again(maps)[name], parts)


def test_unknown_maps_are_refused():
    with pytest.raises(ValueError, match="maps must be one of identifiers, origins"):
        PointEmbedding({}, "colours")
