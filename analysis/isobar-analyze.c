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
#include "analysis/photon_list.h"
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

/* Per pixel of the detector, [n_pixels]. */
struct detector {
    size_t n_pixels, n_valid;
    uint32_t *number; /* of the valid ones, in order; UINT32_MAX where masked */
    uint32_t *photon_image;
    uint8_t *is_masked;          /* by the detector, the user, or hot */
    struct photon_event *events; /* of one frame */
};

static int detector_init(struct detector *detector, const struct frames *frames, const char *mask_path, struct err *err)
{
    const struct frames_info *info = frames_info(frames);
    size_t n = info->n_rows * info->n_columns;
    *detector = (struct detector){.n_pixels = n,
                                  .number = malloc(n * sizeof *detector->number),
                                  .photon_image = calloc(n, sizeof *detector->photon_image),
                                  .is_masked = malloc(n),
                                  .events = malloc(n * sizeof *detector->events)};
    if (!detector->number || !detector->photon_image || !detector->is_masked || !detector->events)
        return err_set(err, ERR_SYSTEM, "no memory for %zu pixels", n);
    memcpy(detector->is_masked, frames_is_masked(frames), n);
    int code = mask_path ? frame_file_read_mask(mask_path, info->n_rows, info->n_columns, detector->is_masked, err) : 0;
    for (size_t i = 0; i < n; i++)
        detector->number[i] = detector->is_masked[i] ? UINT32_MAX : (uint32_t)detector->n_valid++;
    return code;
}

static void detector_free(struct detector *detector)
{
    free(detector->events);
    free(detector->number);
    free(detector->photon_image);
    free(detector->is_masked);
}

static void mask_hot_pixels(struct detector *detector, const struct photon_list *list)
{
    for (size_t i = 0, hot = 0; i < detector->n_pixels && hot < list->n_hot; i++)
        if (detector->number[i] == list->hot_pixels[hot]) {
            detector->is_masked[i] = 1;
            hot++;
        }
}

/* The frame's events with valid-pixel numbers, into detector->events; returns how many are under the mask. */
static size_t take_events(struct detector *detector, const struct event_frame *frame)
{
    size_t n = 0, next_bright = 0;
    for (size_t i = 0; i < frame->n_events; i++) {
        uint32_t pixel = event_pixel(frame, i), count = event_count(frame, i, &next_bright);
        if (detector->is_masked[pixel])
            continue;
        detector->photon_image[pixel] += count;
        detector->events[n++] = (struct photon_event){detector->number[pixel], count};
    }
    return n;
}

/* With `cache`, every frame goes into it as it is. */
static int read_frames(struct frames *frames, struct photon_list *list, struct detector *detector,
                       struct event_cache_writer *cache, struct err *err)
{
    struct event_frame frame;
    int code = 0;
    for (size_t t = 0; t < list->n_frames && code == 0; t++) {
        code = frames_next(frames, &frame, err);
        if (code < 0)
            break;
        assert(code == 1);
        size_t n = take_events(detector, &frame);
        code = photon_list_add_frame(list, t, detector->events, n, err);
        if (code == 0 && cache)
            code = event_cache_append(cache, &frame, err);
        show_progress(t + 1, list->n_frames);
    }
    if (code == 0)
        code = photon_list_finish(list, err);
    if (code == 0)
        mask_hot_pixels(detector, list);
    return code;
}

/* ---- the whole of it ----------------------------------------------------------------------------------------- */

static int correlate(const struct arguments *arguments, const struct frames *frames, const struct photon_list *list,
                     const struct detector *detector, struct outcome *outcome, struct err *err)
{
    struct ttcf ttcf;
    int code = ttcf_correlate(&ttcf, list, arguments->with_matrix, err);
    if (code) {
        err_prefix(err, "%s", arguments->input_path);
        return code;
    }
    struct isf_curve curve;
    const struct frames_info *info = frames_info(frames);
    outcome->n_frames = ttcf.n_frames;
    outcome->n_pixels = ttcf.n_pixels;
    outcome->n_photons = ttcf.n_photons;
    outcome->is_fitted = isf_fit(&ttcf, info->frame_time_s, &outcome->fit, &curve, &outcome->reason) == 0;
    struct result result = {.master_path = frames_master_path(frames),
                            .info = info,
                            .is_masked = detector->is_masked,
                            .n_hot_pixels = list->n_hot,
                            .photon_image = detector->photon_image,
                            .first_frame = arguments->first_frame,
                            .ttcf = &ttcf,
                            .curve = &curve,
                            .fit = outcome->is_fitted ? &outcome->fit : NULL,
                            .reason = outcome->is_fitted ? NULL : outcome->reason.message};
    code = result_file_write(arguments->result_path, &result, err);
    ttcf_free(&ttcf);
    return code;
}

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

static int analyze_frames(const struct arguments *arguments, struct frames *frames, struct outcome *outcome,
                          struct err *err)
{
    const struct frames_info *info = frames_info(frames);
    size_t end_frame = arguments->end_frame ? arguments->end_frame : info->n_frames;
    if (end_frame > info->n_frames)
        return err_set(err, ERR_ARG, "frames %zu:%zu asked for, but %s has %zu", arguments->first_frame, end_frame,
                       arguments->input_path, info->n_frames);
    struct photon_list list = {0};
    struct detector detector;
    struct event_cache_writer *cache = NULL;
    int code = detector_init(&detector, frames, arguments->mask_path, err);
    if (code == 0) {
        code = photon_list_init(&list, detector.n_valid, end_frame - arguments->first_frame, err);
        if (code)
            err_prefix(err, "%s", arguments->input_path);
    }
    if (code == 0)
        code = frames_start(frames, arguments->first_frame, end_frame, arguments->n_threads, err);
    if (code == 0)
        code = begin_cache(arguments, frames, &cache, err);
    if (code == 0)
        code = read_frames(frames, &list, &detector, cache, err);
    if (code == 0)
        code = correlate(arguments, frames, &list, &detector, outcome, err);
    if (code == 0 && cache)
        code = event_cache_commit(cache, err);
    else
        event_cache_discard(cache);
    photon_list_free(&list);
    detector_free(&detector);
    return code;
}

static int analyze(const struct arguments *arguments, struct outcome *outcome, struct err *err)
{
    struct frames *frames;
    int64_t start_ns = clock_wall_ns();
    int code = frames_open(&frames, arguments->input_path, &arguments->settings, err);
    if (code)
        return code;
    snprintf(outcome->master_path, sizeof outcome->master_path, "%s", frames_master_path(frames));
    code = analyze_frames(arguments, frames, outcome, err);
    frames_close(frames);
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
