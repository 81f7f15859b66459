"""Images from files written byte by byte, and the two kinds that are drawn."""

import gzip
import struct

import numpy as np
import pytest
from scipy.stats import binom, norm

from skebm.datasets import Images, constant_images, noise_images, read_images
from tests.closed_forms import assert_estimate, assert_mean, assert_variance

TYPES = {  # code of the type: (format of struct, values)
    0x08: ("B", [0, 1, 127, 128, 254, 255]),
    0x09: ("b", [-128, -1, 0, 1, 2, 127]),
    0x0B: ("h", [-32768, -1, 0, 1, 256, 32767]),
    0x0C: ("i", [-(2**30), -1, 0, 1, 65536, 2**24]),
    0x0D: ("f", [-0.5, 0.0, 0.25, 1.0, 2.0**-20, 2.0**100]),
    0x0E: ("d", [-0.5, 0.0, 0.25, 1.0, 2.0**-20, 2.0**100]),
}
PIXELS = list(range(12))


def zipped(content, level=9):
    """Without the time, which would be another name of a test in each worker."""
    return gzip.compress(content, level, mtime=0)


def idx(shape, values, code=0x08):
    header = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)
    return header + struct.pack(f">{len(values)}{TYPES[code][0]}", *values)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def archive(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", TYPES)
def test_idx_types_are_read_big_endian(tmp_path, code):
    values = TYPES[code][1]
    images = read_images(written(tmp_path, "a-idx3", idx((2, 1, 3), values, code)))
    assert isinstance(images, Images)
    assert images.X.dtype == np.float32 and images.X.flags.writeable
    assert images.X.tolist() == [values[:3], values[3:]]
    assert images.y is None and images.image_shape == (1, 1, 3)


@pytest.mark.parametrize("name", ["a.gz", "a-idx3-ubyte"])
def test_the_bytes_tell_whether_a_file_is_compressed(tmp_path, name):
    X = read_images(written(tmp_path, name, zipped(idx((3, 2, 2), PIXELS)))).X
    assert X.ravel().tolist() == PIXELS
    assert np.array_equal(X, read_images(str(written(tmp_path, name, idx((3, 2, 2), PIXELS)))).X)


def test_a_file_longer_than_a_chunk_is_read_whole(tmp_path):
    pixels = np.random.RandomState(0).randint(256, size=(3, 700, 701), dtype=np.uint8)
    content = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
    for name, data in [("a", content), ("a.gz", zipped(content, 1))]:
        assert np.array_equal(read_images(written(tmp_path, name, data)).X, pixels.reshape(3, -1))


def test_channels_come_last_in_files_and_first_in_rows(tmp_path):
    X = np.random.RandomState(0).randint(256, size=(4, 2, 5, 3))
    by_hand = [
        [X[n, i, j, c] for c in range(3) for i in range(2) for j in range(5)] for n in range(4)
    ]
    for path in (
        archive(tmp_path, X=X.astype(np.uint8)),
        archive(tmp_path, X=X.astype(np.float64)),
        written(tmp_path, "a-idx4", idx(X.shape, X.ravel().tolist())),
    ):
        images = read_images(path)
        assert images.image_shape == (3, 2, 5) and images.X.dtype == np.float32
        assert images.X.tolist() == by_hand


@pytest.mark.parametrize("dtype", ["bool", "u1", ">i2", "i8", "f2", "f4", ">f8"])
def test_archives_of_any_numeric_type(tmp_path, dtype):
    X = np.arange(12).reshape(3, 2, 2).astype(dtype)
    images = read_images(archive(tmp_path, X=X, y=np.array([[2.0], [0.0], [1.0]])))
    assert images.X.dtype == np.float32 and images.image_shape == (1, 2, 2)
    assert images.X.tolist() == X.reshape(3, 4).astype(float).tolist()
    assert images.y.dtype == np.int64 and images.y.tolist() == [2, 0, 1]
    assert read_images(archive(tmp_path, X=X)).y is None


@pytest.mark.parametrize("compress", [bytes, zipped], ids=["plain", "gzip"])
def test_labels_have_their_own_file(tmp_path, compress):
    labels = written(tmp_path, "labels", compress(idx((3,), [7, 0, 255])))
    for path in (
        written(tmp_path, "images", idx((3, 2, 2), PIXELS)),
        archive(tmp_path, X=np.zeros((3, 2, 2))),
    ):
        y = read_images(path, labels).y
        assert y.dtype == np.int64 and y.tolist() == [7, 0, 255]


@pytest.mark.data
def test_fashion_mnist_written_as_idx_reads_the_same(tmp_path, data_dir):
    path = data_dir / "images" / "fashion_mnist_train.npz"
    images = read_images(path)
    assert images.image_shape == (1, 28, 28) and images.X.shape == (60_000, 784)
    assert np.bincount(images.y).tolist() == [6000] * 10
    assert images.X.mean(dtype=float) / 255 == pytest.approx(0.2860405969887955, abs=1e-9)
    with np.load(path) as file:
        X, y = file["X"], file["y"]
    header = struct.pack(">4B3I", 0, 0, 8, 3, *X.shape)
    again = read_images(
        written(tmp_path, "images", header + X.tobytes()),
        written(tmp_path, "labels", struct.pack(">4BI", 0, 0, 8, 1, len(y)) + y.tobytes()),
    )
    assert np.array_equal(again.X, images.X) and np.array_equal(again.y, images.y)


@pytest.mark.data
def test_color_images_keep_their_channels(data_dir):
    path = data_dir / "images" / "cifar10_train2k.npz"
    images = read_images(path)
    with np.load(path) as file:
        green = file["X"][..., 1]
    assert images.image_shape == (3, 32, 32)
    assert np.array_equal(images.X.reshape(-1, 3, 32, 32)[:, 1], green)


# -- what is refused -------------------------------------------------------------------------------

WHOLE = idx((3, 2, 2), PIXELS)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"archive or an idx file, got '.*a' that starts with b''"),
        (b"\x00\x00\x08", r"idx file, got .* starts with b'\\x00\\x00\\x08'"),
        (b"\x93NUMPY" + bytes(100), r"idx file, got .*NUM"),
        (b"\x00\x00\x0a" + WHOLE[3:], r"idx file, got .* starts with b'\\x00\\x00\\n\\x03'"),
        (b"\x00\x01" + WHOLE[2:], "idx file, got .* starts with"),
        (zipped(b"text"), "idx file, got .* starts with b'text'"),
        (idx((12,), PIXELS), "images .3 or 4 dimensions., got 1 dimension in .*Pass labels as"),
        (idx((6, 2), PIXELS), "images .3 or 4 dimensions., got 2 dimensions in"),
        (idx((3, 1, 1, 2, 2), PIXELS), "images .3 or 4 dimensions., got 5 dimensions in"),
        (WHOLE[:10], "header of 16 bytes, got 10"),
        (WHOLE[:-1], r"12 bytes after its header for shape \(3, 2, 2\), got 11 bytes in"),
        (WHOLE + b"\x00", r"12 bytes after its header for shape \(3, 2, 2\), got more in"),
        (zipped(WHOLE[:-1]), "12 bytes after its header .*got 11 bytes in"),
        (zipped(WHOLE + b"\x00"), "12 bytes after its header .*got more in"),
        (idx((2**32 - 1,) * 4, PIXELS), f"{(2**32 - 1) ** 4} bytes .*got 12 bytes in"),
        (zipped(WHOLE)[:-9], "whole gzip file, got .*a' .*ended.*Fetch it again"),
        (zipped(WHOLE)[:-8] + bytes(8), "whole gzip file, got .*a' .*CRC"),
        (zipped(WHOLE)[:10] + b"\xff" * 60, "whole gzip file, got .*invalid block"),
        (b"PK" + bytes(100), r"must be an \.npz archive, got '.*a'"),
        (idx((0, 2, 2), []), r"numeric images of shape .*got shape \(0, 2, 2\)"),
        (idx((2, 1, 1), [1.0, np.nan], 0x0D), "finite in float32, got 1 of 2 images"),
        (idx((2, 1, 1), [1e39, -np.inf], 0x0E), "finite in float32, got 2 of 2 images"),
    ],
    ids=lambda value: None,
)
def test_a_bad_file_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_images(written(tmp_path, "a", content))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros((2, 2, 2))}, r"'X', got \['images'\]"),
        ({"X": np.zeros((2, 4))}, r"\(n, height, width, channels\), got shape \(2, 4\) of float64"),
        ({"X": np.zeros((1, 1, 1, 1, 1))}, r"got shape \(1, 1, 1, 1, 1\)"),
        ({"X": np.zeros((2, 0, 2))}, r"got shape \(2, 0, 2\)"),
        ({"X": np.array([[["a"]]])}, "numeric images .* of <U1"),
        ({"X": np.zeros((1, 1, 1), complex)}, "numeric images .* of complex128"),
        ({"X": np.array([[[print]]], dtype=object)}, "plain numeric arrays"),
        ({"X": np.array([[[1.0]], [[np.nan]], [[1e39]]])}, "finite in float32, got 2 of 3 images"),
        ({"X": np.zeros((2, 1, 1)), "y": np.zeros(3)}, r"y must have shape \(2,\), got \(3,\)"),
        ({"X": np.zeros((2, 1, 1)), "y": np.array([0.5, 1])}, "y must hold integers, got float64"),
    ],
    ids=lambda value: None,
)
def test_a_bad_archive_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        read_images(archive(tmp_path, **arrays))


def test_a_damaged_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X=np.random.RandomState(0).randn(50, 4, 4))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[200:400] = b"\xff" * 200
    with pytest.raises(ValueError, match="plain numeric arrays, got"):
        read_images(written(tmp_path, "a.npz", bytes(content)))


@pytest.mark.parametrize(
    "content, message",
    [
        (idx((3, 1, 1), [1, 2, 3]), "labels must be an idx file of labels .1 dimension., got 3"),
        (idx((2,), [1, 2]), r"labels must have shape \(3,\), got \(2,\)"),
        (idx((3,), [0.0, 0.5, 1.0], 0x0D), "labels must hold integers, got >f4"),
        (idx((3,), [1, 2]), r"labels must hold 3 bytes .* shape \(3,\), got 2 bytes"),
        (b"7,2,1\n", "labels must be an idx file, got .* starts with b'7,2,'"),
    ],
    ids=["images", "fewer", "fractions", "truncated", "text"],
)
def test_bad_labels_are_refused(tmp_path, content, message):
    labels = written(tmp_path, "labels", content)
    with pytest.raises(ValueError, match=message):
        read_images(written(tmp_path, "a", WHOLE), labels=labels)


def test_labels_come_from_one_place(tmp_path):
    labels = written(tmp_path, "labels", idx((2,), [1, 2]))
    path = archive(tmp_path, X=np.zeros((2, 1, 1)), y=[1, 2])
    with pytest.raises(ValueError, match="labels must be None .*got '.*labels'"):
        read_images(path, labels)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a file, got '.*none\.gz'"):
        read_images(tmp_path / "none.gz")
    with pytest.raises(FileNotFoundError, match="path must be a file"):
        read_images(tmp_path)
    path = written(tmp_path, "a", WHOLE)
    with pytest.raises(FileNotFoundError, match="labels must be a file, got '.*none'"):
        read_images(path, labels=tmp_path / "none")


# -- what is drawn ---------------------------------------------------------------------------------

DRAWS = [constant_images, noise_images]


@pytest.mark.parametrize("high", [1.0, 255])
def test_constant_images_are_uniform_between_images_only(high):
    X = constant_images(20_000, (3, 2, 2), high=high, random_state=0) / high
    assert X.shape == (20_000, 12) and (X == X[:, :1]).all()
    value = X[:, 0]
    assert 0 <= value.min() < 1e-3 and 1 - 1e-3 < value.max() <= 1
    assert_mean(value, 1 / 2, largest_stderr=0.003)
    assert_variance(value, 1 / 12, largest_stderr=0.008)
    assert_mean(value < 0.1, 0.1, largest_stderr=0.003)


@pytest.mark.parametrize("high", [1.0, 255])
def test_noise_images_are_of_two_kinds(high):
    X = noise_images(4000, (2, 6, 5), high=high, random_state=0) / high
    assert X.shape == (4000, 60)
    uniform = (X >= 0).all(axis=1) & (X <= 1).all(axis=1)  # by chance: 0.34^60
    assert_estimate(uniform.mean(), np.sqrt(0.25 / 4000), 0.5, largest_stderr=0.008)
    runs = (uniform[1:] != uniform[:-1]).mean()  # in no order: a change in half of the places
    assert_estimate(runs, np.sqrt(0.25 / 3999), 0.5, largest_stderr=0.008)
    assert_mean(X[uniform].ravel(), 1 / 2, largest_stderr=0.001)
    assert_variance(X[uniform].ravel(), 1 / 12, largest_stderr=0.003)
    gaussian = X[~uniform].ravel()
    assert_mean(gaussian, 0, largest_stderr=0.003)
    assert_variance(gaussian, 1, largest_stderr=0.005)
    assert_mean(gaussian > 1, norm.sf(1), largest_stderr=0.0012)  # nothing is clipped
    for kind in (X[uniform], X[~uniform]):  # pixels are independent
        centered = kind - kind.mean(axis=0)
        products = (centered[:, 0] * centered[:, 1]) / kind.var()
        assert_mean(products, 0, largest_stderr=0.025)


def test_few_noise_images_can_be_of_one_kind():
    kinds = [
        int((noise_images(3, (1, 8, 8), random_state=s) < 0).any(axis=1).sum()) for s in range(400)
    ]
    for k in range(4):
        p = binom.pmf(k, 3, 0.5)
        assert_estimate(np.mean(np.equal(kinds, k)), np.sqrt(p * (1 - p) / 400), p, 0.025)


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_repeat_and_leave_the_global_generator_alone(draw):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = draw(5, [1, 3, 3], random_state=7)
    assert first.dtype == np.float64
    assert np.array_equal(first, draw(5, (1, 3, 3), random_state=np.random.RandomState(7)))
    assert not np.array_equal(first, draw(5, (1, 3, 3), random_state=8))
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"n_samples": 0}, ValueError, "n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 2.5}, TypeError, "n_samples must be an integer >= 1, got 2.5"),
        ({"image_shape": (28, 28)}, TypeError, r"\(channels, height, width\), got \(28, 28\)"),
        ({"image_shape": 784}, TypeError, r"\(channels, height, width\), got 784"),
        ({"image_shape": (1, 0, 2)}, ValueError, "image_shape must be an integer >= 1, got 0"),
        ({"image_shape": (1, 2.0, 2)}, TypeError, "image_shape must be an integer >= 1, got 2.0"),
        ({"high": 0}, ValueError, "high must be a number > 0, got 0"),
        ({"high": np.inf}, ValueError, "high must be a number > 0, got inf"),
        ({"high": "255"}, TypeError, "high must be a number > 0, got '255'"),
    ],
    ids=["none", "fraction", "pair", "size", "zero", "float", "black", "infinite", "text"],
)
def test_bad_arguments_are_named(draw, arguments, error, message):
    with pytest.raises(error, match=message):
        draw(**{"n_samples": 3, "image_shape": (1, 2, 2), **arguments})
