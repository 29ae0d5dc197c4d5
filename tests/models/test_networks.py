"""Reference networks: every row of the table keeps its promises."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from trimtab import models
from trimtab.core.errors import MissingExtraError, OptionError
from trimtab.models import NETWORKS, Network, build

pytestmark = pytest.mark.usefixtures("one_thread")

# Two sizes for each free axis, the second odd so that no stride divides it.
SIZES = [
    {"height": 32, "width": 32, "sequence": 5},
    {"height": 57, "width": 45, "sequence": 16},
]


def feeds(row: Network, batch: int, sizes: dict[str, int]) -> list[Tensor]:
    """Random inputs for a row, its free axes of these sizes."""
    tensors = []
    for spec in row.inputs:
        named = {**sizes, "batch": batch}
        shape = [axis if isinstance(axis, int) else named[axis] for axis in spec.shape]
        if spec.dtype == "int64":
            tensors.append(torch.randint(2, shape))
        else:
            tensors.append(torch.randn(shape, dtype=getattr(torch, spec.dtype)))
    return tensors


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [8, 12])
def test_any_input_size_and_output_width(name: str, width: int) -> None:
    with torch.device("meta"):
        network = build(name, **{NETWORKS[name].width: width}).eval()
        for sizes in SIZES:
            assert network(*feeds(NETWORKS[name], 3, sizes)).shape == (3, width)


@pytest.mark.parametrize("name", NETWORKS)
def test_row_describes_forward_and_example_inputs(name: str) -> None:
    row = NETWORKS[name]
    with torch.device("meta"):
        network = build(name).eval()
        examples = network.example_inputs()
    assert list(inspect.signature(network.forward).parameters) == [i.name for i in row.inputs]
    for spec, example in zip(row.inputs, examples, strict=True):
        named = {"batch": 1, **spec.sizes}
        assert list(example.shape) == [a if isinstance(a, int) else named[a] for a in spec.shape]
        assert example.dtype == getattr(torch, spec.dtype)
        assert example.device.type == "meta"


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2_cifar", "digits_cnn", "text_encoder"])
def test_untrained_network_passes_its_input_on(name: str) -> None:
    """Outputs that are all but zero would make every comparison of two models pass."""
    torch.manual_seed(0)
    network = build(name).eval()
    with torch.no_grad():
        first = network(*network.example_inputs())
        assert torch.equal(first, network(*network.example_inputs()))
    assert first.isfinite().all()
    assert first.std() > 0.01


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet20", {}, 269_722),
        ("resnet56", {}, 853_018),
        ("resnet18", {}, 11_689_512),
        ("resnet50", {}, 25_557_032),
        ("vgg16", {}, 138_357_544),
        ("vgg16", {"batch_norm": True}, 138_365_992),
        ("mobilenet_v2", {}, 3_504_872),
        ("mobilenet_v2", {"width": 0.5}, 1_968_680),
    ],
)
def test_parameters_are_the_papers(name: str, options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        network = build(name, **options)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("resnet50", {"layer2.0.downsample.1.running_var", "layer4.2.conv3.weight", "fc.bias"}),
        ("vgg16", {"features.28.weight", "classifier.6.bias"}),
        (
            "mobilenet_v2",
            {
                "features.0.0.weight",
                "features.1.conv.0.0.weight",
                "features.1.conv.2.running_mean",
                "features.17.conv.1.1.weight",
                "features.18.1.bias",
                "classifier.1.weight",
            },
        ),
    ],
)
def test_names_are_torchvisions(name: str, some: set[str]) -> None:
    with torch.device("meta"):
        assert some <= build(name).state_dict().keys()


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    with torch.device("meta"):
        block = build("resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_cifar_variants_keep_the_resolution_that_small_images_need() -> None:
    with torch.device("meta"):
        features = build("mobilenet_v2_cifar").eval().features
        assert features(torch.randn(1, 3, 32, 32)).shape[2:] == (4, 4)
        assert build("vgg16_cifar").classifier[0].in_features == 512


def test_default_initialisation_follows_torchs_generator() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build("resnet20").parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'resnet56'"):
        build("resnet57")


def test_import_brings_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, trimtab.models as m; assert set(m.__all__) <= set(dir(m)); "
        "sys.exit(bool({'torch', 'sklearn'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_every_public_name_exists() -> None:
    """Also once all files are imported: a file of the same name would then hide a factory."""
    for name in [*models.__all__, *models.__all__]:
        assert not inspect.ismodule(getattr(models, name))
    with pytest.raises(AttributeError, match="resnet_20"):
        _ = models.resnet_20


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "trimtab.models.resnet", raising=False)
    with pytest.raises(MissingExtraError, match=r"resnet18: .*pip install \"trimtab\[torch\]\""):
        _ = models.resnet18
    with pytest.raises(MissingExtraError, match=r"trimtab\[torch\]"):
        build("resnet18")
