"""`cupy.ndarray` over NumPy: what CuPy allows, and TypeError where CuPy refuses.

Emulated, as in CuPy 14.2: NumPy arrays never enter by themselves (`TypeError: Unsupported type`),
device arrays never leave but by `get`, `item`, `tolist`, `float` and their like; NumPy's functions
and ufuncs on device arrays run where CuPy has one of that name, with the arguments CuPy takes;
reductions give arrays with no axes; operators defer to other classes as CuPy's do; no warnings of
overflow; arrays belong to a device, and arithmetic wants that device current.

Not emulated: time, asynchrony, rounding of the device's own functions, indices out of bounds (CuPy
wraps them around, here IndexError), singular matrices (CuPy gives NaN, here LinAlgError).
"""

import functools
from typing import Any

import numpy as np

from tests.cuda_on_cpu import fake_devices as devices

# Functions of NumPy 2.4 that CuPy 14.2 lacks; test_fake_cupy.py compares with CuPy if installed.
LACKING = frozenset(
    """asmatrix block bmat busday_count busday_offset datetime_as_string datetime_data einsum_path
    frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info
    insert is_busday isnat matvec nanpercentile nanquantile nested_iters polyder polydiv polyint
    setbufsize seterr seterrcall show_runtime spacing test unstack vecdot vecmat""".split()
)
LACKING_LINALG = frozenset(
    "diagonal matrix_norm multi_dot outer svdvals tensordot test trace vecdot vector_norm".split()
)
# What NumPy's functions take and CuPy's do not, from the signatures of NumPy 2.4 and CuPy 14.2 (of
# `clip` some that are hidden in **kwargs); test_fake_cupy.py compares with CuPy if installed.
_REFUSED = """all where; amax initial where; amin initial where; any where; arange device like;
argpartition kind order; argsort order stable; asanyarray device like; asfortranarray like;
astype device; broadcast_arrays subok; broadcast_to subok; clip where dtype; copy subok;
count_nonzero keepdims; eye device like; identity like; indices sparse; isin kind; lexsort axis;
linspace device; max initial where; mean where; min initial where; nanmax initial where;
nanmean where; nanmin initial where; nanprod initial where; nanstd where mean correction;
nansum initial where; nanvar where mean correction; partition kind order; percentile weights;
prod initial where; quantile weights; require like; sort order stable; std where mean correction;
sum initial where; take mode; tri like; trim_zeros axis; unique sorted; unpackbits count;
var where mean correction; cholesky upper; matrix_rank hermitian rtol; pinv hermitian rtol;
svd hermitian; load fix_imports encoding max_header_size; show_config mode"""
REFUSED = {name: tuple(which) for name, *which in map(str.split, _REFUSED.split(";"))}
REDUCTIONS = {"add": "sum", "multiply": "prod"}  # ufuncs whose `reduce` CuPy has
ACCUMULATIONS = {"add": "cumsum", "multiply": "cumprod"}
AT = frozenset("add subtract maximum minimum bitwise_and bitwise_or bitwise_xor".split())
# What is no work of a device, and may be done to an array of any.
VIEWS = frozenset(
    """reshape ravel transpose swapaxes moveaxis rollaxis squeeze expand_dims broadcast_to view
    diagonal atleast_1d atleast_2d atleast_3d permute_dims matrix_transpose""".split()
)
IN_PLACE = (np.copyto, np.ndarray.fill, np.ndarray.sort, np.ndarray.put, np.ndarray.partition)
SCALARS = (bool, int, float, complex, np.bool_, np.number)


class Copies:
    """Bytes of every copy between host and device since `clear`."""

    def __init__(self) -> None:
        self.to_host: list[int] = []
        self.to_device: list[int] = []

    def clear(self) -> None:
        """Forget them."""
        self.to_host.clear()
        self.to_device.clear()


copies = Copies()


class MemoryPointer:
    """Where an array starts."""

    def __init__(self, ptr: int, device_id: int, mem: Any) -> None:
        self.ptr, self.device_id, self.mem = ptr, device_id, mem

    device = property(lambda self: devices.Device(self.device_id))


class Flags:
    """Contiguity of an array."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata, self.fnc = flags.owndata, flags.fnc
        self.forc = flags.forc

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class Capsule:
    """What `__dlpack__` gives: here, the array itself."""

    def __init__(self, array: "ndarray") -> None:
        self.array = array


def unwrap(value: Any, used: list["ndarray"]) -> Any:
    """Return host arrays for device arrays; TypeError for what CuPy would not take."""
    if isinstance(value, ndarray):
        used.append(value)
        return value._array
    if hasattr(value, "__array_ufunc__") and not isinstance(value, np.generic | type):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item, used) for item in value)
    return value


def wrap(value: Any, used: list["ndarray"]) -> Any:
    """Return device arrays for host arrays: views of those used, or in memory of their own."""
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        for array in used:
            if value is array._array:
                return array
            if value.size and _inside(value, array._allocation):
                return _view(value, array._allocation)
        return place(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(wrap(item, used) for item in value)
    if hasattr(value, "_fields"):  # results of linalg
        return type(value)(*(wrap(item, used) for item in value))
    return value


def _inside(array: np.ndarray, allocation: Any) -> bool:
    return 0 <= array.ctypes.data - allocation.address < allocation.size


def _view(array: np.ndarray, allocation: Any) -> "ndarray":
    self = object.__new__(ndarray)
    self._array, self._allocation = array, allocation
    return self


def place(value: np.ndarray) -> "ndarray":
    """Return a device array of equal values and layout."""
    order = "F" if value.flags.fnc else "C"
    array = ndarray(value.shape, value.dtype, order=order)
    array._array[...] = value
    return array


def check_device(used: list["ndarray"]) -> None:
    """Raise where an array lies on another device than the current one."""
    for array in used:
        if array._allocation.device != devices.current():
            raise ValueError(
                "Array device must be same as the current device: array device = "
                f"{array._allocation.device} while current = {devices.current()}"
            )


def run(function: Any, args: tuple, kwargs: dict, device_checked: bool = True) -> Any:
    """Call a function of NumPy on the host arrays of device arrays."""
    used: list[ndarray] = []
    host_args = unwrap(args, used)
    host_kwargs = {name: unwrap(value, used) for name, value in kwargs.items()}
    if device_checked:
        check_device(used)

    def call() -> Any:
        with np.errstate(all="ignore"):
            return function(*host_args, **host_kwargs)

    operations = devices.captured()
    if operations is None:
        return wrap(call(), used)
    if function in IN_PLACE:
        operations.append(call)
        return None
    return _record(call, host_kwargs.get("out"), used, operations)


def _record(call: Any, out: Any, used: list["ndarray"], operations: list) -> Any:
    """Record a call; what it returns exists, but holds nothing before the graph is launched."""
    if out is not None:
        operations.append(call)
        return next(a for a in used if a._array is (out[0] if isinstance(out, tuple) else out))
    result = wrap(call(), used)
    if not isinstance(result, ndarray):
        raise NotImplementedError("the fake captures functions of one result only")
    if not any(result._allocation is array._allocation for array in used):
        result._allocation.inside[:] = 0xA5
        operations.append(lambda: result._array.__setitem__(..., call()))
    return result


def require_known(function: Any, name: str, keywords: Any) -> None:
    """Raise TypeError for keywords that NumPy knows and CuPy does not."""
    refused = REFUSED.get(name, ())
    if isinstance(function, np.ufunc):
        refused = ("where", "subok")
        if function.signature is None:
            refused += ("order", "signature")
    for keyword in refused:
        if keyword in keywords:
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")


def forward(function: Any, name: str | None = None) -> Any:
    """Return the function of CuPy that does what one of NumPy does."""
    name = name or function.__name__

    @functools.wraps(function, updated=())
    def forwarded(*args: Any, **kwargs: Any) -> Any:
        require_known(function, name, kwargs)
        return run(function, args, kwargs, device_checked=name not in VIEWS)

    return forwarded


class ndarray:  # noqa: N801 - CuPy's own name
    """An array on a fake device."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None,
        order: str = "C",
    ) -> None:  # fmt: skip
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {dtype}")
        shape = (int(shape),) if np.ndim(shape) == 0 else tuple(map(int, shape))
        if memptr is not None or strides is not None:
            raise NotImplementedError("the fake has no arrays at given addresses")
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        self._allocation = devices.allocate(size)
        self._array = self._allocation.inside.view(dtype).reshape(shape, order=order)
        if dtype.kind in "fc":
            self._array.fill(np.nan)  # what nobody wrote must not look like a number

    # ---- what it is

    shape = property(
        lambda self: self._array.shape, lambda self, shape: self._array.__setattr__("shape", shape)
    )
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    strides = property(lambda self: self._array.strides)
    flags = property(lambda self: Flags(self._array.flags))
    device = property(lambda self: devices.Device(self._allocation.device))
    T = property(lambda self: wrap(self._array.T, [self]))
    mT = property(lambda self: wrap(self._array.mT, [self]))  # noqa: N815

    @property
    def data(self) -> MemoryPointer:
        pointer = self._array.ctypes.data if self._array.size else 0
        return MemoryPointer(pointer, self._allocation.device, self._allocation)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "stream": 1,
            "version": 3,
        }

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Capsule:
        return Capsule(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._allocation.device)  # kDLCUDA

    def _part(self, name: str) -> "ndarray":
        part = getattr(self._array, name)
        # The imaginary part of real numbers is new memory.
        return wrap(part, [self]) if self.dtype.kind == "c" or name == "real" else place(part)

    real = property(
        lambda self: self._part("real"), lambda self, value: self.real.__setitem__(..., value)
    )
    imag = property(
        lambda self: self._part("imag"), lambda self, value: self.imag.__setitem__(..., value)
    )

    # ---- to the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True):
        devices.refuse_in_capture()
        copies.to_host.append(self.nbytes)
        if out is None:
            return np.array(self._array, order=order)
        out[...] = self._array
        return out

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        return bool(self.get()) if self.size else False

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> Any:
        return from_host, (self.get(),)

    def __copy__(self) -> "ndarray":
        return self.copy()

    def __deepcopy__(self, memo: Any) -> "ndarray":
        with self.device:
            return self.copy()

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError("shape or dtype mismatch")
        copies.to_device.append(array.nbytes)
        self._array[...] = array

    # ---- elements

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, key: Any) -> "ndarray":
        keys = _index(key)
        by_arrays = [k for k in keys if isinstance(k, ndarray | list)]
        if any(isinstance(k, ndarray) and k.dtype == bool for k in by_arrays):
            devices.refuse_in_capture()  # how many there are, the host must know
        if Ellipsis not in [k for k in keys if not isinstance(k, ndarray)]:
            keys += (Ellipsis,)  # so that an element is a view too
        # Slicing is no work of a device; taking elements by arrays is.
        return run(lambda a, k: a[k], (self, keys), {}, device_checked=bool(by_arrays))

    def __setitem__(self, key: Any, value: Any) -> None:
        used: list[ndarray] = [self]
        host_key, host_value = unwrap(_index(key), used), unwrap(value, used)
        check_device(used)

        def assign() -> None:
            with np.errstate(all="ignore"):
                self._array[host_key] = host_value

        operations = devices.captured()
        assign() if operations is None else operations.append(assign)

    # ---- NumPy's dispatch

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        import cupy
        import cupyx.scipy.special

        name = ufunc.__name__
        function = getattr(cupy, name, None) or getattr(cupyx.scipy.special, name, None)
        if function is None:
            return NotImplemented
        out = kwargs.get("out", ())
        for value in (*inputs, *out):
            if not isinstance(value, (ndarray, np.ndarray, *SCALARS)):
                return NotImplemented
        if method == "__call__":
            if len(out) > 1:
                raise ValueError("The 'out' parameter must have exactly one array value")
            require_known(ufunc, name, kwargs)
            return run(ufunc, inputs, kwargs)
        return _ufunc_method(cupy, ufunc, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        try:
            module = functools.reduce(getattr, func.__module__.split(".")[1:], cupy)
            function = getattr(module, func.__name__)
        except AttributeError:
            return NotImplemented
        if function is func or not all(issubclass(t, ndarray | np.ndarray) for t in types):
            return NotImplemented
        return function(*args, **kwargs)


def _index(key: Any) -> tuple:
    """Return the parts of an index; NumPy's arrays are moved to the device, as CuPy does."""
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(from_host(k) if isinstance(k, np.ndarray) else k for k in keys)


def from_host(value: np.ndarray) -> ndarray:
    """Return a copy on the device, and count it."""
    copies.to_device.append(value.nbytes)
    return place(value)


def _ufunc_method(cupy: Any, ufunc: Any, method: str) -> Any:
    """Return ``cupy.<ufunc>.<method>`` where CuPy has it."""
    name = ufunc.__name__
    table = {"reduce": REDUCTIONS, "accumulate": ACCUMULATIONS}
    if method in table and name in table[method]:
        function = getattr(cupy, table[method][name])

        def reduction(array: Any, axis: Any = 0, **kwargs: Any) -> Any:
            out = kwargs.pop("out", (None,))[0]
            return function(array, axis=axis, **({"out": out} if out is not None else {}), **kwargs)

        return reduction
    if method == "outer" or (method == "at" and name in AT):
        return lambda *args, **kwargs: run(getattr(ufunc, method), args, kwargs)
    raise NotImplementedError(f"`cupy_{name}.{method}` is not supported yet")


def _should_use_rop(x: Any, y: Any) -> bool:
    try:
        theirs = y.__array_ufunc__
    except AttributeError:
        return getattr(x, "__array_priority__", 0) < getattr(y, "__array_priority__", 0)
    return theirs is None


def _operator(ufunc: Any) -> tuple[Any, Any, Any]:
    """Return ``x o y``, ``y o x`` and ``x o= y``."""

    def forwards(self: ndarray, other: Any) -> Any:
        if not isinstance(other, ndarray) and _should_use_rop(self, other):
            return NotImplemented
        return ufunc(self, other)

    def backwards(self: ndarray, other: Any) -> Any:
        return ufunc(other, self)

    def in_place(self: ndarray, other: Any) -> Any:
        return run(ufunc, (self, other), {"out": self})

    return forwards, backwards, in_place


_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "divmod": np.divmod, "pow": np.power,
    "lshift": np.left_shift, "rshift": np.right_shift, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "matmul": np.matmul,
}  # fmt: skip
_COMPARISONS = {
    "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
_METHODS = """all any argmax argmin argpartition argsort astype clip choose compress conj conjugate
copy cumprod cumsum diagonal dot fill flatten max mean min nonzero partition prod put ravel repeat
reshape round searchsorted sort squeeze std sum swapaxes take trace transpose var view""".split()

for _name, _ufunc in _BINARY.items():
    _forwards, _backwards, _in_place = _operator(_ufunc)
    setattr(ndarray, f"__{_name}__", _forwards)
    setattr(ndarray, f"__r{_name}__", _backwards)
    if _name not in ("divmod", "matmul"):  # CuPy has no @=
        setattr(ndarray, f"__i{_name}__", _in_place)
for _name, _ufunc in _COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _operator(_ufunc)[0])
for _name, _ufunc in _UNARY.items():
    setattr(ndarray, f"__{_name}__", forward(_ufunc))
for _name in _METHODS:
    setattr(ndarray, _name, forward(getattr(np.ndarray, _name), _name))
ndarray.__module__ = "cupy"
ndarray.__qualname__ = "ndarray"
