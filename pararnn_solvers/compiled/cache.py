"""Compiled kernels on disk: a process starts with the machine code of those before it.

Numba's own cache cannot hold kernels that are closures over generated functions: it looks for
them by the file of the template, and hashes such closures to a random number. Here a kernel is
looked up by a key, the `digest` of all that its code depends on.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="attr-defined, import-untyped, no-untyped-call, misc"
from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config, sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

import pararnn_solvers

MAX_BYTES, MAX_FILES = 512 << 20, 4096  # beyond either, the least recently used go
_OURS = re.compile(r"[0-9a-f]{64}(\.py|-[0-9a-f]{32}\.kernel)(\..*\.tmp)?")
# What an object may define: tagged by `unique`, or the same code wherever it is defined.
_SAFE = re.compile(r"NRT_|_ZN5numba|.*_[0-9a-f]{32}")
_warned: set[str] = set()


def folder() -> Path | None:
    """Return where kernels are kept, None for nowhere.

    ``$PARARNN_SOLVERS_CACHE`` if set (empty or ``off`` is nowhere), else ``pararnn_solvers`` in
    ``$XDG_CACHE_HOME`` or in the system's folder for caches. It need not exist.
    """
    chosen = os.environ.get("PARARNN_SOLVERS_CACHE")
    if chosen is not None:
        return None if chosen.strip().lower() in ("", "off") else Path(chosen).absolute()
    local = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    usual = {"darwin": "~/Library/Caches", "win32": local}.get(sys.platform, "~/.cache")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(usual)
    return Path(base, "pararnn_solvers")


def digest(*texts: str) -> str:
    """Return a key: 64 hexadecimal digits from all that the code of a kernel depends on.

    Added by itself are the versions of the package, Numba, llvmlite, NumPy and Python, Numba's
    settings, the processor, and the sources of ``compiled`` and ``linear``.
    """
    data = [text.encode() for text in (_surroundings(), *texts)]
    return _sha256(b"".join(len(part).to_bytes(8, "little") + part for part in data)).decode()


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@cache
def _surroundings() -> str:
    package = Path(pararnn_solvers.__file__).parent
    sources = sorted([*package.glob("compiled/**/*.py"), *package.glob("linear/**/*.py")])
    settings = (config.OPT, config.BOUNDSCHECK, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    versions = [module.__version__ for module in (pararnn_solvers, numba, llvmlite, np)]
    processor = cpu_target.target_context.codegen().magic_tuple()
    texts = [(file.name, file.read_text(encoding="utf-8")) for file in sources]
    return repr((sys.version, versions, settings, processor, texts))


def unique(function: Callable[..., Any], key: str) -> Callable[..., Any]:
    """Name a function after a key, before it is jitted; returns it.

    LLVM knows a function by module, qualified name, types, and a number that restarts in each
    process; of two equal names loaded from disk, one is called for the other. So the name and key
    of a kernel, and of each function that it may call without inlining, determine the code.
    """
    tag = f"_{_checked(key)[:32]}"
    if not function.__qualname__.endswith(tag):
        function.__name__ += tag
        function.__qualname__ += tag
    return function


def keep(dispatcher: Any, key: str) -> None:
    """Let a kernel find its compiled overloads on disk, and leave new ones there.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Not yet called; it becomes `unique`. A plain function (``NUMBA_DISABLE_JIT``) stays one.
    key : str
        A `digest` of all that the code depends on, the options of ``njit`` included.
    """
    if hasattr(dispatcher, "py_func"):
        if dispatcher.overloads:
            raise ValueError(f"{dispatcher} is compiled already; call keep before its first call")
        dispatcher._cache = _Overloads(unique(dispatcher.py_func, key), key)


def keep_source(key: str, text: str) -> Path | None:
    """Write generated source for people to read; returns its path, None if it was not written."""
    name = f"{_checked(key)}.py"
    where = folder()
    if where and (where / name).exists():
        return where / name
    return _write(name, text.encode())


def _checked(key: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ValueError(f"key is {key!r}, not 64 hexadecimal digits; pass what digest returns")
    return key


class _Overloads(NullCache):
    """What a Numba dispatcher expects of its cache."""

    def __init__(self, function: Callable[..., Any], key: str) -> None:
        self._key = key
        self._name = f"{function.__module__}.{function.__qualname__}"

    @property
    def cache_path(self) -> Path | None:
        return folder()

    def flush(self) -> None:
        with _without_disk():
            where = _trusted_folder()
            for path in where.glob(f"{self._key}-*.kernel") if where else ():
                path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        name, identity = self._entry(sig)
        seal, body = _read(name)
        # Nothing is unpickled but what was written whole, for this key and these types.
        if _sha256(body) != seal or not body.startswith(identity):
            return None
        target_context.refresh()
        try:
            payload = pickle.loads(body[len(identity) :])
            return CompileResult._rebuild(target_context, *payload)
        except Exception:  # a module that is gone, say: whatever it is, compiling is right
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        name, identity = self._entry(sig)
        obstacle = _obstacle(identity, data)
        if folder() and obstacle:
            _warn(f"{self._name} is not kept on disk", obstacle)
        elif folder():
            body = identity + dumps(data._reduce())
            _write(name, _sha256(body) + body)

    def _entry(self, sig: Any) -> tuple[str, bytes]:
        args, result = sigutils.normalize_signature(sig)
        identity = f"{self._key}\n{self._name}\n{args} -> {result}\n".encode()
        return f"{self._key}-{_sha256(identity)[:32].decode()}.kernel", identity


def _obstacle(identity: bytes, result: Any) -> str | None:
    """Return why an overload must not be loaded by other processes, None if it may."""
    library = result.library
    if library.has_dynamic_globals or b" at 0x" in identity:
        return "it holds the address of a large global array, a ctypes pointer or a function"
    if any(not part.can_cache for part in result.lifted) or not result.environment.can_cache():
        return "it has lifted code, or its globals lack __name__"
    if any(v.name.startswith(".numba.unresolved$") for v in library._final_module.global_variables):
        return "it is recursive"  # loading it would abort the process
    for function in library.get_defined_functions():
        if function.linkage.name not in ("internal", "private") and not _SAFE.match(function.name):
            return f"{function.name} is not inlined: pass forceinline=True, or make it unique"
    return None


def _trusted_folder() -> Path | None:
    """Return the folder, made if need be; OSError if others can write to it."""
    where = folder()
    if where:
        if not where.is_absolute():
            raise OSError("not an absolute path, is HOME set?")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = where.stat()
        if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
            raise PermissionError("not yours, or others can write to it: chmod go-w")
    return where


@contextmanager
def _without_disk() -> Iterator[None]:
    """Warn where the disk fails, and go on."""
    try:
        yield
    except OSError as error:
        remedy = "set PARARNN_SOLVERS_CACHE to a folder that only you can write to, or to 'off'"
        _warn("compiled kernels are not kept on disk", f"{folder()}: {error}; {remedy}")


def _read(name: str) -> tuple[bytes, bytes]:
    """Return the seal and body of a file, empty if there is none; marks it as used."""
    content = b""
    with _without_disk():
        where = _trusted_folder()
        if where and (where / name).exists():
            with suppress(OSError):  # another process removes it, or the disk is read-only
                content = (where / name).read_bytes()
                os.utime(where / name)
    return content[:64], content[64:]


def _write(name: str, content: bytes) -> Path | None:
    """Replace a file as a whole and make room; returns its path, None if there is none."""
    with _without_disk():
        where = _trusted_folder()
        if where:
            handle, temporary = tempfile.mkstemp(".tmp", f"{name}.", where)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(temporary, where / name)
            finally:
                Path(temporary).unlink(missing_ok=True)
            _make_room(where)
            return where / name
    return None


def _make_room(where: Path) -> None:
    """Remove the least recently used files, unless another process is at it."""
    total = 0
    with suppress(FileNotFoundError):
        ours = [path for path in where.iterdir() if _OURS.fullmatch(path.name)]
        found = sorted(((path.stat().st_mtime_ns, path) for path in ours), reverse=True)
        for count, (_, path) in enumerate(found, 1):
            total += path.stat().st_size
            if total > MAX_BYTES or count > MAX_FILES:
                path.unlink()


def _warn(what: str, why: str) -> None:
    if what not in _warned:
        _warned.add(what)  # once per process
        warnings.warn(f"{what}: {why}", RuntimeWarning, stacklevel=3)
