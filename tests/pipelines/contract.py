"""What every editing method keeps to, whatever it does inside."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from dragstudy.pipelines import DragPipeline, DragPipelineOutput

from ..tiny import picture
from .engineering import DragEngineeringContract

STEP = 1.01 / 255  # one step of eight bits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


def truncated() -> Image.Image:
    """An opened JPEG whose second half is missing."""
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "JPEG")
    return Image.open(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))


BAD_REQUESTS = {
    "a handle outside": ({"handle_points": [[64, 10]]}, "handle_points must lie inside"),
    "a target outside": ({"target_points": [[10, -1]]}, "target_points must lie inside"),
    "NaN": ({"handle_points": [[float("nan"), 10]]}, "finite"),
    "unequal counts": ({"handle_points": [[10, 10], [20, 20]]}, "one target point"),
    "no points": ({"handle_points": [], "target_points": []}, "At least one drag"),
    "points of three numbers": ({"handle_points": [[1, 2, 3]]}, r"\(n, 2\)"),
    "points that are None": ({"handle_points": None}, "handle_points"),
    "a mask of another size": ({"mask": np.ones((32, 64))}, "mask must have the image's size"),
    "a mask in colour": ({"mask": np.ones((64, 64, 3))}, r"\(height, width\)"),
    "a mask beyond one": ({"mask": np.full((64, 64), 2.0)}, "mask must lie in"),
    "a missing file": ({"image": "no-such-picture.jpg"}, "cannot be read"),
    "a truncated image": ({"image": truncated()}, "cannot be read"),
    "no image": ({"image": None}, "An image must be"),
    "an image as float array": ({"image": np.zeros((64, 64, 3))}, "uint8"),
    "a tensor beyond one": ({"image": torch.full((3, 64, 64), 2.0)}, r"in \[0, 1\]"),
    "too long a strip": ({"image": picture(340, 20)}, "16:1"),
    "an unknown output type": ({"output_type": "jpeg"}, "output_type"),
    "an empty batch": ({"image": [], "handle_points": [], "target_points": []}, "batch"),
    "a batch with too few points": ({"image": [picture(64, 64)] * 2}, "batch"),
    "a batch without points": ({"image": [picture(64, 64)], "handle_points": None}, "batch"),
    "a batch of many shapes": (
        {
            "image": [picture(64, 64), picture(192, 64)],
            "handle_points": [[[10, 10]]] * 2,
            "target_points": [[[12, 10]]] * 2,
        },
        "one working size",
    ),
    "a flow of another shape": ({"flow": torch.zeros(2, 64, 64)}, "flow must have"),
    "too many flows": ({"flow": torch.zeros(3, 2, 64, 64)}, "flow must have"),
}


class PipelineContract(DragEngineeringContract):
    """Mixin of tests; the class that uses it says how to make its pipeline."""

    steps = 3  # how often the callback is called with `num_inference_steps=3`
    is_random = True
    has_flow = True
    inverts = False  # then its steps first go from image to noise

    @classmethod
    def make(cls) -> DragPipeline:
        """Build the pipeline of tiny real components."""
        raise NotImplementedError

    def call(self, pipe: DragPipeline, image=None, **options) -> DragPipelineOutput:
        """Ask for one drag and one anchor in the middle of an image."""
        image = picture(64, 64) if image is None else image
        if isinstance(image, Image.Image):
            centre = np.array(image.size) / 2 - 0.5
            options = {
                "handle_points": [centre, centre / 2],
                "target_points": [centre + (centre >= 3) * [3, -2], centre / 2],
            } | options
        return pipe(image, **({"num_inference_steps": 3, "generator": seeded()} | options))

    def check_flow(self, found: DragPipelineOutput, expected: DragPipelineOutput, k: int = 0) -> None:
        """The flow of image `k` is that of a single call, where the method has one."""
        if self.has_flow:
            assert_close(found.flow[k], expected.flow[0], atol=1e-3, rtol=1e-4)
        else:
            assert found.flow is None

    @pytest.fixture(scope="class")
    @classmethod
    def pipe(cls) -> DragPipeline:
        torch.manual_seed(0)
        return cls.make()

    def test_the_same_seed_gives_the_same_bytes_whatever_was_run_before(self, pipe):
        first = self.call(pipe).images[0].tobytes()
        self.call(pipe, picture(100, 75, 2.0), generator=seeded(5), num_inference_steps=2)
        assert self.call(pipe).images[0].tobytes() == first

    def test_another_seed_gives_another_image_where_the_method_is_random(self, pipe):
        first, other = self.call(pipe), self.call(pipe, generator=seeded(1))
        assert (first.images[0].tobytes() != other.images[0].tobytes()) == self.is_random

    def test_torch_s_own_random_state_is_left_alone(self, pipe):
        before = torch.get_rng_state()
        self.call(pipe)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_saved_pipeline_gives_the_same_image(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path)
        again = type(pipe).from_pretrained(tmp_path)
        again.set_progress_bar_config(disable=True)
        names = [name for name in pipe.config if not name.startswith("_") and name not in pipe.components]
        assert {name: again.config[name] for name in names} == {name: pipe.config[name] for name in names}
        first, second = (self.call(p, output_type="pt") for p in (pipe, again))
        assert_close(second.images[0], first.images[0], atol=STEP, rtol=0)
        self.check_flow(second, first)

    def test_the_tuple_holds_what_the_record_holds(self, pipe):
        record, (images, flow) = self.call(pipe), self.call(pipe, return_dict=False)
        assert isinstance(record, DragPipelineOutput)
        assert images[0].tobytes() == record.images[0].tobytes()
        assert torch.equal(flow[0], record.flow[0]) if self.has_flow else flow is record.flow is None

    def test_a_batch_gives_what_its_images_give_one_by_one(self, pipe):
        images = [picture(64, 64), picture(64, 64, 2.0), picture(60, 64, 4.0)]
        handles = [[[30, 30]], [[20, 40], [5, 5]], [[9, 9]]]
        targets = [[[36, 28]], [[20, 30], [5, 5]], [[9, 14]]]
        mask = np.zeros((64, 64))
        mask[10:, 10:] = 1
        masks = [None, mask, None]
        points = {"handle_points": handles, "target_points": targets}
        generators = [*map(seeded, range(3))]
        batch = self.call(pipe, images, **points, mask=masks, generator=generators)
        for k in range(3):
            single = self.call(
                pipe,
                images[k],
                handle_points=handles[k],
                target_points=targets[k],
                mask=masks[k],
                generator=seeded(k),
            )
            self.check_flow(batch, single, k)
            allowed = 1 if self.is_random else 0  # networks round differently in batches of another size
            assert np.abs(pixels(batch.images[k]) - pixels(single.images[0])).max() <= allowed

    def test_batches_of_tensors_and_of_arrays_of_points_are_taken(self, pipe):
        images = torch.rand(2, 3, 64, 64, generator=seeded())
        points = np.array([[[10.0, 20.0]], [[30.0, 20.0]]])
        batch = self.call(pipe, images, handle_points=points, target_points=torch.from_numpy(points + 2))
        assert len(batch.images) == 2 and (not self.has_flow or len(batch.flow) == 2)

    @pytest.mark.parametrize("kind", ["pil", "array", "tensor", "file"])
    def test_any_kind_of_image_is_taken(self, pipe, kind, tmp_path):
        image = picture(64, 64)
        image.save(tmp_path / "picture.png")
        array = np.array(image)
        kinds = {"pil": image, "array": array, "file": tmp_path / "picture.png"}
        kinds["tensor"] = torch.from_numpy(array).permute(2, 0, 1) / 255
        points = {"handle_points": [[20, 20]], "target_points": [[24, 20]]}
        first = self.call(pipe, image, **points).images[0]
        assert self.call(pipe, kinds[kind], **points).images[0].tobytes() == first.tobytes()

    def test_output_types(self, pipe):
        pil = self.call(pipe, picture(64, 48)).images[0]
        array = self.call(pipe, picture(64, 48), output_type="np").images[0]
        tensor = self.call(pipe, picture(64, 48), output_type="pt").images[0]
        assert isinstance(pil, Image.Image) and pil.mode == "RGB"
        assert array.dtype == np.uint8 and np.array_equal(array, np.asarray(pil))
        assert isinstance(tensor, Tensor) and tensor.shape == (3, 48, 64)
        assert_close(tensor * 255, torch.from_numpy(array).permute(2, 0, 1).float())

    @pytest.mark.parametrize("size", [(100, 75), (1, 1), (300, 90), (63, 65), (17, 2)])
    def test_the_output_has_the_input_s_size(self, pipe, size):
        output = self.call(pipe, picture(*size))
        assert output.images[0].size == size
        if self.has_flow:
            assert output.flow[0].shape == (1, 2, size[1], size[0]) and output.flow[0].isfinite().all()

    def test_an_empty_mask_keeps_every_byte(self, pipe):
        for size in ((64, 64), (100, 75)):
            image = picture(*size)
            output = self.call(pipe, image, mask=np.zeros(size[::-1]))
            assert output.images[0].tobytes() == image.tobytes()
            assert not self.has_flow or not output.flow[0].any()

    def test_outside_the_mask_every_byte_stays(self, pipe):
        mask = np.zeros((75, 100), dtype=bool)
        mask[20:60, 30:80] = True
        image = picture(100, 75)
        change = np.abs(pixels(self.call(pipe, image, mask=mask).images[0]) - pixels(image))
        assert not change[~mask].any() and change[mask].any()

    def test_an_anchor_stays_where_it_is(self, pipe):
        if not self.has_flow:
            pytest.skip("this method has no flow: what its anchors do is tested beside it")
        flow = self.call(pipe, handle_points=[[20, 20], [50, 40]], target_points=[[20, 20], [46, 40]]).flow[0]
        assert flow[0, :, 20, 20].norm() < 1e-3 < flow.norm(dim=1).max()

    def test_the_components_are_what_they_were(self, pipe):
        def state() -> dict:
            networks = {k: v for k, v in pipe.components.items() if isinstance(v, torch.nn.Module)}
            weights = {(k, n): w.clone() for k, v in networks.items() for n, w in v.state_dict().items()}
            modes = {(k, n): m.training for k, v in networks.items() for n, m in v.named_modules()}
            hooks = {k: sum(len(m._forward_hooks) for m in v.modules()) for k, v in networks.items()}
            return {"weights": weights, "modes": modes, "hooks": hooks, "config": dict(pipe.config)}

        before = state()
        self.call(pipe)
        after = state()
        assert all(torch.equal(after["weights"][key], value) for key, value in before.pop("weights").items())
        assert {key: after[key] for key in before} == before

    def test_the_callback_is_called_once_a_step(self, pipe):
        calls = []

        def callback(pipeline, step, timestep, tensors):
            assert pipeline is pipe and pipe.num_timesteps == self.steps
            calls.append((step, int(timestep)))
            return tensors

        first = self.call(pipe).images[0].tobytes()
        assert self.call(pipe, callback_on_step_end=callback).images[0].tobytes() == first
        assert [step for step, _ in calls] == list(range(self.steps))
        if not self.inverts:
            assert calls == sorted(calls, key=lambda call: -call[1])  # from noise to image

    def test_what_a_step_takes_for_clean_is_where_the_last_one_ends(self, pipe):
        if "denoised" not in pipe._callback_tensor_inputs:
            pytest.skip("this method does not say")
        seen = []

        def callback(pipeline, step, timestep, tensors):
            seen.append(tensors)
            return {}

        names = ("latents", "denoised")
        self.call(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
        assert_close(seen[-1]["denoised"], seen[-1]["latents"])
        assert (seen[0]["denoised"] - seen[0]["latents"]).abs().max() > 0.1

    def test_setting_interrupt_ends_the_call_within_one_step(self, pipe):
        calls = []

        def callback(pipeline, step, timestep, tensors):
            calls.append(step)
            pipeline._interrupt = True
            return tensors

        first = self.call(pipe).images[0].tobytes()
        self.call(pipe, callback_on_step_end=callback)
        assert calls == [0]
        assert self.call(pipe).images[0].tobytes() == first  # and the next call runs through

    @pytest.mark.parametrize("case", BAD_REQUESTS)
    def test_a_bad_request_is_refused_in_one_sentence(self, pipe, case):
        change, message = BAD_REQUESTS[case]
        if "flow" in change and not self.has_flow:
            pytest.skip("this method takes no flow")
        drag = {"handle_points": [[10, 10]], "target_points": [[14, 10]]}
        request = {"image": picture(64, 64)} | drag | change
        with pytest.raises(ValueError, match=message) as error:
            pipe(**request, num_inference_steps=1)
        assert "\n" not in str(error.value)
