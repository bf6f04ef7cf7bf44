/*
 * bench_ttcf: frames of events in memory -> two-time correlation and g2, as one JSON line per case.
 *
 * Data: flat Poisson photons on 2,048 x 2,048 pixels, 0.002 per pixel and frame, 7,000 frames (case C) or 14,000 (D);
 * SEED=N draws others. Ten bins: pixel rows in ten bands, interleaved. Warm: the second run in the process. Case E is
 * bright: 0.05 on 1,024 x 1,024 pixels, 2,000 frames. With the argument `bright` (and one mean): that scan at 0.01 to
 * 0.1, counted photon by photon, in bit planes, and as the correlator chooses.
 *
 * The bound is what no event correlator can be faster than on this machine, measured in the same run with one thread:
 * a visit of one line of the cache per photon, in the order of the frames' events, asked for ahead (the photons of a
 * pixel must be found), or one increment in the first cache per photon pair, whichever takes longer, and the matrix's
 * bytes written once. With bit planes it is the visits and, of these two, what takes longer: an AND, a count of ones
 * and an addition for each vector of all pairs of planes, from the first cache, or reading all earlier planes once for
 * each PLANES_BATCH frames, one after the other. The benchmark prints them all.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "analysis/planes.h"
#include "analysis/ttcf.h"
#include "sim/random.h"

#define PIXEL_BITS 22

struct scan {
    size_t side, n_pixels, n_frames, n_events, n_photons;
    size_t *first;    /* [n_frames + 1] */
    uint32_t *events; /* [n_events] */
};

static struct random dice;

/* Gaps between pixels with photons are geometric; a pixel that has one has more by the Poisson law. */
static struct scan draw_scan(size_t side, size_t n_frames, double mean)
{
    double p_any = -expm1(-mean), p_two = (p_any - mean * exp(-mean)) / p_any, scale = 1.0 / log1p(-p_any);
    size_t size = (size_t)(1.01 * mean * (double)(side * side) * (double)n_frames) + 100000;
    struct scan scan = {.side = side,
                        .n_pixels = side * side,
                        .n_frames = n_frames,
                        .first = calloc(n_frames + 1, sizeof *scan.first),
                        .events = malloc(size * sizeof *scan.events)};
    for (size_t t = 0; t < n_frames; t++) {
        for (double at = floor(log(random_uniform(&dice)) * scale); at < (double)scan.n_pixels;
             at += 1.0 + floor(log(random_uniform(&dice)) * scale)) {
            uint32_t more = 0;
            while (random_uniform(&dice) < p_two)
                more++;
            scan.events[scan.n_events++] = (uint32_t)at | more << PIXEL_BITS;
            scan.n_photons += 1 + more;
        }
        scan.first[t + 1] = scan.n_events;
    }
    return scan;
}

/* Processor time of this thread: all that is measured here runs in it, and a busy machine does not count. */
static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- bounds -------------------------------------------------------------------------------------------------- */

static double visit_s(const struct scan *scan)
{
    size_t n_bytes = scan->n_pixels * 64, mask = scan->n_pixels - 1;
    uint8_t *lines = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(lines, n_bytes, MADV_HUGEPAGE);
    memset(lines, 1, n_bytes);
    double best_s = INFINITY;
    for (int round = 0; round < 3; round++) {
        double start_s = now_s();
        for (size_t i = 0; i < scan->n_events; i++) {
            size_t ahead = i + 24 < scan->n_events ? i + 24 : i;
            __builtin_prefetch(lines + 64 * (scan->events[ahead] & mask), 1);
            lines[64 * (scan->events[i] & mask)]++;
        }
        best_s = fmin(best_s, now_s() - start_s);
    }
    munmap(lines, n_bytes);
    return best_s;
}

static double pair_s(uint64_t n_pairs, size_t n_frames)
{
    enum { N = 4096 };
    static uint16_t order[N];
    uint32_t *row = calloc(n_frames, sizeof *row);
    for (int i = 0; i < N; i++)
        order[i] = (uint16_t)(random_bits(&dice) % n_frames);
    double start_s = now_s();
    for (uint64_t n = 0; n < n_pairs; n += N)
        for (int i = 0; i < N; i++)
            row[order[i]]++;
    double took_s = now_s() - start_s;
    volatile uint32_t kept = row[order[0]];
    (void)kept;
    free(row);
    return took_s;
}

static double write_s(size_t n_bytes)
{
    char *memory = malloc(n_bytes);
    memset(memory, 1, n_bytes);
    double start_s = now_s();
    memset(memory, 2, n_bytes);
    double took_s = now_s() - start_s;
    volatile char kept = memory[n_bytes / 2];
    (void)kept;
    free(memory);
    return took_s;
}

/* Ones of the ANDs of planes in the first cache, n vectors of eight words. */
#ifdef __x86_64__
__attribute__((target("avx512f,avx512vpopcntdq"))) static uint64_t count_ones_by_vector(const uint64_t *a, size_t n)
{
    __m512i sum[8] = {0};
    for (size_t i = 0; i < n; i += 8)
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
            __m512i both = _mm512_and_si512(_mm512_load_si512(a + (i + k) % 64 * 8), _mm512_load_si512(a + k * 8));
            sum[k] = _mm512_add_epi64(sum[k], _mm512_popcnt_epi64(both));
        }
    for (int k = 1; k < 8; k++)
        sum[0] = _mm512_add_epi64(sum[0], sum[k]);
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
}

static bool has_vector(void) { return __builtin_cpu_supports("avx512vpopcntdq"); }
#else
static uint64_t count_ones_by_vector(const uint64_t *a, size_t n) { return a[n]; }

static bool has_vector(void) { return false; }
#endif

static uint64_t count_ones_by_word(const uint64_t *a, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 8; k++)
            sum += (uint64_t)__builtin_popcountll(a[i % 64 * 8 + k] & a[(i + 1) % 64 * 8 + k]);
    return sum;
}

static double ones_s(const struct scan *scan)
{
    static uint64_t words[65 * 8] __attribute__((aligned(64)));
    size_t n = scan->n_pixels / 512 * (scan->n_frames * (scan->n_frames - 1) / 2);
    for (size_t i = 0; i < 64 * 8; i++)
        words[i] = random_bits(&dice);
    double start_s = now_s();
    volatile uint64_t kept = has_vector() ? count_ones_by_vector(words, n) : count_ones_by_word(words, n);
    (void)kept;
    return now_s() - start_s;
}

static double planes_read_s(const struct scan *scan)
{
    size_t frame_words = scan->n_pixels / 64, n_words = frame_words * scan->n_frames;
    uint64_t *words = malloc(n_words * sizeof *words), sum[8] = {0};
    memset(words, 1, n_words * sizeof *words);
    double start_s = now_s();
    for (size_t i = 0; i < n_words; i += 8)
        for (size_t k = 0; k < 8; k++)
            sum[k] += words[i + k];
    double once_s = now_s() - start_s;
    volatile uint64_t kept = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
    (void)kept;
    free(words);
    return once_s * (double)scan->n_frames / 2.0 / PLANES_BATCH;
}

/* ---- the correlator ------------------------------------------------------------------------------------------ */

struct timing {
    double took_s, slowest_s; /* in all, and of one frame */
    uint64_t n_pairs;
    int n_digits; /* of bin 1 */
};

static struct timing correlate(const struct scan *scan, int n_bins, bool with_matrix, enum ttcf_counting counting)
{
    struct timing timing = {0};
    struct ttcf_run *run;
    struct err err = {0};
    uint8_t *bins = malloc(scan->n_pixels);
    for (size_t p = 0; p < scan->n_pixels; p++)
        bins[p] = (uint8_t)(1 + p / scan->side % (size_t)n_bins);
    const struct ttcf_settings settings = {.n_frames = scan->n_frames,
                                           .n_pixels = scan->n_pixels,
                                           .n_bins = n_bins,
                                           .bin_of_pixel = bins,
                                           .with_matrix = with_matrix,
                                           .counting = counting,
                                           .planes_path = (int)planes_best_path()};
    double start_s = now_s();
    int code = ttcf_begin(&run, &settings, &err);
    for (size_t t = 0; t < scan->n_frames && code == 0; t++) {
        const struct event_frame frame = {.events = scan->events + scan->first[t],
                                          .n_events = scan->first[t + 1] - scan->first[t],
                                          .pixel_bits = PIXEL_BITS};
        double frame_start_s = now_s();
        code = ttcf_add_frame(run, &frame, &err);
        timing.slowest_s = fmax(timing.slowest_s, now_s() - frame_start_s);
    }
    timing.n_digits = ttcf_n_digits(run, 1);
    for (int b = 1; b <= n_bins && code == 0; b++) {
        struct ttcf ttcf;
        code = ttcf_result(run, b, true, &ttcf, &err);
        for (size_t lag = 1; code == 0 && lag < scan->n_frames; lag++)
            timing.n_pairs += (uint64_t)ttcf.pairs[lag];
        if (code == 0)
            ttcf_free(&ttcf);
    }
    timing.took_s = now_s() - start_s;
    if (code) {
        fprintf(stderr, "bench_ttcf: %s\n", err.message);
        exit(1);
    }
    ttcf_end(run);
    free(bins);
    return timing;
}

/* Returns the pairs counted. */
static uint64_t run_case(const char *name, const struct scan *scan, int n_bins, bool with_matrix,
                         enum ttcf_counting counting)
{
    double cold_s = correlate(scan, n_bins, with_matrix, counting).took_s;
    struct timing warm = correlate(scan, n_bins, with_matrix, counting);
    size_t matrix_bytes = with_matrix ? scan->n_frames * (scan->n_frames + 1) / 2 * sizeof(float) * (size_t)n_bins : 0;
    double visits_s = visit_s(scan), written_s = matrix_bytes ? write_s(matrix_bytes) : 0.0;
    double pairs_s = warm.n_digits ? 0.0 : pair_s(warm.n_pairs, scan->n_frames);
    double popcounts_s = warm.n_digits ? ones_s(scan) : 0.0, read_s = warm.n_digits ? planes_read_s(scan) : 0.0;
    double bound_s = written_s + (warm.n_digits ? visits_s + fmax(popcounts_s, read_s) : fmax(visits_s, pairs_s));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf(
        "{\"bench\":\"ttcf\",\"case\":\"%s\",\"mean\":%.4g,\"bins\":%d,\"matrix\":%s,\"digits\":%d,\"time_s\":%.3f,"
        "\"cold_s\":%.3f,\"visits_s\":%.3f,\"pairs_s\":%.3f,\"ones_s\":%.3f,\"planes_read_s\":%.3f,\"matrix_s\":%.3f,"
        "\"bound_s\":%.3f,\"ratio_to_bound\":%.2f,\"pairs\":%llu,\"photons\":%zu,\"frame_ms_mean\":%.3f,"
        "\"frame_ms_max\":%.2f,\"threads\":1,\"rss_mb\":%ld}\n",
        name, (double)scan->n_photons / (double)(scan->n_pixels * scan->n_frames), n_bins,
        with_matrix ? "true" : "false", warm.n_digits, warm.took_s, cold_s, visits_s, pairs_s, popcounts_s, read_s,
        written_s, bound_s, warm.took_s / bound_s, (unsigned long long)warm.n_pairs, scan->n_photons,
        1e3 * warm.took_s / (double)scan->n_frames, 1e3 * warm.slowest_s, usage.ru_maxrss / 1024);
    fflush(stdout);
    return warm.n_pairs;
}

static void free_scan(struct scan *scan)
{
    free(scan->events);
    free(scan->first);
}

static void run_bright(const char *only)
{
    static const double means[] = {0.01, 0.02, 0.03, 0.05, 0.1};
    for (size_t i = 0; i < sizeof means / sizeof means[0]; i++) {
        if (only && strtod(only, NULL) != means[i])
            continue;
        struct scan scan = draw_scan(1024, 2000, means[i]);
        uint64_t n_pairs = run_case("lists", &scan, 1, false, TTCF_LISTS);
        if (run_case("planes", &scan, 1, false, TTCF_PLANES) != n_pairs ||
            run_case("cheapest", &scan, 1, false, TTCF_CHEAPEST) != n_pairs) {
            fprintf(stderr, "bench_ttcf: planes and lists count different pairs\n");
            exit(1);
        }
        free_scan(&scan);
    }
}

int main(int argc, char **argv)
{
    const char *seed = getenv("SEED");
    dice.state = seed ? strtoull(seed, NULL, 10) : 1;
    if (argc > 1 && strcmp(argv[1], "bright") == 0) {
        run_bright(argc > 2 ? argv[2] : NULL);
        return 0;
    }
    struct scan scan = draw_scan(2048, 7000, 0.002);
    run_case("C", &scan, 1, true, TTCF_CHEAPEST);
    run_case("C", &scan, 10, true, TTCF_CHEAPEST);
    run_case("C", &scan, 10, false, TTCF_CHEAPEST);
    free_scan(&scan);
    scan = draw_scan(2048, 14000, 0.002);
    run_case("D", &scan, 1, true, TTCF_CHEAPEST);
    free_scan(&scan);
    scan = draw_scan(512, 131072, 0.002);
    run_case("L", &scan, 1, false, TTCF_CHEAPEST);
    free_scan(&scan);
    scan = draw_scan(1024, 2000, 0.05);
    run_case("E", &scan, 1, true, TTCF_CHEAPEST);
    free_scan(&scan);
    return 0;
}
