"""Feature hooks: what they keep, where the network stops, and that nothing of them stays behind."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dragstudy.features import diffusion_features, unet_features, watch
from dragstudy.models.backbone import NullPrompt, make_scheduler

from .tiny import tiny_backbone

BLOCKS = ["down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.2"]


@pytest.fixture
def unet():
    return tiny_backbone()


@pytest.fixture
def latents(generator):
    return torch.randn(2, 4, 8, 8, generator=generator)


def prompt(count: int = 1) -> torch.Tensor:
    return NullPrompt()(count)


def full_pass(unet: nn.Module, latents: torch.Tensor, timestep: int) -> dict[str, torch.Tensor]:
    """Every block's output in a whole forward pass, kept by hooks of torch's own."""
    kept = {}

    def keep(name):
        return lambda module, args, output: kept.update({name: output})

    handles = [unet.get_submodule(name).register_forward_hook(keep(name)) for name in BLOCKS]
    unet(latents, timestep, prompt(len(latents)))
    for handle in handles:
        handle.remove()
    return {name: out[0] if isinstance(out, tuple) else out for name, out in kept.items()}


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def calls(unet: nn.Module, run) -> list[str]:
    """The blocks and the last layer, in the order in which `run` calls them."""
    seen = []
    names = {
        module: name for name, module in unet.named_modules() if name.count(".") == 1 and "blocks" in name
    }
    names |= {unet.mid_block: "mid_block", unet.conv_out: "conv_out"}
    handles = [m.register_forward_pre_hook(lambda module, _: seen.append(names[module])) for m in names]
    run()
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
def test_features_are_those_of_a_full_pass(unet, latents):
    expected = full_pass(unet, latents, 300)
    found = unet_features(unet, latents, 300, prompt(), BLOCKS)
    assert found.keys() == expected.keys()
    for name, feature in found.items():
        assert_close(feature, expected[name], rtol=0, atol=0)
    assert found["up_blocks.0"].shape == (2, 32, 2, 2) and found["up_blocks.2"].shape == (2, 32, 8, 8)


@pytest.mark.parametrize(
    ("blocks", "last"),
    [
        (["down_blocks.0"], "down_blocks.0"),
        (["mid_block"], "mid_block"),
        (["up_blocks.1", "down_blocks.2"], "up_blocks.1"),
    ],
)
def test_nothing_runs_after_the_last_block_that_is_wanted(unet, latents, blocks, last):
    everything = calls(unet, lambda: unet(latents, 5, prompt(2)))
    partial = calls(unet, lambda: unet_features(unet, latents, 5, prompt(), blocks))
    assert everything[-1] == "conv_out" and len(everything) == 10
    assert partial == everything[: everything.index(last) + 1]


def test_a_watch_that_does_not_stop_leaves_the_prediction_as_it_is(unet, latents):
    expected = unet(latents, 700, prompt(2)).sample
    with watch(unet, ["up_blocks.1"]) as features:
        found = unet(latents, 700, prompt(2)).sample
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(
        features["up_blocks.1"], unet_features(unet, latents, 700, prompt(), ["up_blocks.1"])["up_blocks.1"]
    )


def test_hooks_are_gone_however_it_ends(unet, latents):
    unet_features(unet, latents, 1, prompt(), BLOCKS)
    assert hooks(unet) == 0
    with pytest.raises(RuntimeError), watch(unet, BLOCKS, stop=True):
        unet(latents[:, :3], 1, prompt(2))  # a channel too few
    assert hooks(unet) == 0
    with pytest.raises(KeyboardInterrupt), watch(unet, BLOCKS):
        raise KeyboardInterrupt
    assert hooks(unet) == 0


def test_of_two_watches_the_outer_one_may_stop_first(unet, latents):
    reached = False
    with watch(unet, ["mid_block"], stop=True) as outer:
        with watch(unet, ["up_blocks.3"], stop=True) as inner:
            unet(latents, 1, prompt(2))
        reached = True
    assert outer.keys() == {"mid_block"} and not inner and not reached
    assert hooks(unet) == 0


def test_gradients_reach_the_latents_through_the_features(unet, latents):
    latents.requires_grad_()
    unet_features(unet, latents, 200, prompt(), ["up_blocks.1"])["up_blocks.1"].square().sum().backward()
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize("blocks", [[], ["up_blocks.4"], [""]])
def test_unknown_blocks_are_refused(unet, latents, blocks):
    with pytest.raises(ValueError, match="such as down_blocks, .*mid_block"):
        unet_features(unet, latents, 1, prompt(), blocks)
    assert hooks(unet) == 0


def test_a_block_that_never_runs_is_an_error(unet, latents):
    unet.spare_block = nn.Identity()
    with pytest.raises(ValueError, match=r"only \['mid_block'\] ran"):
        unet_features(unet, latents, 1, prompt(), ["mid_block", "spare_block"])


def test_diffusion_features_are_the_mean_over_draws_of_noise(unet, latents):
    scheduler = make_scheduler()
    options = {"blocks": ["mid_block", "up_blocks.1"], "timestep": 400}

    def draw(draws, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return diffusion_features(
            unet, latents, prompt(), scheduler, draws=draws, generator=generator, **options
        )

    generator = torch.Generator().manual_seed(0)
    single = [
        diffusion_features(unet, latents, prompt(), scheduler, draws=1, generator=generator, **options)
        for _ in range(3)
    ]
    for name in options["blocks"]:
        assert_close(draw(3)[name], sum(one[name] for one in single) / 3)
        assert torch.equal(draw(3)[name], draw(3)[name])
        assert not torch.allclose(draw(1)[name], draw(1, seed=1)[name])


def test_pictures_do_not_share_their_noise_and_almost_none_is_added_early(unet, latents):
    twice = latents[:1].expand(2, -1, -1, -1)
    scheduler = make_scheduler()

    def spread(timestep):
        generator = torch.Generator().manual_seed(0)
        options = {"blocks": ["up_blocks.2"], "timestep": timestep, "draws": 1, "generator": generator}
        first, second = diffusion_features(unet, twice, prompt(), scheduler, **options)["up_blocks.2"]
        return ((first - second).norm() / first.norm()).item()

    assert spread(0) < 0.25 * spread(600)
    assert spread(600) > 0.01
