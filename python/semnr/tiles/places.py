"""Where the files of a plan or folder are: local, or behind a URL from which each is fetched when it is read."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from .decoding import IMAGE_SUFFIXES, TIFF_SUFFIXES, instrument_of
from .fence import Fence
from .instrument import Instrument
from .names import require_file, shown
from .vendor import pixel_size_nm


class Here:
    """A folder of this machine."""

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.name = shown(folder.name or str(folder))
        self.folder = folder
        self.refusal = Fence(folder, root).refusal

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """The file at the relative `path`."""
        yield self.folder / path

    def images(self) -> list[str]:
        """Relative posix paths of the images below, sorted; hidden files and folders are left out."""
        images = []
        for place, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            base = Path(place).relative_to(self.folder)
            images += [(base / name).as_posix() for name in files if is_image(name)]
        return sorted(images)

    def pixel_nm(self, path: str) -> float | None:
        """The microscope's pixel size, where the file is there and is a TIFF that has one."""
        if not path.lower().endswith(TIFF_SUFFIXES):
            return None
        try:
            require_file(self.folder / path)
            return pixel_size_nm(self.folder / path)
        except OSError:
            return None  # reading the tile reports it


class Listed(Here):
    """Some images of this machine, named by a list or a glob: relative to the folder that all of them lie in."""

    def __init__(self, paths: Sequence[Path], name: str | None = None) -> None:
        whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - a link keeps its name
        super().__init__(Path(os.path.commonpath([path.parent for path in whole])))
        self.name = self.name if name is None else shown(name)
        self._paths = sorted({path.relative_to(self.folder).as_posix() for path in whole})

    def images(self) -> list[str]:
        return self._paths


def globbed(pattern: str) -> list[Path]:
    """The images that a glob names (`**` for any folders), sorted."""
    paths = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - of an absolute path too
    return sorted(path for path in paths if is_image(path.as_posix()) and path.is_file())


def is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


class There:
    """A folder behind a URL that fsspec opens (s3://, gs://, https://, memory://, ...)."""

    def __init__(self, url: str, options: Mapping[str, Any] | None) -> None:
        self._fs, self._base = _filesystem(url, options)
        self.name = PurePosixPath(self._base).name or url

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """The file, fetched for the length of the block."""
        with tempfile.TemporaryDirectory(prefix="semnr-") as folder:
            local = Path(folder) / PurePosixPath(path).name
            self._fs.get_file(f"{self._base}/{path}", str(local))
            yield local

    def images(self) -> list[str]:
        start = len(self._base.strip("/")) + 1
        names = [name.strip("/")[start:] for name in self._fs.find(self._base)]
        return sorted(p for p in names if is_image(p) and not any(part.startswith(".") for part in p.split("/")))

    def pixel_nm(self, path: str) -> float | None:
        """None: that would fetch every file before it is read."""
        return None

    @staticmethod
    def refusal(path: str) -> str | None:
        """None where `path` stays inside, else why it does not."""
        if "\0" in path:
            return "holds a NUL"
        if path.startswith("/") or "://" in path or path[1:2] == ":":
            return "absolute"
        return "leaves by '..'" if ".." in path.split("/") else None


Place = Here | There


def instrument_in(place: Place, path: str | None) -> Instrument | None:
    """What the instrument wrote into the TIFF at a relative path; None of any other file."""
    if path is None or not path.lower().endswith(TIFF_SUFFIXES):
        return None
    try:
        with place.file(path) as file:
            return instrument_of(file)
    except OSError:
        return None  # reading the tile reports it


def is_image(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def kind_of(url: str, options: Mapping[str, Any] | None) -> str:
    """ "file" or "directory"; FileNotFoundError where there is neither."""
    fs, path = _filesystem(url, options)
    try:
        kind = "file" if fs.isfile(path) else "directory" if fs.isdir(path) else None
    except Exception as error:  # every storage has its own: no credentials, no such host, ...
        raise OSError(f"source is {url!r}: {type(error).__name__}: {error}") from error
    if kind is not None:
        return kind
    raise FileNotFoundError(f"source is {url!r}: no such file or folder")


def has(url: str, name: str, options: Mapping[str, Any] | None) -> bool:
    fs, path = _filesystem(url, options)
    return bool(fs.isfile(f"{path}/{name}"))


def parent(url: str) -> tuple[str, str]:
    """Folder and name of a URL."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return folder, name


def _filesystem(url: str, options: Mapping[str, Any] | None) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(f"source {url!r} needs fsspec: pip install 'semnr[remote]'") from error
    try:
        fs, path = url_to_fs(url, **(options or {}))
    except (ImportError, ValueError) as error:
        raise ValueError(f"source is {url!r}: {error}; accepted: a URL that fsspec opens") from error
    return fs, path.rstrip("/")
