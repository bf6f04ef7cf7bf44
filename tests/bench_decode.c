/*
 * bench_decode [CASE...]: frames to events, beside what bounds it, on series written here; JSON lines.
 *
 * Data: 120 frames of an EIGER2 4M (2162 x 2068, its module gaps and 300 bad pixels at the largest value), a ring,
 * small-angle scattering and a flat background, Poisson, at 0.002, 0.01 and 0.05 photons per pixel and frame, 16 and 32
 * bit, written by sim/eiger_file.c below build/bench (once; SEED=N draws others). A CASE is a name as in the lines,
 * u32_0.002. All times are the best of ROUNDS rounds in which every measured thing takes its turn, so that a busy
 * machine hits all alike; ratios are between these.
 *
 * One line per path of analysis/bslz4.h, of one thread on chunks in memory, in processor time:
 *   time_s    chunks to events, per frame
 *   bound_s   walking the tokens of the same LZ4 streams without output, per frame
 *   peer      LZ4_decompress_safe of the same blocks, without looking at what comes out; ratio_peer is its time over
 * ours and one per number of threads, of analysis/frames.h on the files, with the best path: time_s    places of
 * chunks, pread, events in order, per frame gain      over one thread; gain_bound is what a loop of arithmetic gains
 * from as many threads in the same rounds
 */
#include <hdf5.h>
#include <lz4.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "analysis/bslz4.h"
#include "analysis/frames.h"
#include "tests/eiger_series.h"

#define N_PIXELS SERIES_PIXELS
#define N_FRAMES 120
#define ROUNDS 9
#define SLICE_FRAMES 10
#define N_SLICES (N_FRAMES / SLICE_FRAMES)
#define THREADS_MAX 2
#define READ_SLACK_BYTES 64

struct bench_case {
    int bit_depth;
    double photons_per_pixel;
    const char *name;
};

static const struct bench_case cases[] = {
    {32, 0.002, "u32_0.002"}, {32, 0.01, "u32_0.01"}, {32, 0.05, "u32_0.05"},
    {16, 0.002, "u16_0.002"}, {16, 0.01, "u16_0.01"}, {16, 0.05, "u16_0.05"},
};

#define N_CASES (sizeof cases / sizeof cases[0])

/* The compressed frames of one series, in memory. */
struct chunks {
    uint8_t *bytes;
    size_t first[N_FRAMES + 1];
};

static uint64_t valid_bits[(N_PIXELS + 63) / 64];
static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Of this thread alone: what others take of the processor is not in it. */
static double cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void fail(const char *what, const struct err *err)
{
    fprintf(stderr, "bench_decode: %s: %s\n", what, err->message);
    exit(1);
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

static void series_stem(const struct bench_case *c, unsigned long seed, char *ret_stem, size_t size)
{
    snprintf(ret_stem, size, "decode_%s_%lu", c->name, seed);
}

static void write_series(const struct bench_case *c, unsigned long seed)
{
    char stem[64], path[200];
    series_stem(c, seed, stem, sizeof stem);
    snprintf(path, sizeof path, SERIES_FOLDER "/%s.whole", stem); /* stands when the series is whole */
    struct eiger_series *series = series_new(seed);
    memset(valid_bits, 0, sizeof valid_bits);
    for (size_t i = 0; i < SERIES_PIXELS; i++)
        if (!series->pixel_mask[i])
            valid_bits[i / 64] |= UINT64_C(1) << i % 64;
    if (access(path, F_OK) != 0) {
        fprintf(stderr, "bench_decode: drawing " SERIES_FOLDER "/%s\n", stem);
        struct err err = {0};
        struct eiger_file_settings settings = series_settings(series, stem, c->bit_depth, N_FRAMES, N_FRAMES);
        series_sum_up_intensity(series, c->photons_per_pixel);
        if (series_write(series, &settings, &err))
            fail(stem, &err);
        FILE *mark = fopen(path, "w");
        if (mark)
            fclose(mark);
    }
    series_free(series);
}

static struct chunks load_chunks(const struct bench_case *c, unsigned long seed)
{
    char stem[64], path[200];
    series_stem(c, seed, stem, sizeof stem);
    snprintf(path, sizeof path, SERIES_FOLDER "/%s_data_000001.h5", stem);
    struct chunks chunks = {0};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, "/entry/data/data", H5P_DEFAULT);
    for (hsize_t t = 0; t < N_FRAMES; t++) {
        hsize_t offset[3] = {t, 0, 0}, n_bytes = 0;
        uint32_t filters;
        H5Dget_chunk_storage_size(dataset, offset, &n_bytes);
        chunks.first[t + 1] = chunks.first[t] + n_bytes;
        chunks.bytes = realloc(chunks.bytes, chunks.first[t + 1] + READ_SLACK_BYTES);
        if (H5Dread_chunk(dataset, H5P_DEFAULT, offset, &filters, chunks.bytes + chunks.first[t]) < 0)
            fail(path, &(struct err){.message = "a chunk cannot be read; remove " SERIES_FOLDER});
    }
    H5Dclose(dataset);
    H5Fclose(file);
    return chunks;
}

/* ---- what is measured ---------------------------------------------------------------------------------------- */

static uint32_t big_endian_32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/*
 * Tokens of one LZ4 block: the serial chain that no decoder of it can avoid. Where the next token stands follows from
 * this one alone: one more byte of match length, which nearly every match has, is taken without a branch.
 */
static __attribute__((noinline)) size_t walk_block(const uint8_t *in, const uint8_t *end, size_t *n_tokens)
{
    size_t n_out = 0, n_seen = 0;
    for (;;) {
        size_t token = *in++, n = token >> 4, byte = 255;
        n_seen++;
        if (__builtin_expect(n == 15, 0))
            for (; byte == 255; n += byte)
                byte = *in++;
        in += n;
        n_out += n;
        if (in >= end)
            break;
        n = (token & 15) + 4;
        in += 2;
        byte = *in;
        if (__builtin_expect((n == 19) & (byte == 255), 0)) {
            for (; byte == 255; n += byte, in++)
                byte = in[0];
            n_out += n;
            continue;
        }
        n_out += n + (n == 19 ? byte : 0);
        in += n == 19;
    }
    *n_tokens += n_seen;
    return n_out;
}

static size_t walk_tokens(const struct chunks *chunks, int first, size_t *n_tokens)
{
    size_t n_out = 0;
    *n_tokens = 0;
    for (int t = first; t < first + SLICE_FRAMES; t++)
        for (size_t at = chunks->first[t] + 12; at < chunks->first[t + 1];) {
            size_t n = big_endian_32(chunks->bytes + at);
            at += 4;
            n_out += walk_block(chunks->bytes + at, chunks->bytes + at + n, n_tokens);
            at += n;
        }
    return n_out;
}

static size_t decompress_only(const struct chunks *chunks, int first)
{
    static char block[8192];
    size_t n_out = 0;
    for (int t = first; t < first + SLICE_FRAMES; t++)
        for (size_t at = chunks->first[t] + 12; at < chunks->first[t + 1];) {
            int n = (int)big_endian_32(chunks->bytes + at);
            at += 4;
            n_out += (size_t)LZ4_decompress_safe((const char *)chunks->bytes + at, block, n, sizeof block);
            at += (size_t)n;
        }
    return n_out;
}

static size_t decode(const struct bench_case *c, const struct chunks *chunks, int first, enum bslz4_path path,
                     struct event_sink *sink)
{
    struct frame_shape frame = {.n_pixels = N_PIXELS,
                                .element_bytes = c->bit_depth / 8,
                                .pixel_bits = event_pixel_bits(N_PIXELS),
                                .count_max = 60000,
                                .valid_bits = valid_bits};
    size_t n_events = 0;
    for (int t = first; t < first + SLICE_FRAMES; t++) {
        struct err err = {0};
        if (bslz4_decode_frame_by(path, &frame, chunks->bytes + chunks->first[t],
                                  chunks->first[t + 1] - chunks->first[t], sink, &err))
            fail(c->name, &err);
        n_events += sink->n_events;
    }
    return n_events;
}

/* The whole way from the files, without opening them. */
static double read_series_s(const struct bench_case *c, unsigned long seed, int n_threads, size_t *ret_n_events)
{
    char stem[64], path[200];
    struct frames_settings settings = {.end_fd = -1};
    struct frames *frames;
    struct event_frame frame;
    struct err err = {0};
    int code;
    series_stem(c, seed, stem, sizeof stem);
    snprintf(path, sizeof path, SERIES_FOLDER "/%s_master.h5", stem);
    if (frames_open(&frames, path, &settings, &err))
        fail(path, &err);
    double start_s = now_s();
    if (frames_start(frames, 0, N_FRAMES, n_threads, &err))
        fail(path, &err);
    *ret_n_events = 0;
    while ((code = frames_next(frames, &frame, &err)) > 0)
        *ret_n_events += frame.n_events;
    if (code)
        fail(path, &err);
    double took_s = now_s() - start_s;
    frames_close(frames);
    return took_s;
}

/* About 20 ms of dependent multiplications. */
static void *compute(void *ret)
{
    uint64_t x = 1;
    for (int i = 0; i < 12000000; i++)
        x = x * UINT64_C(6364136223846793005) + 1;
    *(uint64_t *)ret = x;
    return NULL;
}

/* How long it takes when n_threads do it at once. */
static double compute_s(int n_threads)
{
    pthread_t threads[THREADS_MAX];
    uint64_t result[THREADS_MAX];
    double start_s = now_s();
    for (int i = 0; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, compute, &result[i]))
            fail("threads", &(struct err){.message = "cannot be started"});
    for (int i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    return now_s() - start_s;
}

/* ---- reports ------------------------------------------------------------------------------------------------- */

static double rss_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024.0;
}

static void keep_best(double *best_s, double took_s) { *best_s = *best_s > 0.0 && *best_s < took_s ? *best_s : took_s; }

struct times {
    double walk_s, lz4_s, decode_s[BSLZ4_PATH_COUNT], series_s[THREADS_MAX + 1], compute_s[THREADS_MAX + 1];
    size_t n_tokens, n_events;
};

/* Ten frames, every measured thing in turn; adds the best of the rounds. The paths must find the same. */
static void measure_slice(const struct bench_case *c, const struct chunks *chunks, int first, struct event_sink *sink,
                          struct times *times)
{
    struct times best = {0};
    for (int round = 0; round < ROUNDS; round++) {
        double start_s = cpu_s();
        size_t n_out = walk_tokens(chunks, first, &best.n_tokens);
        keep_best(&best.walk_s, cpu_s() - start_s);
        start_s = cpu_s();
        if (decompress_only(chunks, first) != n_out)
            fail(c->name, &(struct err){.message = "liblz4 and the walk disagree on the bytes that come out"});
        keep_best(&best.lz4_s, cpu_s() - start_s);
        for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++) {
            start_s = cpu_s();
            size_t n_events = decode(c, chunks, first, path, sink);
            keep_best(&best.decode_s[path], cpu_s() - start_s);
            best.n_events = path == 0 ? n_events : best.n_events;
            if (n_events != best.n_events)
                fail(bslz4_path_name(path), &(struct err){.message = "other events than the portable path"});
        }
    }
    times->walk_s += best.walk_s;
    times->lz4_s += best.lz4_s;
    for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++)
        times->decode_s[path] += best.decode_s[path];
    times->n_tokens += best.n_tokens;
    times->n_events += best.n_events;
}

/* The gain of threads is the best that a round saw of the series and of arithmetic, one after the other. */
static void measure_threads(const struct bench_case *c, unsigned long seed, struct times *times)
{
    size_t n_events;
    for (int round = 0; round < ROUNDS; round++)
        for (int n_threads = 1; n_threads <= THREADS_MAX; n_threads++) {
            keep_best(&times->series_s[n_threads], read_series_s(c, seed, n_threads, &n_events));
            keep_best(&times->compute_s[n_threads], compute_s(n_threads));
            if (n_events != times->n_events)
                fail(c->name, &(struct err){.message = "other events by threads"});
        }
}

static void report(const struct bench_case *c, const struct times *times, const struct chunks *chunks)
{
    for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++)
        printf("{\"bench\":\"decode\",\"case\":\"%s\",\"path\":\"%s\",\"time_s\":%.3e,\"bound_s\":%.3e,"
               "\"ratio_to_bound\":%.2f,\"peer\":\"LZ4_decompress_safe\",\"ratio_peer\":%.2f,\"threads\":1,"
               "\"rss_mb\":%.0f,\"tokens\":%zu,\"token_ns\":%.2f,\"events\":%zu,\"chunk_kb\":%.0f}\n",
               c->name, bslz4_path_name(path), times->decode_s[path] / N_FRAMES, times->walk_s / N_FRAMES,
               times->decode_s[path] / times->walk_s, times->lz4_s / times->decode_s[path], rss_mb(),
               times->n_tokens / N_FRAMES, 1e9 * times->walk_s / (double)times->n_tokens, times->n_events / N_FRAMES,
               (double)chunks->first[N_FRAMES] / N_FRAMES / 1000.0);
    for (int n = 1; n <= THREADS_MAX; n++)
        printf("{\"bench\":\"decode\",\"case\":\"%s\",\"path\":\"files\",\"time_s\":%.3e,\"bound_s\":%.3e,"
               "\"ratio_to_bound\":%.2f,\"peer\":\"LZ4_decompress_safe\",\"ratio_peer\":%.2f,\"threads\":%d,"
               "\"rss_mb\":%.0f,\"gain\":%.2f,\"gain_bound\":%.2f}\n",
               c->name, times->series_s[n] / N_FRAMES, times->walk_s / N_FRAMES, times->series_s[n] / times->walk_s,
               times->lz4_s / times->series_s[n], n, rss_mb(), times->series_s[1] / times->series_s[n],
               n * times->compute_s[1] / times->compute_s[n]);
    fflush(stdout);
}

static void run_case(const struct bench_case *c, unsigned long seed)
{
    write_series(c, seed);
    struct chunks chunks = load_chunks(c, seed);
    struct event_sink sink = {.events = malloc((N_PIXELS + EVENT_SLACK) * sizeof *sink.events),
                              .bright = malloc(N_PIXELS * sizeof *sink.bright)};
    struct times times = {0};
    for (int slice = 0; slice < N_SLICES; slice++)
        measure_slice(c, &chunks, slice * SLICE_FRAMES, &sink, &times);
    measure_threads(c, seed, &times);
    report(c, &times, &chunks);
    free(sink.events);
    free(sink.bright);
    free(chunks.bytes);
}

int main(int argc, char **argv)
{
    const char *text = getenv("SEED");
    unsigned long seed = text ? strtoul(text, NULL, 10) : 1;
    mkdir("build", 0777);
    mkdir(SERIES_FOLDER, 0777);
    for (size_t i = 0; i < N_CASES; i++) {
        bool is_wanted = argc == 1;
        for (int k = 1; k < argc; k++)
            is_wanted = is_wanted || strcmp(argv[k], cases[i].name) == 0;
        if (is_wanted)
            run_case(&cases[i], seed);
    }
    return 0;
}
