"""RoLSS for your own model: no skips in the last stage, the rest as ever. Run: python examples/rolss_ten_lines.py"""

import torch

from lightleak.surgery import find_skips, remove_skips

import torchvision  # isort: skip  (after lightleak, which lets it import beside a CPU-only torch)

model = torchvision.models.resnet18(num_classes=10)  # or any other model of torchvision, timm or yours
print(f"{len(find_skips(model))} skips, the last of them {find_skips(model)[-1].name}")
model = remove_skips(model, "last")  # a new model of the same class with the same parameter names

optimizer = torch.optim.Adam(model.parameters(), 1e-3)
images, labels = torch.rand(8, 3, 224, 224), torch.randint(10, (8,))
loss = torch.nn.functional.cross_entropy(model(images), labels)
loss.backward()
optimizer.step()
print(f"one training step done, loss {loss.item():.2f}; every parameter has a gradient")
