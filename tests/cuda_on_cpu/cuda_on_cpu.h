// CUDA C++ on a CPU: what a kernel's text needs to be compiled by g++ and run by fibers.h.
//
// Blocks run one after another in the order of blockIdx, so a block that looks back at what earlier
// blocks published finds it there; under INTERLEAVED four run at a time, and such a block waits.
// A loop that waits for other threads must therefore contain an atomic, a fence or __nanosleep:
// only there do other threads get their turn. Memory is sequentially consistent: a missing fence
// is not found. Contraction of a * b + c is left to explicit fma.
#pragma once
#include "fibers.h"

#include <assert.h>
#include <cmath>

#define __CUDA_ON_CPU__ 1
#define LAUNCHER(symbol, ...)                                                                     \
    extern "C" __attribute__((visibility("default"))) int symbol(const cuda_on_cpu::Launch* l,    \
                                                                 char* error, size_t size) {      \
        return cuda_on_cpu::launch(__VA_ARGS__, *l, error, size);                                 \
    }
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __shared__ static thread_local  // of the block that runs, see fibers.h
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define warpSize 32

#define threadIdx (cuda_on_cpu::self().index)
#define blockIdx (cuda_on_cpu::block().index)
#define blockDim (cuda_on_cpu::machine.threads)
#define gridDim (cuda_on_cpu::machine.grid)

// ---- vectors ----------------------------------------------------------------------------------

#define VECTORS(T, S)                                                                             \
    struct alignas(2 * sizeof(S)) T##2 { S x, y; };                                               \
    struct T##3 { S x, y, z; };                                                                   \
    struct alignas(sizeof(S) < 8 ? 4 * sizeof(S) : 16) T##4 { S x, y, z, w; };                    \
    inline T##2 make_##T##2(S x, S y) { return {x, y}; }                                          \
    inline T##3 make_##T##3(S x, S y, S z) { return {x, y, z}; }                                  \
    inline T##4 make_##T##4(S x, S y, S z, S w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(double, double)
VECTORS(int, int)
VECTORS(longlong, long long)
VECTORS(ulonglong, unsigned long long)
VECTORS(ushort, unsigned short)
#undef VECTORS
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- functions of numbers ---------------------------------------------------------------------

using std::abs, std::acos, std::acosh, std::asin, std::asinh, std::atan, std::atan2, std::atanh,
    std::cbrt, std::ceil, std::copysign, std::cos, std::cosh, std::erf, std::erfc, std::exp,
    std::exp2, std::expm1, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::fmod,
    std::frexp, std::hypot, std::ilogb, std::isfinite, std::isinf, std::isnan, std::ldexp,
    std::lgamma, std::log, std::log10, std::log1p, std::log2, std::nextafter, std::pow,
    std::remainder, std::rint, std::round, std::scalbn, std::signbit, std::sin, std::sinh,
    std::sqrt, std::tan, std::tanh, std::tgamma, std::trunc;

// As in CUDA, of numbers: where one is NaN, the other.
template <typename A, typename B>
inline std::common_type_t<A, B> min(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmin(a, b);
    else return std::min<std::common_type_t<A, B>>(a, b);
}
template <typename A, typename B>
inline std::common_type_t<A, B> max(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmax(a, b);
    else return std::max<std::common_type_t<A, B>>(a, b);
}

// Approximations have errors here, too: rounded to what is documented of the device's.
inline float __expf(float x) { return exp2f(x * 1.4426950408889634f); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return fabsf(y) > 0x1p126f && y - y == 0 ? 0 : x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __drcp_rn(double x) { return 1.0 / x; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
inline float normcdf(float x) { return normcdff(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
    return r;
}
inline int __mul24(int x, int y) { return x * y; }
inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned long long)x * y >> 32; }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned __int128)x * y >> 64;
}

// ---- bits -------------------------------------------------------------------------------------

namespace cuda_on_cpu {
template <typename To, typename From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
// tanh.approx.f32, rounded to 11 bits: its largest error, 2^-11.
inline float tanh_approx(float x) {
    const float y = tanhf(x);
    return y - y == 0 ? bits<float>(bits<unsigned>(y) + 0x1000u & ~0x1fffu) : y;
}
}  // namespace cuda_on_cpu
inline int __float_as_int(float x) { return cuda_on_cpu::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu::bits<double>(x); }
inline int __double2hiint(double x) { return int(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return int(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low) {
    return __longlong_as_double((long long)((unsigned long long)(unsigned)high << 32 | (unsigned)low));
}
// Out of range: the nearest integer; NaN: 0. A cast does the same on a device, not on a CPU.
inline int __double2int_rn(double x) {
    return std::isnan(x) ? 0 : int(std::fmin(std::fmax(rint(x), -2147483648.0), 2147483647.0));
}
inline int __float2int_rn(float x) { return __double2int_rn(x); }
inline float __int2float_rn(int x) { return float(x); }
inline double __int2double_rn(int x) { return double(x); }

// ---- memory -----------------------------------------------------------------------------------

template <typename T> inline T __ldg(const T* p) { return *p; }
template <typename T> inline T __ldca(const T* p) { return *p; }
template <typename T> inline T __ldcg(const T* p) { return *p; }
template <typename T> inline T __ldcs(const T* p) { return *p; }
template <typename T> inline T __ldlu(const T* p) { return *p; }
template <typename T> inline T __ldcv(const T* p) { return *(const volatile T*)p; }
template <typename T> inline void __stwb(T* p, std::common_type_t<T> v) { *p = v; }
template <typename T> inline void __stcg(T* p, std::common_type_t<T> v) { *p = v; }
template <typename T> inline void __stcs(T* p, std::common_type_t<T> v) { *p = v; }
template <typename T> inline void __stwt(T* p, std::common_type_t<T> v) { *p = v; }

inline void __threadfence_block() { cuda_on_cpu::pause(); }
inline void __threadfence() { cuda_on_cpu::pause(); }
inline void __threadfence_system() { cuda_on_cpu::pause(); }
inline void __nanosleep(unsigned) { cuda_on_cpu::pause(true); }
[[noreturn]] inline void __trap() { cuda_on_cpu::fail(cuda_on_cpu::self(), "__trap"); }
inline long long clock64() { static long long ticks = 0; return ++ticks; }

namespace cuda_on_cpu {
// Read, change and write what no other thread can see half done, then let others run.
template <typename T, typename Change>
inline T atomically(T* p, Change change) {
    const T old = *p;
    *p = change(old);
    pause();
    return old;
}
template <typename T>
constexpr bool is_word = std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);
}  // namespace cuda_on_cpu

#define ATOMIC(name, allowed, result)                                                             \
    template <typename T>                                                                         \
    inline T name(T* p, std::common_type_t<T> v) {                                                \
        static_assert(allowed, #name " is not for this type");                                    \
        return cuda_on_cpu::atomically(p, [v](T old) -> T { return result; });                    \
    }
ATOMIC(atomicAdd, cuda_on_cpu::is_word<T> || std::is_floating_point_v<T>, old + v)
ATOMIC(atomicSub, cuda_on_cpu::is_word<T>, old - v)
ATOMIC(atomicMin, cuda_on_cpu::is_word<T>, std::min(old, v))
ATOMIC(atomicMax, cuda_on_cpu::is_word<T>, std::max(old, v))
ATOMIC(atomicAnd, cuda_on_cpu::is_word<T>, old & v)
ATOMIC(atomicOr, cuda_on_cpu::is_word<T>, old | v)
ATOMIC(atomicXor, cuda_on_cpu::is_word<T>, old ^ v)
ATOMIC(atomicInc, (std::is_same_v<T, unsigned>), old >= v ? 0 : old + 1)
ATOMIC(atomicDec, (std::is_same_v<T, unsigned>), old == 0 || old > v ? v : old - 1)
ATOMIC(atomicExch, cuda_on_cpu::is_word<T> || (std::is_same_v<T, float>), ((void)old, v))
#undef ATOMIC
template <typename T>
inline T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> v) {
    static_assert(std::is_integral_v<T>, "atomicCAS is not for this type");
    return cuda_on_cpu::atomically(p, [=](T old) -> T { return old == expected ? v : old; });
}

// ---- warps and blocks -------------------------------------------------------------------------

#define __syncthreads() cuda_on_cpu::block_barrier("__syncthreads", __LINE__)
#define __syncthreads_count(p) cuda_on_cpu::block_barrier("__syncthreads_count", __LINE__, !!(p))
#define __syncthreads_or(p) int(cuda_on_cpu::block_barrier("__syncthreads_or", __LINE__, !!(p)) > 0)
#define __syncthreads_and(p)                                                                      \
    int(cuda_on_cpu::block_barrier("__syncthreads_and", __LINE__, !!(p)) ==                       \
        int(cuda_on_cpu::block().fibers.size()))

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    cuda_on_cpu::meet(mask, "__syncwarp", cuda_on_cpu::deliver_nothing);
}
inline unsigned __activemask() { return cuda_on_cpu::lanes_running(cuda_on_cpu::self()); }
inline unsigned __ballot_sync(unsigned mask, int p) {
    return cuda_on_cpu::ballot(mask, p, "__ballot_sync");
}
inline int __any_sync(unsigned mask, int p) {
    return cuda_on_cpu::ballot(mask, p, "__any_sync") != 0;
}
inline int __all_sync(unsigned mask, int p) {
    return cuda_on_cpu::ballot(mask, !p, "__all_sync") == 0;
}

// A lane whose source lies beyond its segment of `width` lanes reads itself.
template <typename T>
inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    const int l = cuda_on_cpu::self().lane, start = l & ~(width - 1);
    return cuda_on_cpu::shuffle(mask, v, start + (source & (width - 1)), "__shfl_sync");
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    const int l = cuda_on_cpu::self().lane, start = l & ~(width - 1);
    const int source = l - int(delta);
    return cuda_on_cpu::shuffle(mask, v, source < start ? l : source, "__shfl_up_sync");
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    const int l = cuda_on_cpu::self().lane, end = (l & ~(width - 1)) + width;
    const int source = l + int(delta);
    return cuda_on_cpu::shuffle(mask, v, source < end ? source : l, "__shfl_down_sync");
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
    const int l = cuda_on_cpu::self().lane, end = (l & ~(width - 1)) + width;
    const int source = l ^ lanes;
    return cuda_on_cpu::shuffle(mask, v, source < end ? source : l, "__shfl_xor_sync");
}
