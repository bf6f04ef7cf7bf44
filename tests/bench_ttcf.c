/*
 * bench_ttcf: frames of events in memory -> two-time correlation and g2, as one JSON line per case.
 *
 * Data: flat Poisson photons on 2,048 x 2,048 pixels, 0.002 per pixel and frame, 7,000 frames (case C) or 14,000 (D);
 * SEED=N draws others. Ten bins: pixel rows in ten bands, interleaved. Warm: the second run in the process.
 *
 * The bound is what no event correlator can be faster than on this machine, measured in the same run with one thread:
 * a visit of one line of the cache per photon, in the order of the frames' events, asked for ahead (the photons of a
 * pixel must be found), or one increment in the first cache per photon pair, whichever takes longer, and the matrix's
 * bytes written once. The benchmark prints them all.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "analysis/ttcf.h"
#include "sim/random.h"

#define SIDE 2048
#define N_PIXELS ((size_t)SIDE * SIDE)
#define PIXEL_BITS 22
#define MEAN 0.002

struct scan {
    size_t n_frames, n_events, n_photons;
    size_t *first;    /* [n_frames + 1] */
    uint32_t *events; /* [n_events] */
};

static struct random dice;

/* Gaps between pixels with photons are geometric; a pixel that has one has more by the Poisson law. */
static struct scan draw_scan(size_t n_frames)
{
    double p_any = -expm1(-MEAN), p_two = (p_any - MEAN * exp(-MEAN)) / p_any, scale = 1.0 / log1p(-p_any);
    size_t size = (size_t)(1.01 * MEAN * (double)N_PIXELS * (double)n_frames) + 100000;
    struct scan scan = {.n_frames = n_frames,
                        .first = calloc(n_frames + 1, sizeof *scan.first),
                        .events = malloc(size * sizeof *scan.events)};
    for (size_t t = 0; t < n_frames; t++) {
        for (double at = floor(log(random_uniform(&dice)) * scale); at < (double)N_PIXELS;
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
    uint8_t *lines = mmap(NULL, N_PIXELS * 64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(lines, N_PIXELS * 64, MADV_HUGEPAGE);
    memset(lines, 1, N_PIXELS * 64);
    double best_s = INFINITY;
    for (int round = 0; round < 3; round++) {
        double start_s = now_s();
        for (size_t i = 0; i < scan->n_events; i++) {
            size_t ahead = i + 24 < scan->n_events ? i + 24 : i;
            __builtin_prefetch(lines + 64 * (size_t)(scan->events[ahead] % N_PIXELS), 1);
            lines[64 * (size_t)(scan->events[i] % N_PIXELS)]++;
        }
        best_s = fmin(best_s, now_s() - start_s);
    }
    munmap(lines, N_PIXELS * 64);
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

/* ---- the correlator ------------------------------------------------------------------------------------------ */

static double correlate(const struct scan *scan, int n_bins, bool with_matrix, uint64_t *ret_pairs,
                        double *ret_slowest_s)
{
    struct ttcf_run *run;
    struct err err = {0};
    uint8_t *bins = malloc(N_PIXELS);
    for (size_t p = 0; p < N_PIXELS; p++)
        bins[p] = (uint8_t)(1 + p / SIDE % (size_t)n_bins);
    const struct ttcf_settings settings = {.n_frames = scan->n_frames,
                                           .n_pixels = N_PIXELS,
                                           .n_bins = n_bins,
                                           .bin_of_pixel = bins,
                                           .with_matrix = with_matrix};
    double start_s = now_s();
    int code = ttcf_begin(&run, &settings, &err);
    *ret_slowest_s = 0.0;
    for (size_t t = 0; t < scan->n_frames && code == 0; t++) {
        const struct event_frame frame = {.events = scan->events + scan->first[t],
                                          .n_events = scan->first[t + 1] - scan->first[t],
                                          .pixel_bits = PIXEL_BITS};
        double frame_start_s = now_s();
        code = ttcf_add_frame(run, &frame, &err);
        *ret_slowest_s = fmax(*ret_slowest_s, now_s() - frame_start_s);
    }
    *ret_pairs = 0;
    for (int b = 1; b <= n_bins && code == 0; b++) {
        struct ttcf ttcf;
        code = ttcf_result(run, b, true, &ttcf, &err);
        for (size_t lag = 1; code == 0 && lag < scan->n_frames; lag++)
            *ret_pairs += (uint64_t)ttcf.pairs[lag];
        if (code == 0)
            ttcf_free(&ttcf);
    }
    double took_s = now_s() - start_s;
    if (code) {
        fprintf(stderr, "bench_ttcf: %s\n", err.message);
        exit(1);
    }
    ttcf_end(run);
    free(bins);
    return took_s;
}

static void run_case(const char *name, const struct scan *scan, int n_bins, bool with_matrix)
{
    uint64_t n_pairs;
    double slowest_s, cold_s = correlate(scan, n_bins, with_matrix, &n_pairs, &slowest_s);
    double warm_s = correlate(scan, n_bins, with_matrix, &n_pairs, &slowest_s);
    size_t matrix_bytes = with_matrix ? scan->n_frames * (scan->n_frames + 1) / 2 * sizeof(float) * (size_t)n_bins : 0;
    double visits_s = visit_s(scan), pairs_s = pair_s(n_pairs, scan->n_frames);
    double written_s = matrix_bytes ? write_s(matrix_bytes) : 0.0, bound_s = fmax(visits_s, pairs_s) + written_s;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf(
        "{\"bench\":\"ttcf\",\"case\":\"%s\",\"bins\":%d,\"matrix\":%s,\"time_s\":%.3f,\"cold_s\":%.3f,"
        "\"visits_s\":%.3f,\"pairs_s\":%.3f,\"matrix_s\":%.3f,\"bound_s\":%.3f,\"ratio_to_bound\":%.2f,"
        "\"pairs\":%llu,\"photons\":%zu,\"frame_ms_mean\":%.3f,\"frame_ms_max\":%.2f,\"threads\":1,\"rss_mb\":%ld}\n",
        name, n_bins, with_matrix ? "true" : "false", warm_s, cold_s, visits_s, pairs_s, written_s, bound_s,
        warm_s / bound_s, (unsigned long long)n_pairs, scan->n_photons, 1e3 * warm_s / (double)scan->n_frames,
        1e3 * slowest_s, usage.ru_maxrss / 1024);
    fflush(stdout);
}

int main(void)
{
    const char *seed = getenv("SEED");
    dice.state = seed ? strtoull(seed, NULL, 10) : 1;
    struct scan scan = draw_scan(7000);
    run_case("C", &scan, 1, true);
    run_case("C", &scan, 10, true);
    run_case("C", &scan, 10, false);
    free(scan.events);
    free(scan.first);
    scan = draw_scan(14000);
    run_case("D", &scan, 1, true);
    return 0;
}
