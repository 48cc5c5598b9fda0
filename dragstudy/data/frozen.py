"""The hundred held-out pairs that every number of the study is measured on, by name.

Chosen once from `recipes.held_out_pairs()`: of each of the five clips, the pairs at `k * n // 20` of its n
kept ones, k = 0 ... 19. They stand here by name so that no later change of the curation can exchange them.
"""

from torch.utils.data import Subset

from dragstudy.data import recipes
from dragstudy.data.sampling import pair_key

PAIRS_PER_CLIP = 20
CONSIDERED = 60  # pairs of a clip that `held_out_pairs()` considers
_FRAMES = {  # source and target frame of each pair, by clip
    "cap12_edit": """
        14-22 50-54 68-70 88-91 106-110 167-173 195-200 231-239 264-270 289-291
        309-317 346-349 365-371 378-380 393-395 405-408 421-428 447-451 464-467 500-504""",
    "cap13_edit2": """
        9-11 17-21 28-35 40-42 46-52 61-66 64-72 80-87 90-98 113-117
        126-130 147-149 155-161 178-182 190-191 204-209 231-234 253-256 271-277 283-288""",
    "jwpIntro": """
        1-8 7-11 12-13 12-17 16-19 16-21 16-23 17-25 22-30 27-33
        31-36 38-39 39-42 44-45 44-47 47-48 42-50 44-52 46-54 49-55""",
    "testMovie": """
        6-7 4-8 5-10 6-13 8-15 13-21 25-27 24-29 29-30 29-32
        28-34 33-35 34-38 36-43 38-46 49-54 50-57 60-63 60-66 65-71""",
    "carphone_pristine": """
        0-2 3-4 0-6 1-7 7-10 6-11 8-13 7-14 12-17 16-18
        19-20 18-21 20-22 24-28 25-30 27-34 31-36 33-37 31-38 31-39""",
}
FROZEN = tuple(
    pair_key(clip, *map(int, frames.split("-")))
    for clip, listed in _FRAMES.items()
    for frames in listed.split()
)


def frozen_pairs(
    count: int = len(FROZEN), clips: int = len(_FRAMES), pairs_per_clip: int = CONSIDERED
) -> Subset:
    """The frozen pairs, or `count` of them spread evenly over the clips; a `Subset` of a `PairDataset`.

    Args:
        count: How many at most.
        clips: Only pairs of the first few clips, which takes less time where none were made yet.
        pairs_per_clip: Only pairs among the first few that curation considers in each clip, for the same
            reason; some of them are frozen ones.

    Raises:
        ValueError: If pairs are missing although all were considered: then curation dropped them here.
    """
    pairs = recipes.held_out_pairs(clips, pairs_per_clip)
    places = {key: place for place, key in enumerate(pairs.manifest["key"])}
    wanted = FROZEN[: clips * PAIRS_PER_CLIP]
    found = [key for key in wanted if key in places]
    if pairs_per_clip >= CONSIDERED and len(found) < len(wanted):
        missing = ", ".join(sorted(set(wanted) - set(found)))
        raise ValueError(
            f"{pairs.folder} lacks the frozen pairs {missing}: curation dropped them here, so numbers would "
            "not be comparable; install the versions in constraints.txt"
        )
    count = min(count, len(found))
    return Subset(pairs, [places[found[k * len(found) // count]] for k in range(count)])
