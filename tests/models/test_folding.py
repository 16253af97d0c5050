"""Pairs of a convolution and a batch norm are folded only where both are called once."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradcam_bench.models.folding import fold_batch_norm


class Calls(nn.Module):
    """A pair that is always folded, and another convolution and batch norm called as asked for."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.first, self.first_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        for norm in (self.first_norm, self.norm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = F.relu(self.first_norm(self.first(x)))
        return self.fc(F.relu(self.body(self, x)).mean((2, 3)))


BODIES = {
    "once": (lambda net, x: net.norm(net.conv(x)), 2),
    "the pair twice": (lambda net, x: net.norm(net.conv(net.norm(net.conv(x)))), 1),
    "the pair three times": (
        lambda net, x: net.norm(net.conv(net.norm(net.conv(net.norm(net.conv(x)))))),
        1,
    ),
    "the convolution twice": (lambda net, x: net.conv(net.norm(net.conv(x))), 1),
    "the batch norm twice": (lambda net, x: net.norm(F.relu(net.norm(net.conv(x)))), 1),
    "the batch norm first of something else": (lambda net, x: net.norm(net.conv(net.norm(x))), 1),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_convolution_or_batch_norm_that_is_called_twice_stays(name):
    body, folded = BODIES[name]
    network = Calls(body).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(x)
        assert fold_batch_norm(network, x) == folded
        torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)
    assert isinstance(network.norm, nn.BatchNorm2d) == (folded == 1)
