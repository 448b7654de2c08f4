"""`RawModule`, as in CuPy, which compiles CUDA C++ by g++ and runs it on the CPU.

    with schedule(REVERSE):
        RawModule(code=text, name_expressions=["scan<float>"]).get_function("scan<float>")(
            (blocks,), (threads,), (array, np.int64(length))
        )

`fibers.h` and `fibers.cpp` say how threads run, `cuda_on_cpu.h` what of CUDA there is. Shared
libraries are kept in a temporary folder under a hash of everything that they were made from.
"""

import ctypes
import getpass
import hashlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.cuda_on_cpu.fake_devices import ATTRIBUTES

FORWARD, REVERSE, SHUFFLED, INTERLEAVED = range(4)
SCHEDULES = (FORWARD, REVERSE, SHUFFLED)
STATIC_SHARED_LIMIT, SHARED_LIMIT = 48 << 10, 227 << 10  # bytes of a block, as on sm_90
MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
THREADS_TOGETHER = ATTRIBUTES["MaxThreadsPerMultiProcessor"]
SHARED_TOGETHER = ATTRIBUTES["MaxSharedMemoryPerMultiprocessor"]

HERE = Path(__file__).parent
FOLDER = Path(tempfile.gettempdir()) / f"cuda_on_cpu_{getpass.getuser()}"
# Hidden and not unique: libraries of one process must not share their variables.
STANDARD = "-std=c++17"
FLAGS = "-fPIC -w -U_FORTIFY_SOURCE -fvisibility=hidden -fno-gnu-unique".split()
FLAGS += ["-O1", "-ffp-contract=off"]
# fibers.cpp says what happens then; so nothing is linked with -fsanitize.
FLAGS += ["-fsanitize=bounds,alignment,null,integer-divide-by-zero,shift-exponent"]
# C++ has no arrays of unknown size that somebody else provides; the machine does.
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?([\w:<>, ]+?)\s+([\w#]+)\s*"
    r"\[\s*\]"
)
GLOBAL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)'
)
_lock = threading.Lock()  # there is one machine of fibers.h
_chosen = [FORWARD, 1]


class KernelError(RuntimeError):
    """A thread did what CUDA forbids or leaves undefined; the message names it."""


class CompileError(Exception):
    """g++ refused; the message is its log."""


class LaunchError(RuntimeError):
    """The driver would refuse such a launch."""


@contextmanager
def schedule(order: int, seed: int = 1) -> Iterator[None]:
    """Run launches inside in the given order of threads."""
    before = _chosen[:]
    _chosen[:] = order, seed
    try:
        yield
    finally:
        _chosen[:] = before


class _Argument(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("kind", ctypes.c_char),
        ("element_kind", ctypes.c_char),
        ("size", ctypes.c_int),
    ]


class _Stacks(ctypes.Structure):
    _fields_ = [("memory", ctypes.c_void_p), ("count", ctypes.c_size_t)]


_stacks = _Stacks()  # of all modules, which run one at a time


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint * 3),
        ("dynamic_bytes", ctypes.c_size_t),
        ("schedule", ctypes.c_int),
        ("count", ctypes.c_int),
        ("arguments", ctypes.POINTER(_Argument)),
        ("seed", ctypes.c_uint64),
        ("stacks", ctypes.POINTER(_Stacks)),
    ]


class RawModule:
    """Kernels compiled from one text."""

    def __init__(
        self,
        *,
        code,
        options=(),
        backend="nvrtc",
        enable_cooperative_groups=False,
        name_expressions=None,
    ):
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple, not {type(options).__name__}")
        if backend != "nvrtc":
            raise ValueError(f"only backend='nvrtc' is emulated, not {backend!r}")
        self.code, self.options = code, options
        self.name_expressions = tuple(name_expressions) if name_expressions is not None else None
        self.enable_cooperative_groups = enable_cooperative_groups
        self._library = None

    def compile(self, log_stream=None):
        """Compile now; otherwise `get_function` does."""
        if self._library is None:
            self._library = ctypes.CDLL(str(_build(self._source(), self.options)))

    def get_function(self, name):
        """Return the kernel of that name (or name expression)."""
        self.compile()
        names = self._names()
        if name not in names:
            raise LaunchError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name!r}")
        function = getattr(self._library, f"launch_{names.index(name)}")
        return RawKernel(name, function, self.enable_cooperative_groups)

    def _names(self):
        return tuple(dict.fromkeys((*(self.name_expressions or ()), *GLOBAL.findall(self.code))))

    def _source(self):
        dynamic = r"\1* \2 = reinterpret_cast<\1*>(cuda_on_cpu::dynamic_shared())"
        launchers = [f"LAUNCHER(launch_{i}, {name})" for i, name in enumerate(self._names())]
        return "\n".join(
            [
                '#include "cuda_on_cpu.h"\n#line 1 "kernel.cu"',
                DYNAMIC.sub(dynamic, self.code),
                '#line 1 "name_expressions"',
                *launchers,
                "",
            ]
        )


def _build(source, options):
    """Return the library of a kernel's text and of the machine that runs it."""
    options = [o for o in options if o.startswith(("-D", "-I", "-U", "-std=", "--std="))]
    if not any("std=" in o for o in options):
        options.append(STANDARD)
    machine = _compiled((HERE / "fibers.cpp").read_text(), [STANDARD])
    return _compiled(source, [o.replace("--std=", "-std=") for o in options], machine)


def _compiled(source, options, machine=None):
    """Return the object file of a text; with that of the machine, the library of both."""
    headers = "".join((HERE / name).read_text() for name in ("fibers.h", "cuda_on_cpu.h"))
    command = ["g++", *options, *FLAGS, f"-I{HERE}"]
    content = "\0".join([source, headers, str(machine), *command])
    key = hashlib.sha256(content.encode()).hexdigest()[:24]
    kept = FOLDER / (f"{key}.so" if machine else f"{key}.o")
    if not kept.exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            text, part, library = (Path(folder, f"kernel.{end}") for end in ("cpp", "o", "so"))
            text.write_text(source)
            _run([*command, "-c", str(text), "-o", str(part)])
            if machine:
                _run(["g++", "-shared", str(part), str(machine), "-o", str(library)])
            # At once, whoever else builds the same.
            (library if machine else part).replace(kept)
    return kept


def _run(command):
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise CompileError(run.stderr)


class RawKernel:
    """One kernel; call it with `(grid, block, args, shared_mem=0)`."""

    def __init__(self, name, function, enable_cooperative_groups=False):
        self.name = self.__name__ = name
        self._function = function
        self.enable_cooperative_groups = enable_cooperative_groups
        self._dynamic_limit = STATIC_SHARED_LIMIT

    @property
    def max_dynamic_shared_size_bytes(self):
        """Bytes of dynamic shared memory that a launch may ask for; can be set."""
        return self._dynamic_limit

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if not 0 <= size <= SHARED_LIMIT:
            raise LaunchError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes of shared memory")
        self._dynamic_limit = size

    def __call__(self, grid, block, args, *, shared_mem=0):
        """Run the kernel to its end."""
        grid, block = _three(grid), _three(block)
        _check_launch(grid, block, shared_mem, self._dynamic_limit)
        if self.enable_cooperative_groups:
            _check_cooperative(grid, block, shared_mem)
        pack = [_pack(argument, i) for i, argument in enumerate(args)]
        arguments = (_Argument * max(len(pack), 1))(*(a for a, _ in pack))
        order, seed = _chosen
        launch = _Launch(
            (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared_mem, order, len(pack),
            arguments, seed, ctypes.pointer(_stacks),
        )  # fmt: skip
        error = ctypes.create_string_buffer(1024)
        with _lock:
            failed = self._function(ctypes.byref(launch), error, ctypes.c_size_t(len(error)))
        if failed:
            raise KernelError(f"{self.name}: {error.value.decode()}")
        for argument in args:
            allocation = getattr(argument, "_allocation", None)
            if allocation is not None:
                allocation.check()


def _three(size):
    size = tuple(int(n) for n in size)
    return (*size, 1, 1)[:3]


def _check_launch(grid, block, shared, limit):
    threads = block[0] * block[1] * block[2]
    good = (
        0 < threads <= MAX_THREADS
        and block[2] <= 64
        and all(0 < n <= most for n, most in zip(grid, MAX_GRID, strict=True))
        and 0 <= shared <= limit
    )
    if not good:
        raise LaunchError(
            f"CUDA_ERROR_INVALID_VALUE: grid {grid}, block {block}, {shared} bytes of dynamic "
            f"shared memory (at most {limit}; raise max_dynamic_shared_size_bytes for more)"
        )


def _check_cooperative(grid, block, shared):
    """Refuse more blocks than fit at once, by threads and by shared memory (CuPy: a warning)."""
    threads = block[0] * block[1] * block[2]
    of_one = min(THREADS_TOGETHER // threads, SHARED_TOGETHER // max(1, shared))
    most = ATTRIBUTES["MultiProcessorCount"] * of_one
    if grid[0] * grid[1] * grid[2] > most:
        raise LaunchError(f"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: grid {grid}, room for {most}")


def _pack(argument, i):
    """An argument as the machine reads it, and what must live as long."""
    if isinstance(argument, np.generic):
        holder = ctypes.create_string_buffer(argument.tobytes())
        kind, element, size = argument.dtype.kind, b"\0", argument.dtype.itemsize
    elif hasattr(argument, "__cuda_array_interface__"):
        holder = ctypes.c_void_p(argument.data.ptr)
        kind, element, size = "p", argument.dtype.kind.encode(), argument.dtype.itemsize
    else:
        raise TypeError(
            f"argument {i} is a {type(argument).__name__}; a kernel takes device arrays and NumPy "
            "scalars, whose size cannot be mistaken"
        )
    packed = _Argument(ctypes.addressof(holder), kind.encode(), element, size)
    packed.holder = holder
    return packed, holder
