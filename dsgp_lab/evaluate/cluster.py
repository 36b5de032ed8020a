"""A Dask cluster as the executor of a sweep: where the workers are is the scheduler's business.

Workers need this package, the checkpoints, and the sweep's folder under the same path. A worker that dies
loses the cell it was making and no other: the scheduler gives its work to another worker, which finds the
finished cells in the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from dsgp_lab.errors import LabError

PATIENCE = "10s"


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """An executor on the Dask scheduler at an address such as tcp://10.0.0.5:8786.

    Raises LabError where dask.distributed is not installed, nobody answers, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise LabError(
            got="--scheduler without the package distributed",
            allowed="distributed, of the extra cluster",
            hint="run pip install 'dsgp_lab[cluster]', or use --workers",
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise LabError(
            got=f"no Dask scheduler at {address!r} ({type(error).__name__})",
            allowed="the address that dask scheduler prints, such as tcp://10.0.0.5:8786",
            hint="start one with dask scheduler, and workers with dask worker ADDRESS --nthreads 1",
        ) from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise LabError(
                got=f"a Dask scheduler at {address!r} without workers",
                allowed="at least one worker",
                hint=f"run dask worker {address} --nthreads 1 where the checkpoints are",
            )
        yield client.get_executor(pure=False)
