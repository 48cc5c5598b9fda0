"""The named sweeps: what each of the ablations that train compares, from which base, over three seeds.

| sweep | trainings a seed | of them its own |
|---|---|---|
| `normalisation` | 5 of FlowGen, 3 of FlowDiffusion | 4 and 2 |
| `dataset-size` | 4 of FlowGen, 3 of FlowDiffusion | 3 and 2 |
| `pseudo-drags` | 6 of FlowGen | 5 |
| `flowgen-losses` | 6 of FlowGen | 5 |
| `conditioning` | 4 of FlowDiffusion | 2 |

The base of each kind is one training that all sweeps share, so there are 54 trainings of FlowGen and 21 of
FlowDiffusion. Of one core without bfloat16 they take 1.4 and 3.4 hours, 1.6 to measure them and 0.5 to encode
the pairs, so 3.5 hours on two cores, 2.4 of them for training. With bfloat16 FlowDiffusion's take 1.6 hours,
0.7 to measure them and 0.2 to encode the pairs: 2 hours on two cores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

from dragstudy._options import check_options, keywords
from dragstudy.ablations import flowdiffusion, flowgen
from dragstudy.ablations.flowdiffusion import FlowDiffusionTrials
from dragstudy.ablations.flowgen import FlowGenTrials
from dragstudy.ablations.training import training_pairs
from dragstudy.pipelines.weights import WEIGHTS
from dragstudy.samplers import SAMPLERS
from dragstudy.sweeps import Parameters, Task, Trial, grid
from dragstudy.training import TRAINABLE, LoopSettings

SEEDS = (0, 1, 2)
FIXED_WEIGHT = 20_000.0  # the mean square of flows is 200 times smaller by fixed size than sample-wise
TRAINED = ("flowgen", "flowdiffusion")
NOT_SET = {"out", "seed", "minutes", "autoencoder", "backbone"}  # given otherwise


@dataclass(frozen=True)
class Kind:
    """Trainings of one kind: the task, and its parameters where nothing else is said."""

    task: Task
    base: Parameters
    measuring: Parameters

    def trials(self, variants: Mapping[str, Parameters], seeds: Sequence[int]) -> list[Trial]:
        """See `dragstudy.sweeps.grid`."""
        return grid(self.task, self.base, variants, seeds, self.measuring)

    def measured(self, **changed: Any) -> "Kind":
        """The same trainings, measured otherwise."""
        return replace(self, measuring={**self.measuring, **changed})


def sweep(
    name: str,
    *,
    data: Path | None = None,
    held_out: Path | None = None,
    weights: Path = WEIGHTS,
    seeds: Sequence[int] = SEEDS,
    changed: Parameters | None = None,
    varied: Mapping[str, Sequence] | None = None,
) -> list[Trial]:
    """The trials of a named sweep, or of `"all"`, or of a grid of one's own.

    Args:
        name: A key of `SWEEPS`; or, for a grid, what is trained: `"flowgen"` or `"flowdiffusion"`.
        data: Folder of the pairs to train on; by default those of the recipe `ablations`.
        held_out: Folder of those to measure on, of split `test`; by default the hundred frozen pairs.
        weights: Folder of the autoencoder and the backbone that FlowDiffusion starts from.
        seeds: Each training is made once from each.
        changed: Parameters of the base to change, of the trainings or of what is measured; each counts for
            the kinds that know it.
        varied: For a grid, the values of each parameter that is varied: all combinations are tried.

    Raises:
        ValueError: If there is no such sweep, or no kind knows a parameter, or its value is of another type.
    """
    if varied and name not in TRAINED:
        raise ValueError(f"a grid is of {' or '.join(TRAINED)}, got {name!r}")
    if name not in SWEEPS and name != "all" and not varied:
        raise ValueError(f"a sweep must be one of {', '.join([*SWEEPS, 'all'])}, got {name!r}")
    data = training_pairs() if data is None else data
    kinds = {
        "flowgen": Kind(FlowGenTrials(data, held_out), flowgen.BASE, flowgen.MEASURING),
        "flowdiffusion": Kind(
            FlowDiffusionTrials(data, held_out, weights), flowdiffusion.BASE, flowdiffusion.MEASURING
        ),
    }
    kinds = _with_changes(kinds, changed or {})
    if varied:
        return kinds[name].trials(_combinations(name, varied), seeds)
    return [
        trial
        for seed in seeds  # across sweeps too: see `grid`
        for each in (SWEEPS if name == "all" else (name,))
        for trial in SWEEPS[each](kinds["flowgen"], kinds["flowdiffusion"], (seed,))
    ]


def normalisation(flowgen: Kind, flowdiffusion: Kind, seeds: Sequence[int]) -> list[Trial]:
    """Flows divided by the picture's size against flows divided by their own largest value (Sec. 3.2.4).

    FlowGen as published (no plate to start from), and with the plate, where the drags' largest value stands
    for the flow's own. Flows divided by the picture's size are so small that a squared error of them drowns
    beside the discriminator, so that case is also tried with a weight that makes up for it. FlowDiffusion
    by the picture's size as it is in the paper and times 8, as shipped.
    """
    plain = {"sample-wise": {"prior": False}}
    fixed = {"variant": "fixed"}
    others = {"fixed": {"prior": False} | fixed, "plate": {}, "plate-fixed": fixed}
    others["fixed-weighted"] = others["fixed"] | {"reconstruction_weight": FIXED_WEIGHT}
    conditions = {
        "fixed": {},
        "fixed-1": {"flow_scale": 1.0},
        "sample-wise": {"normalization": "sample", "flow_scale": 1.0},
    }
    return [
        *flowgen.measured(rescalings=["magnitude", "static"]).trials(plain, seeds),
        *flowgen.trials(others, seeds),
        *flowdiffusion.trials(conditions, seeds),
    ]


def dataset_size(flowgen: Kind, flowdiffusion: Kind, seeds: Sequence[int]) -> list[Trial]:
    """Few pairs against many at equal steps (Fig. A1, A2); FlowGen, which overfits late, on ten as well."""
    sizes = {"100": {"subset": 100}, "1000": {"subset": 1000}, "all": {}}
    few = {"10": {"subset": 10}}
    return [*flowgen.trials(few | sizes, seeds), *flowdiffusion.trials(sizes, seeds)]


def pseudo_drags(flowgen: Kind, flowdiffusion: Kind, seeds: Sequence[int]) -> list[Trial]:
    """Ways to draw the drags that FlowGen learns from (Fig. 5, D.3)."""
    return flowgen.trials({name: {} if name == "config2" else {"sampler": name} for name in SAMPLERS}, seeds)


def flowgen_losses(flowgen: Kind, flowdiffusion: Kind, seeds: Sequence[int]) -> list[Trial]:
    """FlowGen's losses and norms (Sec. 3.1.1, D.1).

    One update of the generator for one of the discriminator, in place of four, is tried at equal steps (a
    quarter of the updates) and at equal updates (four times the steps, and of the pairs seen).
    """
    longer = ("steps", "checkpoint_every", "validate_every", "log_every")
    variants = {
        "l2": {},
        "l1": {"reconstruction": "l1"},
        "instance-norm": {"variant": "instance"},
        "one-update": {"generator_updates": 1},
        "one-update-4x": {"generator_updates": 1} | {name: 4 * flowgen.base[name] for name in longer},
        "no-discriminator": {"adversarial": False},
    }
    return flowgen.trials(variants, seeds)


def conditioning(flowgen: Kind, flowdiffusion: Kind, seeds: Sequence[int]) -> list[Trial]:
    """The flow beside the latents against latents moved along the flow too, on all pairs and on a thousand.

    Edits with what the autoencoder loses of the photograph moved along as well are of the same trainings.
    """
    pair = {"concat": {}, "splat": {"variant": "splat"}}
    fewer = {f"{name}-1000": {**changed, "subset": 1000} for name, changed in pair.items()}
    finer = {f"{name}-transfer": changed for name, changed in pair.items()}
    return [
        *flowdiffusion.trials(pair | fewer, seeds),
        *flowdiffusion.measured(detail="transfer").trials(finer, seeds),
    ]


SWEEPS: dict[str, Callable[[Kind, Kind, Sequence[int]], list[Trial]]] = {
    "normalisation": normalisation,
    "dataset-size": dataset_size,
    "pseudo-drags": pseudo_drags,
    "flowgen-losses": flowgen_losses,
    "conditioning": conditioning,
}


def _options(model: str) -> dict[str, Any]:
    """Types of the parameters of a model's training, by name."""
    options = get_type_hints(LoopSettings) | keywords(TRAINABLE[model])
    return {key: hint for key, hint in options.items() if key not in NOT_SET}


def _combinations(model: str, varied: Mapping[str, Sequence]) -> dict[str, Parameters]:
    """All combinations of values of some parameters, by a name that says them."""
    for name, values in varied.items():
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{name} needs a list of values, such as {name}=[1, 2], got {values!r}")
    combined = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    checked = [check_options(one, _options(model), f"{model} has no option") for one in combined]
    return {",".join(f"{name}={value}" for name, value in one.items()): one for one in checked}


def _with_changes(kinds: Mapping[str, Kind], changed: Parameters) -> dict[str, Kind]:
    """The kinds with another base, in the types that are wanted."""
    result, known = {}, {}
    for name, kind in kinds.items():
        options = _options(name)
        measured = {key: type(value) for key, value in kind.measuring.items()}
        known |= options | measured
        result[name] = replace(
            kind,
            base={**kind.base, **{key: value for key, value in changed.items() if key in options}},
            measuring={**kind.measuring, **{key: value for key, value in changed.items() if key in measured}},
        )
    check_options(changed, known, "no training of a sweep has an option")
    return result
