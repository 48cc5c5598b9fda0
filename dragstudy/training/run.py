"""`dragstudy train MODEL`: build the model, its data and task, run the loop, save half precision."""

import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, ModelMixin, UNet2DConditionModel

from dragstudy.data.pairs import PairDataset
from dragstudy.data.recipes import LIGHTNING
from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.autoencoder import make_autoencoder, set_latent_scale
from dragstudy.models.backbone import NullPrompt, make_backbone, make_inpainting_scheduler, make_scheduler
from dragstudy.models.flowdiffusion import make_flowdiffusion
from dragstudy.models.flowgen import PatchDiscriminator
from dragstudy.models.flowgen_variants import FLOWGENS, use_instance_norm
from dragstudy.models.inpainting import make_inpainting
from dragstudy.models.points import PointEmbedding, attention_levels
from dragstudy.training.autoencoder import AutoencoderTask
from dragstudy.training.backbone import BackboneTask
from dragstudy.training.card import write_card
from dragstudy.training.consistency import train_flowdiffusion_lcm, train_lightning_lcm
from dragstudy.training.flowdiffusion import FlowDiffusionTask
from dragstudy.training.flowgen import FlowGenTask
from dragstudy.training.frames import FrameDataset
from dragstudy.training.inpainting import InpaintingTask
from dragstudy.training.latents import cached_latents
from dragstudy.training.lightning import LightningTask
from dragstudy.training.lightning_latents import cached_lightning_latents
from dragstudy.training.loop import LoopSettings, train_loop
from dragstudy.training.subsets import Resized, collate, drawn, first

SHARED = {"mixed_precision": "auto", "learning_rate": 8e-4}
DEFAULTS = {  # what the shipped weights were trained with
    "autoencoder": {"steps": 3600, "batch_size": 16, "learning_rate": 1e-3, "validate_every": 150},
    "backbone": {"steps": 700, "batch_size": 24, "validate_every": 100},
    "inpainting": {"steps": 1200, "batch_size": 24, "validate_every": 200},
    "lightning": {"steps": 1450, "batch_size": 24, "validate_every": 150},
    "flowgen": {
        "steps": 560,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "betas": (0.5, 0.99),
        "warmup": 30,
        "validate_every": 50,
    },
    "flowdiffusion": {"steps": 1150, "batch_size": 24, "validate_every": 100},  # in two calls, see the cards
    "flowdiffusion-lcm": {"steps": 400, "batch_size": 8, "learning_rate": 2e-4, "validate_every": 100},
    "lightning-lcm": {"steps": 400, "batch_size": 8, "learning_rate": 2e-4, "validate_every": 100},
}


def train(
    model: str,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    seed: int = 0,
    limit: int = 0,
    **options,
) -> Path:
    """Train one model of the tiny profile and save it to `out`.

    Args:
        model: A key of `TRAINABLE`.
        data: Folder of pairs, as `dragstudy curate` makes it, with splits `train` and `val`.
        out: Gets the weights (half precision), `metrics.jsonl` and checkpoints.
        minutes: Time budget; run the same command again to go on.
        seed: Decides every random draw.
        limit: Train on the first `limit` pairs only (0: all); for trials and tests.
        **options: Fields of `LoopSettings`, and what the model's function takes besides (`autoencoder`,
            `backbone`: folders of weights; `variant`, `flow_scale`, `sampler`, `reconstruction` ...).

    Returns:
        `out`.

    Raises:
        ValueError: If `model` is unknown.
    """
    if model not in TRAINABLE:
        raise ValueError(f"model must be one of {', '.join(TRAINABLE)}, got {model!r}")
    torch.manual_seed(seed)  # initial weights: torch's layers know no other generator
    fields = LoopSettings.__dataclass_fields__
    loop = {**SHARED, **DEFAULTS[model], **{key: options.pop(key) for key in list(options) if key in fields}}
    settings = LoopSettings(out=Path(out), seed=seed, minutes=minutes, **loop)
    command = shlex.join(["dragstudy", "train", model, *_flags(data, out, seed, limit, loop, options)])
    TRAINABLE[model](Path(data), settings, limit, **options)
    write_card(Path(out), model, Path(data), command, seed)
    return Path(out)


def train_autoencoder(
    data: Path, settings: LoopSettings, limit: int, *, latent_channels: int = 8, width: int = 48
):
    """Train the autoencoder on the frames of all pairs, then choose the scale of its latents."""
    frames, validation = FrameDataset(data, "train"), FrameDataset(data, "val")
    images = collate(validation)["image"]
    autoencoder = make_autoencoder(latent_channels, width)
    train_loop(AutoencoderTask(autoencoder, validation=images), first(frames, limit), settings)
    set_latent_scale(autoencoder.float().cpu(), 2 * collate(frames, 128)["image"] - 1)
    return _save(autoencoder, settings.out)


def train_backbone(data: Path, settings: LoopSettings, limit: int, *, autoencoder: Path):
    """Train the unconditional latent U-Net on the target frames' latents."""
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    latents = first(cached_latents(PairDataset(data, "train"), encoder), limit)
    validation = collate(cached_latents(PairDataset(data, "val"), encoder, augmented=False), 64)
    unet, null_prompt = make_backbone(encoder.config.latent_channels), NullPrompt()
    train_loop(BackboneTask(unet, null_prompt, make_scheduler(), validation=validation), latents, settings)
    return _save(unet, settings.out)


def train_inpainting(data: Path, settings: LoopSettings, limit: int, *, autoencoder: Path, backbone: Path):
    """Fine-tune the backbone, with channels for mask and masked latents, on single frames."""
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    latents = first(cached_latents(PairDataset(data, "train"), encoder), limit)
    validation = collate(cached_latents(PairDataset(data, "val"), encoder, augmented=False), 64)
    unet = make_inpainting(UNet2DConditionModel.from_pretrained(backbone, torch_dtype=torch.float32))
    task = InpaintingTask(unet, NullPrompt(), make_inpainting_scheduler(), validation=validation)
    train_loop(task, latents, settings)
    return _save(unet, settings.out)


def train_lightning(
    data: Path,
    settings: LoopSettings,
    limit: int,
    *,
    autoencoder: Path,
    backbone: Path,
    inpainting: Path,
    maps: str = "origins",
    widths: Sequence[int] = (64, 64, 96, 96),
    max_points: int = 20,
    train_unet: bool = True,
):
    """Train LightningDrag's appearance encoder, from the backbone, and its point embedding, from scratch."""
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    room = {"max_points": LIGHTNING.max_points}
    pairs, validation = (PairDataset(data, split, **room) for split in ("train", "val"))
    latents = first(cached_lightning_latents(pairs, encoder), limit)
    validation = collate(cached_lightning_latents(validation, encoder, augmented=False), 64)
    single = {"torch_dtype": torch.float32}
    unet = UNet2DConditionModel.from_pretrained(inpainting, **single)
    appearance = AppearanceEncoder.from_unet(UNet2DConditionModel.from_pretrained(backbone, **single))
    points = PointEmbedding(attention_levels(unet), maps, tuple(widths))
    task = LightningTask(
        unet,
        appearance,
        points,
        NullPrompt(),
        make_inpainting_scheduler(),
        train_unet=train_unet,
        max_points=max_points,
        validation=validation,
    )
    train_loop(task, latents, settings)
    if train_unet:
        _save(unet, settings.out / "unet")
    _save(appearance, settings.out / "appearance_encoder")
    _save(points, settings.out / "point_embedding")
    return settings.out


def train_flowdiffusion(
    data: Path,
    settings: LoopSettings,
    limit: int,
    *,
    autoencoder: Path,
    backbone: Path,
    variant: str = "concat",
    flow_scale: float = 8.0,
    approach: int = 1,
    normalization: str = "fixed",
    subset: int = 0,
):
    """Fine-tune the backbone, with zero-initialised condition channels, on pairs."""
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    latents = first(cached_latents(PairDataset(data, "train"), encoder, approach=approach), limit)
    latents = drawn(latents, subset, settings.seed)
    validation = collate(cached_latents(PairDataset(data, "val"), encoder, augmented=False), 64)
    unet = make_flowdiffusion(
        UNet2DConditionModel.from_pretrained(backbone, torch_dtype=torch.float32), variant
    )
    task = FlowDiffusionTask(
        unet,
        NullPrompt(),
        make_scheduler(),
        flow_scale=flow_scale,
        normalization=normalization,
        validation=validation,
    )
    train_loop(task, latents, settings)
    return _save(unet, settings.out)


def train_flowgen(
    data: Path,
    settings: LoopSettings,
    limit: int,
    *,
    sampler: str = "config2",
    base_channels: int = 24,
    num_downs: int = 5,
    prior: bool = True,
    init: Path | None = None,
    adversarial: bool = True,
    reconstruction: str = "l2",
    reconstruction_weight: float = 100.0,
    generator_updates: int = 4,
    variant: str = "own",
    size: int = 0,
    subset: int = 0,
):
    """Train FlowGen against its discriminator, from scratch or from `init`; the generator alone is saved.

    Beside the options of `FlowGenTask`: `variant`, `"own"`, `"fixed"` (drags and flows are divided by the
    picture's size) or `"instance"` (InstanceNorm in both networks); `size`, the side that pairs are brought
    to (0: as they are); `subset`, how many of the pairs to train on, drawn by the seed (0: all).
    """
    if variant not in FLOWGENS:
        raise ValueError(f"variant must be one of {', '.join(FLOWGENS)}, got {variant!r}")
    pairs, validation = PairDataset(data, "train"), PairDataset(data, "val")
    if size:
        pairs, validation = Resized(pairs, size), Resized(validation, size)
    groups = {"norm_groups": math.gcd(base_channels, 32)}
    generator = FLOWGENS[variant](base_channels, num_downs, prior=prior, **groups)
    if init is not None:
        generator = FLOWGENS[variant].from_pretrained(init, torch_dtype=torch.float32).train()
    discriminator = PatchDiscriminator(base_channels, num_layers=4, **groups) if adversarial else None
    if discriminator is not None and variant == "instance":
        use_instance_norm(discriminator)
    task = FlowGenTask(
        generator,
        discriminator,
        sampler=sampler,
        reconstruction=reconstruction,
        reconstruction_weight=reconstruction_weight,
        generator_updates=generator_updates,
        validation=collate(validation),
    )
    train_loop(task, drawn(first(pairs, limit), subset, settings.seed), settings)
    return _save(generator, settings.out)


TRAINABLE: dict[str, Callable[..., Path]] = {
    "autoencoder": train_autoencoder,
    "backbone": train_backbone,
    "inpainting": train_inpainting,
    "lightning": train_lightning,
    "flowgen": train_flowgen,
    "flowdiffusion": train_flowdiffusion,
    "flowdiffusion-lcm": train_flowdiffusion_lcm,
    "lightning-lcm": train_lightning_lcm,
}


def _flags(data: Path, out: Path, seed: int, limit: int, loop: dict, options: dict) -> list[str]:
    """The command's arguments; folders by their last name, since they lie elsewhere on every machine."""
    chosen = {"limit": limit} if limit else {}
    flags = ["--data", Path(data).name, "--out", Path(out).name, "--seed", str(seed)]
    for key, value in {**chosen, **loop, **options}.items():
        text = Path(value).name if isinstance(value, str | Path) else json.dumps(value)
        flags += ["--set", f"{key}={text}"]
    return flags


def _save(model: ModelMixin, out: Path) -> Path:
    model.cpu().half().save_pretrained(out)
    model.float()
    # no path of this machine; AutoencoderTiny notes its channels under a second name, strange to its loader
    unwanted = {"_name_or_path"} | ({"block_out_channels"} if isinstance(model, AutoencoderTiny) else set())
    config = json.loads((out / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in unwanted}
    (out / "config.json").write_text(json.dumps(kept, indent=2) + "\n")
    return out
