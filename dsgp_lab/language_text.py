"""From prompts to token ids, and the tokens that end an answer."""

from __future__ import annotations

from typing import Any

from dsgp_lab.errors import LabError


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer's model was tuned to answer."""
    return bool(getattr(tokenizer, "chat_template", None))


def prompt_ids(tokenizer: Any, prompt: str, chat: bool | None, name: str) -> list[int]:
    """Token ids of a prompt.

    `chat` puts it into the chat template as a user's message; by default where there is one. Raises LabError
    for a prompt without a word, and for chat=True where model `name` has no template.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise LabError(
            got=f"prompt {prompt!r:.60}",
            allowed="a text with at least one word",
            hint="pass text in quotes",
        )
    is_chat = has_chat_template(tokenizer)
    if chat and not is_chat:
        raise LabError(
            got=f"chat=True for {name!r}, which has no chat template",
            allowed="chat=False: the prompt is continued as it stands",
            hint="leave chat out",
        )
    if chat or (chat is None and is_chat):
        message = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: those of the generation configuration and the tokenizer's own."""
    found: set[int] = set()
    for given in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ):
        found |= {given} if isinstance(given, int) else set(given or ())
    return frozenset(found)
