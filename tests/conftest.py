"""What all tests share: one thread (figures are small, the machine may be busy) and repeatable chance."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from toys import save_toy

from dsgp_lab import Lab

torch.set_num_threads(1)
hypothesis.settings.register_profile("lab", max_examples=30, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("lab")


@pytest.fixture(scope="session")
def sst2() -> Lab:
    """The embedded model, loaded once. Tests do not change it."""
    return Lab("sst2")


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A foreign two-class toy checkpoint with its tokenizer, as save_pretrained writes it. Read only."""
    return save_toy(tmp_path_factory.mktemp("toy"), num_labels=2)


@pytest.fixture(scope="session")
def toy_lab(toy_folder: str) -> Lab:
    """A lab on that checkpoint."""
    return Lab.from_pretrained(toy_folder, block_size=16)
