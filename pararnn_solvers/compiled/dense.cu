// Many rows of a dense recurrence, step after step, in one launch: products with matrices and what
// comes between them.
//
// A row is a sequence, or a chunk of one, with a position in time of its own. Rows never wait for
// each other, so that no launch ends with a step: a *team* of blocks takes R rows through all their
// steps, and each of its blocks has some of the channels. A thread has ROWS rows of CHANNELS channels:
// their states, inputs and sums stay in registers (`Cell`). The operands of the next products lie in
// shared memory, one line of R rows for each entry; matrices are read where they are, from the
// second cache. Blocks of a team hand each other their operands through global memory: one barrier
// before the products of each level (Diamos et al. 2016, "Persistent RNNs", without resident
// matrices).
//
// What is printed for a step comes before this text (constants, `Cell`, namespace step) and after it
// (`advance`). Each entry of a product is summed in order of the rows of the matrix, fused: a row
// gives the same bits however rows and channels are shared out.

typedef long long Index;
typedef unsigned long long Count;
constexpr int THREADS = 256;

template <int SIZE> struct Magnitude;
template <> struct Magnitude<4> {
    typedef unsigned Bits;
    __device__ static __forceinline__ Bits of(float a) { return __float_as_uint(::fabs(a)); }
    __device__ static __forceinline__ float number(Bits b) { return __uint_as_float(b); }
};
template <> struct Magnitude<8> {
    typedef Count Bits;
    __device__ static __forceinline__ Bits of(double a) { return Bits(__double_as_longlong(::fabs(a))); }
    __device__ static __forceinline__ double number(Bits b) { return __longlong_as_double(Index(b)); }
};
// As integers, magnitudes have an order, and NaN exceeds all others.
typedef Magnitude<sizeof(real)> Size;
typedef Size::Bits Bits;

template <int N> struct __align__(N * sizeof(real)) Pack { real of[N]; };
constexpr int WIDEST = 16 / sizeof(real);  // numbers that are read at once

// Where rows are, as long as a launch lasts: what is the same for all threads of a team.
struct Team {
    real* exchange;   // (2, SLOTS * n, R): operands on their way to the other blocks
    Bits* norms;      // (3, 2, R): how far rows are from what is stored, and how large that is
    Count* arrived;   // how often a block has come to the barrier
    Count met;        // how often this one has
    int blocks, part;
};

template <int ROWS, int CHANNELS>
struct Rows {
    static constexpr int PACK = ROWS < WIDEST ? ROWS : WIDEST;
    // Entries of a sum whose loads are under way at once: the less there is to do with each, the more.
    static constexpr int UNROLL = ROWS * CHANNELS < 4 ? 16 : (ROWS * CHANNELS < 16 ? 8 : 4);
    const real *theta, *matrices;
    const Index* place;
    Index n;
    int R, line, first;       // rows of a team; numbers in a line; the first row of this thread
    Index channel[CHANNELS];  // beyond the last one, that itself: it is read, never written
    bool has[CHANNELS];
    Cell cells[ROWS][CHANNELS];
    real* operands;           // (SLOTS * n, line)
    Bits* norms;              // (2, R)
    Index *at, *left;         // (R): where rows are, and how many steps they have left
    Team team;

    // Sums of products, G columns for each channel, into the cells' from FIRST on.
    // shape: the first operand, their number, where the matrix begins, its columns N.
    template <int FIRST, int G>
    __device__ __forceinline__ void multiply(const Index* shape)
    {
        const real* left = operands + shape[0] * line + first;
        const real* right = matrices + shape[2];
        const Index depth = shape[1], N = shape[3];
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                for (int g = 0; g < G; ++g) cells[i][c].products[FIRST + g] = real(0);
#pragma unroll UNROLL
        for (Index k = 0; k < depth; ++k) {
            real a[ROWS], b[CHANNELS][G];
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                for (int g = 0; g < G; ++g) b[c][g] = __ldg(right + k * N + g * n + channel[c]);
#pragma unroll
            for (int i = 0; i < ROWS; i += PACK) {
                const Pack<PACK> some = *reinterpret_cast<const Pack<PACK>*>(left + k * line + i);
#pragma unroll
                for (int j = 0; j < PACK; ++j) a[i + j] = some.of[j];
            }
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                    for (int g = 0; g < G; ++g) {
                        real& sum = cells[i][c].products[FIRST + g];
                        sum = fma(a[i], b[c][g], sum);
                    }
        }
    }

    // Lay out one number of each cell as a line of operands, where the block or the team reads it.
    // Before it: a barrier, since others may still be multiplying.
    template <class Value>
    __device__ __forceinline__ void publish(int slot, Value value)
    {
        real* const target = team.blocks == 1 ? operands : team.exchange;
        const Index length = team.blocks == 1 ? line : R;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            if (!has[c]) continue;
            real* to = target + (slot * n + channel[c]) * length + first;
#pragma unroll
            for (int i = 0; i < ROWS; i += PACK) {
                Pack<PACK> some;
#pragma unroll
                for (int j = 0; j < PACK; ++j) some.of[j] = value(cells[i + j][c]);
                *reinterpret_cast<Pack<PACK>*>(to + i) = some;
            }
        }
    }

    // Wait until all blocks of the team have published, and take over what they have.
    __device__ __forceinline__ void meet(int slot, int slots)
    {
        __syncthreads();
        if (team.blocks == 1) return;
        ++team.met;
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(team.arrived, Count(1));
            while (*(volatile Count*)team.arrived < team.met * team.blocks) __nanosleep(32);
            __threadfence();
        }
        __syncthreads();
        const Index packs = R / PACK, begin = slot * n;
        for (Index i = threadIdx.x; i < slots * n * packs; i += THREADS) {
            const Index entry = begin + i / packs, at = i % packs * PACK;
#pragma unroll
            for (int j = 0; j < PACK; ++j)
                operands[entry * line + at + j] = __ldcg(team.exchange + entry * R + at + j);
        }
        __syncthreads();
    }

    // The other half of the exchange: slower blocks may still be reading this one.
    __device__ __forceinline__ void turn(Count step)
    {
        const Index half = SLOTS * n * R;
        if (team.blocks > 1) team.exchange += step % 2 ? -half : half;
    }

    // Make the norms of a step those of all blocks: before, and after the barrier.
    __device__ __forceinline__ void give_norms(Count step)
    {
        __syncthreads();
        if (team.blocks == 1) return;
        for (int r = threadIdx.x; r < 2 * R; r += THREADS)
            atomicMax(team.norms + step % 3 * 2 * R + r, norms[r]);
    }
    __device__ __forceinline__ void take_norms(Count step)
    {
        if (team.blocks == 1) return;
        for (int r = threadIdx.x; r < 2 * R; r += THREADS) {
            norms[r] = __ldcg(team.norms + step % 3 * 2 * R + r);
            // Everybody has read those of the step before, and nobody writes to them yet.
            if (team.part == 0) team.norms[(step + 2) % 3 * 2 * R + r] = 0;
        }
        __syncthreads();
    }
};

// One step: cells' next states, from their states and inputs and the operands that are published.
template <int ROWS, int CHANNELS>
__device__ __forceinline__ void advance(Rows<ROWS, CHANNELS>& rows);

template <int ROWS, int CHANNELS>
__device__ __forceinline__ void publish_states(Rows<ROWS, CHANNELS>& rows);

// March rows [begin, end) at most `steps` steps.
//
// Arrays of all rows: states (rows, d), from which they start, and where they are at the end;
// position of the next state among all T * batch; left, how many steps; met, how many were left when
// the stored trajectory was met, or 0; gap (rows, 2), how far it was at first (before: negative), and
// where it was met. With atol >= 0 a row ends before it stores a state as close as that to the one
// stored. y: products of inputs, of which each has a table with a row for each step and row.
template <int ROWS, int CHANNELS>
__global__ void __launch_bounds__(THREADS, 1) march(
    const real* x, const real* y, const real* theta, const real* matrices, const Index* place,
    real* h, real* states, Index* position, Index* left, Index* met, real* gap, real* exchange,
    Bits* norms, Count* arrived, real atol, real rtol, Index begin, Index end, Index all, Index batch,
    Index n, Index steps, int columns, int blocks)
{
    extern __shared__ __align__(16) unsigned char room[];
    typedef Rows<ROWS, CHANNELS> Mine;
    Mine rows;
    const Index d = K * n, number = blockIdx.x / blocks;
    rows.theta = theta, rows.matrices = matrices, rows.place = place, rows.n = n;
    rows.R = ROWS * (THREADS / columns), rows.line = rows.R + Mine::PACK;
    rows.first = threadIdx.x / columns * ROWS;
    rows.at = reinterpret_cast<Index*>(room), rows.left = rows.at + rows.R;
    rows.operands = reinterpret_cast<real*>(rows.left + rows.R);
    rows.norms = reinterpret_cast<Bits*>(rows.operands + SLOTS * n * rows.line);
    rows.team = {exchange + number * 2 * SLOTS * n * rows.R, norms + number * 6 * rows.R,
                 arrived + number, 0, blocks, int(blockIdx.x % blocks)};
    // The first row of this thread among all; there may be none, then it does as another one does.
    const Index base = begin + number * rows.R + rows.first, beyond = end - 1;
    const bool keeps = threadIdx.x % columns == 0;  // the books of its rows, for this block
    const bool reports = keeps && rows.team.part == 0, comparing = atol >= real(0);
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        const Index j = (Index(rows.team.part) * CHANNELS + c) * columns + threadIdx.x % columns;
        rows.has[c] = j < n;
        rows.channel[c] = j < n ? j : n - 1;
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const Index row = base + i < end ? base + i : beyond;
        if (keeps) {
            rows.at[rows.first + i] = position[row];
            rows.left[rows.first + i] = base + i < end ? left[row] : 0;
        }
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
            for (int k = 0; k < K; ++k)
                rows.cells[i][c].states[k] = states[row * d + k * n + rows.channel[c]];
    }
    for (int r = threadIdx.x; r < 2 * rows.R; r += THREADS) rows.norms[r] = 0;
    publish_states(rows);
    rows.meet(0, STATE_SLOTS);
    rows.turn(0);
    for (Index s = 0; s < steps; ++s) {
        bool goes = false;
        if (keeps) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) goes |= rows.left[rows.first + i] > 0;
        }
        if (!__syncthreads_or(goes)) break;  // in all blocks of the team at once
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const Index row = base + i < end ? base + i : beyond, at = rows.at[rows.first + i];
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
                step::load_drives(x, y, place, at, s * all + row, rows.channel[c], rows.cells[i][c]);
        }
        advance(rows);
        __syncthreads();
        if (comparing) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                Bits far = 0, great = 0;
                const real* stored = h + rows.at[rows.first + i] * d;
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                    for (int k = 0; k < K; ++k) {
                        const real old = stored[k * n + rows.channel[c]];
                        const Bits gap_here = Size::of(old - rows.cells[i][c].next[k]);
                        far = gap_here > far ? gap_here : far;
                        great = Size::of(old) > great ? Size::of(old) : great;
                    }
                atomicMax(rows.norms + rows.first + i, far);
                atomicMax(rows.norms + rows.R + rows.first + i, great);
            }
            rows.give_norms(s);
        }
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                for (int k = 0; k < K; ++k) rows.cells[i][c].states[k] = rows.cells[i][c].next[k];
        publish_states(rows);
        rows.meet(0, STATE_SLOTS);
        rows.turn(s + 1);
        if (comparing) rows.take_norms(s);
        unsigned stays = 0;  // bits of rows that store and go on
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const int r = rows.first + i;
            if (rows.left[r] == 0) continue;
            if (comparing) {
                const real far = Size::number(rows.norms[r]);
                const real great = Size::number(rows.norms[rows.R + r]);
                if (reports && gap[2 * (base + i)] < real(0)) gap[2 * (base + i)] = far;
                if (far <= atol + rtol * great) {
                    if (reports) met[base + i] = rows.left[r], gap[2 * (base + i) + 1] = far;
                    continue;
                }
            }
            stays |= 1u << i;
            real* to = h + rows.at[r] * d;
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                for (int k = 0; k < K; ++k)
                    if (rows.has[c]) to[k * n + rows.channel[c]] = rows.cells[i][c].states[k];
        }
        __syncthreads();
        for (int r = threadIdx.x; r < 2 * rows.R; r += THREADS) rows.norms[r] = 0;
        if (keeps) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                Index& rest = rows.left[rows.first + i];
                rest = stays >> i & 1u ? rest - 1 : 0;
                if (rest > 0) rows.at[rows.first + i] += batch;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        if (base + i >= end) continue;
        if (reports) {
            position[base + i] = rows.at[rows.first + i];
            left[base + i] = rows.left[rows.first + i];
        }
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
            for (int k = 0; k < K; ++k)
                if (rows.has[c])
                    states[(base + i) * d + k * n + rows.channel[c]] = rows.cells[i][c].states[k];
    }
}
