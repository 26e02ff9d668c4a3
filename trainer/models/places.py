"""What single places of a frame say about its class: evidence of defects that a mean over the frame dilutes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 64
SHARPNESS = 4.0
"""Of the smooth maximum over places: at 0 it is the mean, without bound the maximum."""

DROPOUT = 0.2


class Places(nn.Module):
    """Evidence of each class, from a small network that sees one place of the stride-16 map at a time.

    The evidence of a frame is the smooth maximum over its places, log-sum-exp (Pinheiro & Collobert, CVPR 2015): one
    scratched place is enough, and labels of whole frames are all that it learns from. Classes count alike, whatever
    their shares: it is a logarithm of likelihoods, and is added to the logits, times a strength that the validation
    fold chooses.

    Before `trainer.prepare.fit_places` the evidence is 0. No layer is a convolution, and no tensor but the map has four
    dimensions: see trainer.models.pooling.
    """

    strength: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("strength", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.inner = nn.Parameter(torch.zeros(HIDDEN, channels), requires_grad=False)
        self.inner_bias = nn.Parameter(torch.zeros(HIDDEN), requires_grad=False)
        self.outer = nn.Parameter(torch.zeros(classes, HIDDEN), requires_grad=False)
        self.outer_bias = nn.Parameter(torch.zeros(classes), requires_grad=False)

    def forward(self, mid: Tensor) -> Tensor:
        """The stride-16 map (N, channels, H, W) -> what to add to the logits, (N, classes)."""
        return self.strength * self.evidence(mid)

    def evidence(self, mid: Tensor) -> Tensor:
        """The same before its strength; with dropout while it learns."""
        # the weights stand on the left: one product a frame, so that a score does not depend on its batch
        x = (mid.flatten(2) - self.centre[:, None]) * self.scale[:, None]
        hidden = F.dropout(torch.relu(self.inner @ x + self.inner_bias[:, None]), DROPOUT, self.training)
        votes = self.outer @ hidden + self.outer_bias[:, None]
        count = mid.shape[2] * mid.shape[3]
        return (torch.logsumexp(SHARPNESS * votes, 2) - math.log(count)) / SHARPNESS

    def start(self, places: Tensor, generator: torch.Generator) -> list[nn.Parameter]:
        """Begin anew, from places (n, channels) of training frames; the weights that are to be learned."""
        with torch.no_grad():
            self.strength.fill_(1.0)
            self.centre.copy_(places.mean(0))
            self.scale.copy_(1 / (places.std(0) + 1e-3))
            for weight in (self.inner, self.outer):
                bound = 1 / math.sqrt(weight.shape[1])
                weight.uniform_(-bound, bound, generator=generator)
            self.inner_bias.zero_()
            self.outer_bias.zero_()
        return [self.inner, self.inner_bias, self.outer, self.outer_bias]
