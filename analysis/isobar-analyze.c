/*
 * isobar-analyze: one EIGER2 series -> two-time correlation, g2, and tau, beta, contrast with their uncertainties.
 * Reads the series, writes one result file and the photon events beside it, says the result on standard output. It
 * knows no instrument and no database. Exit status: 0 done (a refused fit included: its reason is said), 1 data not
 * usable, 2 wrong arguments.
 */
#include <assert.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/event_cache.h"
#include "analysis/frames.h"
#include "analysis/isf.h"
#include "analysis/result_file.h"
#include "analysis/ttcf.h"
#include "base/clock.h"

struct arguments {
    const char *input_path, *result_path, *mask_path;
    bool is_json, with_matrix, without_events;
    size_t first_frame, end_frame; /* 0, 0: all */
    int n_threads;
    struct frames_settings settings;
};

struct outcome {
    char master_path[1024];
    size_t n_frames, n_pixels, n_photons;
    struct isf_fit fit;
    bool is_fitted;
    struct err reason;
    double elapsed_s;
};

static const char usage[] =
    "usage: isobar-analyze <file.h5> -o <result.hdf> [options]\n"
    "       isobar-analyze --from-events <events.bin> -o <result.hdf> [options]\n"
    "  --json          one line of JSON on standard output instead of text\n"
    "  --frames A:B    only frames A to B - 1, counted from 0\n"
    "  --matrix        keep the two-time correlation at full resolution (2 n_frames^2 bytes), else at most 1024 lines\n"
    "  --mask FILE[:/PATH]  leave out the pixels where this HDF5 dataset (/mask) is not 0\n"
    "  --threads N     threads that decode frames (1)\n"
    "  --follow        the series is still being written; closing standard input says that it has ended\n"
    "  --no-events     do not keep the photon events beside the result, in <result without _results.hdf>_events.bin\n"
    "  --frame-time S, --shape ROWSxCOLUMNS  what a file without the detector's metadata leaves open\n";

static bool parse_frames(const char *text, struct arguments *arguments)
{
    char *rest;
    arguments->first_frame = strtoul(text, &rest, 10);
    bool has_both = rest > text && *rest == ':' && rest[1] >= '0' && rest[1] <= '9';
    arguments->end_frame = has_both ? strtoul(rest + 1, &rest, 10) : 0;
    return has_both && !*rest && arguments->end_frame > arguments->first_frame;
}

static bool parse_shape(const char *text, struct frames_stated *stated)
{
    char *rest;
    stated->n_rows = strtoul(text, &rest, 10);
    bool has_both = rest > text && *rest == 'x' && rest[1] >= '0' && rest[1] <= '9';
    stated->n_columns = has_both ? strtoul(rest + 1, &rest, 10) : 0;
    return has_both && !*rest && stated->n_rows > 0 && stated->n_columns > 0;
}

static bool parse_frame_time(const char *text, struct frames_stated *stated)
{
    char *rest;
    stated->frame_time_s = strtod(text, &rest);
    return rest > text && !*rest && stated->frame_time_s > 0.0 && stated->frame_time_s < 1e6;
}

static bool parse_threads(const char *text, struct arguments *arguments)
{
    char *rest;
    long n = strtol(text, &rest, 10);
    arguments->n_threads = n >= 1 && n <= FRAMES_THREADS_MAX ? (int)n : 0;
    return rest > text && !*rest && arguments->n_threads > 0;
}

/* One option; false: the usage. */
static bool take_option(int option, const char *value, struct arguments *arguments)
{
    switch (option) {
    case 'j':
        arguments->is_json = true;
        return true;
    case 'm':
        arguments->with_matrix = true;
        return true;
    case 'n':
        arguments->without_events = true;
        return true;
    case 'w':
        arguments->settings.is_followed = true;
        return true;
    case 'o':
        arguments->result_path = value;
        return true;
    case 'k':
        arguments->mask_path = value;
        return true;
    case 'e':
        arguments->input_path = value;
        arguments->settings.from_events = true;
        return true;
    case 'f':
        return parse_frames(value, arguments);
    case 's':
        return parse_shape(value, &arguments->settings.stated);
    case 'i':
        return parse_frame_time(value, &arguments->settings.stated);
    case 't':
        return parse_threads(value, arguments);
    default:
        return false;
    }
}

static int parse_arguments(int argc, char **argv, struct arguments *ret_arguments)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"frames", required_argument, NULL, 'f'},
                                            {"matrix", no_argument, NULL, 'm'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"mask", required_argument, NULL, 'k'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"follow", no_argument, NULL, 'w'},
                                            {"no-events", no_argument, NULL, 'n'},
                                            {"from-events", required_argument, NULL, 'e'},
                                            {"frame-time", required_argument, NULL, 'i'},
                                            {"shape", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct arguments arguments = {.n_threads = 1, .settings = {.end_fd = STDIN_FILENO}};
    for (int option; (option = getopt_long(argc, argv, "o:h", options, NULL)) != -1;)
        if (!take_option(option, optarg, &arguments))
            return -1;
    bool from_events = arguments.settings.from_events;
    if (optind != argc - !from_events || !arguments.result_path || (from_events && arguments.settings.is_followed))
        return -1;
    if (!from_events)
        arguments.input_path = argv[optind];
    *ret_arguments = arguments;
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static void show_progress(size_t done, size_t n)
{
    static int shown = -1;
    int percent = (int)(100 * done / n);
    if (percent == shown || !isatty(STDERR_FILENO))
        return;
    shown = percent;
    fprintf(stderr, "\rreading frames: %3d %%%s", percent, done == n ? "\n" : "");
}

/* What hot pixels show at once: those frames are kept and correlated again without them. */
#define EARLY_FRAMES 256
#define EARLY_EVENTS_MAX (size_t)(16 << 20) /* 64 MB */
#define PASSES_MAX 4                        /* a hot pixel hides another, whose turn comes in the next pass */

struct early {
    struct event_frame frames[EARLY_FRAMES];
    size_t n, n_events;
};

/* One scan on its way from frames to the result. */
struct scan {
    const struct arguments *arguments;
    struct frames *frames;
    struct ttcf_run *run;
    size_t first_frame, n_frames, n_pixels, n_hot;
    uint8_t *is_masked; /* [n_pixels], by the detector, the user, or hot */
    uint8_t *scratch;   /* [n_pixels] */
    struct early early;
    struct event_cache_writer *cache; /* until it is on the disk; NULL: none */
};

/* One bin: all valid pixels. */
static int begin_run(struct scan *scan, struct err *err)
{
    for (size_t p = 0; p < scan->n_pixels; p++)
        scan->scratch[p] = !scan->is_masked[p];
    const struct ttcf_settings settings = {.n_frames = scan->n_frames,
                                           .n_pixels = scan->n_pixels,
                                           .n_bins = 1,
                                           .bin_of_pixel = scan->scratch,
                                           .with_matrix = scan->arguments->with_matrix};
    ttcf_end(scan->run);
    scan->run = NULL;
    int code = ttcf_begin(&scan->run, &settings, err);
    if (code)
        err_prefix(err, "%s", scan->arguments->input_path);
    return code;
}

/* Hot pixels join the mask; returns how many there were. */
static size_t mask_hot_pixels(struct scan *scan)
{
    size_t n = ttcf_find_hot(scan->run, scan->scratch);
    for (size_t p = 0; n && p < scan->n_pixels; p++)
        scan->is_masked[p] |= scan->scratch[p];
    scan->n_hot += n;
    return n;
}

static int keep_early(struct early *early, const struct event_frame *frame, struct err *err)
{
    struct event_frame *kept = &early->frames[early->n++];
    uint32_t *events = malloc(frame->n_events * sizeof *events + 1);
    struct event_bright *bright = malloc(frame->n_bright * sizeof *bright + 1);
    *kept = *frame;
    kept->events = events;
    kept->bright = bright;
    if (!events || !bright)
        return err_set(err, ERR_SYSTEM, "no memory for %zu events", frame->n_events);
    memcpy(events, frame->events, frame->n_events * sizeof *events);
    memcpy(bright, frame->bright, frame->n_bright * sizeof *bright);
    early->n_events += frame->n_events;
    return 0;
}

static void forget_early(struct early *early)
{
    for (size_t i = 0; i < early->n; i++) {
        free((void *)early->frames[i].events);
        free((void *)early->frames[i].bright);
    }
    early->n = early->n_events = 0;
}

/* The first frames are in: without the hot pixels that they show, from the beginning. */
static int judge_early(struct scan *scan, struct err *err)
{
    int code = 0;
    while (code == 0 && mask_hot_pixels(scan)) {
        code = begin_run(scan, err);
        for (size_t i = 0; i < scan->early.n && code == 0; i++)
            code = ttcf_add_frame(scan->run, &scan->early.frames[i], err);
    }
    forget_early(&scan->early);
    return code;
}

/* Frame by frame: into the correlation and, where there is one, as they are into the event cache. */
static int read_frames(struct scan *scan, struct err *err)
{
    struct event_frame frame;
    bool is_early = true;
    int code = 0;
    for (size_t t = 0; t < scan->n_frames && code == 0; t++) {
        code = frames_next(scan->frames, &frame, err);
        if (code < 0)
            break;
        assert(code == 1);
        code = ttcf_add_frame(scan->run, &frame, err);
        if (code == 0 && scan->cache)
            code = event_cache_append(scan->cache, &frame, err);
        if (code == 0 && is_early)
            code = keep_early(&scan->early, &frame, err);
        bool is_enough = scan->early.n == EARLY_FRAMES || scan->early.n_events > EARLY_EVENTS_MAX;
        if (code == 0 && is_early && (is_enough || t + 1 == scan->n_frames)) {
            code = judge_early(scan, err);
            is_early = false;
        }
        show_progress(t + 1, scan->n_frames);
    }
    forget_early(&scan->early);
    return code;
}

/* ---- the whole of it ----------------------------------------------------------------------------------------- */

/* "scan_results.hdf" -> "scan_events.bin", and any other name with "_events.bin" behind it. */
static void events_path(const char *result_path, char *ret_path, size_t size)
{
    size_t n = strlen(result_path), n_suffix = strlen("_results.hdf");
    bool has_suffix = n > n_suffix && strcmp(result_path + n - n_suffix, "_results.hdf") == 0;
    snprintf(ret_path, size, "%.*s_events.bin", (int)(has_suffix ? n - n_suffix : n), result_path);
}

/* Events are kept of whole series that come from the detector's files. */
static int begin_cache(const struct arguments *arguments, const struct frames *frames,
                       struct event_cache_writer **ret_cache, struct err *err)
{
    char path[1024];
    if (arguments->without_events || arguments->settings.from_events || arguments->end_frame)
        return 0;
    events_path(arguments->result_path, path, sizeof path);
    return event_cache_create(ret_cache, path, frames_info(frames), frames_master_path(frames),
                              frames_valid_bits(frames), err);
}

static int keep_events(struct scan *scan, struct err *err)
{
    struct event_cache_writer *cache = scan->cache;
    scan->cache = NULL;
    return cache ? event_cache_commit(cache, err) : 0;
}

/* The series once more, from its events where they are kept. */
static int read_again(struct scan *scan, bool has_cache, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    struct frames_settings settings = arguments->settings;
    char path[1024];
    events_path(arguments->result_path, path, sizeof path);
    settings.is_followed = false;
    settings.from_events |= has_cache;
    struct frames *again;
    int code = frames_open(&again, has_cache ? path : arguments->input_path, &settings, err);
    if (code)
        return code;
    frames_close(scan->frames);
    scan->frames = again;
    code = begin_run(scan, err);
    if (code == 0)
        code = frames_start(again, scan->first_frame, scan->first_frame + scan->n_frames, arguments->n_threads, err);
    return code ? code : read_frames(scan, err);
}

static int read_scan(struct scan *scan, struct err *err)
{
    int code = begin_run(scan, err);
    if (code == 0)
        code = frames_start(scan->frames, scan->first_frame, scan->first_frame + scan->n_frames,
                            scan->arguments->n_threads, err);
    if (code == 0)
        code = begin_cache(scan->arguments, scan->frames, &scan->cache, err);
    bool has_cache = scan->cache != NULL;
    if (code == 0)
        code = read_frames(scan, err);
    for (int pass = 1; pass < PASSES_MAX && code == 0 && mask_hot_pixels(scan); pass++) {
        code = keep_events(scan, err);
        if (code == 0)
            code = read_again(scan, has_cache, err);
    }
    return code;
}

static int write_result(struct scan *scan, struct outcome *outcome, struct err *err)
{
    struct ttcf ttcf;
    struct isf_curve curve;
    int code = ttcf_result(scan->run, 1, true, &ttcf, err);
    if (code) {
        err_prefix(err, "%s", scan->arguments->input_path);
        return code;
    }
    const struct frames_info *info = frames_info(scan->frames);
    outcome->n_frames = ttcf.n_frames;
    outcome->n_pixels = ttcf.n_pixels;
    outcome->n_photons = ttcf.n_photons;
    outcome->is_fitted = isf_fit(&ttcf, info->frame_time_s, &outcome->fit, &curve, &outcome->reason) == 0;
    uint32_t *photon_image = malloc(scan->n_pixels * sizeof *photon_image);
    if (photon_image) {
        ttcf_count_photons(scan->run, photon_image);
        struct result result = {.master_path = outcome->master_path,
                                .info = info,
                                .is_masked = scan->is_masked,
                                .n_hot_pixels = scan->n_hot,
                                .photon_image = photon_image,
                                .first_frame = scan->first_frame,
                                .ttcf = &ttcf,
                                .curve = &curve,
                                .fit = outcome->is_fitted ? &outcome->fit : NULL,
                                .reason = outcome->is_fitted ? NULL : outcome->reason.message};
        code = result_file_write(scan->arguments->result_path, &result, err);
    } else {
        code = err_set(err, ERR_SYSTEM, "no memory for an image of %zu pixels", scan->n_pixels);
    }
    free(photon_image);
    ttcf_free(&ttcf);
    return code;
}

static int analyze_scan(struct scan *scan, struct outcome *outcome, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    const struct frames_info *info = frames_info(scan->frames);
    size_t end_frame = arguments->end_frame ? arguments->end_frame : info->n_frames;
    if (end_frame > info->n_frames)
        return err_set(err, ERR_ARG, "frames %zu:%zu asked for, but %s has %zu", arguments->first_frame, end_frame,
                       arguments->input_path, info->n_frames);
    scan->first_frame = arguments->first_frame;
    scan->n_frames = end_frame - arguments->first_frame;
    scan->n_pixels = info->n_rows * info->n_columns;
    scan->is_masked = malloc(scan->n_pixels);
    scan->scratch = malloc(scan->n_pixels);
    if (!scan->is_masked || !scan->scratch)
        return err_set(err, ERR_SYSTEM, "no memory for the mask of %zu pixels", scan->n_pixels);
    memcpy(scan->is_masked, frames_is_masked(scan->frames), scan->n_pixels);
    int code = 0;
    if (arguments->mask_path)
        code = frame_file_read_mask(arguments->mask_path, info->n_rows, info->n_columns, scan->is_masked, err);
    if (code == 0)
        code = read_scan(scan, err);
    if (code == 0)
        code = write_result(scan, outcome, err);
    return code ? code : keep_events(scan, err);
}

static int analyze(const struct arguments *arguments, struct outcome *outcome, struct err *err)
{
    struct scan scan = {.arguments = arguments};
    int64_t start_ns = clock_wall_ns();
    int code = frames_open(&scan.frames, arguments->input_path, &arguments->settings, err);
    if (code)
        return code;
    snprintf(outcome->master_path, sizeof outcome->master_path, "%s", frames_master_path(scan.frames));
    code = analyze_scan(&scan, outcome, err);
    event_cache_discard(scan.cache);
    frames_close(scan.frames);
    ttcf_end(scan.run);
    free(scan.is_masked);
    free(scan.scratch);
    outcome->elapsed_s = s_from_ns(clock_wall_ns() - start_ns);
    return code;
}

/* ---- saying it ----------------------------------------------------------------------------------------------- */

static void print_json_text(const char *key, const char *text)
{
    printf("\"%s\":\"", key);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    putchar('"');
}

static void print_json_number(const char *key, double value)
{
    if (isfinite(value))
        printf("\"%s\":%.9g,", key, value);
    else
        printf("\"%s\":null,", key);
}

static void print_json(const struct arguments *arguments, const struct outcome *outcome)
{
    const struct isf_fit nothing = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, false};
    const struct isf_fit *fit = outcome->is_fitted ? &outcome->fit : &nothing;
    putchar('{');
    print_json_text("master", outcome->master_path);
    putchar(',');
    print_json_text("result", arguments->result_path);
    printf(",\"n_frames\":%zu,\"n_pixels\":%zu,\"n_photons\":%zu,", outcome->n_frames, outcome->n_pixels,
           outcome->n_photons);
    print_json_number("tau_s", fit->tau_s);
    print_json_number("tau_s_sigma", fit->tau_s_sigma);
    print_json_number("beta", fit->beta);
    print_json_number("beta_sigma", fit->beta_sigma);
    print_json_number("contrast", fit->contrast);
    print_json_number("contrast_sigma", fit->contrast_sigma);
    print_json_number("baseline", fit->baseline);
    printf("\"degenerate\":%s,", outcome->is_fitted ? fit->is_degenerate ? "true" : "false" : "null");
    if (outcome->is_fitted)
        printf("\"reason\":null,");
    else {
        print_json_text("reason", outcome->reason.message);
        putchar(',');
    }
    printf("\"elapsed_s\":%.3f}\n", outcome->elapsed_s);
}

static void print_text(const struct arguments *arguments, const struct outcome *outcome)
{
    const struct isf_fit *fit = &outcome->fit;
    printf("%s: %zu frames, %zu pixels, %zu photons, %.2f s\n", arguments->input_path, outcome->n_frames,
           outcome->n_pixels, outcome->n_photons, outcome->elapsed_s);
    if (outcome->is_fitted)
        printf("tau      %.4g +- %.2g s%s\n"
               "beta     %.3f +- %.3f\n"
               "contrast %.5f +- %.5f\n"
               "baseline %.5f +- %.5f\n"
               "|F|^2 = exp(-2 (t/tau)^beta); written to %s\n",
               fit->tau_s, fit->tau_s_sigma, fit->is_degenerate ? "  (degenerate: above a third of the scan)" : "",
               fit->beta, fit->beta_sigma, fit->contrast, fit->contrast_sigma, fit->baseline, fit->baseline_sigma,
               arguments->result_path);
    else
        printf("no fit: %s; g2 is in %s\n", outcome->reason.message, arguments->result_path);
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    if (parse_arguments(argc, argv, &arguments) != 0) {
        fputs(usage, stderr);
        return 2;
    }
    struct outcome outcome = {0};
    struct err err = {0};
    int code = analyze(&arguments, &outcome, &err);
    if (code) {
        fprintf(stderr, "isobar-analyze: %s\n", err.message);
        if (arguments.is_json) {
            putchar('{');
            print_json_text("reason", err.message);
            puts("}");
        }
        return 1;
    }
    if (arguments.is_json)
        print_json(&arguments, &outcome);
    else
        print_text(&arguments, &outcome);
    return fflush(stdout) == 0 ? 0 : 1;
}
