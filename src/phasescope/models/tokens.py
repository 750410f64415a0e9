"""Networks that read a pair of tokens: a perceptron on embeddings, and transformers of one and two blocks.

Tokens come one-hot, so that an embedding is a linear layer, whose weight is the table of embeddings. ``embed`` ends in
what the first layer after it reads, and every nonlinearity is a module.
"""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from phasescope.params.models import ModelName, ModelSettings


class Architecture(NamedTuple):
    """What transformers differ in."""

    #: The operands a and b, and what the network adds to them; the answer is read off the last one.
    sequence: str
    blocks: int
    heads: int
    head: int  #: units of a head; all heads are as wide as the stream, the hidden layer of a block four times that
    activation: type[nn.Module]
    #: LayerNorm before attention, before each perceptron, and at the end (Xiong et al. 2020).
    normalised: bool
    #: Whether attention and the last layer have biases; perceptrons do.
    bias: bool
    #: Multiply embeddings by the root of the width (Vaswani et al. 2017, section 3.4). They begin as N(0, 1) then, as
    #: PyTorch's nn.Embedding, and as N(0, 1/width) otherwise; so do the positions.
    scaled: bool
    #: Of embeddings, of the weights and the output of attention, of the hidden layer and the output of perceptrons.
    dropout: float


TRANSFORMERS: dict[ModelName, Architecture] = {
    # After Nanda et al. (2023), who have no LayerNorm either.
    "transformer-1": Architecture("ab=", 1, 4, 16, nn.ReLU, normalised=False, bias=False, scaled=False, dropout=0.0),
    # "A Two-Phase Perspective on Deep Learning Dynamics" (2504.12700); what it does not say is as the public code
    # `Sea-Snell/grokking` has it by default. With AdamW on the paper's task it has test accuracies of 0.52, 0.69, 0.71,
    # 0.72 and 0.74 at steps 200, 400, … 1000 (one seed); the paper's figure shows 0.43, 0.58, 0.70, 0.73 and 0.71.
    "transformer-2": Architecture("aob=", 2, 4, 32, nn.GELU, normalised=True, bias=True, scaled=True, dropout=0.1),
}


def parts(settings: ModelSettings, channels: int, classes: int) -> OrderedDict[str, nn.Module]:
    """The named parts of a network from pairs of tokens, images (batch, channels, 1, 1), to logits (batch, classes).

    `embedding-mlp`: the embeddings of both tokens side by side, and two hidden layers of ReLU.

    Raises:
        ValueError: the channels are no pair of tokens, each with as many values as there are classes.
    """
    if channels != 2 * classes:
        raise ValueError(f"{settings.name} reads two one-hot tokens of {classes} values each, not {channels} channels")
    if settings.name in TRANSFORMERS:
        return _transformer(TRANSFORMERS[settings.name], settings, classes)
    return _embedding_mlp(settings, classes)


class Tokens(nn.Module):
    """One-hot tokens in the order of a sequence, whose own tokens follow the operands in the vocabulary.

    Takes (batch, 2 · vocabulary, 1, 1) to (batch, position, vocabulary + own tokens).
    """

    def __init__(self, sequence: str, vocabulary: int):
        super().__init__()
        own = [token for token in sequence if token not in "ab"]
        self.vocabulary, self.own = vocabulary, len(own)
        self.order = [["a", "b", *own].index(token) for token in sequence]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 2 · vocabulary, 1, 1) → (batch, position, vocabulary + own tokens)."""
        operands = functional.pad(images.flatten(1).unflatten(1, (2, self.vocabulary)), (0, self.own))
        own = torch.eye(self.own, dtype=images.dtype, device=images.device)
        own = functional.pad(own, (self.vocabulary, 0)).expand(len(images), -1, -1)
        return torch.stack([torch.cat((operands, own), dim=1)[:, place] for place in self.order], dim=1)


class Positions(nn.Module):
    """A learned vector for each position, added to `scale` times the tokens (batch, position, width)."""

    def __init__(self, positions: int, width: int, scale: float, std: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(positions, width), std=std))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, position, width) → the same."""
        return self.scale * tokens + self.weight


class Attention(nn.Module):
    """Causal self-attention of several heads (Vaswani et al. 2017): each position reads itself and those before it."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, position, width) → the same."""
        query, key, value = (
            part(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        # Of torch's kernels this one alone has all derivatives, for each sample (vmap) and forward ones too.
        with sdpa_kernel(SDPBackend.MATH):
            read = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(read.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each of which adds to the stream (batch, position, width)."""

    def __init__(self, width: int, about: Architecture):
        super().__init__()
        self.norm1 = nn.LayerNorm(width) if about.normalised else nn.Identity()
        self.attention = Attention(width, about.heads, about.bias, about.dropout)
        self.dropout1 = nn.Dropout(about.dropout)
        self.norm2 = nn.LayerNorm(width) if about.normalised else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), about.activation(), nn.Dropout(about.dropout), nn.Linear(4 * width, width)
        )
        self.dropout2 = nn.Dropout(about.dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, position, width) → the same."""
        tokens = tokens + self.dropout1(self.attention(self.norm1(tokens)))
        return tokens + self.dropout2(self.mlp(self.norm2(tokens)))


class LastPosition(nn.Module):
    """What stands at the last position: (batch, position, width) → (batch, width)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, position, width) → (batch, width)."""
        return tokens[:, -1]


def _embedding_mlp(settings: ModelSettings, classes: int) -> OrderedDict[str, nn.Module]:
    width, hidden = settings.scaled(64), settings.scaled(128)
    tokens = Tokens("ab", classes)
    embed = nn.Sequential(OrderedDict(tokens=tokens, table=_table(tokens, width, width**-0.5), flatten=nn.Flatten()))
    blocks = nn.Sequential(
        nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU()),
        nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU()),
    )
    return OrderedDict(embed=embed, blocks=blocks, flatten=nn.Flatten(), head=nn.Linear(hidden, classes, bias=False))


def _transformer(about: Architecture, settings: ModelSettings, classes: int) -> OrderedDict[str, nn.Module]:
    width = about.heads * settings.scaled(about.head)
    std = 1.0 if about.scaled else width**-0.5
    tokens = Tokens(about.sequence, classes)
    embed = OrderedDict(
        tokens=tokens,
        table=_table(tokens, width, std),
        positions=Positions(len(about.sequence), width, math.sqrt(width) if about.scaled else 1.0, std),
        dropout=nn.Dropout(about.dropout),
    )
    blocks = nn.Sequential(*(TransformerBlock(width, about) for _ in range(about.blocks)))
    found = OrderedDict[str, nn.Module](embed=nn.Sequential(embed), blocks=blocks)
    if about.normalised:
        found["norm"] = nn.LayerNorm(width)
    found["flatten"] = LastPosition()
    found["head"] = nn.Linear(width, classes, about.bias)
    return found


def _table(tokens: Tokens, width: int, std: float) -> nn.Linear:
    """Embeddings of all tokens, drawn from N(0, std²)."""
    table = nn.Linear(tokens.vocabulary + tokens.own, width, bias=False)
    nn.init.normal_(table.weight, std=std)
    return table
