"""Toy models of every family and random inputs for them: small enough to try many masks on.

All parameters are random and large, biases and norms included: in a fresh transformers model biases
are zero, and a test could not see that one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from dsgp_lab import Anatomy, Mask

GROUPED = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
}
"""Language models with grouped queries and a gated feed-forward part."""
LAYERS, NEURONS, BLOCK = 3, 48, 8
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["warm", "funny", "dull", "film", "a", "the", "is", "not", "very", "good", "bad", "##s", "##ly"]
VOCABULARY = SPECIAL + WORDS


def toy_config(family: str, width: int = 32, heads: int = 4, **changes: Any) -> Any:
    """A small configuration of a family; `changes` are transformers' own names."""
    common = {"vocab_size": 64, "max_position_embeddings": 40}
    bert_like = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": LAYERS,
        "intermediate_size": NEURONS,
    }
    match family:
        case "bert":
            return BertConfig(**common | bert_like | changes)
        case "roberta":  # positions are counted from the padding id, 1
            return RobertaConfig(**common | bert_like | {"type_vocab_size": 2} | changes)
        case "electra":
            return ElectraConfig(**common | bert_like | {"embedding_size": width // 2} | changes)
        case "distilbert":
            names = {"dim": width, "n_heads": heads, "n_layers": LAYERS, "hidden_dim": NEURONS}
            return DistilBertConfig(**common | names | changes)
        case "gpt2":
            names = {"n_embd": width, "n_head": heads, "n_layer": LAYERS, "n_inner": NEURONS}
            tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
            sizes = {"vocab_size": 64, "n_positions": 40}
            if "max_position_embeddings" in changes:
                sizes["n_positions"] = changes.pop("max_position_embeddings")
            if "intermediate_size" in changes:
                names["n_inner"] = changes.pop("intermediate_size")
            return GPT2Config(**sizes | names | tokens | changes)
        case _ if family in GROUPED:  # two KV groups, heads of another size than width / heads
            tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
            groups = {"num_key_value_heads": heads // 2, "head_dim": 2 * width // heads}
            return GROUPED[family](**common | bert_like | groups | tokens | changes)
    raise ValueError(family)


def make_model(config: Any, num_labels: int = 3, attention: str = "sdpa", seed: int = 0) -> Any:
    """A random model of a configuration, in eval mode; the same for the same seed."""
    is_decoder = config.model_type in (*GROUPED, "gpt2")
    if not is_decoder:
        config.num_labels = num_labels
    kind = AutoModelForCausalLM if is_decoder else AutoModelForSequenceClassification
    model = kind.from_config(config, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / fan_in**0.5)
        for name, parameter in model.named_parameters():
            if ("norm" in name.lower() or "ln_" in name) and name.endswith("weight"):
                parameter.abs_().add_(0.5)
    return model


def toy_model(family: str, num_labels: int = 3, attention: str = "sdpa", seed: int = 0, **config: Any) -> Any:
    """A random toy model of a family."""
    return make_model(toy_config(family, **config), num_labels, attention, seed)


def random_order(seed: int = 0, layers: int = LAYERS, neurons: int = NEURONS) -> Tensor:
    """A neuron order [layers, neurons] unlike the model's own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(neurons, generator=generator) for _ in range(layers)])


def toy_anatomy(model: Any, block_size: int = BLOCK) -> Anatomy:
    """An anatomy with several blocks a layer, neurons shuffled."""
    anatomy = Anatomy.of(model, block_size)
    return Anatomy.of(model, block_size, random_order(7, anatomy.num_layers, anatomy.num_neurons))


def toy_inputs(
    model: Any, lengths: Sequence[int], seed: int = 0, extra: int = 0, left: bool = False, pair: bool = True
) -> dict[str, Tensor]:
    """Random inputs of these lengths, padded on the right (or left) to the longest, and by `extra` columns.

    With `pair`, the second half of each input is of token type 1, where the family has token types.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + extra
    ids = torch.full((len(lengths), width), config.pad_token_id)
    real, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if left else slice(0, length)
        ids[row, place] = torch.randint(4, config.vocab_size, (length,), generator=generator)
        real[row, place] = 1
        types[row, place] = (torch.arange(length) >= (length + 1) // 2).long() * pair
    inputs = {"input_ids": ids, "attention_mask": real}
    has_types = config.model_type in ("bert", "roberta", "electra")
    return inputs | {"token_type_ids": types} if has_types else inputs


def one(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One input of a batch, alone and without padding."""
    real = inputs["attention_mask"][row].bool()
    return {name: values[row : row + 1, real] for name, values in inputs.items()}


def random_mask(anatomy: Anatomy, batch: int = 1, keep: float = 0.5, seed: int = 0) -> Mask:
    """Random masks, each unit kept with this chance."""
    generator = torch.Generator().manual_seed(seed)
    layers = (batch, anatomy.num_layers)
    heads = torch.rand(*layers, anatomy.num_heads, generator=generator) < keep
    return Mask(heads, torch.rand(*layers, anatomy.num_blocks, generator=generator) < keep)


def odd_masks(anatomy: Anatomy) -> dict[str, Mask]:
    """Masks of one input at the edges: everything, nothing, layers with no head, no block, or neither."""
    full, last = Mask.full(anatomy), anatomy.num_layers - 1

    def without(heads: list[int], blocks: list[int]) -> Mask:
        kept = random_mask(anatomy, keep=0.7, seed=3)
        kept.heads[:, heads], kept.blocks[:, blocks] = False, False
        return kept

    first_head_gone = Mask(full.heads.clone(), full.blocks)
    first_head_gone.heads[0, 0, 0] = False
    return {
        "full": full,
        "empty": ~full,
        "no heads": without(list(range(last + 1)), []),
        "no blocks": without([], list(range(last + 1))),
        "first layer empty": without([0], [0]),
        "middle layer empty": without([1], [1]),
        "last layer empty": without([last], [last]),
        "first head gone": first_head_gone,
        "random": random_mask(anatomy, seed=5),
    }


def hook_count(model: Any) -> int:
    """Forward hooks and pre-hooks on all modules of a model."""
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def count_macs(run: Callable[[], object]) -> float:
    """MACs of the matrix products of a run, forward and backward, by torch's counter (a MAC is two FLOPs).

    The counter has no entry for the fused CPU attention kernel, nor for addmm_ in place: the first is
    avoided (the plain kernel computes the same products), the second is given its formula.
    """

    def in_place(_: Any, left: Sequence[int], right: Sequence[int], **_rest: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops() / 2


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of a dozen words, for single texts and pairs."""
    numbers = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def save_toy_language_model(folder: Path, family: str = "llama", **config: Any) -> str:
    """A toy language model and its tokenizer in a folder, as a user would have them."""
    toy_model(family, seed=1, max_position_embeddings=512, **config).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return str(folder)


def save_toy(folder: Path, num_labels: int = 2, family: str = "bert") -> str:
    """A toy classifier and its tokenizer in a folder, as a user would have them."""
    model = toy_model(family, num_labels, seed=1)
    model.config.id2label = {i: f"class {i}" for i in range(num_labels)}
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return str(folder)
