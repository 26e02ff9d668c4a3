"""From the two maps of a backbone to one row of features: plain pooling, bilinear pooling, learned parts.

Everything here is left in float when the network is quantised. No layer is a convolution, and no tensor but the maps
has four dimensions: that is how the quantiser knows where integers end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.bilinear import bilinear_pool

Pooling = Literal["mean", "mean+max", "bilinear", "parts"]

PROJECTED = 64
"""Channels left of the stride-16 map before bilinear and part pooling: 112 x 112 products would be 12,544 features."""

PARTS = 8
"""Places that part pooling looks for."""

KMEANS_ROUNDS = 20


class Pool(nn.Module):
    """What every pooling offers.

    Attributes:
        sizes: how many features come from each kind of pooling, in order.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, mid: Tensor, last: Tensor) -> Tensor:
        """Maps (N, mid, H, W) and (N, last, h, w) -> features (N, sum(sizes)) float32."""
        raise NotImplementedError

    def start(self, places: Tensor, generator: torch.Generator) -> None:
        """Set what is to be learned to something useful before any training.

        Args:
            places: float32 (n, mid): values of the stride-16 map at places of training frames.
        """


class MeanPool(Pool):
    """The mean of the last map."""

    def __init__(self, mid: int, last: int) -> None:
        super().__init__((last,))

    def forward(self, mid: Tensor, last: Tensor) -> Tensor:
        """See :class:`Pool`."""
        return last.mean((2, 3))


class MeanMaxPool(Pool):
    """Mean and maximum at two depths. A mean dilutes small defects, a maximum does not."""

    def __init__(self, mid: int, last: int) -> None:
        super().__init__((last, last, mid, mid))

    def forward(self, mid: Tensor, last: Tensor) -> Tensor:
        """See :class:`Pool`."""
        return torch.cat((last.mean((2, 3)), last.amax((2, 3)), mid.mean((2, 3)), mid.amax((2, 3))), 1)


class Projection(nn.Module):
    """A learned 1x1 projection of a map: (N, inputs, H, W) -> (N, outputs, H * W). A matrix product, no convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.offset = nn.Parameter(torch.zeros(outputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # the weights stand on the left: one product a frame, so that a score does not depend on its batch
        projected: Tensor = self.weight @ x.flatten(2) + self.offset[:, None]
        return projected

    def start(self, places: Tensor) -> None:
        """The leading principal components of the places (n, inputs), each scaled to variance 1."""
        mean = places.mean(0)
        centred = (places - mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(places))
        kept = vectors[:, -len(self.offset) :].flip(1) / values[-len(self.offset) :].flip(0).clamp_min(1e-6).sqrt()
        # an eigenvector's sign is arbitrary: let its largest entry be positive, on every machine
        kept *= kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
        with torch.no_grad():
            self.weight.copy_(kept.T)
            self.offset.copy_(-(kept.T @ mean.double()))


class BilinearPool(Pool):
    """Mean and maximum as ever, and bilinear pooling of the stride-16 map."""

    def __init__(self, mid: int, last: int) -> None:
        self_sizes = MeanMaxPool(mid, last).sizes
        width = min(PROJECTED, mid)
        super().__init__((*self_sizes, width * width))
        self.whole = MeanMaxPool(mid, last)
        self.projection = Projection(mid, width)

    def forward(self, mid: Tensor, last: Tensor) -> Tensor:
        """See :class:`Pool`."""
        return torch.cat((self.whole(mid, last), bilinear_pool(self.projection(mid))), 1)

    def start(self, places: Tensor, generator: torch.Generator) -> None:
        """See :class:`Pool`: principal components."""
        self.projection.start(places)


class PartPool(Pool):
    """Mean and maximum as ever, and the stride-16 map at PARTS places that attention looks for in each frame.

    Attention over places is a softmax of a linear score of each place (the part attention of Zheng et al., MA-CNN,
    ICCV 2017, in its simplest form); a part is the mean of the map under its attention. Unlike a maximum it keeps
    the channels of one place together.
    """

    def __init__(self, mid: int, last: int) -> None:
        width = min(PROJECTED, mid)
        whole = MeanMaxPool(mid, last)
        super().__init__((*whole.sizes, PARTS * width))
        self.whole = whole
        self.projection = Projection(mid, width)
        self.attention = nn.Parameter(torch.empty(PARTS, width))
        nn.init.orthogonal_(self.attention)

    def forward(self, mid: Tensor, last: Tensor) -> Tensor:
        """See :class:`Pool`."""
        places = self.projection(mid)
        weights = torch.softmax(self.attention @ places, 2)
        return torch.cat((self.whole(mid, last), (weights @ places.transpose(1, 2)).flatten(1)), 1)

    def start(self, places: Tensor, generator: torch.Generator) -> None:
        """See :class:`Pool`: the directions of k-means centres of the places."""
        self.projection.start(places)
        with torch.no_grad():
            projected = self.projection(places.T[None])[0].T
            centres = kmeans(projected, PARTS, generator)
            self.attention.copy_(nn.functional.normalize(centres, dim=1))


def kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres (count, D) of points (n, D), n >= count: k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's rounds."""
    if len(points) < count:
        raise ValueError(f"{len(points)} points have no {count} centres")
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    for _ in range(count - 1):
        nearest = torch.cdist(points, centres).square().amin(1)
        # the least share keeps repeated points choosable where there is nothing else
        centres = torch.cat((centres, points[torch.multinomial(nearest + 1e-12, 1, generator=generator)]))
    for _ in range(KMEANS_ROUNDS):
        member = nn.functional.one_hot(torch.cdist(points, centres).argmin(1), count).to(points.dtype)
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ points / sizes.clamp_min(1), centres)
    return centres


POOLS: dict[Pooling, Callable[[int, int], Pool]] = {
    "mean": MeanPool,
    "mean+max": MeanMaxPool,
    "bilinear": BilinearPool,
    "parts": PartPool,
}
"""Name -> constructor, given the channels of the stride-16 map and of the last map."""
