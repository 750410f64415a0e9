"""Folders of images: classes, splits, formats, and errors told in one line."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loading import check, folders, load, picture, refused
from phasescope.data.statistics import channel_statistics


def load_folder(root, **settings):
    return load("image-folder", root, folder=".", **settings)


def refused_folder(match, root, **settings):
    refused(match, "image-folder", root, folder=".", **settings)


def test_folder_with_a_split_drawn(tmp_path):
    folders(tmp_path)
    dataset = load_folder(tmp_path)
    check(dataset, 3, 32)
    assert dataset.classes == ["cat", "dog"]
    assert list(dataset.labels) == [0] * 4 + [1] * 4 + [0, 1]
    assert len(np.unique(dataset.images, axis=0)) == 10  # each image once
    np.testing.assert_array_equal(load_folder(tmp_path).images, dataset.images)
    half = load_folder(tmp_path, test_fraction=0.4)
    assert half.train.sum() == 6
    assert load_folder(tmp_path, test_fraction=0.99).train.sum() == 2
    assert load_folder(tmp_path, test_fraction=0.01).train.sum() == 8


def test_folder_with_train_and_test(tmp_path):
    folders(tmp_path, samples=3, splits=("train", "test"))
    extra = picture(tmp_path / "train" / "dog" / "z.png", seed=99)
    dataset = load("image-folder", Path("elsewhere"), folder=str(tmp_path))  # an absolute folder
    check(dataset, 3, 32)
    assert list(dataset.labels) == [0] * 3 + [1] * 4 + [0] * 3 + [1] * 3
    assert dataset.train.sum() == 7
    np.testing.assert_array_equal(dataset.images[6], extra.transpose(2, 0, 1))
    mean, std = channel_statistics(dataset.images[:7])
    np.testing.assert_array_equal([dataset.mean, dataset.std], [mean, std])


def test_some_of_the_training_images_whose_statistics_count(tmp_path):
    folders(tmp_path, samples=6, splits=("train", "test"))
    whole, some = (load_folder(tmp_path, train_samples=count) for count in (None, 4))
    assert list(some.labels) == [0] * 2 + [1] * 2 + [0] * 6 + [1] * 6
    assert (some.train.sum(), len(some.labels)) == (4, 16)
    np.testing.assert_array_equal(some.images[4:], whole.images[12:])
    assert all(any((image == one).all() for one in whole.images[:12]) for image in some.images[:4])
    np.testing.assert_array_equal([some.mean, some.std], channel_statistics(some.images[:4]))


def test_images_of_other_shapes_and_formats(tmp_path):
    folders(tmp_path)
    (tmp_path / "cat" / "0.png").unlink()
    picture(tmp_path / "cat" / "grey.jpg", shape=(20, 40))
    picture(tmp_path / "cat" / "alpha.webp", shape=(64, 64, 4))
    picture(tmp_path / "cat" / "upper.BMP")
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).convert("P").save(
        tmp_path / "cat" / "palette.png", transparency=bytes(range(256))
    )
    for grey in (False, True):
        dataset = load_folder(tmp_path, grey=grey, resolution=24)
        check(dataset, 1 if grey else 3, 24)
        assert dataset.images.dtype == np.uint8
        assert len(dataset.labels) == 13


def test_a_folder_is_standardised_by_the_constants_that_are_asked_for(tmp_path):
    for name in ("cat", "dog"):
        for index in range(2):
            picture(tmp_path / name / f"{index}.png")
    own, paper = load_folder(tmp_path), load_folder(tmp_path, statistics="cifar10")
    np.testing.assert_array_equal(own.images, paper.images)
    assert paper.mean.tolist() == [0.4914, 0.4822, 0.4465]
    assert paper.std.tolist() == [0.2023, 0.1994, 0.2010]
    assert load_folder(tmp_path, grey=True, statistics="mnist").std.tolist() == [0.3081]
    for wrong in ({"statistics": "mnist"}, {"statistics": "cifar100", "grey": True}):
        with pytest.raises(ValueError, match="do not fit"):
            load_folder(tmp_path, **wrong)


def test_grey_images_are_read_as_they_are(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        picture(tmp_path / name, seed=len(name), shape=(32, 32))
    dataset = load_folder(tmp_path, grey=True)
    np.testing.assert_array_equal(dataset.images[0, 0], picture(tmp_path / "a/0.png", 7, (32, 32)))


def test_sixteen_bit_images_keep_their_shades(tmp_path):
    shades = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint16)
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(shades * 257).save(tmp_path / name)
    np.testing.assert_array_equal(load_folder(tmp_path, grey=True).images[0, 0], shades)


def test_what_file_managers_leave_behind_is_passed_over(tmp_path):
    folders(tmp_path)
    for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/.gitkeep", "README.txt"):
        (tmp_path / name).write_text("no image")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    dataset = load_folder(tmp_path)
    assert (len(dataset.labels), dataset.classes) == (10, ["cat", "dog"])


def test_folder_that_is_not_there(tmp_path):
    refused("image folder .*birds: no such folder", "image-folder", tmp_path, folder="birds")


def test_folder_without_classes(tmp_path):
    refused_folder("no class; put", tmp_path)
    picture(tmp_path / "cat" / "0.png")
    refused_folder("1 class; put", tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    refused_folder("train: no class; put", tmp_path)


def test_folder_with_half_a_split(tmp_path):
    folders(tmp_path, splits=("train",))
    refused_folder("has train/ but no test/", tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    folders(tmp_path, classes=("train", "plane"))
    assert load_folder(tmp_path).classes == ["plane", "train"]


def test_empty_class(tmp_path):
    folders(tmp_path)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / ".gitkeep").touch()
    refused_folder("class .*eel has no images", tmp_path)


def test_class_of_one_image(tmp_path):
    folders(tmp_path)
    picture(tmp_path / "eel" / "0.png")
    refused_folder("class .*eel has one image", tmp_path)
    folders(tmp_path / "split", samples=1, splits=("train", "test"))
    assert len(load_folder(tmp_path / "split").labels) == 4


def test_classes_of_train_and_test_differ(tmp_path):
    folders(tmp_path, splits=("train", "test"))
    picture(tmp_path / "test" / "eel" / "0.png")
    refused_folder("class 'eel' is in test/ alone", tmp_path)


@pytest.mark.parametrize("format_", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_broken_image_is_named(tmp_path, format_):
    folders(tmp_path)
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(buffer, format_)
    path = tmp_path / "dog" / f"x.{format_}"
    path.write_bytes(buffer.getvalue())
    load_folder(tmp_path)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    refused_folder(f"{path}: cannot be read as an image", tmp_path)


def test_file_that_is_no_image_is_named(tmp_path):
    folders(tmp_path)
    path = tmp_path / "dog" / "notes.txt"
    path.write_text("two\nlines")
    refused_folder(f"{path}: cannot be read as an image .*mend or remove it", tmp_path)
    path.unlink()
    path.mkdir()
    refused_folder(f"{path}: cannot be read as an image", tmp_path)
    path.rmdir()
    Image.fromarray(np.random.default_rng(0).random((32, 32), np.float32)).save(tmp_path / "dog" / "x.tiff")
    refused_folder("x.tiff: cannot be read as an image .floating-point pixels", tmp_path)


def test_constant_channel(tmp_path):
    folders(tmp_path)
    for path in tmp_path.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[..., 1] = 77
        Image.fromarray(pixels).save(path)
    refused_folder("channel 1 has the same value", tmp_path)
