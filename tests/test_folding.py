"""Batch normalisation folded into convolutions: the same scores, fewer passes over the maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from domainseg.models.fcn import FCN
from domainseg.models.folding import fold_batch_norms
from domainseg.models.fpn import FPN
from domainseg.models.unet import UNet

MODELS: dict[str, UNet | FPN | FCN] = {
    "unet": UNet(
        encoder="tf_efficientnet_lite0", weights=None, depth=3, decoder_channels=(8, 8, 8)
    ),
    "unet with the image": UNet(
        encoder="resnet10t", weights=None, depth=2, decoder_channels=(8, 8), image_skip=True
    ),
    "fpn": FPN(encoder="tf_efficientnet_lite0", weights=None, depth=4),
    "fpn beside": FPN(
        encoder="tf_efficientnet_lite0", weights=None, depth=4, self_similarity_px=(4, 8)
    ),
    "fcn": FCN(encoder="resnet10t", weights=None, depth=4),
}


def trained(network: nn.Module) -> nn.Module:
    """Return a network whose normalisations have seen something, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                if values is not None:
                    values.data.uniform_(low, high, generator=generator)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(one, nn.BatchNorm2d) for one in network.modules())


@pytest.mark.parametrize("name", MODELS)
def test_no_normalisation_is_left_and_scores_are_the_same(name: str) -> None:
    model = MODELS[name]
    network = trained(model.build(3, 2))
    left = norms(network)
    image = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    folded = fold_batch_norms(network, channels=3, stride=model.stride)
    with torch.inference_mode():
        before = network(image)
        after = folded(image)
        again = network(image)
    assert left > 5
    # What stands beside the image has a normalisation of its own, behind no convolution.
    # Its weights are plain tensors: what follows a gradient through it may use them.
    assert not any(weight.is_inference() for weight in folded.parameters())
    assert norms(folded) == (model.self_similarity_px is not None)
    assert norms(network) == left
    assert torch.equal(before, again)
    assert before.abs().max() > 0.01
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5 * float(before.abs().max()) + 1e-6)


class TwiceRead(nn.Module):
    """What the convolution makes is read beside the normalisation too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        made = self.first(image)
        scores: Tensor = self.last(self.norm(made) + made)
        return scores


class Shared(TwiceRead):
    """One convolution runs twice, one time of them without the normalisation."""

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.last(self.norm(self.first(image)) + self.first(image))
        return scores


class BatchStatistics(TwiceRead):
    """Its normalisation has no statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.last(self.norm(self.first(image)))
        return scores


@pytest.mark.parametrize("kind", [TwiceRead, Shared, BatchStatistics])
def test_what_cannot_be_folded_stays_as_it_is(kind: type[TwiceRead]) -> None:
    network = trained(kind()) if kind is not BatchStatistics else kind().eval()
    assert fold_batch_norms(network, channels=1, stride=4) is network


def test_of_two_the_one_that_can_be_is_folded() -> None:
    half = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU())
    network = trained(nn.Sequential(half, nn.BatchNorm2d(4, affine=False)))
    folded = fold_batch_norms(network, channels=1, stride=4)
    assert norms(folded) == 1
    image = torch.rand(1, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network(image))


def test_without_a_normalisation_or_a_weight_nothing_is_tried() -> None:
    for network in (nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Sequential()):
        assert fold_batch_norms(network, channels=7, stride=4) is network
