"""Captions as they are trained on: from the slots of a pack to token ids, some phrases left unsaid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.networks import Tokens
from training.packs import Slots

# B batch, S slots of a caption

PHRASES = ("subject", "facing", "marks", "surround", "light", "contrast", "detail")
"""Kinds 0 … 6 of caption slots, in the order of `training.captions.phrases`."""
LAYOUT, LOOK, NUM_WORDS, ALONE, EMPTY = 7, 8, 4, 15, 255
"""Further kinds: the colour layout, the first of four visual words, a caption of its own, nothing."""
NUM_SLOTS = 46

KEPT = {"subject": 0.85, "phrase": 0.65, "layout": 0.45, "alone": 0.8}
"""The chance of each to be said."""
NULL_SHARE = 0.1
"""Captions that say nothing."""


class CaptionTokens:
    """Token ids (B, S + 2): phrases dropped at random, visual words cut to a prefix, layout cells hidden.

    A model that meets partial descriptions learns the distribution of what was left unsaid.
    """

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self.tokens, self.device = tokens, device
        self.chance = torch.zeros(256, device=device)
        self.chance[0], self.chance[1 : len(PHRASES)] = KEPT["subject"], KEPT["phrase"]
        self.chance[LAYOUT] = KEPT["layout"]

    def __call__(self, slots: Slots, rows: Tensor, flips: Tensor) -> Tensor:
        """Of the pictures `rows` (B,), mirrored where `flips` (B,) is 1."""
        tokens, kinds = slots.tokens[rows, flips], slots.kinds[rows, flips]
        tokens = self._with_hidden_cells(tokens, kinds)
        said = self._said(kinds)
        return self._joined(tokens, said & ~self._rand(len(rows), 1).lt(NULL_SHARE))

    def whole(self, slots: Slots, rows: Tensor) -> Tensor:
        """All that can be said of pictures that are not mirrored; of simulated ones their own caption alone."""
        tokens, kinds = slots.tokens[rows, 0], slots.kinds[rows, 0]
        alone = (kinds == ALONE).any(1, keepdim=True)
        return self._joined(tokens, torch.where(alone, kinds == ALONE, kinds != EMPTY))

    def null(self, number: int) -> Tensor:
        empty = torch.zeros(number, NUM_SLOTS, dtype=torch.long, device=self.device)
        return self._joined(empty, empty.bool())

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device)

    def _said(self, kinds: Tensor) -> Tensor:
        number = len(kinds)
        kept = self._rand(number, 256) < self.chance
        depth = torch.randint(0, NUM_WORDS + 2, (number, 1), device=self.device)  # all words twice as often as fewer
        kept[:, LOOK : LOOK + NUM_WORDS] = depth > torch.arange(NUM_WORDS, device=self.device)
        told = self._rand(number, 1) < KEPT["alone"]
        only = (kinds == ALONE).any(1, keepdim=True) & told
        kept = torch.where(only, torch.arange(256, device=self.device) == ALONE, kept)
        return kept.gather(1, kinds) & (kinds != EMPTY)

    def _with_hidden_cells(self, tokens: Tensor, kinds: Tensor) -> Tensor:
        """In half of the captions up to 0.8 of the layout's cells are "any"."""
        number = len(tokens)
        share = self._rand(number, 1) * 0.8 * (self._rand(number, 1) < 0.5)
        cells = (kinds == LAYOUT) & (tokens != self.tokens.layout)
        return torch.where(cells & (self._rand(*tokens.shape) < share), self.tokens.any, tokens)

    def _joined(self, tokens: Tensor, said: Tensor) -> Tensor:
        """What is said, in its order, between the marks of begin and end; padded."""
        order = torch.argsort((~said).to(torch.int8), dim=1, stable=True)
        body, length = functional.pad(tokens.gather(1, order), (0, 1)), said.sum(1, keepdim=True)
        place = torch.arange(body.shape[1], device=self.device)
        body = torch.where(place < length, body, self.tokens.pad)
        body = torch.where(place == length, self.tokens.eos, body)
        return functional.pad(body, (1, 0), value=self.tokens.bos)
