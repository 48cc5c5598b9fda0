"""LightningDrag's networks learn, the inpainting U-Net if it is told to, and points are drawn at random."""

import pytest
import torch

from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.backbone import NullPrompt, make_inpainting_scheduler
from dragstudy.training.inpainting import InpaintingTask
from dragstudy.training.lightning import LightningTask, draw_points

from ..tiny import tiny_backbone, tiny_inpainting, tiny_points


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 3, points: int = 6) -> dict[str, torch.Tensor]:
    generator = seeded(7)
    mask = torch.zeros(count, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    source, other = torch.randn(2, count, 4, 8, 8, generator=generator)
    drags = 63 * torch.rand(2, count, points, 2, generator=generator)
    drags[:, 1, 4:] = torch.nan
    return {
        "source_latents": source,
        "target_latents": source * (1 - mask) + other * mask,
        "mask": mask,
        "handle_points": drags[0],
        "target_points": drags[1],
    }


def make_task(**options) -> LightningTask:
    torch.manual_seed(0)
    unet = tiny_inpainting()
    parts = AppearanceEncoder.from_unet(tiny_backbone()), tiny_points(unet)
    return LightningTask(unet, *parts, NullPrompt(), make_inpainting_scheduler(), **options)


def test_both_networks_learn_and_the_unet_does_not():
    task = make_task(drop_points=0.0)
    ((name, loss, _),) = task.losses(batch(), seeded())
    loss.backward()
    conditioner = task.networks[name]
    for part in (conditioner.appearance, conditioner.points):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    assert all(p.grad is None and not p.requires_grad for p in conditioner.unet.parameters())


def test_the_unet_learns_along_if_it_is_told_to():
    task = make_task(train_unet=True)
    task.loss(batch(), seeded()).backward()
    unet = task.networks["lightning"].unet
    assert all(p.requires_grad for p in unet.parameters())
    assert any(p.grad is not None and p.grad.any() for p in unet.parameters())


def test_a_few_steps_lower_the_loss():
    task = make_task(drop_points=0.0)
    optimizer = torch.optim.AdamW(task.networks["lightning"].parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = task.loss(batch(), seeded())  # the same noise each time
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_dropped_points_have_no_influence():
    task, given = make_task(drop_points=1.0), batch()
    moved = {**given, "target_points": given["target_points"].flip(0)}
    with torch.no_grad():
        assert task.loss(given, seeded()) == task.loss(moved, seeded())
        task.drop_points = 0.0
        assert task.loss(given, seeded()) != task.loss(moved, seeded())


def test_validation_tells_with_points_from_without():
    task = make_task(validation=batch())
    found = task.validate()
    assert set(found) == {"val_loss", "val_loss_without_points"}
    assert found["val_loss"] != found["val_loss_without_points"]
    assert task.validate() == found and task.drop_points == 0.1


@pytest.mark.parametrize("most", [1, 4, 20])
def test_points_are_drawn_in_number_and_choice(most):
    given = batch(count=2, points=6)
    handles, targets = given["handle_points"], given["target_points"]
    counts, seen = set(), set()
    for seed in range(60):
        *drags, identifiers = draw_points(handles, targets, most, seeded(seed))
        known = drags[0].isfinite().all(dim=2)
        assert torch.equal(known, drags[1].isfinite().all(dim=2))
        for k in range(2):
            chosen = {tuple(p) for p in torch.cat([drags[0][k], drags[1][k]], dim=1)[known[k]].tolist()}
            stored = torch.cat([handles[k], targets[k]], dim=1)
            assert chosen <= {tuple(p) for p in stored.tolist()}  # pairs stay pairs
            counts.add(len(chosen))
            seen |= chosen
            ids = identifiers[k][known[k]].tolist()
            assert len(set(ids)) == len(ids) and set(ids) <= set(range(1, most + 1))
    assert counts == set(range(1, min(most, 6) + 1))
    assert len(seen) == 10  # every stored point is drawn sometimes


def test_inpainting_shows_the_mask_s_outside_only():
    task = InpaintingTask(tiny_inpainting(), NullPrompt(), make_inpainting_scheduler())
    given = {"target_latents": torch.randn(4, 4, 8, 8, generator=seeded())}
    (conditions,) = task.conditions(given, seeded(1))
    mask, masked = conditions[:, :1], conditions[:, 1:]
    assert torch.equal(masked, given["target_latents"] * (1 - mask)) and 0 < mask.mean() <= 1
    assert task.loss(given, seeded()).isfinite()
