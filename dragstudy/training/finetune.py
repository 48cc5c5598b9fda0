"""`dragstudy finetune CLIP`: adapt an InstantDrag to what moves in one short video.

InstantDrag, Sec. 3.2.1 and App. A: for scenes of another kind than those it was trained on, pairs of frames
of a 10-60 s clip are curated like the training data, FlowGen is trained on as a whole with drags sampled on a
grid, and FlowDiffusion gets LoRA of rank 8; on one GPU it takes the authors about 20 minutes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from dragstudy.data.criteria import CurateSettings
from dragstudy.data.curate import curate_clips
from dragstudy.data.frames import MaskName
from dragstudy.data.pairs import PairDataset
from dragstudy.data.shards import read_manifest
from dragstudy.models.lora import LORA_FILE, LORA_LAYERS, add_lora, save_lora, signature
from dragstudy.pipelines import InstantDragPipeline, load
from dragstudy.training.flowdiffusion import FlowDiffusionTask
from dragstudy.training.flowgen import FlowGenTask
from dragstudy.training.latents import LatentPairs, cached_latents
from dragstudy.training.loop import LoopSettings, train_loop
from dragstudy.training.run import _save
from dragstudy.training.subsets import collate

RECORD = "finetuned.json"
FLOWGEN_SHARE = 0.35  # of a time budget
CARD = """---
library_name: diffusers
license: other
tags: [drag-editing, lora]
---
# {title}

`{method}`, fine-tuned on one video: adapters of rank {rank} on FlowDiffusion, and FlowGen as a whole.

    pipe = dragstudy.load("{method}")
    pipe.load_finetuned("{title}")

- **Clip**: {clip}; {pairs} pairs, and {later} later ones that were not trained on
- **Settings**: `{settings}`
- **FlowGen**: {flowgen}
- **FlowDiffusion**: {unet}; adapters of {size:.2f} MB in half precision
- **Every logged step**: `flowgen-training/metrics.jsonl`, `unet-training/metrics.jsonl`

Good for pictures of this scene, moved as it moves in the clip, and for little else. The base weights' terms
hold, and the clip's: what it shows can be seen in the results.
"""


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune on a clip.

    Attributes:
        mask: What the object is: `"flow"` (what moves before a camera at rest), `"none"` (everything), or
            `"person"`, with face landmarks.
        crop: `"none"`, or the square `"centre"`, `"person"` or `"face"`.
        fps: Frames a second taken from the clip; the faster it moves, the more.
        max_interval: Largest distance of a pair's frames, in frames.
        pairs: Pairs to consider.
        min_valid_share: Share of the mask whose flow must be consistent, 0 to 1.
        min_bits_per_pixel: Compressed bits a pixel and frame that the clip must have.
        held_out: Share of the clip, at its end, whose pairs are not trained on but validated with.
        rank: Of the adapters.
        layers: Ends of the names of the U-Net's layers that get one.
        steps: Of FlowDiffusion's adapters.
        batch_size: The same.
        learning_rate: The same.
        flowgen_steps: Of FlowGen; each of them has four updates with newly drawn drags.
        flowgen_batch_size: The same.
        flowgen_learning_rate: The same.
        sampler: How drags are drawn for FlowGen; without landmarks on a grid, as the paper does here.
        mixed_precision: `"no"`, `"bf16"`, `"fp16"` or `"auto"`, whichever is quickest here.
        seed: Decides every random draw.
    """

    mask: MaskName = "flow"
    crop: str = "none"
    fps: float = 10
    max_interval: int = 8
    pairs: int | None = 400
    min_valid_share: float = 0.7
    min_bits_per_pixel: float = 0.01
    held_out: float = 0.2
    rank: int = 8
    layers: tuple[str, ...] = LORA_LAYERS
    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 1e-3
    flowgen_steps: int = 150
    flowgen_batch_size: int = 8
    flowgen_learning_rate: float = 2e-4
    sampler: str = "config2"
    mixed_precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and less than 1, got {self.held_out}")

    def curation(self, size: int) -> CurateSettings:
        """The same in the words of curation, for pictures of `size * size` pixels."""
        people = self.mask == "person"
        return CurateSettings(
            fps=self.fps,
            size=size,
            crop=self.crop,
            max_interval=self.max_interval,
            pairs_per_clip=self.pairs,
            mask=self.mask,
            landmarks=people,
            require_face=self.crop == "face",
            count_people=people,
            count_hands=people,
            min_valid_share=self.min_valid_share,
            min_bits_per_pixel=self.min_bits_per_pixel,
            seed=self.seed,
        )

    def loop(self, out: Path, name: str, minutes: float | None) -> LoopSettings:
        """The settings of one of the two trainings, `"flowgen"` or `"unet"`."""
        prefix = "flowgen_" if name == "flowgen" else ""
        steps = getattr(self, f"{prefix}steps")
        return LoopSettings(
            out=out / f"{name}-training",
            steps=steps,
            batch_size=getattr(self, f"{prefix}batch_size"),
            learning_rate=getattr(self, f"{prefix}learning_rate"),
            warmup=max(1, steps // 10),
            seed=self.seed,
            minutes=minutes,
            checkpoint_every=50,
            validate_every=max(1, steps // 8) if self.held_out else 0,
            log_every=max(1, steps // 40),
            mixed_precision=self.mixed_precision,
        )


class ClipPairs(PairDataset):
    """The kept pairs of a folder whose two frames both lie in `frames`, by their numbers in the clip.

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, folder: Path | str, frames: range):
        super().__init__(folder, split=None)
        inside = self.manifest[["source_index", "target_index"]].isin(frames).all(axis=1)
        if not inside.any():
            raise ValueError(f"no kept pair lies in frames {frames.start} to {frames.stop - 1} of {folder}")
        self.manifest = self.manifest[inside].reset_index(drop=True)
        self._records = [record for record, kept in zip(self._records, inside, strict=True) if kept]


def split_by_time(folder: Path | str, held_out: float) -> tuple[ClipPairs, ClipPairs | None]:
    """Pairs of the clip's beginning, and of its last `held_out` (None if 0); pairs across the cut drop out.

    Raises:
        ValueError: If one of the two would be empty.
    """
    frames = int(read_manifest(folder)["target_index"].max()) + 1
    cut = round(frames * (1 - held_out))
    later = ClipPairs(folder, range(cut, frames)) if cut < frames else None
    return ClipPairs(folder, range(cut)), later


def finetune(
    clip: Path | str,
    out: Path | str,
    settings: FinetuneSettings | None = None,
    *,
    method: str = "instantdrag-splat",
    weights: str | Path = "tiny",
    minutes: float | None = None,
) -> Path:
    """Fine-tune on a clip; interrupted or out of time, the same call goes on.

    Args:
        clip: A video file, of 10 to 60 seconds in the paper.
        out: Gets the adapters, `flowgen/` and a card, and the pairs and checkpoints of the training.
        settings: How; the defaults if None. An existing folder must have been made with the same.
        method: `"instantdrag"` or `"instantdrag-splat"`.
        weights: What to start from, as in `dragstudy.load`.
        minutes: Budget of the two trainings, without the curation before them.

    Returns:
        `out`, for `InstantDragPipeline.load_finetuned`.

    Raises:
        ValueError: If the method has nothing to fine-tune, the clip gives no pairs, or the folder was made
            otherwise.
        FileNotFoundError: If there is no such clip.
    """
    clip, out, settings = Path(clip), Path(out), settings or FinetuneSettings()
    if not clip.is_file():
        raise FileNotFoundError(f"no clip at {clip}")
    pipe = load(method, weights)
    if not isinstance(pipe, InstantDragPipeline):
        raise ValueError(f"{method} has no FlowGen and no FlowDiffusion to fine-tune")
    _keep_record(out, clip, pipe, settings, method, weights)

    halves = split_by_time(_curate(clip, out, settings, pipe.config.flowgen_area), settings.held_out)
    budget = None if minutes is None else minutes * FLOWGEN_SHARE
    train_loop(flowgen_task(pipe, *halves, settings), halves[0], settings.loop(out, "flowgen", budget))
    _save(pipe.flowgen, out / "flowgen")

    halves = split_by_time(_curate(clip, out, settings, pipe.config.working_area), settings.held_out)
    budget = None if minutes is None else minutes * (1 - FLOWGEN_SHARE)
    task, latents = unet_task(pipe, *halves, settings)
    train_loop(task, latents, settings.loop(out, "unet", budget))
    save_lora(pipe.unet, out)
    _write_card(out, clip, halves, settings, method)
    return out


def flowgen_task(
    pipe: InstantDragPipeline, pairs: PairDataset, later: PairDataset | None, settings: FinetuneSettings
) -> FlowGenTask:
    """Train the whole generator, on the reconstruction alone: it is published without a discriminator.

    Raises:
        ValueError: If FlowGen cannot halve the sides of the pairs as often as it must.
    """
    multiple = 2**pipe.flowgen.config.num_downs
    height, width = pairs[0]["flow"].shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"this FlowGen needs sides in multiples of {multiple}, got {width} x {height}: set crop=centre"
        )
    validation = None if later is None else collate(later)
    return FlowGenTask(pipe.flowgen, None, sampler=settings.sampler, validation=validation)


def unet_task(
    pipe: InstantDragPipeline, pairs: PairDataset, later: PairDataset | None, settings: FinetuneSettings
) -> tuple[FlowDiffusionTask, Dataset]:
    """Add adapters to FlowDiffusion; the task that trains them alone, and its data."""
    generator = torch.Generator().manual_seed(settings.seed)
    add_lora(pipe.unet, rank=settings.rank, layers=settings.layers, generator=generator)
    latents = _as_conditioned(pipe, cached_latents(pairs, pipe.autoencoder, seed=settings.seed))
    validation = None
    if later is not None:
        validation = collate(_as_conditioned(pipe, cached_latents(later, pipe.autoencoder, augmented=False)))
    parts, scale = (pipe.unet, pipe.null_prompt, pipe.scheduler), pipe.config.flow_scale
    return FlowDiffusionTask(*parts, flow_scale=scale, validation=validation), latents


def _as_conditioned(pipe: InstantDragPipeline, latents: LatentPairs) -> LatentPairs:
    """Image conditions without the autoencoder's scale where the U-Net was trained without it."""
    if not pipe.config.scale_image_latents:
        scale = pipe.autoencoder.config.scaling_factor
        latents.tensors["source_latents"] = latents.tensors["source_latents"] / scale
    return latents


def _curate(clip: Path, out: Path, settings: FinetuneSettings, area: int) -> Path:
    """The clip's pairs at about `area` pixels, in a folder of their own for each size."""
    size = round(area**0.5)
    folder = out / f"pairs-{size}"
    curate_clips([clip], folder, settings.curation(size))
    reasons = read_manifest(folder)["reason"]
    if not (reasons == "").any():
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.value_counts().items())
        raise ValueError(f"no pair of {clip} can be trained on: {counted}")
    return folder


def _keep_record(
    out: Path,
    clip: Path,
    pipe: InstantDragPipeline,
    settings: FinetuneSettings,
    method: str,
    weights: str | Path,
) -> None:
    """Write down what is being made of what, or compare with what is there: a resumed run must not mix."""
    record = {"clip": clip.name, "method": method, "weights": Path(weights).name}
    record |= {"base": signature(pipe.unet)} | asdict(settings)
    record = json.loads(json.dumps(record))  # lists for tuples
    path = out / RECORD
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        if other := [name for name in record if held.get(name) != record[name]]:
            raise ValueError(f"{out} was made with another {' and '.join(other)}: use another folder")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _write_card(out: Path, clip: Path, halves: tuple, settings: FinetuneSettings, method: str) -> None:
    pairs, later = halves
    text = CARD.format(
        title=out.name,
        method=method,
        rank=settings.rank,
        clip=clip.name,
        pairs=len(pairs),
        later=0 if later is None else len(later),
        settings=", ".join(f"{name}={value}" for name, value in _changed(settings).items()) or "the defaults",
        size=(out / LORA_FILE).stat().st_size / 1e6,
        **{name: _last_line(out / f"{name}-training" / "metrics.jsonl") for name in ("flowgen", "unet")},
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _changed(settings: FinetuneSettings) -> dict[str, object]:
    default = asdict(FinetuneSettings())
    return {name: value for name, value in asdict(settings).items() if value != default[name]}


def _last_line(log: Path) -> str:
    """How far a training came, and what it last measured on the later pairs."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seen = {key: value for line in lines for key, value in line.items() if key.startswith("val_")}
    measured = "".join(f", {key.removeprefix('val_')} {value:.4g}" for key, value in seen.items())
    return f"{lines[-1]['step']} steps, {lines[-1]['seconds'] / 60:.1f} minutes{measured}"
