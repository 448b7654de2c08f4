// Functions that a step may call, of one number, under the names that NumPy and this package use.
//
// They are in a namespace of their own so that a name means this file's function. `real` is float
// or double; nothing in a float function is computed in double. What CUDA's library has is called
// as it is: its errors are at most 2 units in the last place for most (CUDA C++ Programming Guide,
// "Mathematical Functions"). NaN goes in, NaN comes out.
namespace step {

__device__ __forceinline__ real infinity(float) { return __int_as_float(0x7f800000); }
__device__ __forceinline__ real infinity(double)
{
    return __longlong_as_double(0x7ff0000000000000ll);
}
__device__ __forceinline__ real infinity() { return infinity(real(0)); }
__device__ __forceinline__ real nan() { return infinity() - infinity(); }

#define OF_ONE(name, call) \
    __device__ __forceinline__ real name(real a) { return call(a); }
#define OF_TWO(name, call) \
    __device__ __forceinline__ real name(real a, real b) { return call(a, b); }

OF_ONE(abs, ::fabs)
OF_ONE(arccos, ::acos)
OF_ONE(arccosh, ::acosh)
OF_ONE(arcsin, ::asin)
OF_ONE(arcsinh, ::asinh)
OF_ONE(arctan, ::atan)
OF_ONE(arctanh, ::atanh)
OF_ONE(cbrt, ::cbrt)
OF_ONE(ceil, ::ceil)
OF_ONE(cos, ::cos)
OF_ONE(cosh, ::cosh)
OF_ONE(erf, ::erf)
OF_ONE(erfc, ::erfc)
OF_ONE(exp2, ::exp2)
OF_ONE(expm1, ::expm1)
OF_ONE(floor, ::floor)
OF_ONE(log, ::log)
OF_ONE(log10, ::log10)
OF_ONE(log1p, ::log1p)
OF_ONE(log2, ::log2)
OF_ONE(rint, ::rint)
OF_ONE(sin, ::sin)
OF_ONE(sinh, ::sinh)
OF_ONE(sqrt, ::sqrt)
OF_ONE(tan, ::tan)
OF_ONE(trunc, ::trunc)
OF_TWO(arctan2, ::atan2)
OF_TWO(copysign, ::copysign)
OF_TWO(fmax, ::fmax)
OF_TWO(fmin, ::fmin)
OF_TWO(fmod, ::fmod)
OF_TWO(hypot, ::hypot)
OF_TWO(pow, ::pow)

#undef OF_ONE
#undef OF_TWO

__device__ __forceinline__ bool isnan(real a) { return a != a; }
__device__ __forceinline__ bool isfinite(real a) { return a - a == real(0); }
__device__ __forceinline__ bool isinf(real a) { return a == a && a - a != real(0); }
__device__ __forceinline__ bool signbit(real a) { return ::copysign(real(1), a) < real(0); }

__device__ __forceinline__ real maximum(real a, real b) { return a >= b || a != a ? a : b; }
__device__ __forceinline__ real minimum(real a, real b) { return a <= b || a != a ? a : b; }
__device__ __forceinline__ real sign(real a)
{
    return a > real(0) ? real(1) : (a < real(0) ? real(-1) : a);
}
__device__ __forceinline__ real heaviside(real a, real b)
{
    return a == real(0) ? b : (a > real(0) ? real(1) : (a < real(0) ? real(0) : a));
}

#if FAST_MATH

// Largest relative errors: of tanh 2^-11 (PTX ISA, "tanh"; sm_75 and later), of the exponential
// 2 + 1.173 |a| units in the last place, of a quotient 2 (CUDA C++ Programming Guide, "Intrinsic
// Functions"). A sum beyond 2^126, of which __fdividef makes 0, has a reciprocal of about 0.
__device__ __forceinline__ real exp(real a) { return __expf(a); }
__device__ __forceinline__ real sigmoid(real a) { return __fdividef(1.0f, 1.0f + __expf(-a)); }
#ifdef __CUDA_ON_CPU__
__device__ __forceinline__ real tanh(real a) { return cuda_on_cpu::tanh_approx(a); }
#else
__device__ __forceinline__ real tanh(real a)
{
    real t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(a));
    return t;
}
#endif

#else

__device__ __forceinline__ real exp(real a) { return ::exp(a); }
__device__ __forceinline__ real tanh(real a) { return ::tanh(a); }

// Quotient by 1 to 2, where nothing can overflow: the hardware's reciprocal and a correction, in
// half of the instructions of a division and without its branch.
__device__ __forceinline__ float divide_by_one_to_two(float a, float b)
{
    const float inverse = __fdividef(1.0f, b), quotient = a * inverse;
    return fma(fma(-quotient, b, a), inverse, quotient);
}
__device__ __forceinline__ double divide_by_one_to_two(double a, double b) { return a / b; }

// The smaller of the two exponentials never overflows, and neither tail cancels.
__device__ __forceinline__ real sigmoid(real a)
{
    const real decay = ::exp(-::fabs(a));
    return divide_by_one_to_two(a < real(0) ? decay : real(1), real(1) + decay);
}

#endif

__device__ __forceinline__ real softplus(real a)
{
    return maximum(a, real(0)) + ::log1p(::exp(-::fabs(a)));
}
__device__ __forceinline__ real logit(real a) { return ::log(a / (real(1) - a)); }
__device__ __forceinline__ real ndtr(real a)
{
    return real(0.5) * ::erfc(a * real(-0.70710678118654752440));
}
__device__ __forceinline__ real exp10(real a) { return ::pow(real(10), a); }

// Equal infinities have no difference.
__device__ __forceinline__ real logaddexp(real a, real b)
{
    if (a == b) return a + real(0.69314718055994530942);
    return maximum(a, b) + ::log1p(::exp(-::fabs(a - b)));
}
__device__ __forceinline__ real logaddexp2(real a, real b)
{
    if (a == b) return a + real(1);
    return maximum(a, b) + ::log1p(::exp2(-::fabs(a - b))) * real(1.44269504088896340736);
}
__device__ __forceinline__ real xlogy(real a, real b)
{
    return a == real(0) && b == b ? real(0) : a * ::log(b);
}
__device__ __forceinline__ real xlog1py(real a, real b)
{
    return a == real(0) && b == b ? real(0) : a * ::log1p(b);
}
__device__ __forceinline__ real entr(real a)
{
    return a == real(0) ? real(0) : (a < real(0) ? -infinity() : -a * ::log(a));
}

// Python's remainder and quotient: the sign of the divisor, and rounded towards minus infinity.
__device__ __forceinline__ real remainder(real a, real b)
{
    const real rest = ::fmod(a, b);
    if (rest == real(0)) return ::copysign(real(0), b);
    return (rest < real(0)) != (b < real(0)) ? rest + b : rest;
}
__device__ __forceinline__ real floor_divide(real a, real b)
{
    if (b == real(0)) return a / b;
    const real rest = ::fmod(a, b);
    real quotient = (a - rest) / b;
    if (rest != real(0) && (rest < real(0)) != (b < real(0))) quotient -= real(1);
    if (quotient == real(0)) return ::copysign(real(0), a / b);
    const real whole = ::floor(quotient);
    return quotient - whole > real(0.5) ? whole + real(1) : whole;
}

}  // namespace step
