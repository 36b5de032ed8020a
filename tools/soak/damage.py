"""One changed byte in every shipped file, and whether anything notices."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure

from dsgp_lab.checksums import NAME, differing
from dsgp_lab.tasks import data_folder


def flip(path: Path, chance: random.Random) -> None:
    """Change one byte of a file, anywhere."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def damaged_bytes(seed: int = 0, only: str = "**/*") -> Figure:
    """Flip a random bit in a copy of every file in data/, one file after the other."""
    chance, noticed, missed = random.Random(seed), 0, list[str]()
    with TemporaryDirectory() as home:
        copy = Path(home) / "data"
        shutil.copytree(data_folder(), copy)
        files = sorted(path for path in copy.glob(only) if path.is_file())
        for path in files:
            content = path.read_bytes()
            flip(path, chance)
            if differing(copy, None if path.name == NAME else [path]):
                noticed += 1
            else:
                missed.append(str(path.relative_to(copy)))
            path.write_bytes(content)
        false_alarms = differing(copy)
    kinds = len({path.suffix if path.suffix != ".json" else path.name for path in files})
    found = f"{noticed} of {len(files)} files, of {kinds} kinds; {len(false_alarms)} false alarms"
    found += f"; missed: {', '.join(missed)}" if missed else ""
    return Figure("a corrupted byte in a shipped file", found, "all noticed", not missed and not false_alarms)
