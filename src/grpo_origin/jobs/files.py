"""Files that are whole or absent: atomic writes, guarded reads.

Everything that a job writes goes through `atomic`. Knows nothing of what is stored.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
from grpo_origin.jobs.errors import ArtefactError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` (file or folder) that takes its place at success.

    On any error the temporary file or folder is removed and what stood at `path` is left as it was.
    Raises OSError if the block fails, in whatever words, while the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{platform.node()}-"
    for left in path.parent.iterdir():
        if left.name.startswith(prefix) and not _alive(
            left.name[len(prefix) :].removesuffix(".tmp")
        ):
            _remove(left)  # of a process that was killed
    temporary = path.with_name(f"{prefix}{os.getpid()}.tmp")
    _remove(temporary)
    try:
        try:
            yield temporary
        except Exception as error:  # safetensors and torch have errors of their own for a full disk
            if isinstance(error, OSError) or (
                shutil.disk_usage(path.parent).free > 2**16 and "os error 28" not in str(error)
            ):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if path.is_dir():  # a folder can't be replaced in one step unless it is empty
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed jobs left of `atomic(path)`; only for the one writer of `path`."""
    path = Path(path)
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        _remove(temporary)


_held: list[Any] = []  # open for as long as the process lives


def hold_alone(path: str | Path) -> None:
    """Hold a lock file until this process ends, however it ends; the kernel lets go of it then.

    Raises RuntimeError if another process holds it. A file system without locks is let pass.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RuntimeError(
            f"another snakemake is at work on {Path(path).parent}: wait for it or stop it"
        ) from None
    except OSError:
        pass
    _held.append(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: str) -> bool:
    """Whether a process of this machine has that number; text that is no number counts as alive."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        pass
    return True


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, indented, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a parquet file atomically."""
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def open_parquet(path: str | Path, columns: Sequence[str]) -> Any:
    """Open a parquet file as pyarrow.parquet.ParquetFile.

    Raises ArtefactError if it is missing, truncated, not parquet, or lacks one of `columns`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise ArtefactError(path, "missing") from None
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(
            path, f"not a readable parquet file ({str(error).splitlines()[0]})"
        ) from None
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise ArtefactError(path, f"foreign parquet file without column {', '.join(missing)}")
    return file


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the given columns of a parquet file, or all.

    Raises ArtefactError as `open_parquet` does.
    """
    import pyarrow as pa

    file = open_parquet(path, columns or ())
    try:
        return file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(path, f"damaged parquet file ({str(error).splitlines()[0]})") from None
