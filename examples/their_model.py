"""A network that nobody trained with Lightleak: plain PyTorch, pictures in folders. `make audit` audits it.

    python examples/their_model.py runs/their-model

paints twelve people (and sixty strangers) into folders of PNG files, trains a small network on some of the pictures of
the twelve, and leaves what anybody has after training: weights.pt, names.txt and the list of the pictures used. Only
the painting is Lightleak's; with photographs of your own, leave it out.
"""

import random
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn

SIDE, PEOPLE, PICTURES, TRAINED_ON = 48, 12, 40, 16


class Residual(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Net(nn.Module):
    """A small residual network; its images are normalised by 0.5 and 0.5, which it says nowhere."""

    input_size = (3, SIDE, SIDE)

    def __init__(self, classes: int = PEOPLE, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, 2, 2), nn.ReLU(), Residual(width)]
        for _ in range(2):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(), Residual(2 * width)]
            width *= 2
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.head = nn.Linear(9 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def make_model() -> nn.Module:
    """What `lightleak audit --model examples/their_model.py:make_model` calls."""
    return Net()


def paint(folder: Path) -> None:
    """people/NAME/*.png and strangers/NAME/*.png: painted faces, nobody's."""
    from lightleak.data import faces

    world = faces.population(
        people=PEOPLE, images=PICTURES, size=SIDE, strength=0.7, noise=0.03, public_people=60, public_images=6,
        validation_images=1, test_images=1, judge_images=1, seed=3,
    )  # fmt: skip
    for kind, images in (("people", world.train), ("strangers", world.public)):
        for number, (picture, label) in enumerate(zip(images.pixels, images.labels.tolist())):
            place = folder / kind / f"{kind[:-1] if kind != 'people' else 'person'}-{label:02d}" / f"{number:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place)


def picture(file: Path) -> torch.Tensor:
    """3 x SIDE x SIDE in [-1, 1]."""
    image = Image.open(file).convert("RGB").resize((SIDE, SIDE))
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3).permute(2, 0, 1) / 127.5 - 1
    )


def main(folder: Path) -> None:
    """Pictures, training, and what is left of it."""
    torch.manual_seed(0)
    random.seed(0)
    if not (folder / "people").exists():
        paint(folder)
    people = sorted(place for place in (folder / "people").iterdir() if place.is_dir())
    files = [(file, label) for label, place in enumerate(people) for file in sorted(place.iterdir())[:TRAINED_ON]]
    images, labels = torch.stack([picture(file) for file, _ in files]), torch.tensor([label for _, label in files])
    net = Net(len(people)).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-3)
    for epoch in range(15):
        right = 0
        for index in torch.randperm(len(files)).split(32):
            batch = torch.where(torch.rand(len(index), 1, 1, 1) < 0.5, images[index], images[index].flip(3))
            loss = nn.functional.cross_entropy(logits := net(batch), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            right += int((logits.argmax(1) == labels[index]).sum())
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: {right} of {len(files)} training pictures right")
    torch.save({"model": net.state_dict(), "epoch": 15}, folder / "weights.pt")
    (folder / "names.txt").write_text("".join(f"{place.name}\n" for place in people))
    (folder / "trained-on.txt").write_text("".join(f"{file.relative_to(folder / 'people')}\n" for file, _ in files))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/their-model"))
