"""The originals of benchmarks/coreml_reference.py in PyTorch: runs by itself, in an environment of its own.

    python coreml_torch.py convert encoder 1024 folder
    python coreml_torch.py time encoder 1024 folder 5

``convert`` writes ``model.mlpackage``, ``inputs.npz`` and what torch makes of them, ``outputs.npz``; ``time``
prints the milliseconds of predictions. The weights are random and the same each time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

THREADS = 2
_SEED = 20
_HEAD = 32


class Block(nn.Module):
    """Mixes places by a depthwise convolution or by attention, then channels.

    :param width: channels
    :param attends: whether places are mixed by attention
    """

    def __init__(self, width: int, *, attends: bool) -> None:
        super().__init__()
        self.mixer = Attention(width) if attends else nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.expand, self.contract = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Batch x width x rows x columns."""
        x = self.mixer(x)
        return x + self.scale * self.contract(functional.gelu(self.expand(self.spread(x))))


class Attention(nn.Module):
    """Attention between all places, after a normalisation over channels that is written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(width, 1, 1))
        self.together, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Batch x width x rows x columns."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        normal = self.gamma * ((x - mean) / torch.sqrt(variance + 1e-5)) + self.beta
        batch, width, rows, columns = x.shape
        places = normal.flatten(2).transpose(1, 2)
        heads = self.together(places).reshape(batch, rows * columns, 3, width // _HEAD, _HEAD)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        shares = ((query * _HEAD**-0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
        mixed = self.project((shares @ value).transpose(1, 2).reshape(batch, rows * columns, width))
        return x + self.scale * mixed.transpose(1, 2).reshape(batch, width, rows, columns)


class Encoder(nn.Module):
    """An image encoder of the size and the operations of FastViTHD, as it is when training is done."""

    depths, widths, attention_from = (2, 12, 24, 4, 2), (96, 192, 384, 768, 1536), 3

    def __init__(self) -> None:
        super().__init__()
        first = self.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(first, first, 3, 2, 1, groups=first),
            nn.GELU(),
            nn.Conv2d(first, first, 1),
            nn.GELU(),
        )
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            attends = stage >= self.attention_from
            if stage:
                stages += self._halved(self.widths[stage - 1], width)
            if attends:
                stages.append(nn.Conv2d(width, width, 7, padding=3, groups=width))  # tells where a place is
            stages += [Block(width, attends=attends) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        last = self.widths[-1]
        self.expand = nn.Conv2d(last, 2 * last, 3, padding=1, groups=last)
        self.squeeze, self.excite = nn.Conv2d(2 * last, last // 8, 1), nn.Conv2d(last // 8, 2 * last, 1)

    @staticmethod
    def _halved(before: int, width: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, width, 7, 2, 3, groups=before),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Batch x 3 x size x size, to batch x places x 3072."""
        x = self.expand(self.stages(self.stem(images)))
        pooled = functional.avg_pool2d(x, x.shape[-2:])
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))
        return functional.gelu(x * gate).flatten(2).transpose(1, 2)


class Decoder(nn.Module):
    """A text transformer: rotary causal attention and gated feed-forward layers."""

    vocabulary, width, heads, depth = 8192, 512, 8, 6

    def __init__(self, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.vocabulary, self.width)
        self.attention = nn.ModuleList(nn.Linear(self.width, 3 * self.width) for _ in range(self.depth))
        self.project = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(self.depth))
        self.gate = nn.ModuleList(nn.Linear(self.width, 4 * self.width) for _ in range(self.depth))
        self.up = nn.ModuleList(nn.Linear(self.width, 4 * self.width) for _ in range(self.depth))
        self.down = nn.ModuleList(nn.Linear(4 * self.width, self.width) for _ in range(self.depth))
        self.head = nn.Linear(self.width, self.vocabulary, bias=False)
        half = self.width // self.heads // 2
        angles = torch.outer(torch.arange(length).float(), 10_000.0 ** (-torch.arange(half) / half))
        self.register_buffer("angles", torch.cat([angles, angles], dim=-1))
        self.register_buffer("mask", torch.full((length, length), -1e4).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch x length, to batch x length x vocabulary."""
        x = self.embedding(tokens)
        batch, length, width = x.shape
        for attend, project, gate, up, down in zip(
            self.attention, self.project, self.gate, self.up, self.down, strict=True
        ):
            parts = attend(_normal(x)).reshape(batch, length, 3, self.heads, width // self.heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
            scores = self._turned(query) @ self._turned(key).transpose(-2, -1) * (width // self.heads) ** -0.5
            mixed = (scores + self.mask).softmax(dim=-1) @ value
            x = x + project(mixed.transpose(1, 2).reshape(batch, length, width))
            normal = _normal(x)
            x = x + down(functional.silu(gate(normal)) * up(normal))
        return self.head(_normal(x))

    def _turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * torch.cos(self.angles) + torch.cat([-second, first], dim=-1) * torch.sin(self.angles)


def _normal(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def make(name: str, size: int) -> tuple[nn.Module, Tensor]:
    """A model and what it is given.

    :param name: ``encoder`` or ``decoder``
    :param size: of the image's edge, or of the text
    """
    torch.manual_seed(_SEED)
    torch.set_num_threads(THREADS)
    if name == "encoder":
        return Encoder().eval(), torch.rand(1, 3, size, size)
    return Decoder(size).eval(), torch.randint(0, Decoder.vocabulary, (1, size), dtype=torch.int32)


def convert(name: str, size: int, folder: Path) -> None:
    """Write the package, the inputs, and torch's outputs."""
    import coremltools

    model, given = make(name, size)
    with torch.inference_mode():
        outputs = model(given).numpy()
    np.savez(folder / "outputs.npz", outputs=outputs)
    exported = torch.export.export(model, (given,)).run_decompositions({})
    package = coremltools.convert(
        exported,
        inputs=[coremltools.TensorType(name="given", shape=given.shape, dtype=given.numpy().dtype)],
        outputs=[coremltools.TensorType(name="outputs")],
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )
    np.savez(folder / "inputs.npz", given=given.numpy())
    package.save(str(folder / "model.mlpackage"))


def take_time(name: str, size: int, iterations: int) -> list[float]:
    """Milliseconds of predictions, after one that is not counted."""
    model, given = make(name, size)
    taken = []
    with torch.inference_mode():
        model(given)
        for _ in range(iterations):
            started = time.perf_counter()
            model(given)
            taken.append((time.perf_counter() - started) * 1000)
    return taken


if __name__ == "__main__":
    what, name, size, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    if what == "convert":
        convert(name, size, folder)
    else:
        print(json.dumps(take_time(name, size, int(sys.argv[5]))))
