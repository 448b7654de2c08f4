"""What vector mathematics is measured against: NumPy's long double, and where it is hardest."""

import numpy as np

LONG = np.longdouble
EXACT = np.finfo(LONG).nmant >= 63  # elsewhere a long double is a double


def sigmoid(x):
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1) / (1 + decay)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def erf(x):
    """The series of positive terms ``2/sqrt(pi) exp(-x^2) sum (2 x^2)^k x / (2k + 1)!!``."""
    a = np.minimum(np.abs(x), 7)
    total, term = np.zeros_like(a), a
    for k in range(1, 260):
        total = total + term
        term = term * (2 * a * a / (2 * k + 1))
    two_over_root_pi = 1 / np.sqrt(np.arctan(LONG(1)))
    return np.copysign(np.minimum(two_over_root_pi * np.exp(-a * a) * total, 1), x)


REFERENCES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "sin": np.sin,
    "cos": np.cos,
    "erf": erf,
    "sqrt": np.sqrt,
    "pow": np.power,
}


def reference(name, *arguments):
    """The value in long double, whatever the library thinks of the arguments."""
    with np.errstate(all="ignore"):
        return REFERENCES[name](*(x.astype(LONG) for x in arguments))


def ulps(y, exact):
    """Errors in units in the last place of the exact value; infinite where y is of another kind.

    An exact value that rounds to infinity must have become it, NaN must be NaN.
    """
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.minimum(np.abs(exact), LONG(info.max)))
        exponent = np.maximum(exponent - 1, info.minexp) - info.nmant
        error = np.abs(y - exact) / np.ldexp(LONG(1), exponent)
        same = (np.isnan(y) & np.isnan(exact)) | (y == exact.astype(y.dtype))
    # Half a unit at most is right by definition, also at infinity.
    usual = np.where(np.isnan(error), np.inf, error)
    return np.where(same, np.where(np.isfinite(y), error, 0), usual)


def near_quarter_turns(dtype, largest):
    """The numbers up to ``largest`` nearest to multiples of pi/2, one and more per power of two.

    ``m 2**e`` with an integer m is near ``k pi/2`` when k/m is a convergent of ``2**e / (pi/2)``.
    """
    one = 10**150

    def arctan(inverse):  # Machin (1706)
        term, total, k = one // inverse, 0, 0
        while term:
            total += (-1) ** k * (term // (2 * k + 1))
            term, k = term // inverse**2, k + 1
        return total

    half_pi = 2 * (4 * arctan(5) - arctan(239))
    digits, found = np.finfo(dtype).nmant + 1, []
    for e in range(-digits, int(np.log2(largest))):
        top, bottom = (one << e, half_pi) if e >= 0 else (one, half_pi << -e)
        before, m = 1, 0
        while m < 2**digits:
            found.append(np.ldexp(float(m), e))
            a, top, bottom = top // bottom, bottom, top % bottom
            before, m = m, a * m + before
    return np.unique([x for x in found if 0 < x <= largest]).astype(dtype)


def arguments(name, dtype, n, limit):
    """Samples of every magnitude, of the range that matters, and of the hardest places.

    Parameters
    ----------
    name : str
        Of the function.
    dtype : float32 or float64
    n : int
        How many of each kind.
    limit : float
        Up to which magnitude sine and cosine are promised.

    Returns
    -------
    tuple of array
        One array, or two for ``pow``.
    """
    rng, info = np.random.default_rng(0), np.finfo(dtype)
    word = f"u{info.bits // 8}"
    any_bits = rng.integers(0, 2**info.bits, n, dtype=word).view(dtype)
    any_bits = any_bits[np.isfinite(any_bits)]
    top = float(np.log(info.max))
    if name == "pow":
        x = np.abs(any_bits)
        near_one = 1 + rng.normal(size=n) * 0.01
        x = np.concatenate([x, rng.uniform(0, 4, n), near_one, np.exp(rng.normal(size=n) * 20)])
        with np.errstate(all="ignore"):
            x = x.astype(dtype)
            x = x[np.isfinite(x) & (x > 0) & (x != 1)]
            y = rng.uniform(-1.06, 1.03, x.size) * top / np.log(x.astype(LONG))
            y = np.where(rng.random(x.size) < 0.1, rng.integers(-5, 6, x.size), y).astype(dtype)
        usable = np.isfinite(y) & (x > 0)
        return x[usable], y[usable]
    tiny = float(info.smallest_normal)
    parts = [
        any_bits,
        rng.normal(size=n),
        np.exp(rng.uniform(-40, 10, n)),
        1 + rng.normal(size=n) * 1e-3,
        rng.uniform(-10, 10, n),
        rng.uniform(-1.2, 1.2, n) * top,
        rng.uniform(-2, 2, n) * tiny,
        np.linspace(-2 * np.pi, 2 * np.pi, n),
    ]
    if name in ("sin", "cos"):
        parts += [near_quarter_turns(dtype, limit), rng.uniform(-limit, limit, n)]
    x = np.concatenate([part.astype(dtype) for part in parts])
    x = x[np.isfinite(x)]
    if name in ("log", "sqrt"):
        return (np.abs(x),)
    if name == "log1p":
        return (x[x > -1],)
    if name == "sigmoid":  # whose subnormal results are lost, as it says
        return (x[reference(name, x) >= tiny],)
    return (x[np.abs(x) <= limit] if name in ("sin", "cos") else x,)
