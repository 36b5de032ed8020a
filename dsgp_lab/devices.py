"""Where a model runs and in which numbers: names checked before anything is loaded."""

from __future__ import annotations

import time

import torch

from dsgp_lab.errors import LabError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def check_device(device: str | torch.device) -> torch.device:
    """A device that is here, or a LabError.

    >>> check_device("cpu")
    device(type='cpu')
    """
    allowed = "cpu, cuda" if torch.cuda.is_available() else "cpu (no GPU here)"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise LabError(got=f"device={device!r}", allowed=allowed, hint='write device="cpu"') from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise LabError(
            got=f"device={str(device)!r}, and this torch sees {count or 'no'} GPU{'s' * (count > 1)}",
            allowed=allowed,
            hint='write device="cpu", or install torch with CUDA on a machine with an NVIDIA GPU',
        )
    if found.type not in ("cpu", "cuda"):
        raise LabError(got=f"device={str(device)!r}", allowed=allowed, hint='write device="cpu"')
    return found


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return check_device(name)


def check_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Float32 or bfloat16, by name or as torch's own, or a LabError.

    >>> check_dtype("bfloat16")
    torch.bfloat16
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise LabError(got=f"dtype={dtype!r}", allowed=", ".join(DTYPES), hint="leave it out for float32")
    return found


def now(device: torch.device) -> float:
    """Seconds of a steady clock, once a device has done all that it was given.

    >>> now(torch.device("cpu")) <= now(torch.device("cpu"))
    True
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
