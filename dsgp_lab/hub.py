"""Access to the Hugging Face hub that fails within seconds where there is no network."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 5.0  # seconds


@contextmanager
def hub_access() -> Iterator[bool]:
    """Within this block hub libraries use the network if the hub answers, else what they have in their cache.

    Left to themselves they try again for up to a minute. ``datasets`` obeys if it was imported before. Gives
    whether the hub answers. Limits: the switch is the libraries' own and serves all threads.
    """
    from huggingface_hub import constants

    configs = [constants, *(module.config for module in [sys.modules.get("datasets")] if module)]
    before = [config.HF_HUB_OFFLINE for config in configs]
    answers = not before[0] and _answers(constants.ENDPOINT)
    try:
        for config in configs:
            config.HF_HUB_OFFLINE = not answers
        yield answers
    finally:
        for config, offline in zip(configs, before, strict=True):
            config.HF_HUB_OFFLINE = offline


def _answers(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "dsgp-lab"})
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True  # a refusal is an answer
    except (OSError, ValueError):
        return False
