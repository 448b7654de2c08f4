// How kernels read and write rows: what a thread works on, and the two memories it may go through.
//
// Arrays as everywhere: x (T, B, m), h (T, B, d) with d = K n, component-major; row (t, b) is
// number t B + b. A *lane* is channel c of sequence b, number b * width + c, where width >= n is n itself
// or n rounded up so that the lanes of a row fill whole groups of threads. Time is cut in P chunks
// of S steps; a thread does one chunk of one lane. Channels do not couple, so lanes never wait for
// each other.
//
// Direct: neighbouring threads are neighbouring lanes, so that a warp reads whole cache lines. Each
//     thread keeps its next TILE rows in registers: loads are in flight for TILE steps.
// Staged: for fewer lanes than a warp has threads. Neighbouring threads are then chunks, whose
//     rows lie S steps apart. A warp copies TILE steps of all its chunks together, whole segments
//     at a time, to shared memory, computes there, and copies back: some 15 instructions a number.
//
// Either way each number crosses the memory bus once. A kernel asks a memory for streams of rows,
// `Input` and `Output`, and goes through its steps tile by tile: fetch, take and put, flush.

typedef long long Index;
typedef unsigned long long Count;
constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr int FORWARD = 1, BACKWARD = -1;
constexpr int AT_LEAST_ONE_DRIVE = DRIVES ? DRIVES : 1;
constexpr int AT_LEAST_ONE_PARAMETER = PARAMETERS ? PARAMETERS : 1;

// ---- what a thread works on -------------------------------------------------------------------

struct Work {
    Index T, B, n, S, P;
    Index p, b, c;     // chunk, sequence, channel
    Index begin, end;  // of its steps: backward, the last chunk begins with some that are not

    template <int DIRECTION>
    __device__ __forceinline__ void place(Index chunk, Index lane, Index width, bool inside)
    {
        p = chunk;
        b = lane / width;
        c = lane % width;
        const Index over = (p + 1) * S - T, missing = over > 0 ? over : 0;
        begin = DIRECTION == FORWARD ? 0 : missing;
        end = DIRECTION == FORWARD ? S - missing : S;
        if (!inside || p >= P || c >= n) begin = end = 0;
    }
    __device__ __forceinline__ bool exists() const { return end > 0; }
    __device__ __forceinline__ bool has(Index s) const { return s >= begin && s < end; }
    template <int DIRECTION>
    __device__ __forceinline__ Index time(Index s) const
    {
        return DIRECTION == FORWARD ? p * S + s : p * S + S - 1 - s;
    }
    // Where this lane is in an array (P, B, d), at its first component; (B, d) with chunk 0.
    __device__ __forceinline__ Index state(Index chunk, int components = K) const
    {
        return (chunk * B + b) * components * n + c;
    }
};

// ---- what rows hold ---------------------------------------------------------------------------

struct Drives {
    static constexpr int N = AT_LEAST_ONE_DRIVE;
    __device__ static __forceinline__ void load(const real* row, Index n, Index c, real (&out)[N])
    {
        step::load_drives(row, n, c, out);
    }
};

// Of the drives that channels have for themselves, and of those that they share.
struct ChannelDrives : Drives {
    __device__ static __forceinline__ void store(real* row, Index n, Index c, const real (&v)[N])
    {
        step::store_channel_drives(row, n, c, v);
    }
};
struct SharedDrives : Drives {
    __device__ static __forceinline__ void store(real* row, Index n, Index c, const real (&v)[N])
    {
        step::store_shared_drives(row, n, c, v);
    }
};

struct States {
    static constexpr int N = K;
    __device__ static __forceinline__ void load(const real* row, Index n, Index c, real (&out)[N])
    {
#pragma unroll
        for (int i = 0; i < K; ++i) out[i] = row[i * n + c];
    }
    __device__ static __forceinline__ void store(real* row, Index n, Index c, const real (&v)[N])
    {
#pragma unroll
        for (int i = 0; i < K; ++i) row[i * n + c] = v[i];
    }
};

// One number for a whole row.
struct Norm {
    static constexpr int N = 1;
    __device__ static __forceinline__ void store(real* row, Index, Index, const real (&v)[1])
    {
        row[0] = v[0];
    }
};

// ---- direct memory ----------------------------------------------------------------------------

// Neighbouring threads are neighbouring lanes.
template <int DIRECTION_, int TILE_>
struct Direct {
    static constexpr int DIRECTION = DIRECTION_, TILE = TILE_, UNROLL = TILE_;
    Work work;

    __device__ __forceinline__ Direct(
        Index T, Index B, Index n, Index width, Index S, Index P, Index)
        : work{T, B, n, S, P}
    {
        const Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x, lanes = B * width;
        work.place<DIRECTION>(i / lanes, i % lanes, width, true);
    }

    // The row of each step in an array whose rows are `length` long; SHIFT 1: the row before it,
    // which for the first step is in `before`.
    template <class Row, int SHIFT = 0>
    class Input {
        const real *first, *ahead, *before;
        Index stride;
        real kept[TILE][Row::N];

        __device__ __forceinline__ void load(const Work& w, Index s, const real* row, int j)
        {
            if (!w.has(s)) return;
            const bool none = SHIFT && w.template time<DIRECTION>(s) == 0;
            Row::load(none ? before : row, w.n, w.c, kept[j]);
        }

    public:
        __device__ __forceinline__ Input(
            Direct& memory, const real* rows, Index length, const real* before = nullptr)
        {
            const Work& w = memory.work;
            this->before = before + w.b * length;
            stride = DIRECTION * w.B * length;
            first = rows + ((w.template time<DIRECTION>(0) - SHIFT) * w.B + w.b) * length;
#pragma unroll
            for (int j = 0; j < TILE; ++j) {
                const Index s = j + (w.begin + TILE - 1 - j) / TILE * TILE;  // the first there is
                load(w, s, first + s * stride, j);
            }
        }
        __device__ __forceinline__ void fetch(const Direct&, Index s0)
        {
            ahead = first + (s0 + TILE) * stride;
        }
        __device__ __forceinline__ void take(
            const Direct& memory, Index s0, int j, real (&out)[Row::N])
        {
#pragma unroll
            for (int i = 0; i < Row::N; ++i) out[i] = kept[j][i];
            load(memory.work, s0 + j + TILE, ahead + j * stride, j);
        }
    };

    template <class Row>
    class Output {
        real* first;
        Index stride;

    public:
        __device__ __forceinline__ Output(Direct& memory, real* rows, Index length)
        {
            const Work& w = memory.work;
            stride = DIRECTION * w.B * length;
            first = rows + (w.template time<DIRECTION>(0) * w.B + w.b) * length;
        }
        template <class In>
        __device__ __forceinline__ Output(Direct& memory, real* rows, Index length, const In&)
            : Output(memory, rows, length)
        {
        }
        __device__ __forceinline__ void put(
            const Direct& memory, Index s0, int j, const real (&values)[Row::N])
        {
            Row::store(first + (s0 + j) * stride, memory.work.n, memory.work.c, values);
        }
        __device__ __forceinline__ void flush(const Direct&, Index) {}
    };

    __device__ __forceinline__ bool any(bool here) const { return here; }
};

// ---- staged memory ----------------------------------------------------------------------------

// Neighbouring threads are the same lane of neighbouring chunks, as many as a warp has room for.
template <int DIRECTION_, int TILE_>
struct Staged {
    static constexpr int DIRECTION = DIRECTION_, TILE = TILE_, UNROLL = 1, BATCH = 8;
    Work work;
    Index first;            // chunk of the warp
    int thread, q, chunks;  // thread in the warp; its chunk, and how many there are
    int room_for;           // chunks in shared memory
    real* unclaimed;

    __device__ __forceinline__ Staged(
        Index T, Index B, Index n, Index width, Index S, Index P, Index room)
        : work{T, B, n, S, P}
    {
        const int lanes = int(B * width), most = WARP / lanes;
        const Index warp = (Index(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
        thread = threadIdx.x % WARP;
        room_for = most;
        q = thread / lanes;
        first = warp * most;
        chunks = int(P - first < most ? (P > first ? P - first : 0) : most);
        work.place<DIRECTION>(first + q, thread % lanes, width, q < chunks);
        extern __shared__ real shared_memory[];
        unclaimed = shared_memory + (threadIdx.x / WARP) * room;
    }

    // TILE rows of each chunk, an odd number of words apart: threads meet different banks.
    class Segments {
    public:
        int length, shift, words, pitch;
        real* area;

        __device__ __forceinline__ Segments(Staged& memory, Index length, int shift)
            : length(int(length)), shift(shift)
        {
            words = int(memory.work.B * length);
            pitch = (TILE * words) | 1;
            area = memory.unclaimed;
            memory.unclaimed += memory.room_for * pitch;
        }
        // Copy the numbers of a tile by read(number in the array, number in shared memory) and
        // write(..., value): reads of many chunks are under way before the first is written.
        template <class Read, class Write>
        __device__ __forceinline__ void copy(
            const Staged& memory, Index s0, Read read, Write write) const
        {
            const Work& w = memory.work;
            const Index left = w.S - s0, row = DIRECTION == FORWARD ? s0 : left - TILE;
            // Of a tile that reaches beyond the chunk: its end, or backward its beginning.
            const int beyond = left >= TILE ? 0 : int(TILE - left) * words;
            const int skipped = DIRECTION == BACKWARD ? beyond : 0;
            const int end = TILE * words - (DIRECTION == FORWARD ? beyond : 0);
            const Index start = (memory.first * w.S + row - shift) * words;
            const Index stride = w.S * words, total = (w.T - shift) * words;
            // Only the last chunk of all may stop before.
            const Index of_last = total - start - (memory.chunks - 1) * stride;
            for (int e = skipped + memory.thread; e < end; e += WARP) {
                const int count = memory.chunks - (e >= of_last);
                Index from = start + e, to = from;
                int here = e, there = e;
                for (int q = 0; q < count; q += BATCH) {
                    real values[BATCH];
#pragma unroll
                    for (int i = 0; i < BATCH; ++i, from += stride, here += pitch)
                        if (q + i < count) values[i] = read(from, here);
#pragma unroll
                    for (int i = 0; i < BATCH; ++i, to += stride, there += pitch)
                        if (q + i < count) write(to, there, values[i]);
                }
            }
        }
        __device__ __forceinline__ real* row(const Staged& memory, int j) const
        {
            const int r = DIRECTION == FORWARD ? j : TILE - 1 - j;
            return area + memory.q * pitch + r * words + memory.work.b * length;
        }
    };

    template <class Row, int SHIFT = 0>
    class Input {
        const real *rows, *before;

    public:
        Segments segments;

        __device__ __forceinline__ Input(
            Staged& memory, const real* rows, Index length, const real* before = nullptr)
            : rows(rows), before(before), segments(memory, length, SHIFT)
        {
        }
        __device__ __forceinline__ void fetch(const Staged& memory, Index s0)
        {
            __syncwarp();
            segments.copy(
                memory, s0,
                [&](Index at, int) {
                    return SHIFT && at < 0 ? before[at + segments.words] : rows[at];
                },
                [&](Index, int here, real value) { segments.area[here] = value; });
            __syncwarp();
        }
        __device__ __forceinline__ void take(
            const Staged& memory, Index, int j, real (&out)[Row::N])
        {
            Row::load(segments.row(memory, j), memory.work.n, memory.work.c, out);
        }
    };

    template <class Row>
    class Output {
        real* rows;

    public:
        Segments segments;

        // What is never put is zero.
        __device__ __forceinline__ Output(Staged& memory, real* rows, Index length)
            : rows(rows), segments(memory, length, 0)
        {
            for (int i = memory.thread; i < memory.chunks * segments.pitch; i += WARP)
                segments.area[i] = real(0);
            __syncwarp();
        }
        // In the place of an input: what is never put is what was there.
        template <class In>
        __device__ __forceinline__ Output(Staged&, real* rows, Index, const In& input)
            : rows(rows), segments(input.segments)
        {
        }
        __device__ __forceinline__ void put(
            const Staged& memory, Index, int j, const real (&values)[Row::N])
        {
            Row::store(segments.row(memory, j), memory.work.n, memory.work.c, values);
        }
        __device__ __forceinline__ void flush(const Staged& memory, Index s0)
        {
            __syncwarp();
            segments.copy(
                memory, s0, [&](Index, int here) { return segments.area[here]; },
                [&](Index at, int, real value) { rows[at] = value; });
            __syncwarp();
        }
    };

    __device__ __forceinline__ bool any(bool here) const { return __any_sync(ALL, here); }
};
