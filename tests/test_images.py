"""Images in and out: every mode, orientation and shape, or one clear sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from dragstudy.flow import resize_flow
from dragstudy.images import Fit, composite, fit_size, load_image, to_pil, to_tensor

RED, HALF_RED = (255, 0, 0), (255, 127, 127)


def random_pixels(h: int = 6, w: int = 9, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, channels), dtype=np.uint8)


def picture(width: int = 9, height: int = 6) -> Image.Image:
    return Image.fromarray(random_pixels(height, width))


# Reading


@pytest.mark.parametrize("size", [(1, 1), (20000, 30), (30, 20000), (7, 5)])
@pytest.mark.parametrize("convert", [str, lambda path: path])
def test_files_of_any_size_are_read(size, convert, tmp_path):
    path = tmp_path / "image.png"
    picture(*size).save(path)
    image = load_image(convert(path))
    assert image.mode == "RGB"
    assert image.size == size
    np.testing.assert_array_equal(np.asarray(image), random_pixels(size[1], size[0]))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"), [("RGBA", (255, 0, 0, 128), HALF_RED), ("LA", (0, 128), (127, 127, 127))]
)
def test_alpha_lies_over_white(mode, colour, expected, tmp_path):
    image = Image.new(mode, (4, 4), colour)
    image.save(tmp_path / "alpha.png")
    for source in (image, tmp_path / "alpha.png"):
        assert load_image(source).getpixel((0, 0)) == expected


def test_a_mode_that_pillow_cannot_convert_is_one_sentence():
    with pytest.raises(ValueError, match=r"^The image cannot be read: .*\.$"):
        load_image(Image.new("LA", (4, 4)).convert("La"))


def test_transparency_of_a_palette_or_a_key_colour_is_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    Image.new("RGB", (2, 1), RED).save(tmp_path / "key.png", transparency=RED)
    image = load_image(tmp_path / "palette.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [RED, (255, 255, 255)]
    assert load_image(tmp_path / "key.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "colour"), [("1", 1), ("L", 255), ("P", 0), ("CMYK", (0, 0, 0, 0)), ("HSV", (0, 0, 255))]
)
def test_other_modes_become_rgb(mode, colour):
    image = Image.new(mode, (3, 2), colour)
    if mode == "P":
        image.putpalette([255, 255, 255])
    assert np.asarray(load_image(image)).tolist() == np.full((2, 3, 3), 255).tolist()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for source in (
        values,
        tmp_path / "deep.png",
        Image.fromarray(values),
        Image.fromarray(values.astype(np.int32)),
    ):
        assert np.asarray(load_image(source))[0, :, 0].tolist() == [0, 100, 255]
    assert np.asarray(load_image(Image.fromarray(np.float32([[0, 0.5, 1]]))))[0, :, 1].tolist() == [
        0,
        128,
        255,
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_the_right_way_up(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(9, 6).save(tmp_path / "turned.png", exif=exif)
    image = load_image(tmp_path / "turned.png")
    assert image.size == ((9, 6) if orientation < 5 else (6, 9))
    turn = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_270,
        8: Image.Transpose.ROTATE_90,
    }
    if turn.get(orientation) is not None:
        assert image.tobytes() == picture(9, 6).transpose(turn[orientation]).tobytes()


@pytest.mark.parametrize("channels", [3, 4])
def test_arrays_are_read(channels):
    pixels = random_pixels(channels=channels)
    pixels[:, :, 3:] = 255
    np.testing.assert_array_equal(np.asarray(load_image(pixels)), pixels[:, :, :3])
    np.testing.assert_array_equal(np.asarray(load_image(pixels[:, ::-1])), pixels[:, ::-1, :3])


def test_grey_arrays_are_read():
    grey = random_pixels()[:, :, 0]
    np.testing.assert_array_equal(np.asarray(load_image(grey)), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_read_and_come_back(dtype):
    tensor = to_tensor(picture())
    assert tensor.shape == (1, 3, 6, 9)
    assert load_image(tensor[0].to(dtype)).tobytes() == picture().tobytes()
    assert to_pil(tensor).tobytes() == to_pil(tensor[0]).tobytes() == picture().tobytes()
    assert to_pil(tensor + 9).getpixel((0, 0)) == (255, 255, 255)


# Errors


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_file_is_one_sentence(kind, tmp_path):
    path = tmp_path / "cut"
    picture(64, 64).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"^The image '.*cut' cannot be read: .+\.$") as error:
        load_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_one_sentence(content, tmp_path):
    path = tmp_path / "thing.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^The image '.*thing\.png' cannot be read: .+\.$"):
        load_image(path)
    with pytest.raises(ValueError, match=r"^The image '.*' cannot be read: .+\.$"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (np.zeros((4, 4, 2), dtype=np.uint8), r"an array \(4, 4, 2\) of uint8"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"an array \(0, 4, 3\) of uint8"),
        (np.zeros(4, dtype=np.uint8), r"an array \(4,\) of uint8"),
        (np.zeros((4, 4, 3)), r"an array \(4, 4, 3\) of float64"),
        (torch.zeros(4, 4, 3), r"a tensor \(4, 4, 3\) of torch.float32"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"a tensor \(3, 4, 4\) of torch.uint8"),
        (torch.zeros(1, 3, 4, 4), r"a tensor \(1, 3, 4, 4\) of torch.float32"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
    ],
)
def test_other_things_are_refused(source, got):
    with pytest.raises(ValueError, match=rf"^An image must be a path, .*, got {got}\.$"):
        load_image(source)


@pytest.mark.parametrize(
    ("value", "shown"), [(1.5, "0 to 1.5"), (-1.0, "-1 to 0"), (torch.nan, "nan to nan")]
)
def test_tensors_out_of_range_are_refused(value, shown):
    tensor = torch.zeros(3, 4, 4)
    tensor[0, 0, 0] = value
    with pytest.raises(
        ValueError, match=rf"^An image as a tensor must lie in \[0, 1\], got values from {shown}\.$"
    ):
        load_image(tensor)


# Fitting


@pytest.mark.parametrize(
    "size", [(1, 1), (640, 480), (480, 640), (1920, 1080), (256, 256), (1600, 100), (37, 500)]
)
@pytest.mark.parametrize(("area", "multiple"), [(256 * 256, 64), (512 * 512, 64), (64 * 64, 8)])
def test_fitted_sizes_are_multiples_of_about_the_area_and_shape(size, area, multiple):
    w, h = fit_size(*size, area=area, multiple=multiple)
    assert w % multiple == h % multiple == 0
    exact = np.sqrt(area * size[0] / size[1]), np.sqrt(area * size[1] / size[0])
    for side, wanted in zip((w, h), exact, strict=True):
        assert abs(side - wanted) < multiple or side == multiple


def test_no_other_size_of_the_same_pixels_is_closer_in_shape():
    assert fit_size(640, 480) == (256, 192)  # 4:3 exactly; rounding each side by itself gives 5:3


@pytest.mark.parametrize("size", [(20000, 30), (30, 20000), (161, 10)])
def test_strips_are_refused(size):
    with pytest.raises(
        ValueError, match=rf"^The sides of an image may differ by 16:1 at most, got {size[0]}x{size[1]}\.$"
    ):
        Fit.plan(size)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"^An image must have at least one pixel, got 0x5\.$"):
        fit_size(0, 5)


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (256, 256), (1000, 70)])
def test_points_and_flows_come_back_from_the_working_size(size):
    fit = Fit.plan(size)
    points = np.random.default_rng(0).uniform(0, 1, (10, 2)) * size
    np.testing.assert_allclose(fit.points_back(fit.points(points)), points, atol=1e-9)
    w, h = fit.working_size
    flow = torch.tensor([w / 4, h / 8]).view(1, 2, 1, 1).expand(1, 2, h, w)  # a quarter right, an eighth down
    back = fit.flow_back(flow)
    assert back.shape == (1, 2, size[1], size[0])
    torch.testing.assert_close(back.mean(dim=(2, 3)), torch.tensor([[size[0] / 4, size[1] / 8]]))
    torch.testing.assert_close(fit.flow_back(resize_flow(flow, (32, 32))), back)  # a flow knows its own grid


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (100, 70)])
def test_images_go_to_the_working_size_and_back(size):
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    smooth = Image.fromarray((np.stack([x, y, x * y], axis=2) * 255).astype(np.uint8))
    fit = Fit.plan(size)
    tensor = fit.image(smooth)
    assert tensor.shape == (1, 3, *fit.working_size[::-1])
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    back = fit.image_back(tensor)
    assert back.size == size
    assert np.abs(np.asarray(back, dtype=int) - np.asarray(smooth, dtype=int)).max() <= 4


def test_an_image_of_the_working_size_is_untouched():
    image, fit = picture(64, 128), Fit((64, 128), (64, 128))
    assert fit.image_back(fit.image(image)).tobytes() == image.tobytes()


def test_resizing_images_agrees_with_the_mapping_of_points():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[20:23, 30:33] = 255  # centred on (31, 21)
    fit = Fit((60, 40), (120, 120))
    resized = fit.image(Image.fromarray(image))[0, 0]
    x = (resized.sum(dim=0) * torch.arange(120)).sum() / resized.sum()
    y = (resized.sum(dim=1) * torch.arange(120)).sum() / resized.sum()
    np.testing.assert_allclose([[x, y]], fit.points(np.array([[31.0, 21.0]])), atol=0.05)


def test_a_fit_is_for_one_size():
    with pytest.raises(ValueError, match=r"^This fit is for images of \(64, 64\), got one of \(9, 6\)\.$"):
        Fit.plan((64, 64)).image(picture())


# Compositing


def test_bytes_outside_the_mask_stay():
    before, after = picture(), Image.new("RGB", (9, 6), RED)
    mask = np.zeros((6, 9))
    mask[2:4, 3:6] = 1
    result = np.asarray(composite(before, after, mask))
    np.testing.assert_array_equal(result[mask == 0], np.asarray(before)[mask == 0])
    assert (result[mask == 1] == RED).all()
    half = np.asarray(composite(Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1), RED), np.array([[0.5]])))
    assert half.tolist() == [[[128, 0, 0]]]


def test_composites_need_one_size():
    with pytest.raises(
        ValueError, match=r"^The original, the edit and the mask must have one size, got .*\(6, 9\)\.$"
    ):
        composite(picture(), picture(), np.zeros((9, 6)))


def test_golden_number():
    tensor = Fit.plan((300, 200)).image(picture(300, 200))
    assert f"{tensor.std():.3f}" == "0.231"
