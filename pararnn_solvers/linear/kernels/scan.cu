// h_s = A_s h_{s-1} + b_s for blocks of K x K: one thread a lane, or tiles of time with look-back.
//
// A (length, sequences, K, K, n), b and h (length, sequences, K, n), as they lie in memory; a lane is
// one channel of one sequence. s counts steps as they are solved: time t = s and the block A_t, or,
// in the adjoint, t = length-1-s and the transpose of A_{t+1}. The block of s = 0 is never used.
//
// `lanes` walks through time, with the loads of the next AHEAD steps under way. `tiles` splits time:
//
// 1. A tile, `width` lanes by THREADS/width chunks of STEPS steps, is copied to shared memory; so
//    global memory is read in whole rows whatever the layout, and each number once.
// 2. Each thread composes the maps h -> A h + b of its chunk; a scan over the block's chunks
//    (Kogge & Stone 1973 in warps) gives what lies before each chunk, and the map of the tile.
// 3. The state at a tile's start comes from earlier tiles, which publish as soon as they know
//    (decoupled look-back, Merrill & Garland 2016): every tile its map, the last of each group of
//    `group` tiles its end state. A tile takes the state at its group's start and the maps since.
//    What is composed with what does not depend on timing: equal input, equal bits.
// 4. From the state at its chunk's start each thread walks through its steps.
//
// Products of blocks overflow where the states do not. Such a chunk starts from a state that is not
// finite though the state before it is (or the reverse); the first one of a lane goes to `wrong`,
// and `repair` walks through that lane from there.

// ---- what tiles tell each other ---------------------------------------------------------------

// `words`, all ones at first: tickets given out, `wrong` of each lane, seams, states, maps.
//
// A number of all ones has not been published: each says itself whether it may be used,
// which takes neither fences nor flags.
__device__ bool published(float x) { return __float_as_uint(x) != EMPTY; }
__device__ bool published(double x) { return __double_as_longlong(x) != -1ll; }
__device__ float other_nan(float) { return __uint_as_float(0x7fffffffu); }
__device__ double other_nan(double) { return __longlong_as_double(0x7fffffffffffffffll); }

template <int N, typename R>
__device__ void publish(const R (&values)[N], R* to, Index stride) {
#pragma unroll
    for (int i = 0; i < N; ++i)
        *(volatile R*)(to + i * stride) = published(values[i]) ? values[i] : other_nan(values[i]);
}

template <int N, typename R>
__device__ void await(R (&values)[N], const R* from, Index stride) {
    for (;;) {
        bool all = true;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            values[i] = *(const volatile R*)(from + i * stride);
            all = all && published(values[i]);
        }
        if (all) return;
        __nanosleep(20);
    }
}

// Either side of a seam says whether its state is finite; the second compares.
__device__ void meet_at_seam(unsigned* seam, bool is_finite, Step* wrong, Index s) {
    const unsigned other = atomicExch(seam, is_finite ? 1u : 0u);
    if (other != EMPTY && other != (is_finite ? 1u : 0u)) atomicMin(wrong, (Step)s);
}

// ---- the order of solution --------------------------------------------------------------------

template <typename T>
struct System {
    const T *A, *b;        // where s = 0 reads; a step further is A_step, b_step elements away
    T* h;
    Index A_step, b_step;
    int row, column;       // of (i, j) in a block, in channels-long vectors: i * row + j * column
};

template <int K, typename T>
__device__ System<T> in_order(
    const T* A, const T* b, T* h, Index length, Index lanes, int adjoint) {
    const Index A_step = K * K * lanes, b_step = K * lanes, last = (length - 1) * b_step;
    if (adjoint) return {A + length * A_step, b + last, h + last, -A_step, -b_step, 1, K};
    return {A, b, h, A_step, b_step, K, 1};
}

// ---- one thread a lane ------------------------------------------------------------------------

template <typename T, int K>
__device__ void fetch(T (&step)[K * K + K], const T* A, const T* b, const System<T>& in, Index n) {
#pragma unroll
    for (int i = 0; i < K; ++i) {
#pragma unroll
        for (int j = 0; j < K; ++j) step[i * K + j] = A[(i * in.row + j * in.column) * n];
        step[K * K + i] = b[i * n];
    }
}

template <int K, int AHEAD, typename T>
__device__ void walk(const System<T>& in, Index length, Index n, Index lane, Index first) {
    const Index q = lane / n, c = lane % n;
    const T *A = in.A + q * K * K * n + c, *b = in.b + q * K * n + c;
    T* h = in.h + q * K * n + c;
    Real<T> state[K];
#pragma unroll
    for (int i = 0; i < K; ++i) {
        state[i] = widen(first == 0 ? b[i * n] : h[(first - 1) * in.b_step + i * n]);
        if (first == 0) narrow(state[i], h[i * n]);
    }
    const Index start = first == 0 ? 1 : first;
    A += start * in.A_step, b += start * in.b_step, h += start * in.b_step;
    T ahead[AHEAD][K * K + K];  // as stored: to convert a number is to wait for it
    Index left = length - start, unread = left;
    auto read = [&](T(&step)[K * K + K]) {
        if (unread-- <= 0) return;
        fetch<T, K>(step, A, b, in, n);
        A += in.A_step, b += in.b_step;
    };
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) read(ahead[i]);
    while (left > 0) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (left-- <= 0) return;
            Map<Real<T>, K> map;
#pragma unroll
            for (int l = 0; l < K * K + K; ++l) map.words[l] = widen(ahead[i][l]);
            read(ahead[i]);
            apply(map, state);
#pragma unroll
            for (int l = 0; l < K; ++l) narrow(state[l], h[l * n]);
            h += in.b_step;
        }
    }
}

template <typename T, int K, int AHEAD>
__global__ void __launch_bounds__(THREADS) lanes(
    const T* A, const T* b, T* h, Index length, Index sequences, Index n, int adjoint) {
    const Index lane = (Index)blockIdx.x * THREADS + threadIdx.x;
    if (lane >= sequences * n) return;
    walk<K, AHEAD>(in_order<K>(A, b, h, length, sequences * n, adjoint), length, n, lane, 0);
}

template <typename T, int K, int AHEAD>
__global__ void __launch_bounds__(THREADS) repair(
    const T* A, const T* b, T* h, Index length, Index sequences, Index n, int adjoint,
    const Step* words) {
    const Step* wrong = words + 1;
    const Index lane = (Index)blockIdx.x * THREADS + threadIdx.x;
    if (lane >= sequences * n || wrong[lane] >= (Step)length) return;
    // A state stored in 16 bits is not the one that the walk went on from.
    const Index first = sizeof(T) == sizeof(Real<T>) ? (Index)wrong[lane] : 0;
    walk<K, AHEAD>(in_order<K>(A, b, h, length, sequences * n, adjoint), length, n, lane, first);
}

// ---- tiles of time ----------------------------------------------------------------------------

// Shared memory has 32 banks; chunks that start a power of two apart must not share one.
constexpr __host__ __device__ int padded(int e) { return e + e / 32; }

// The numbers of a tile in memory: `count` in rows of `columns`, `parts` rows a step.
struct Rows {
    int count, columns;
    bool split;            // whether a step has PARTS rows, `part` elements apart, or only one
    Index step, part;
};

template <int PARTS>
struct Position {
    int row, column, down, right;
    __device__ explicit Position(const Rows& rows)
        : row(threadIdx.x / rows.columns), column(threadIdx.x % rows.columns),
          down(THREADS / rows.columns), right(THREADS % rows.columns) {}
    __device__ Index offset(const Rows& rows) const {
        if (!rows.split) return row * rows.step + column;
        return row / PARTS * rows.step + row % PARTS * rows.part + column;
    }
    __device__ void advance(const Rows& rows) {  // by THREADS numbers
        row += down, column += right;
        if (column >= rows.columns) row += 1, column -= rows.columns;
    }
};

// Copy to shared memory, on sm_80 and later without passing through registers: all loads of a tile
// are under way at a time.
__device__ void copy(const float* from, float* to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(from) : "memory");
#else
    *to = *from;
#endif
}
__device__ void copy(const double* from, double* to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared), "l"(from) : "memory");
#else
    *to = *from;
#endif
}
__device__ void finish_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Read a tile, with 0 for the first `skip` numbers, which may not even be there.
template <int PARTS, typename T>
__device__ void read_tile(const T* from, const Rows& rows, int skip, Real<T>* tile) {
    Position<PARTS> at(rows);
    if constexpr (sizeof(T) == sizeof(Real<T>)) {
#pragma unroll 4
        for (int e = threadIdx.x; e < rows.count; e += THREADS, at.advance(rows)) {
            if (e >= skip) copy(from + at.offset(rows), tile + padded(e));
            else tile[padded(e)] = Real<T>(0);
        }
        return;
    }
    constexpr int TOGETHER = 8;  // 16-bit numbers are widened on their way: loads under way at a time
    for (int e = threadIdx.x; e < rows.count; e += TOGETHER * THREADS) {
        T batch[TOGETHER] = {};
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u, at.advance(rows)) {
            const int i = e + u * THREADS;
            if (i >= skip && i < rows.count) batch[u] = from[at.offset(rows)];
        }
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
            const int i = e + u * THREADS;
            if (i < rows.count) tile[padded(i)] = widen(batch[u]);
        }
    }
}

template <int PARTS, typename T>
__device__ void write_tile(const Real<T>* tile, const Rows& rows, T* to) {
    Position<PARTS> at(rows);
    for (int e = threadIdx.x; e < rows.count; e += THREADS, at.advance(rows))
        narrow(tile[padded(e)], to[at.offset(rows)]);
}

// Blocks of a multiprocessor that their registers must leave room for.
template <typename R, int K>
constexpr int BLOCKS = K > 2 ? 2 : K == 2 ? 4 : sizeof(R) == 4 ? 8 : 7;

template <typename T, int K, int STEPS, int WIDEST>
__global__ void __launch_bounds__(THREADS, (BLOCKS<Real<T>, K>)) tiles(
    const T* A, const T* b, T* h, Index length, Index sequences, Index n, int adjoint,
    int tile_sequences, int tile_channels, int width, int group,
    Step* words, Index seams_at, Index states_at, Index maps_at) {
    using R = Real<T>;
    Step* wrong = words + 1;
    unsigned* seams = (unsigned*)(words + seams_at);
    R *states = (R*)(words + states_at), *maps = (R*)(words + maps_at);
    constexpr int KK = K * K, WORDS = KK + K, UNROLLED = K == 1 ? STEPS : 1;
    __shared__ R A_tile[padded(THREADS * STEPS * KK)], b_tile[padded(THREADS * STEPS * K)];
    __shared__ Map<R, K> totals[WARPS * WIDEST], whole[WIDEST];
    __shared__ bool ends_finite[THREADS];
    __shared__ unsigned ticket;

    // Blocks take tiles in the order in which they start, so that nobody waits for one to come.
    if (threadIdx.x == 0) ticket = (unsigned)(atomicAdd(words, 1ull) + 1ull);  // from all ones to 0
    __syncthreads();
    const Index all_lanes = sequences * n, across = (n + tile_channels - 1) / tile_channels;
    const Index side = across * ((sequences + tile_sequences - 1) / tile_sequences);
    const Index tile = ticket / side, beside = ticket % side;
    const Index c0 = beside % across * tile_channels, q0 = beside / across * tile_sequences;
    const int nc = (int)min((Index)tile_channels, n - c0);
    const int nq = (int)min((Index)tile_sequences, sequences - q0);
    const int chunks = THREADS / width, tile_steps = chunks * STEPS;
    const Index s0 = tile * tile_steps;
    const int steps = (int)min((Index)tile_steps, length - s0);
    const bool follows = tile > 0, continues = s0 + steps < length;

    // 1.
    const System<T> in = in_order<K>(A, b, h, length, all_lanes, adjoint);
    const bool split = nc < n;
    const int A_row = nq * KK * nc, b_row = nq * K * nc;
    const Rows A_rows = {steps * A_row, split ? nc : A_row, split, in.A_step, n};
    const Rows b_rows = {steps * b_row, split ? nc : b_row, split, in.b_step, n};
    const Index b_start = s0 * in.b_step + q0 * K * n + c0;
    read_tile<KK>(in.A + s0 * in.A_step + q0 * KK * n + c0, A_rows, follows ? 0 : A_row, A_tile);
    read_tile<K>(in.b + b_start, b_rows, 0, b_tile);
    finish_copies();
    __syncthreads();

    // 2.
    const int w = threadIdx.x % width, chunk = threadIdx.x / width, begin = chunk * STEPS;
    const bool active = w < nq * nc;
    const int count = active ? max(0, min(STEPS, steps - begin)) : 0;
    const int A_at = w / nc * KK * nc + w % nc, b_at = w / nc * K * nc + w % nc;
    const Index lane = (q0 + w / nc) * n + c0 + w % nc;
    auto step_map = [&](int r) {
        Map<R, K> map;
#pragma unroll
        for (int i = 0; i < K; ++i) {
#pragma unroll
            for (int j = 0; j < K; ++j) {
                const int ij = i * in.row + j * in.column;
                map.P(i, j) = A_tile[padded((begin + r) * A_row + A_at + ij * nc)];
            }
            map.e(i) = b_tile[padded((begin + r) * b_row + b_at + i * nc)];
        }
        return map;
    };
    Map<R, K> before = identity<R, K>();
    if (count > 0) before = step_map(0);
#pragma unroll UNROLLED
    for (int r = 1; r < STEPS; ++r)
        if (r < count) before = compose(before, step_map(r));
    const int rank = (int)(tile % group);
    const bool speaks = active && chunk == 0 && continues;
    {
        const Map<R, K> all = scan_block(before, totals, width);
        if (speaks && rank < group - 1)
            publish(all.words, maps + tile * WORDS * all_lanes + lane, all_lanes);
        if (chunk == 0) whole[w] = all;  // rather than in registers until the state is known
    }

    // 3.
    Map<R, K> since = identity<R, K>();
    if (rank > 0) {
        const int share = (rank + chunks - 1) / chunks, end = min(rank, (chunk + 1) * share);
        for (int j = chunk * share; active && j < end; ++j) {
            Map<R, K> one;
            await(one.words, maps + (tile - rank + j) * WORDS * all_lanes + lane, all_lanes);
            since = compose(since, one);
        }
        since = scan_block(since, totals, width);
    }
    R entry[K] = {};
    if (active && tile >= group) {
        await(entry, states + (tile / group - 1) * K * all_lanes + lane, all_lanes);
        apply(since, entry);
    } else if (active) {  // before the first group there is nothing that `since` could multiply
#pragma unroll
        for (int i = 0; i < K; ++i) entry[i] = since.e(i);
    }
    if (speaks && rank == group - 1) {
        R exit[K];
#pragma unroll
        for (int i = 0; i < K; ++i) exit[i] = entry[i];
        apply(whole[w], exit);
        publish(exit, states + tile / group * K * all_lanes + lane, all_lanes);
    }

    // 4.
    if (chunk > 0) apply(before, entry);
    const bool starts_finite = finite(entry);
#pragma unroll UNROLLED
    for (int r = 0; r < STEPS; ++r)
        if (r < count) {
            const Map<R, K> map = step_map(r);
            apply(map, entry);
#pragma unroll
            for (int i = 0; i < K; ++i) {
                if (s0 + begin + r == 0) entry[i] = map.e(i);  // 0 * 0 + -0.0 would be 0.0
                b_tile[padded((begin + r) * b_row + b_at + i * nc)] = entry[i];
            }
        }
    ends_finite[threadIdx.x] = finite(entry);
    __syncthreads();
    if (count > 0) {
        if (chunk > 0 && ends_finite[threadIdx.x - width] != starts_finite)
            atomicMin(wrong + lane, (Step)(s0 + begin));
        if (chunk == 0 && follows)
            meet_at_seam(seams + (tile - 1) * all_lanes + lane, starts_finite, wrong + lane, s0);
        if (begin + count == steps && continues)
            meet_at_seam(
                seams + tile * all_lanes + lane, ends_finite[threadIdx.x], wrong + lane,
                s0 + tile_steps);
    }
    write_tile<K>(b_tile, b_rows, in.h + b_start);
}
