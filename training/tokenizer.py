"""The base's tokenizer: CLIP's byte-level pair encoding, merges learned on captions and made-up names."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from taxadiffusion.names import RANKS
from taxadiffusion.simulate.captions import VOCABULARY
from taxadiffusion.simulate.latin import LatinNamer
from training.captions import LEVELS, PALETTE

NUM_TOKENS = 48
OFTEN = 2000
"""How often a word is shown to the learner that is to become one token."""
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def words(num_names: int = 4000) -> list[str]:
    """Caption words, often enough to become one token each, ranks, and Latin-like names that belong to no taxon."""
    caption_words = {*VOCABULARY, *PALETTE, *(word for level in LEVELS.values() for word in level)}
    caption_words |= {"layout", "any", "light", "contrast", "marks", "bars", "stripes", "fish", "over", "none", *RANKS}
    namer = LatinNamer(np.random.default_rng(0))
    names = [f"{namer.genus(namer.stem())} {namer.epithet()}".lower() for _ in range(num_names)]
    return sorted(caption_words) * OFTEN + names


def tokenizer(vocabulary_size: int = 1536, more: Sequence[str] = ()) -> CLIPTokenizer:
    """Every string encodes without loss: all 256 bytes are tokens, within a word and at its end.

    more: further words that are to become one token each.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size - 460, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator([*words(), *more * OFTEN], trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [_BOS, _EOS, *alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=NUM_TOKENS)
