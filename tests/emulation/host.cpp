// Runs a CUDA text on the CPU: the few names that kernels/cuda/corner_pool.cu takes from CUDA, and a block of threads
// as fibres that switch at __syncthreads(). Compiled with -DTEXT='"corner_pool.cu"' and the text's own macros.
//
// Each block runs twice as hard as on a GPU, on purpose: shared memory starts as garbage (all ones: NaN), threads run in
// ascending or descending order, so that a missing barrier shows, and a barrier that some threads skip is an error.
#include <ucontext.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

struct Index {
    unsigned x, y, z;
};

static Index threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

template <class To, class From>
static To reinterpret_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

static float __uint_as_float(unsigned bits) { return reinterpret_bits<float>(bits); }
static unsigned __float_as_uint(float value) { return reinterpret_bits<unsigned>(value); }
static double __longlong_as_double(long long bits) { return reinterpret_bits<double>(bits); }

static void __syncthreads();

constexpr size_t SHARED_BYTES = 48 * 1024;
alignas(16) unsigned char shared_bytes[SHARED_BYTES];

#include TEXT

// ---------------------------------------------------------------------------------------------------------------- fibres
enum State { READY, WAITING, DONE };

struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
};

constexpr size_t STACK = 64 * 1024;
static std::vector<Fibre> fibres;
static ucontext_t scheduler;
static unsigned running;
static void (*body)();

static void __syncthreads() {
    Fibre& me = fibres[running];
    me.state = WAITING;
    swapcontext(&me.context, &scheduler);
}

static void enter() {
    body();
    Fibre& me = fibres[running];
    me.state = DONE;
    swapcontext(&me.context, &scheduler);
}

static const char* run_block(unsigned threads, bool descending) {
    fibres.resize(threads);
    for (Fibre& fibre : fibres) {
        if (!fibre.stack) fibre.stack.reset(new char[STACK]);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = STACK;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, enter, 0);
        fibre.state = READY;
    }
    for (;;) {
        unsigned done = 0;
        for (unsigned i = 0; i < threads; ++i) {
            running = descending ? threads - 1 - i : i;
            threadIdx = {running, 0, 0};
            swapcontext(&scheduler, &fibres[running].context);
            done += fibres[running].state == DONE;
        }
        if (done == threads) return nullptr;
        if (done > 0) return "some threads ended while others wait at __syncthreads()";
    }
}

// ----------------------------------------------------------------------------------------------------------------- calls
static const long long* given;

template <auto Entry, class... Parameters, size_t... I>
static void call(void (*)(Parameters...), std::index_sequence<I...>) {
    Entry((Parameters)given[I]...);
}

template <auto Entry, class... Parameters>
static constexpr size_t count(void (*)(Parameters...)) {
    return sizeof...(Parameters);
}

template <auto Entry>
static void enter_kernel() {
    call<Entry>(Entry, std::make_index_sequence<count<Entry>(Entry)>());
}

struct Named {
    const char* name;
    void (*body)();
    size_t parameters;
};

#define KERNEL(name) {#name, enter_kernel<name>, count<name>(name)}
static const Named kernels[] = {
    KERNEL(corner_forward_planes),  KERNEL(corner_forward_channels),  KERNEL(strided_forward),  KERNEL(rows_forward),
    KERNEL(corner_backward_planes), KERNEL(corner_backward_channels), KERNEL(strided_backward), KERNEL(rows_backward),
};

// Run one launch; returns nullptr, or what was wrong with it.
extern "C" const char* run(const char* name, unsigned blocks, unsigned threads, size_t shared, int descending,
                           const long long* arguments, size_t n) {
    if (shared > SHARED_BYTES) return "more shared memory than a block has";
    for (const Named& kernel : kernels) {
        if (std::strcmp(kernel.name, name) != 0) continue;
        if (kernel.parameters != n) return "another number of arguments than the kernel has parameters";
        given = arguments;
        body = kernel.body;
        blockDim = {threads, 1, 1};
        gridDim = {blocks, 1, 1};
        for (unsigned block = 0; block < blocks; ++block) {
            blockIdx = {block, 0, 0};
            std::memset(shared_bytes, 0xff, sizeof shared_bytes);
            if (const char* problem = run_block(threads, descending)) return problem;
            for (size_t i = shared; i < sizeof shared_bytes; ++i) {
                if (shared_bytes[i] != 0xff) return "a write beyond the block's shared memory";
            }
        }
        return nullptr;
    }
    return "no such kernel";
}
