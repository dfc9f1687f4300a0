"""Images that are not square, or not of three channels: right values."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import interpolate

from camdrift.analysis import drawing
from camdrift.attacks import one_pixel
from camdrift.datasets import images, pictures
from camdrift.explain import cam, lrp
from camdrift.explain.packing import layer_table, shrunk
from camdrift.features import cleaning
from camdrift.models import architectures, training
from camdrift.models.incremental import Incremental, painted
from camdrift.models.model import Model
from camdrift.papers.klawikowska2020 import inspection
from camdrift.perturbations import controls
from camdrift.perturbations.size import l2
from camdrift.scores import cosine, jet_cosine, resizing, ssim
from camdrift.settings import params
from conftest import ROOT
from test_one_pixel import SETTINGS, attacked, generators, reached, slow_search
from test_scores import slow_jet
from test_settings import changed

RNG = np.random.default_rng(3)
TALL, WIDE = 24, 40


def grey_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip


@pytest.fixture
def model() -> Model:
    return Model(grey_network(), mean=[0.5], std=[0.25], size=(TALL, WIDE), micro_batch=4)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(5, 1, TALL, WIDE, generator=torch.Generator().manual_seed(1))


def test_a_picture_is_resized_in_proportion_until_it_covers_the_size():
    wide = RNG.integers(0, 256, (50, 200, 3), dtype=np.uint8)
    expected = Image.fromarray(wide).resize((120, 30), Image.Resampling.BILINEAR)
    expected = np.asarray(expected)[3:27, 40:80]
    np.testing.assert_array_equal(pictures.fit(wide, 30, [TALL, WIDE]), expected)
    tall = RNG.integers(0, 256, (90, 50, 3), dtype=np.uint8)
    expected = Image.fromarray(tall).resize((50, 90), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        pictures.fit(tall, 30, [TALL, WIDE]), expected.crop((5, 33, 45, 57))
    )
    whole = Image.fromarray(wide[:, :100]).resize((80, 40), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pictures.fit(wide[:, :100], 40, [40, 80]), whole)


@pytest.mark.parametrize("shape", [(50, 200), (200, 50), (33, 47), (20, 20), (7, 5)])
def test_a_square_has_the_pixels_that_it_had(shape):
    """As the function read before it took two sides."""
    picture = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(picture)
    width, height = (max(16, round(side * 20 / min(image.size))) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 16) // 2, (height - 16) // 2
    expected = np.asarray(scaled.crop((left, top, left + 16, top + 16)))
    np.testing.assert_array_equal(pictures.fit(picture, 20, 16), expected)


def test_grey_is_the_luma_and_keeps_grey_values():
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    grey = pictures.with_channels(levels, 1)
    np.testing.assert_array_equal(grey[..., 0], levels[..., 0])
    colour = np.full((2, 3, 3), (200, 100, 50), dtype=np.uint8)
    assert (pictures.with_channels(colour, 1) == 124).all()  # 0.299 R + 0.587 G + 0.114 B
    assert pictures.with_channels(colour, 3) is colour


def test_tiles_of_two_sides_are_cut_from_their_places():
    own = {"seed": 1, "shares": {"train": 0.5, "validation": 0.0, "test": 0.5},
           "limits": {"train": 4, "validation": 0, "test": 3}, "preprocessing": None}  # fmt: skip
    output = images.photos(size=[48, 80], **own)
    grey = images.photos(size=[48, 80], channels=1, **own)
    assert output.pixels.shape[1:] == (48, 80, 3)
    assert grey.pixels.shape[1:] == (48, 80, 1)
    from skimage import data

    astronaut = data.astronaut()
    rows = output.index[output.index["class_name"] == "astronaut"]
    assert {int(name[-4:]) % 80 for name in rows.loc[rows["split"] == "test", "id"]} == {0}
    for place, name in rows["id"].items():
        top, left = int(name[-9:-5]), int(name[-4:])
        tile = astronaut[top : top + 48, left : left + 80]
        np.testing.assert_array_equal(output.pixels[place], tile)
        np.testing.assert_array_equal(grey.pixels[place], pictures.with_channels(tile, 1))
    sheet = images.datasheet(grey)
    assert (sheet["size_px"], sheet["channels"]) == ([48, 80], 1)
    assert "channels" not in images.datasheet(output)


def test_a_folder_of_grey_images_stays_grey(tmp_path):
    grey = RNG.integers(0, 256, (48, 80), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(grey).save(tmp_path / "a" / "1.png")
    output = images.folder(
        path=str(tmp_path), seed=1, size=[48, 80], resize=48, channels=1, fold=0, labels=None,
        shares={"train": 0.0, "validation": 0.0, "test": 1.0}, preprocessing=None, licence="own",
        limits={"train": 1, "validation": 1, "test": 1}, unreadable_share=0.0,
    )  # fmt: skip
    np.testing.assert_array_equal(output.pixels, grey[None, ..., None])


@pytest.mark.parametrize("channels", [1, 3])
def test_one_pixel_reaches_the_last_row_and_column_and_no_further(channels):
    ends = [0.0, 1 / TALL, np.nextafter(1.0, 0), 1.0]
    genes = np.array([[row, column] + [0.25] * channels for row in ends for column in ends])
    places, values = one_pixel._replacements(genes, shape=(channels, TALL, WIDE), bounds=(0, 2))
    assert places.shape == (16, 1, 2)
    assert values.shape == (16, 1, channels)
    assert (values == 0.5).all()
    assert [sorted(set(axis.tolist())) for axis in places[:, 0].T] == [[0, 1, 23], [0, 1, 39]]


@pytest.mark.parametrize("settings", [{}, {"pixels": 3, "generations": 3}])
def test_one_pixel_changes_a_grey_value(model, pixels, settings):
    labels = model(pixels).argmax(1)
    attack = attacked(model, pixels, **settings)
    for i in range(2):
        expected = slow_search(
            model, pixels[i], int(labels[i]), generators(1, i)[0], SETTINGS | settings
        )
        torch.testing.assert_close(attack.pixels[i], expected[0])
        assert int(attack.evaluations[i]) == expected[1]
        assert bool(reached(attack, len(pixels))[i]) == expected[2]


@pytest.mark.parametrize("shape", [(TALL, WIDE), (WIDE, TALL), (17, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_of_changed_pixels_agree_with_whole_images(shape, channels):
    height, width = shape
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2, padding=1),
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4),
    )  # fmt: skip
    network(torch.zeros(1, channels, height, width))
    halves = [0.5] * channels
    model = Model(network, mean=halves, std=halves, size=shape, micro_batch=8)
    places = torch.cartesian_prod(
        torch.tensor([0, 1, height // 2, height - 2, height - 1]),
        torch.tensor([0, 1, width // 2, width - 2, width - 1]),
    )[:, None]
    images = torch.rand(2, channels, height, width)
    owners = torch.arange(2).repeat_interleave(25)
    places = places.repeat(2, 1, 1)
    values = torch.rand(50, 1, channels) * 3 - 1
    output = Incremental(model, images)
    assert len(output._stages) >= 2
    with torch.no_grad():
        whole = model(painted(images[owners], places, values))
    torch.testing.assert_close(output.logits(owners, places, values), whole, rtol=0, atol=1e-5)


def test_a_model_resizes_to_both_sides_and_refuses_other_channels(pixels):
    model = Model(grey_network(), mean=[0.5], std=[0.25], size=(12, 30), micro_batch=4)
    expected = (interpolate(pixels, (12, 30), mode="bilinear") - 0.5) / 0.25
    torch.testing.assert_close(model.inputs(pixels), expected)
    assert model.shape == (1, 12, 30)
    with pytest.raises(ValueError, match="wanted images with 1 channels, .* got 3"):
        model.inputs(pixels.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="wanted a model of square inputs, got 12 x 30 px"):
        model.size  # noqa: B018


@pytest.mark.parametrize("architecture", ["resnet18", "vgg11", "timm:resnet10t"])
def test_networks_take_grey_images(architecture):
    facts = {"architecture": architecture, "width": 1, "head": "torchvision", "classes": 3}
    network = architectures.build(**facts, size=[32, 64], channels=1, initialised=True)
    assert network.eval()(torch.zeros(2, 1, 32, 64)).shape == (2, 3)


def test_a_grey_image_gives_what_its_copy_in_colours_gave():
    facts = {"architecture": "resnet18", "width": 1, "head": "torchvision", "classes": 3,
             "size": 32, "initialised": True}  # fmt: skip
    logits = []
    for channels in (1, 3):
        torch.manual_seed(0)
        network = architectures.build(**facts, channels=channels).eval()
        grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        logits.append(network(grey.expand(-1, channels, -1, -1)))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)


def three_channels(classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_a_network_that_takes_colours_alone_is_refused():
    facts = {"width": 1, "head": "torchvision", "classes": 3, "size": 32, "initialised": True}
    name = f"{__name__}:three_channels"
    with pytest.raises(architectures.RefusedError, match="does not run .* 32 px with 1 channel: "):
        architectures.build(**facts, architecture=name, channels=1)


def test_maps_have_height_and_width(model, pixels):
    table = layer_table(model)
    assert table[["height", "width"]].to_numpy().tolist() == [[24, 40], [12, 20]]
    result = cam.all_layers(grey_network(), pixels, methods=["GradCAM", "ScoreCAM"])
    assert result.size == (TALL, WIDE)
    for maps in result.maps.values():
        assert [tuple(layer.shape[1:]) for layer in maps] == [(24, 40), (12, 20)]
    scaled = result.scaled(TALL, WIDE)["GradCAM"]
    assert {tuple(layer.shape) for layer in scaled} == {(5, TALL, WIDE)}
    few = shrunk(result.maps["GradCAM"], 20)
    assert [tuple(layer.shape[1:]) for layer in few] == [(20, 20), (12, 20)]
    relevance = lrp.relevance(model, pixels)
    assert relevance.shape == (5, TALL, WIDE)


def test_images_are_shifted_within_both_sides():
    whole = torch.arange(TALL * WIDE, dtype=torch.float32).view(1, 1, TALL, WIDE)
    moved = training._augment(whole.repeat(50, 1, 1, 1), 3, False, torch.Generator().manual_seed(0))
    assert moved.shape == (50, 1, TALL, WIDE)
    centres = moved[:, 0, 10, 20] - whole[0, 0, 10, 20]
    rows, columns = torch.div(centres + 3, WIDE, rounding_mode="floor"), (centres + 3) % WIDE - 3
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [-3, 3, -3, 3]


def test_cleaning_is_sklearns_of_tall_and_wide_images():
    for shape in ((TALL, WIDE), (WIDE, TALL)):
        image = RNG.random(shape)
        pca = PCA(n_components=0.9)
        expected = pca.inverse_transform(pca.fit_transform(image))
        tensor = torch.from_numpy(image).float()[None, None]
        result = cleaning.rebuild(tensor, variance=0.9)[0, 0]
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("kind", controls.CONTROLS)
def test_controls_keep_the_shape_and_the_size(pixels, kind):
    change = torch.zeros_like(pixels)
    change[:, 0, 20:, 30:] = 0.1 * torch.randn(5, 4, 10, generator=torch.Generator().manual_seed(2))
    seeds = [np.random.default_rng(i) for i in range(5)]
    output = controls.rearranged(kind, pixels, change, seeds)
    assert output.shape == pixels.shape
    if kind not in controls.OWN_SIZE:
        own, other = (l2((pixels + c).clamp(0, 1) - pixels) for c in (change, output))
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 9), (24, 9), (30, 50), (100, 120)])
def test_maps_are_compared_at_both_sides(shape):
    size = (TALL, WIDE) if max(shape) < 100 else (130, 150)
    first, second = RNG.random((2, 4, *shape)).astype(np.float32)
    large = [
        interpolate(torch.from_numpy(maps).double()[:, None], size, mode="bilinear")[:, 0].numpy()
        for maps in (first, second)
    ]
    np.testing.assert_allclose(resizing.enlarged(first, size=size), large[0], atol=1e-6)
    a, b = (maps.reshape(4, -1) for maps in large)
    expected = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    np.testing.assert_allclose(cosine.score(first, second, size=list(size)), expected, atol=1e-5)
    assert np.isfinite(ssim.score(first, second, size=size)).all()


def test_jet_pictures_have_both_sides():
    maps = RNG.random((4, 6, 10)).astype(np.float32)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    result = np.moveaxis(jet_cosine.jet_rgb(maps, size=(TALL, WIDE)), 1, 3).astype(int)
    expected = np.stack([slow_jet(heatmap, (WIDE, TALL)) for heatmap in maps]).astype(int)
    assert np.mean(result != expected) < 1e-3  # ties of a rounding
    assert np.abs(result - expected).max() <= 2


def test_the_changed_pixel_may_be_the_last_one(pixels):
    changed = pixels.clone()
    changed[0, 0, TALL - 1, WIDE - 1] += 1
    changed[1, 0, 3, WIDE - 1] += 1
    assert inspection.changed_pixel(pixels, changed)[:3].tolist() == [[23, 39], [3, 39], [-1, -1]]


def test_pictures_are_drawn_in_proportion_and_grey():
    layer = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    drawn = drawing.coloured(layer, (6, 8))
    assert drawn.shape == (6, 8, 3)
    np.testing.assert_array_equal(drawn[::2, ::4], drawing.coloured(layer, (3, 2)))
    grey = RNG.integers(0, 256, (6, 8, 1), dtype=np.uint8)
    sheet, *_ = drawing.panel("n", "t", "c", [[grey, drawn]], ["a", "b"], [""]).panel
    np.testing.assert_array_equal(sheet[:6, :8], np.repeat(grey, 3, axis=2))


def test_places_of_an_image_are_found_in_a_map_of_other_sides():
    place = torch.tensor([[0, 0], [23, 39], [12, 20], [-1, -1]])
    same = inspection.moved(place, (TALL, WIDE), (TALL, WIDE))
    assert same.tolist() == place.tolist()
    result = inspection.moved(place, (TALL, WIDE), (48, 20)).tolist()
    assert result[:3] == [[1, 0], [47, 19], [25, 10]]
    assert max(result[3]) < 0


def test_tiles_of_the_dashboard_keep_proportions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    import tiles

    picture, layer = RNG.random((TALL, WIDE, 1)), RNG.random((3, 5))
    output = [
        tiles.enlarged(picture), tiles.heat(layer, picture.shape), tiles.overlay(picture, layer),
        tiles.difference(layer, layer, picture.shape), tiles.change(picture, picture, 2.0),
    ]  # fmt: skip
    assert {tile.shape for tile in output} == {(115, 192, 3)}
    assert (output[0] == output[0][..., :1]).all()
    assert tiles.enlarged(picture[:, :TALL]).shape == (192, 192, 3)
    assert tiles.enlarged(np.zeros((300, 150, 3), np.uint8)).shape == (300, 150, 3)


def test_a_transformer_takes_two_sides():
    more = {"img_size": [24, 40], "patch_size": 8, "depth": 2, "embed_dim": 16, "num_heads": 2}
    facts = {"set": "photos_cropped", "architecture": "timm:vit_tiny_patch16_224", "training": {},
             "arguments": more, "size": [24, 40]}  # fmt: skip
    plan = params.parse(changed("models.tall", facts)).models["tall"]
    assert plan.arguments["img_size"] == [24, 40]
    network = architectures.build(
        architecture=plan.architecture, width=1, head="torchvision", classes=3, size=plan.size,
        channels=1, initialised=True, arguments=plan.arguments,
    )  # fmt: skip
    model = Model(network, mean=[0.5], std=[0.25], size=plan.size, micro_batch=2)
    assert layer_table(model)[["height", "width"]].to_numpy().tolist() == [[3, 5], [3, 5]]
