// Corner pooling, forward and backward. It includes nothing: NVRTC compiles this file without changes, and so does a
// host compiler with tests/emulation/cuda_on_host.h.
//
// It is compiled once per element type and access width. The host defines one of FLOAT64, FLOAT32, FLOAT16, BFLOAT16;
// VEC, the number of neighbouring elements per access (16 bytes, or 1 element if sizes or addresses do not allow that);
// HELD, the number of accesses in flight per thread and tensor; THREADS, the largest block.
//
// Terms:
//   line   the elements that one running maximum passes over, in scan order; position 0 is the first
//   run    the consecutive positions of a line that one thread holds in registers
//   slot   the number, within the block, of the run that a thread holds in its line
//   chunk  the positions of a line that a block holds at once: slots x the length of a run; blocks loop over chunks
//   record a position that beats all before it. The output changes there, and its gradient is the sum of the output
//          gradients from there up to the next record.
// Threads exchange one value per run through shared memory; then one thread walks along the slots of each line. There
// are no shuffles and no atomics: every sum has one fixed order.

typedef long long i64;

#if defined(FLOAT64)
typedef double Stored;
typedef double Wide;
#elif defined(FLOAT32)
typedef float Stored;
typedef float Wide;
#elif defined(FLOAT16) || defined(BFLOAT16)
typedef unsigned short Stored;
typedef float Wide;
#else
#error "define FLOAT64, FLOAT32, FLOAT16 or BFLOAT16"
#endif

#if defined(BFLOAT16)
__device__ inline Wide widen(Stored bits) { return __uint_as_float((unsigned)bits << 16); }

__device__ inline Stored narrow(Wide value) {
    const unsigned bits = __float_as_uint(value);
    if (value != value) return 0x7fc0;
    return (Stored)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // nearest, ties to even
}
#elif defined(FLOAT16)
__device__ inline Wide widen(Stored half) {
    const unsigned magnitude = (unsigned)(half & 0x7fff) << 13;
    // the product shifts the exponent's bias and normalises subnormals; it is exact
    unsigned bits = __float_as_uint(__uint_as_float(magnitude) * 5.192296858534828e33f);  // 2^112
    if (magnitude >= 0x0f800000) bits |= 0x7f800000;                                      // infinity, NaN
    return __uint_as_float(bits | (unsigned)(half & 0x8000) << 16);
}

__device__ inline Stored narrow(Wide value) {
    const unsigned bits = __float_as_uint(value), sign = (bits >> 16) & 0x8000;
    unsigned magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7e00;                     // NaN
    if (magnitude >= 0x477ff000) return (Stored)(sign | 0x7c00);  // 65520 and more round to infinity
    if (magnitude < 0x38800000) {                                  // a subnormal: the adder rounds to 2^-24
        return (Stored)(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000));
    }
    magnitude += 0xfff + ((magnitude >> 13) & 1);  // nearest, ties to even
    return (Stored)(sign | ((magnitude - 0x38000000) >> 13));
}
#else
__device__ inline Wide widen(Stored value) { return value; }
__device__ inline Stored narrow(Wide value) { return value; }
#endif

struct alignas(sizeof(Stored) * VEC) Pack {
    Stored element[VEC];
};

__device__ inline Wide lowest() {
#if defined(FLOAT64)
    return __longlong_as_double((i64)0xfff0000000000000ull);
#else
    return __uint_as_float(0xff800000u);
#endif
}

// whether `next` replaces the maximum `best`, which is earlier in the scan: ties stay, NaN wins and stays
__device__ inline bool beats(Wide next, Wide best) { return next > best || (next != next && best == best); }

__device__ inline Wide larger(Wide best, Wide next) { return next > best || next != next ? next : best; }

extern __shared__ __align__(16) unsigned char shared_bytes[];

// ------------------------------------------------------------------------------------- walks along the slots of a line
// Cells are ordered by slot, `pitch` apart. Values are fetched eight at a time, because a fetch is slower than a step.
constexpr int BATCH = 8;

// Replace each cell by the maximum of all before it, the first by `carry`; leave the maximum of all in `carry`.
__device__ inline void maxima_before(Wide* cells, Wide* carry, int lines, int slots, int pitch, bool begin,
                                     int thread) {
    for (int line = thread; line < lines; line += blockDim.x) {
        Wide best = begin ? lowest() : carry[line];
        for (int slot = 0; slot < slots; slot += BATCH) {
            Wide next[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) next[i] = slot + i < slots ? cells[(slot + i) * pitch + line] : lowest();
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                if (slot + i < slots) cells[(slot + i) * pitch + line] = best;
                best = larger(best, next[i]);
            }
        }
        carry[line] = best;
    }
}

// A cell holds the sum over its run's positions before the run's first record (`marks` tells whether it has one).
// Replace it by the sum that the positions after the run add to the run's last record.
__device__ inline void sums_after(Wide* cells, const unsigned char* marks, Wide* carry, int lines, int slots, int pitch,
                                  bool begin) {
    for (int line = threadIdx.x; line < lines; line += blockDim.x) {
        Wide sum = begin ? (Wide)0 : carry[line];
        for (int slot = slots - 1; slot >= 0; slot -= BATCH) {
            Wide head[BATCH];
            bool closed[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                head[i] = slot - i >= 0 ? cells[(slot - i) * pitch + line] : (Wide)0;
                closed[i] = slot - i >= 0 && marks[(slot - i) * pitch + line];
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                if (slot - i >= 0) cells[(slot - i) * pitch + line] = sum;
                sum = closed[i] ? head[i] : sum + head[i];
            }
        }
        carry[line] = sum;
    }
}

// ------------------------------------------------------------------------------------------- who holds which elements
// Neighbouring lines: element (o, k, lane) of [outer][length][lanes]. A thread holds VEC lines, with one access per
// position.
template <int N>
struct Strided {
    static constexpr int LINES = VEC, RUN = N, ACCESSES = N;
    i64 base, length, step;
    int slot, slots, line, lines, apart;
    bool live, active, reversed;

    __device__ Strided(i64 block, i64 outer, i64 length, i64 lanes, int slots, bool reversed)
        : length(length), step(lanes), slots(slots), reversed(reversed) {
        apart = blockDim.x / slots;
        slot = threadIdx.x / apart;
        line = threadIdx.x % apart;
        active = slot < slots;
        lines = apart * LINES;
        const i64 vectors = lanes / VEC, vector = block * apart + line;
        live = active && vector < outer * vectors;
        base = vector / vectors * length * lanes + vector % vectors * VEC;
    }

    __device__ bool inside(int, int r, i64 chunk) const { return live && chunk + slot * RUN + r < length; }

    __device__ i64 position(int r, i64 chunk) const { return chunk + slot * RUN + r; }

    __device__ i64 address(i64 k) const { return base + (reversed ? length - 1 - k : k) * step; }

    __device__ void fetch(const Stored* from, i64 chunk, Pack (&pack)[ACCESSES]) const {
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            if (inside(0, r, chunk)) pack[r] = *(const Pack*)(from + address(position(r, chunk)));
        }
    }

    __device__ void decode(const Pack (&pack)[ACCESSES], i64 chunk, Wide otherwise, Wide (&to)[LINES][RUN]) const {
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
#pragma unroll
            for (int l = 0; l < LINES; ++l) to[l][r] = inside(l, r, chunk) ? widen(pack[r].element[l]) : otherwise;
        }
    }

    __device__ void store(Stored* to, i64 chunk, const Wide (&from)[LINES][RUN]) const {
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            Pack pack;
#pragma unroll
            for (int l = 0; l < LINES; ++l) pack.element[l] = narrow(from[l][r]);
            if (inside(0, r, chunk)) *(Pack*)(to + address(position(r, chunk))) = pack;
        }
    }
};

// Contiguous lines: element (row, k) of [rows][length]. A thread holds N rows, with one access per run. `length` is a
// multiple of VEC, so that a run is either inside or outside.
template <int N>
struct Rows {
    static constexpr int LINES = N, RUN = VEC, ACCESSES = N;
    i64 first, rows, length;
    int slot, slots, line, lines, apart;
    bool active, reversed;

    __device__ Rows(i64 block, i64 rows, i64 length, int slots, bool reversed)
        : rows(rows), length(length), slots(slots), reversed(reversed) {
        apart = blockDim.x / slots;
        slot = threadIdx.x % slots;
        line = threadIdx.x / slots;
        active = line < apart;
        lines = apart * LINES;
        first = block * lines + line;
    }

    __device__ bool inside(int l, int, i64 chunk) const {
        return active && first + l * apart < rows && chunk + slot * RUN < length;
    }

    __device__ i64 position(int r, i64 chunk) const { return chunk + slot * RUN + r; }

    __device__ i64 address(int l, i64 chunk) const {
        const i64 k = position(0, chunk);
        return (first + l * apart) * length + (reversed ? length - RUN - k : k);
    }

    __device__ void fetch(const Stored* from, i64 chunk, Pack (&pack)[ACCESSES]) const {
#pragma unroll
        for (int l = 0; l < LINES; ++l) {
            if (inside(l, 0, chunk)) pack[l] = *(const Pack*)(from + address(l, chunk));
        }
    }

    __device__ void decode(const Pack (&pack)[ACCESSES], i64 chunk, Wide otherwise, Wide (&to)[LINES][RUN]) const {
#pragma unroll
        for (int l = 0; l < LINES; ++l) {
#pragma unroll
            for (int r = 0; r < RUN; ++r) {
                const Stored element = reversed ? pack[l].element[RUN - 1 - r] : pack[l].element[r];
                to[l][r] = inside(l, r, chunk) ? widen(element) : otherwise;
            }
        }
    }

    __device__ void store(Stored* to, i64 chunk, const Wide (&from)[LINES][RUN]) const {
#pragma unroll
        for (int l = 0; l < LINES; ++l) {
            Pack pack;
#pragma unroll
            for (int r = 0; r < RUN; ++r) pack.element[r] = narrow(reversed ? from[l][RUN - 1 - r] : from[l][r]);
            if (inside(l, 0, chunk)) *(Pack*)(to + address(l, chunk)) = pack;
        }
    }
};

// The cell of a thread's l-th line. An odd pitch keeps neighbouring slots in different banks.
template <class Job>
__device__ inline int pitch(const Job& job) {
    return job.lines | 1;
}

template <class Job>
__device__ inline int cell(const Job& job, int l) {
    return job.slot * pitch(job) + job.line + l * job.apart;
}

// ------------------------------------------------------------------------------------------------ one direction at once
template <class Job>
__device__ inline void forward(const Job& job, const Stored* x, const Stored* addend, Stored* y) {
    Wide* cells = (Wide*)shared_bytes;
    Wide* carry = cells + job.slots * pitch(job);
    // the next chunk is requested before this one is processed
    Pack ahead[Job::ACCESSES];
    job.fetch(x, 0, ahead);
    for (i64 chunk = 0; chunk < job.length; chunk += job.slots * Job::RUN) {
        Wide value[Job::LINES][Job::RUN];
        job.decode(ahead, chunk, lowest(), value);
        job.fetch(x, chunk + job.slots * Job::RUN, ahead);
        Pack more[Job::ACCESSES];
        if (addend) job.fetch(addend, chunk, more);
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
#pragma unroll
            for (int r = 1; r < Job::RUN; ++r) value[l][r] = larger(value[l][r - 1], value[l][r]);
            if (job.active) cells[cell(job, l)] = value[l][Job::RUN - 1];
        }
        __syncthreads();
        maxima_before(cells, carry, job.lines, job.slots, pitch(job), chunk == 0, threadIdx.x);
        __syncthreads();
        Wide other[Job::LINES][Job::RUN];
        if (addend) job.decode(more, chunk, 0, other);
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
            const Wide before = job.active ? cells[cell(job, l)] : lowest();
#pragma unroll
            for (int r = 0; r < Job::RUN; ++r) {
                value[l][r] = larger(before, value[l][r]);
                if (addend) value[l][r] += other[l][r];
            }
        }
        job.store(y, chunk, value);
    }
}

// Two passes over the chunks: the scan, for the records, a bit per position; then back, for the sums. `records` keeps
// the bits between them, a word per thread and chunk; it is not used if one chunk holds the whole line.
template <class Job>
__device__ inline void backward(const Job& job, i64 block, const Stored* grad, const Stored* x, Stored* out,
                                unsigned* records) {
    static_assert(Job::LINES * Job::RUN <= 32, "a word holds a thread's records");
    Wide* cells = (Wide*)shared_bytes;
    Wide* carry = cells + job.slots * pitch(job);
    unsigned char* marks = (unsigned char*)(carry + job.lines);
    const i64 step = (i64)job.slots * Job::RUN, chunks = (job.length + step - 1) / step;
    records += block * chunks * blockDim.x + threadIdx.x;

    // each chunk is requested before the one ahead of it is processed; the gradient's first chunk, before the scan
    Pack ahead[Job::ACCESSES], share[Job::ACCESSES];
    job.fetch(x, 0, ahead);
    job.fetch(grad, (chunks - 1) * step, share);

    unsigned bits = 0;
    for (i64 c = 0; c < chunks; ++c) {
        Wide value[Job::LINES][Job::RUN];
        job.decode(ahead, c * step, lowest(), value);
        job.fetch(x, (c + 1) * step, ahead);
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
            Wide best = value[l][0];
#pragma unroll
            for (int r = 1; r < Job::RUN; ++r) best = larger(best, value[l][r]);
            if (job.active) cells[cell(job, l)] = best;
        }
        __syncthreads();
        maxima_before(cells, carry, job.lines, job.slots, pitch(job), c == 0, threadIdx.x);
        __syncthreads();
        bits = 0;
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
            Wide best = job.active ? cells[cell(job, l)] : lowest();
#pragma unroll
            for (int r = 0; r < Job::RUN; ++r) {
                // the first position is a record for any value, including minus infinity
                const bool record = beats(value[l][r], best) || job.position(r, c * step) == 0;
                if (record) bits |= 1u << (l * Job::RUN + r);
                best = larger(best, value[l][r]);
            }
        }
        if (chunks > 1) records[c * blockDim.x] = bits;
    }

    for (i64 c = chunks - 1; c >= 0; --c) {
        if (chunks > 1) bits = records[c * blockDim.x];
        Wide value[Job::LINES][Job::RUN];
        job.decode(share, c * step, 0, value);
        if (c > 0) job.fetch(grad, (c - 1) * step, share);
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
            Wide sum = 0;
#pragma unroll
            for (int r = Job::RUN - 1; r >= 0; --r) {
                sum += value[l][r];
                if (bits >> (l * Job::RUN + r) & 1) sum = 0;
            }
            if (job.active) {
                cells[cell(job, l)] = sum;
                marks[cell(job, l)] = (bits >> (l * Job::RUN) & ((1u << Job::RUN) - 1)) != 0;
            }
        }
        __syncthreads();
        sums_after(cells, marks, carry, job.lines, job.slots, pitch(job), c == chunks - 1);
        __syncthreads();
#pragma unroll
        for (int l = 0; l < Job::LINES; ++l) {
            Wide sum = job.active ? cells[cell(job, l)] : 0;
#pragma unroll
            for (int r = Job::RUN - 1; r >= 0; --r) {
                const bool record = bits >> (l * Job::RUN + r) & 1;
                sum += value[l][r];
                value[l][r] = record ? sum : 0;
                if (record) sum = 0;
            }
        }
        job.store(out, c * step, value);
    }
}

// ------------------------------------------------------------------------------------------------ both directions, fused
// A thread holds DOWN x ACROSS positions of LANES planes, and slots run along both axes: one read of each input, one
// write of the sum. `Planes`: contiguous planes, an access moves neighbours of one row. `Channels`: channels_last, an
// access moves neighbouring channels of one position. The block spans the width; it walks along the height.
struct Planes {
    static constexpr int DOWN = HELD, ACROSS = VEC, LANES = 1, ACCESSES = HELD;
    i64 base, width;
    int group, column, row, place;  // place: index of the column and group in the block
    bool live;

    __device__ Planes(i64 block, i64 batch, i64 channels, i64 height, i64 width, int groups, int columns, int rows)
        : width(width) {
        column = threadIdx.x % columns;
        row = threadIdx.x / columns % rows;
        group = threadIdx.x / (columns * rows);
        place = group * columns + column;
        const i64 plane = block * groups + group;
        live = group < groups && plane < batch * channels && column * ACROSS < width;
        base = plane * height * width;
    }

    // first position along the row of the access that covers scan position k
    __device__ i64 address(i64 i, i64 k, bool reversed) const {
        return base + i * width + (reversed ? width - ACROSS - k : k);
    }

    __device__ static int down(int access) { return access; }
    __device__ static int across(int, int element) { return element; }
    __device__ static int lane(int) { return 0; }
    __device__ static int starts(int) { return 0; }
    __device__ static int element(int e, bool reversed) { return reversed ? VEC - 1 - e : e; }
};

struct Channels {
    static constexpr int DOWN = 1, ACROSS = HELD, LANES = VEC, ACCESSES = HELD;
    i64 base, width, channels;
    int group, column, row, place;  // place: index of the column and group in the block
    bool live;

    __device__ Channels(i64 block, i64 batch, i64 channels, i64 height, i64 width, int groups, int columns, int rows)
        : width(width), channels(channels) {
        group = threadIdx.x % groups;
        column = threadIdx.x / groups % columns;
        row = threadIdx.x / (groups * columns);
        place = column * groups + group;
        const i64 blocks = (channels / VEC + groups - 1) / groups;
        const i64 channel = (block % blocks * groups + group) * VEC;
        live = row < rows && channel < channels && block / blocks < batch;
        base = block / blocks * height * width * channels + channel;
    }

    __device__ i64 address(i64 i, i64 k, bool reversed) const {
        return base + (i * width + (reversed ? width - 1 - k : k)) * channels;
    }

    __device__ static int down(int) { return 0; }
    __device__ static int across(int access, int) { return access; }
    __device__ static int lane(int element) { return element; }
    __device__ static int starts(int access) { return access; }
    __device__ static int element(int e, bool) { return e; }
};

template <class Tile>
__device__ inline void corner_forward(const Tile& tile, const Stored* vertical, const Stored* horizontal, Stored* y,
                                      i64 height, i64 width, int groups, int columns, int rows, bool reversed) {
    constexpr int DOWN = Tile::DOWN, ACROSS = Tile::ACROSS, LANES = Tile::LANES, ACCESSES = Tile::ACCESSES;
    const int beside = groups * columns, vertical_lines = beside * ACROSS * LANES, vertical_pitch = vertical_lines | 1;
    const int above = groups * rows, horizontal_lines = above * DOWN * LANES, horizontal_pitch = horizontal_lines | 1;
    Wide* vertical_cells = (Wide*)shared_bytes;
    Wide* vertical_carry = vertical_cells + rows * vertical_pitch;
    Wide* horizontal_cells = vertical_carry + vertical_lines;
    Wide* horizontal_carry = horizontal_cells + columns * horizontal_pitch;
    const bool active = tile.group < groups && tile.row < rows;
    const int vertical_cell = tile.row * vertical_pitch + tile.place;
    const int horizontal_cell = tile.column * horizontal_pitch + tile.group * rows + tile.row;

    const auto inside = [&](i64 chunk, int access) {
        return tile.live && chunk + tile.row * DOWN + Tile::down(access) < height &&
               tile.column * ACROSS + Tile::starts(access) < width;
    };
    const auto address = [&](i64 chunk, int access) {
        const i64 i = chunk + tile.row * DOWN + Tile::down(access);
        return tile.address(reversed ? height - 1 - i : i, tile.column * ACROSS + Tile::starts(access), reversed);
    };

    // requested one chunk ahead, as above
    Pack v[ACCESSES], h[ACCESSES];
    const auto fetch = [&](i64 chunk) {
#pragma unroll
        for (int a = 0; a < ACCESSES; ++a) {
            if (inside(chunk, a)) {
                v[a] = *(const Pack*)(vertical + address(chunk, a));
                h[a] = *(const Pack*)(horizontal + address(chunk, a));
            }
        }
    };
    fetch(0);
    for (i64 chunk = 0; chunk < height; chunk += rows * DOWN) {
        Wide down[DOWN][ACROSS][LANES], across[DOWN][ACROSS][LANES];
#pragma unroll
        for (int a = 0; a < ACCESSES; ++a) {
#pragma unroll
            for (int e = 0; e < VEC; ++e) {
                const int i = Tile::down(a), j = Tile::across(a, e), lane = Tile::lane(e);
                const Stored from_v = reversed ? v[a].element[Tile::element(e, true)] : v[a].element[e];
                const Stored from_h = reversed ? h[a].element[Tile::element(e, true)] : h[a].element[e];
                down[i][j][lane] = inside(chunk, a) ? widen(from_v) : lowest();
                across[i][j][lane] = inside(chunk, a) ? widen(from_h) : lowest();
            }
        }
        fetch(chunk + rows * DOWN);

#pragma unroll
        for (int lane = 0; lane < LANES; ++lane) {
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
#pragma unroll
                for (int j = 0; j < ACROSS; ++j) {
                    if (i > 0) down[i][j][lane] = larger(down[i - 1][j][lane], down[i][j][lane]);
                    if (j > 0) across[i][j][lane] = larger(across[i][j - 1][lane], across[i][j][lane]);
                }
                if (active) horizontal_cells[horizontal_cell + (i * LANES + lane) * above] = across[i][ACROSS - 1][lane];
            }
#pragma unroll
            for (int j = 0; j < ACROSS; ++j) {
                if (active) vertical_cells[vertical_cell + (j * LANES + lane) * beside] = down[DOWN - 1][j][lane];
            }
        }
        __syncthreads();
        maxima_before(vertical_cells, vertical_carry, vertical_lines, rows, vertical_pitch, chunk == 0, threadIdx.x);
        // starts at the last thread, so that other warps take these lines
        maxima_before(horizontal_cells, horizontal_carry, horizontal_lines, columns, horizontal_pitch, true,
                      blockDim.x - 1 - threadIdx.x);
        __syncthreads();

        Pack sum[ACCESSES];
#pragma unroll
        for (int a = 0; a < ACCESSES; ++a) {
#pragma unroll
            for (int e = 0; e < VEC; ++e) {
                const int i = Tile::down(a), j = Tile::across(a, e), lane = Tile::lane(e);
                Wide above_it = lowest(), before_it = lowest();
                if (active) {
                    above_it = vertical_cells[vertical_cell + (j * LANES + lane) * beside];
                    before_it = horizontal_cells[horizontal_cell + (i * LANES + lane) * above];
                }
                const Stored total = narrow(larger(above_it, down[i][j][lane]) + larger(before_it, across[i][j][lane]));
                if (reversed) sum[a].element[Tile::element(e, true)] = total;
                if (!reversed) sum[a].element[e] = total;
            }
            if (inside(chunk, a)) *(Pack*)(y + address(chunk, a)) = sum[a];
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- entry points
// All sizes and flags are 64-bit integers. Forward: `addend` can be null, or `y` itself.
#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 2)

ENTRY strided_forward(const Stored* x, const Stored* addend, Stored* y, i64 outer, i64 length, i64 lanes, i64 slots,
                      i64 reversed) {
    forward(Strided<HELD>(blockIdx.x, outer, length, lanes, slots, reversed), x, addend, y);
}

ENTRY rows_forward(const Stored* x, const Stored* addend, Stored* y, i64 rows, i64 length, i64 slots, i64 reversed) {
    forward(Rows<HELD>(blockIdx.x, rows, length, slots, reversed), x, addend, y);
}

ENTRY corner_forward_planes(const Stored* vertical, const Stored* horizontal, Stored* y, i64 batch, i64 channels,
                            i64 height, i64 width, i64 groups, i64 columns, i64 rows, i64 reversed) {
    const Planes tile(blockIdx.x, batch, channels, height, width, groups, columns, rows);
    corner_forward(tile, vertical, horizontal, y, height, width, groups, columns, rows, reversed);
}

ENTRY corner_forward_channels(const Stored* vertical, const Stored* horizontal, Stored* y, i64 batch, i64 channels,
                              i64 height, i64 width, i64 groups, i64 columns, i64 rows, i64 reversed) {
    const Channels tile(blockIdx.x, batch, channels, height, width, groups, columns, rows);
    corner_forward(tile, vertical, horizontal, y, height, width, groups, columns, rows, reversed);
}

ENTRY strided_backward(const Stored* grad, const Stored* x, Stored* out, unsigned* records, i64 outer, i64 length,
                       i64 lanes, i64 slots, i64 reversed) {
    backward(Strided<HELD>(blockIdx.x, outer, length, lanes, slots, reversed), blockIdx.x, grad, x, out, records);
}

ENTRY rows_backward(const Stored* grad, const Stored* x, Stored* out, unsigned* records, i64 rows, i64 length, i64 slots,
                    i64 reversed) {
    backward(Rows<HELD>(blockIdx.x, rows, length, slots, reversed), blockIdx.x, grad, x, out, records);
}

// Both gradients in one grid. The blocks of the two scans alternate evenly, so that both read `grad` at about the same
// time and the second read hits the L2 cache. Returns the number of vertical blocks before block `b`.
__device__ inline i64 vertical_before(i64 b, i64 vertical_blocks, i64 blocks) { return b * vertical_blocks / blocks; }

ENTRY corner_backward_planes(const Stored* grad, const Stored* vertical, const Stored* horizontal, Stored* grad_v,
                             Stored* grad_h, unsigned* records_v, unsigned* records_h, i64 batch, i64 channels, i64 height,
                             i64 width, i64 vertical_blocks, i64 slots_v, i64 slots_h, i64 reversed) {
    const i64 b = vertical_before(blockIdx.x, vertical_blocks, gridDim.x);
    if (vertical_before(blockIdx.x + 1LL, vertical_blocks, gridDim.x) > b) {
        backward(Strided<HELD>(b, batch * channels, height, width, slots_v, reversed), b, grad, vertical, grad_v,
                 records_v);
    } else {
        const i64 block = blockIdx.x - b;
        backward(Rows<HELD>(block, batch * channels * height, width, slots_h, reversed), block, grad, horizontal,
                 grad_h, records_h);
    }
}

ENTRY corner_backward_channels(const Stored* grad, const Stored* vertical, const Stored* horizontal, Stored* grad_v,
                               Stored* grad_h, unsigned* records_v, unsigned* records_h, i64 batch, i64 channels,
                               i64 height, i64 width, i64 vertical_blocks, i64 slots_v, i64 slots_h, i64 reversed) {
    const i64 b = vertical_before(blockIdx.x, vertical_blocks, gridDim.x);
    const bool is_vertical = vertical_before(blockIdx.x + 1LL, vertical_blocks, gridDim.x) > b;
    const i64 block = is_vertical ? b : blockIdx.x - b;
    const Strided<HELD> job(block, is_vertical ? batch : batch * height, is_vertical ? height : width,
                                     is_vertical ? width * channels : channels, is_vertical ? slots_v : slots_h, reversed);
    backward(job, block, grad, is_vertical ? vertical : horizontal, is_vertical ? grad_v : grad_h,
             is_vertical ? records_v : records_h);
}
