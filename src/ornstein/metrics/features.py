"""A classifier trained on the real data: the classes of samples, and features to compare by.

Pixels are a poor measure for images: a digit moved by one pixel is far from itself. A network that has learned to name
the classes has had to put similar things together, and the activations before its last layer are a space in which
Fréchet and kernel distances and nearest neighbours mean something. For photographs the field uses a network trained on
ImageNet; for any other data the natural choice is one trained on *those* data.

The same network answers the first question about a class-conditional model: asked for a 3, does it draw a 3? Read the
share of samples to which the classifier gives their label (`class_agreement`) beside the classifier's own accuracy on
held-out real data. (A model that draws only the most typical examples can score above it.)

The features were learned from the training data, which also set the floor of feature distances. The shifts and the
noise in training keep that harmless: on MNIST, with 1,500 or 5,000 training images, seen and unseen data score the
same.

Images, (C, H, W), get a small convolutional network trained with small shifts and noise; anything else is flattened
into a small multilayer perceptron, trained with noise. Both standardise their input with the statistics of the
training data, so any units work, and both are the same, bit for bit, for the same generator state on one machine.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.optimisers import eager


@final
class Classifier:
    """A trained classifier: `predict`, `features`, `accuracy`. Made by `fit_classifier`.

    Takes x of shape (N, *shape), in the units that it was trained in; works in batches, without gradients.
    """

    def __init__(self, body: nn.Module, head: nn.Module, mean: Tensor, std: Tensor, shape: tuple[int, ...]):
        self.body, self.head, self.mean, self.std, self.shape = body.eval(), head.eval(), mean, std, shape

    def features(self, x: Tensor) -> Tensor:
        """The activations before the last layer, shape (N, width), float32, to compare samples and data by."""
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x has points of shape {tuple(x.shape[1:])}; the classifier was trained on {self.shape}.")
        with torch.no_grad():
            return torch.cat([self.body((part.to(self.mean) - self.mean) / self.std) for part in x.split(1024)])

    def logits(self, x: Tensor) -> Tensor:
        """Unnormalised log-probabilities, shape (N, classes)."""
        with torch.no_grad():
            scores: Tensor = self.head(self.features(x))
        return scores

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class of each point, shape (N,), integers from 0."""
        return self.logits(x).argmax(dim=1)

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """The share of points that are given their label, between 0 and 1; labels (N,) are integers from 0."""
        return float((self.predict(x) == class_labels(x, labels).to(self.mean.device)).double().mean())


def class_agreement(classifier: Classifier, samples: Tensor, labels: Tensor) -> float:
    """The share of conditional samples (N, *shape) that the classifier gives the label (N,) they were asked for."""
    return classifier.accuracy(samples, labels)


def fit_classifier(
    x: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    steps: int = 1000,
    batch: int = 64,
    width: int = 64,
    learning_rate: float = 5e-3,
    noise: float = 0.2,
) -> Classifier:
    """Train a small classifier on real data, deterministically given the generator's state.

    x: (N, C, H, W) images, or (N, *shape) of anything else, floats in any units; labels: (N,), integers from 0.
    `width` is the number of features. `noise`, in standard deviations of the data, and for images shifts of up to one
    pixel in 14 (at least one pixel), are drawn afresh in each step, so that small sets are not learned by heart. The
    network lives on the device of x.

    Raises `InputError` for labels that are not integers from 0, one for each point, of at least two classes.
    """
    labels = class_labels(x, labels).to(x.device)
    classes = int(labels.max()) + 1
    if classes < 2:
        raise InputError("labels has one class only; a classifier needs at least two.")
    x = x.detach().float()
    if not x.isfinite().all():
        raise InputError("x has NaN or infinity; a classifier takes finite values.")
    image = x.ndim == 4
    over = (0, 2, 3) if image else (0,)
    mean, std = x.mean(dim=over, keepdim=True), x.std(dim=over, keepdim=True)
    std = torch.where(std > 0, std, torch.ones_like(std))

    body = convolutional(tuple(x.shape[1:]), width) if image else perceptron(x[0].numel(), width)
    head = nn.Linear(width, classes, device="meta")
    parameters = []
    for module in (body, head):
        initialise(module.to_empty(device=x.device), generator)
        parameters += list(module.parameters())

    optimiser = eager(torch.optim.AdamW)(parameters, lr=learning_rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1)
    body.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch:  # epochs without replacement, joined end to end
            order = torch.cat([order, torch.randperm(len(x), generator=generator, device=generator.device).cpu()])
        rows, order = order[:batch].to(x.device), order[batch:]
        drawn = (x[rows] - mean) / std
        if image:
            drawn = shifted(drawn, max(1, max(x.shape[2:]) // 14), generator)
        drawn = drawn + noise * torch.randn(drawn.shape, generator=generator, device=generator.device).to(drawn)
        loss = F.cross_entropy(head(body(drawn)), labels[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return Classifier(body, head, mean, std, tuple(x.shape[1:]))


def class_labels(x: Tensor, labels: Tensor) -> Tensor:
    """`labels` as int64, or an `InputError` if they are not integers from 0, one for each point of x."""
    if labels.shape != (len(x),) or len(x) == 0:
        raise InputError(
            f"labels has shape {tuple(labels.shape)}; {len(x)} points take one label each, shape ({len(x)},)."
        )
    if labels.is_floating_point() or labels.is_complex() or int(labels.min()) < 0:
        raise InputError(f"labels has dtype {labels.dtype} and minimum {labels.min()}; classes are integers from 0.")
    return labels.long()


def convolutional(shape: tuple[int, ...], width: int) -> nn.Module:
    """(B, C, H, W), shape = (C, H, W), to (B, width): three convolutions that end at about 4 x 4, whatever the size."""
    channels, *sides = shape
    longest = max(sides)
    layers: list[nn.Module] = []
    for out, stride in ((24, 2 if longest > 16 else 1), (48, 2), (96, 2 if longest > 8 else 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, padding=1, bias=False, device="meta")]
        layers += [nn.BatchNorm2d(out, device="meta"), nn.ReLU()]
        channels, sides = out, [(side - 1) // stride + 1 for side in sides]
    if max(sides) > 4:
        layers += [nn.AdaptiveAvgPool2d(4)]
        sides = [4, 4]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], width, device="meta"), nn.ReLU()
    )


def perceptron(dimensions: int, width: int) -> nn.Module:
    """(B, *shape) with `dimensions` entries a point to (B, width): two hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(dimensions, 2 * width, device="meta"),
        nn.ReLU(),
        nn.Linear(2 * width, width, device="meta"),
        nn.ReLU(),
    )


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """He's initialisation from the generator alone: torch's own draws from the global state."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif isinstance(part, nn.Conv2d | nn.Linear):
            drawn = torch.randn(part.weight.shape, generator=generator, device=generator.device)
            with torch.no_grad():
                part.weight.copy_(drawn * (2 / part.weight[0].numel()) ** 0.5)
                if part.bias is not None:
                    part.bias.zero_()


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image of x (B, C, H, W) moved by up to `most` pixels in each direction, its border repeated."""
    moves = torch.randint(-most, most + 1, (2, len(x), 1), generator=generator, device=generator.device).to(x.device)
    rows = (torch.arange(x.shape[2], device=x.device) + moves[0]).clamp(0, x.shape[2] - 1)
    columns = (torch.arange(x.shape[3], device=x.device) + moves[1]).clamp(0, x.shape[3] - 1)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
