"""Header of a file of weights, read without torch, so that planning a run need not import it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ojala.catalogs_schema.errors import InputError


class WeightsError(InputError):
    """A file is missing or damaged, or holds weights of another network."""


def read_header(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises
    ------
    WeightsError
        The file is missing, cannot be opened, is truncated or no safetensors file.
    """
    with opened(path, "numpy") as file:
        return dict(file.metadata() or {})


@contextmanager
def opened(path: Path, framework: str) -> Iterator[Any]:
    """Open a safetensors file, for arrays of a framework (``numpy`` or ``pt``), and close it at the end.

    Raises
    ------
    WeightsError
        See `read_header`.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; train weights first or give the path of existing ones")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
    except (OSError, RuntimeError) as error:  # no more files or memory for this process
        raise WeightsError(f"{path}: cannot be opened ({error}); see `ulimit -a` for limits") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
