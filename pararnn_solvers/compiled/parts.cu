// What kernels around the functions of one step are made of: what they compute at each state is printed from the
// graph (cuda_program.py), where the numbers come from and go to is in memory.cu.

// Threads of a block, and blocks that a multiprocessor has room for: 512 threads hide the latency
// of a step. Left to itself, the compiler spills registers to make room for more.
#define BOUNDS __launch_bounds__(128, sizeof(real) == 4 ? 4 : 2)

// Becomes NaN, and stays it, where a number is not finite.
template <int N>
__device__ __forceinline__ void spoil(real& nothing, const real (&values)[N], int count)
{
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (i < count) nothing = fma(values[i], real(0), nothing);
}
__device__ __forceinline__ bool is_finite(const real (&state)[K])
{
    real nothing = real(0);
    spoil(nothing, state, K);
    return nothing == real(0);
}
// Equal, or both NaN.
__device__ __forceinline__ bool is_same(const real (&a)[K], const real (&b)[K])
{
    bool same = true;
#pragma unroll
    for (int i = 0; i < K; ++i) same = same && (a[i] == b[i] || (a[i] != a[i] && b[i] != b[i]));
    return same;
}
// NaN agrees with nothing; nor does infinity, whose difference to itself is NaN.
__device__ __forceinline__ bool is_close(
    const real (&a)[K], const real (&old)[K], real atol, real rtol)
{
    bool met = true;
#pragma unroll
    for (int i = 0; i < K; ++i) met = met && fabs(a[i] - old[i]) - rtol * fabs(old[i]) <= atol;
    return met;
}
// The greater, NaN if either is.
__device__ __forceinline__ real greater(real a, real b) { return a >= b || a != a ? a : b; }

__device__ __forceinline__ real greatest_difference(const real (&a)[K], const real (&b)[K])
{
    real most = real(0);
#pragma unroll
    for (int i = 0; i < K; ++i) most = greater(most, fabs(a[i] - b[i]));
    return most;
}
__device__ __forceinline__ unsigned bits(float a) { return __float_as_uint(a); }
__device__ __forceinline__ Count bits(double a) { return Count(__double_as_longlong(a)); }

// Numbers that are not negative are ordered as their bits are, with NaN above all: so the result
// depends on no order. Most threads find that theirs is not greater.
__device__ __forceinline__ void raise(real* place, real value)
{
    typedef decltype(bits(value)) Bits;
    const Bits found = bits(fabs(value));
    if (found > *reinterpret_cast<volatile Bits*>(place))
        atomicMax(reinterpret_cast<Bits*>(place), found);
}
// Over neighbouring threads, a power of two of them; always in the same order.
__device__ __forceinline__ real group_greatest(real value, int group)
{
    for (int apart = group / 2; apart; apart /= 2)
        value = greater(value, __shfl_xor_sync(ALL, value, apart));
    return value;
}
// The same of several numbers: their exchanges do not wait for each other.
template <int N>
__device__ __forceinline__ void group_greatest(real (&values)[N], int group)
{
    for (int apart = group / 2; apart; apart /= 2)
#pragma unroll
        for (int i = 0; i < N; ++i)
            values[i] = greater(values[i], __shfl_xor_sync(ALL, values[i], apart));
}
__device__ __forceinline__ real group_sum(real value, int group)
{
    for (int apart = group / 2; apart; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    return value;
}
__device__ __forceinline__ void add_to(Count* place, Count value)
{
    for (int apart = WARP / 2; apart; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    if (threadIdx.x % WARP == 0 && value) atomicAdd(place, value);
}
// total + error, to twice the precision: Knuth, TAOCP vol. 2, 4.2.2, theorem B.
__device__ __forceinline__ void add_exactly(real& total, real& error, real value)
{
    const real sum = total + value, part = sum - total;
    error += (total - (sum - part)) + (value - part);
    total = sum;
}

__device__ __forceinline__ void load_lane(const real* array, Index at, Index n, real (&out)[K])
{
#pragma unroll
    for (int i = 0; i < K; ++i) out[i] = array[at + i * n];
}
__device__ __forceinline__ void store_lane(real* array, Index at, Index n, const real (&v)[K])
{
#pragma unroll
    for (int i = 0; i < K; ++i) array[at + i * n] = v[i];
}

// A square matrix times another, or times a vector.
__device__ __forceinline__ void multiply(const real (&A)[K][K], real (&B)[K][K])
{
#pragma unroll
    for (int j = 0; j < K; ++j) {
        real column[K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            column[i] = A[i][0] * B[0][j];
#pragma unroll
            for (int l = 1; l < K; ++l) column[i] = fma(A[i][l], B[l][j], column[i]);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) B[i][j] = column[i];
    }
}
__device__ __forceinline__ void multiply(const real (&A)[K][K], real (&v)[K])
{
    real product[K];
#pragma unroll
    for (int i = 0; i < K; ++i) {
        product[i] = A[i][0] * v[0];
#pragma unroll
        for (int l = 1; l < K; ++l) product[i] = fma(A[i][l], v[l], product[i]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) v[i] = product[i];
}
__device__ __forceinline__ void set_identity(real (&A)[K][K])
{
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) A[i][j] = real(i == j);
}
// Of a chunk's linear map, in arrays (P, B, K, K, n) and (P, B, K, n).
__device__ __forceinline__ void store_map(
    const Work& w, Index chunk, real* blocks, const real (&A)[K][K])
{
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) blocks[w.state(chunk, K * K) + (i * K + j) * w.n] = A[i][j];
}
