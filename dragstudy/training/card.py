"""The model card that lies beside trained weights: what they are, and what would make them again."""

import hashlib
import json
from pathlib import Path

from dragstudy.data.shards import MANIFEST, read_manifest

PURPOSE = {
    "autoencoder": "The f8 autoencoder: 256 x 256 images to 32 x 32 latents and back.",
    "backbone": "The unconditional latent U-Net under a null prompt, from which FlowDiffusion starts.",
    "flowgen": "FlowGen: image and sparse drags to dense optical flow.",
    "flowdiffusion": "FlowDiffusion: denoises the edit's latents, given the source's and a dense flow.",
}
TEMPLATE = """---
library_name: diffusers
license: other
tags: [drag-editing]
---
# {title}

{purpose}

- **Command**: `{command}`
- **Data**: {pairs} pairs of split `train` ({sources}); SHA-256 of the manifest `{digest}`
- **Seed**: {seed}. **Steps**: {steps}, {images} images seen, {minutes:.0f} minutes. Stored in half precision.
- **Last validation** (pairs of identities that were never trained on): {validation}
- **Every logged step**: `metrics.jsonl`

Meant for teaching and research on drag-based editing of faces at about 256 x 256. It saw a few hundred
generated faces and one man's talking head, so expect it to fail on profiles, hands, glasses' reflections and
anything but faces. The generated faces come from a network distilled from StyleGAN2 (FFHQ), whose terms are
non-commercial, and the talking-head clip was published for research: take these weights for research use
only.
"""


def write_card(out: Path, model: str, data: Path, command: str, seed: int) -> Path:
    """Write `README.md` beside trained weights, from their `metrics.jsonl` and the data's manifest."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    manifest = read_manifest(data)
    kept = manifest[(manifest["reason"] == "") & (manifest["split"] == "train")]
    sources = kept["clip"].str.split("-").str[0].value_counts()
    validated = [line for line in lines if any(key.startswith("val_") for key in line)]
    values = {key: value for key, value in (validated or [{}])[-1].items() if key.startswith("val_")}
    text = TEMPLATE.format(
        title=out.name,
        purpose=PURPOSE[model],
        command=command,
        pairs=len(kept),
        sources=", ".join(f"{count} {source}" for source, count in sources.items()),
        digest=hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()[:16],
        seed=seed,
        steps=lines[-1]["step"],
        images=lines[-1]["images"],
        minutes=lines[-1]["seconds"] / 60,
        validation=", ".join(f"{key.removeprefix('val_')} {value:.4g}" for key, value in values.items())
        or "none",
    )
    card = out / "README.md"
    card.write_text(text)
    return card
