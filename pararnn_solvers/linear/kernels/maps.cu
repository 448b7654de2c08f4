// What a scan computes with: numbers as they are stored and as they are computed with, and maps
// h -> P h + e of lanes.

using Index = long long;
using Step = unsigned long long;

constexpr int THREADS = 128, WARP = 32, WARPS = THREADS / WARP;
constexpr unsigned ALL = 0xffffffffu, EMPTY = 0xffffffffu;

// ---- numbers ----------------------------------------------------------------------------------

struct Half { unsigned short bits; };
struct BFloat16 { unsigned short bits; };

template <typename T> struct Arithmetic { using type = T; };
template <> struct Arithmetic<Half> { using type = float; };
template <> struct Arithmetic<BFloat16> { using type = float; };
template <typename T> using Real = typename Arithmetic<T>::type;

#ifdef __CUDA_ON_CPU__
__device__ float widen(Half x) {
    const unsigned sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31u, rest = x.bits & 1023u;
    if (exponent == 31u) return __uint_as_float(sign | 0x7f800000u | rest << 13);
    if (exponent == 0u) return (sign ? -1.0f : 1.0f) * float(rest) * 0x1p-24f;
    return __uint_as_float(sign | (exponent + 112u) << 23 | rest << 13);
}
__device__ void narrow(float x, Half& to) {
    const unsigned word = __float_as_uint(x), sign = word >> 16 & 0x8000u, size = word & 0x7fffffffu;
    unsigned bits;
    if (size > 0x7f800000u) bits = 0x7fffu;
    else if (size >= 0x477ff000u) bits = 0x7c00u;  // 65520 and more round to infinity
    else if (size < 0x38800000u) bits = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    else bits = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    to.bits = (unsigned short)(sign | bits);
}
#else
__device__ float widen(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ void narrow(float x, Half& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
#endif

__device__ float widen(BFloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ void narrow(float x, BFloat16& to) {  // to nearest, ties to even
    const unsigned word = __float_as_uint(x);
    const unsigned rounded = word + 0x7fffu + (word >> 16 & 1u);
    to.bits = (unsigned short)(isnan(x) ? word >> 16 | 64u : rounded >> 16);
}

__device__ float widen(float x) { return x; }
__device__ double widen(double x) { return x; }
__device__ void narrow(float x, float& to) { to = x; }
__device__ void narrow(double x, double& to) { to = x; }

template <int N, typename R>
__device__ bool finite(const R (&x)[N]) {
    bool all = true;
#pragma unroll
    for (int i = 0; i < N; ++i) all = all && isfinite(x[i]);
    return all;
}

// ---- maps h -> P h + e ------------------------------------------------------------------------

template <typename R, int K>
struct Map {
    static constexpr int WORDS = K * K + K;
    R words[WORDS];  // P row by row, then e
    __device__ R& P(int i, int j) { return words[i * K + j]; }
    __device__ R& e(int i) { return words[K * K + i]; }
    __device__ const R& P(int i, int j) const { return words[i * K + j]; }
    __device__ const R& e(int i) const { return words[K * K + i]; }
};

template <typename R, int K>
__device__ Map<R, K> identity() {
    Map<R, K> map;
#pragma unroll
    for (int i = 0; i < K * K + K; ++i) map.words[i] = R(i < K * K && i % (K + 1) == 0);
    return map;
}

template <typename R, int K>
__device__ void apply(const Map<R, K>& map, R (&state)[K]) {
    R next[K];
#pragma unroll
    for (int i = 0; i < K; ++i) {
        next[i] = map.e(i);
#pragma unroll
        for (int j = 0; j < K; ++j) next[i] = fma(map.P(i, j), state[j], next[i]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) state[i] = next[i];
}

template <typename R, int K>
__device__ Map<R, K> compose(const Map<R, K>& earlier, const Map<R, K>& later) {
    Map<R, K> both;
#pragma unroll
    for (int j = 0; j < K + 1; ++j) {  // a column of P, or e
        R column[K];
#pragma unroll
        for (int i = 0; i < K; ++i) column[i] = j < K ? earlier.P(i, j < K ? j : 0) : earlier.e(i);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            R sum = j < K ? later.P(i, 0) * column[0] : fma(later.P(i, 0), column[0], later.e(i));
#pragma unroll
            for (int l = 1; l < K; ++l) sum = fma(later.P(i, l), column[l], sum);
            (j < K ? both.P(i, j < K ? j : 0) : both.e(i)) = sum;
        }
    }
    return both;
}

template <typename R, int K>
__device__ Map<R, K> from_threads_before(const Map<R, K>& map, int distance) {
    Map<R, K> other;
#pragma unroll
    for (int i = 0; i < map.WORDS; ++i)
        other.words[i] = __shfl_up_sync(ALL, map.words[i], distance);
    return other;
}

// Of the threads of a lane, `width` apart: replace each map by that of all before it; return all.
template <typename R, int K>
__device__ Map<R, K> scan_block(Map<R, K>& map, Map<R, K>* totals, int width) {
    const int thread = threadIdx.x % WARP, warp = threadIdx.x / WARP, w = thread % width;
    for (int d = width; d < WARP; d *= 2) {
        const Map<R, K> before = from_threads_before(map, d);
        if (thread >= d) map = compose(before, map);
    }
    if (thread >= WARP - width) totals[warp * width + w] = map;
    map = from_threads_before(map, width);
    if (thread < width) map = identity<R, K>();
    __syncthreads();
    Map<R, K> all = totals[w];
    for (int v = 1; v < WARPS; ++v) {
        if (v == warp) map = thread < width ? all : compose(all, map);
        all = compose(all, totals[v * width + w]);
    }
    __syncthreads();  // `totals` may be written again
    return all;
}
