/*
 * isobar-analyze: one EIGER2 series -> two-time correlation, g2, and tau, beta, contrast with their uncertainties.
 * Reads the series, writes one result file, says the result on standard output. It knows no instrument and no database.
 * Exit status: 0 done (a refused fit included: its reason is said), 1 data not usable, 2 wrong arguments.
 */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/frames.h"
#include "analysis/isf.h"
#include "analysis/photon_list.h"
#include "analysis/result_file.h"
#include "analysis/ttcf.h"
#include "base/clock.h"

struct arguments {
    const char *master_path, *result_path;
    bool is_json, with_matrix;
    size_t first_frame, end_frame; /* 0, 0: all */
};

struct outcome {
    size_t n_frames, n_pixels, n_photons;
    struct isf_fit fit;
    bool is_fitted;
    struct err reason;
    double elapsed_s;
};

static const char usage[] =
    "usage: isobar-analyze <master.h5> -o <result.hdf> [--json] [--frames <first>:<end>] [--matrix]\n"
    "  --json     one line of JSON on standard output instead of text\n"
    "  --frames   only frames first to end - 1, counted from 0\n"
    "  --matrix   keep the two-time correlation at full resolution (2 n_frames^2 bytes), else at most 1024 lines\n";

static int parse_arguments(int argc, char **argv, struct arguments *ret_arguments)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},   {"frames", required_argument, NULL, 'f'},
        {"matrix", no_argument, NULL, 'm'}, {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},   {0}};
    struct arguments arguments = {0};
    for (int option; (option = getopt_long(argc, argv, "o:h", options, NULL)) != -1;) {
        char *rest = optarg;
        if (option == 'j')
            arguments.is_json = true;
        else if (option == 'm')
            arguments.with_matrix = true;
        else if (option == 'o')
            arguments.result_path = optarg;
        else if (option == 'f') {
            arguments.first_frame = strtoul(optarg, &rest, 10);
            bool has_both = rest > optarg && *rest == ':' && rest[1] >= '0' && rest[1] <= '9';
            arguments.end_frame = has_both ? strtoul(rest + 1, &rest, 10) : 0;
            if (!has_both || *rest || arguments.end_frame <= arguments.first_frame)
                return -1;
        } else
            return -1;
    }
    if (optind != argc - 1 || !arguments.result_path)
        return -1;
    arguments.master_path = argv[optind];
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
    size_t n_pixels;
    uint32_t *number; /* of the valid ones, in order; UINT32_MAX where masked */
    uint32_t *photon_image;
    uint8_t *is_masked;
    struct photon_event *events; /* of one frame */
    struct event_sink sink;
};

static int detector_init(struct detector *detector, const struct frames *frames, struct err *err)
{
    size_t n = frames_info(frames)->n_rows * frames_info(frames)->n_columns;
    *detector = (struct detector){.n_pixels = n,
                                  .number = malloc(n * sizeof *detector->number),
                                  .photon_image = calloc(n, sizeof *detector->photon_image),
                                  .is_masked = malloc(n),
                                  .events = malloc(n * sizeof *detector->events),
                                  .sink = {.events = malloc((n + EVENT_SLACK) * sizeof *detector->sink.events),
                                           .bright = malloc(n * sizeof *detector->sink.bright)}};
    if (!detector->number || !detector->photon_image || !detector->is_masked || !detector->events ||
        !detector->sink.events || !detector->sink.bright)
        return err_set(err, ERR_SYSTEM, "no memory for %zu pixels", n);
    return 0;
}

static void detector_free(struct detector *detector)
{
    free(detector->number);
    free(detector->photon_image);
    free(detector->is_masked);
    free(detector->events);
    free(detector->sink.events);
    free(detector->sink.bright);
}

static size_t number_pixels(struct detector *detector, const uint32_t *pixel_mask)
{
    uint32_t n = 0;
    for (size_t i = 0; i < detector->n_pixels; i++) {
        detector->is_masked[i] = pixel_mask[i] != 0;
        detector->number[i] = pixel_mask[i] ? UINT32_MAX : n++;
    }
    return n;
}

static void mask_hot_pixels(struct detector *detector, const struct photon_list *list)
{
    for (size_t i = 0, hot = 0; i < detector->n_pixels && hot < list->n_hot; i++)
        if (detector->number[i] == list->hot_pixels[hot]) {
            detector->is_masked[i] = 1;
            hot++;
        }
}

static int read_frames(struct frames *frames, size_t first_frame, struct photon_list *list, struct detector *detector,
                       struct err *err)
{
    struct photon_event *events = detector->events;
    int code = 0;
    for (size_t t = 0; t < list->n_frames && code == 0; t++) {
        code = frames_read(frames, first_frame + t, &detector->sink, err);
        if (code)
            break;
        struct event_frame frame = event_frame_of(&detector->sink, event_pixel_bits(detector->n_pixels));
        size_t next_bright = 0;
        for (size_t i = 0; i < frame.n_events; i++) {
            uint32_t pixel = event_pixel(&frame, i), count = event_count(&frame, i, &next_bright);
            detector->photon_image[pixel] += count;
            events[i] = (struct photon_event){detector->number[pixel], count};
        }
        code = photon_list_add_frame(list, t, events, frame.n_events, err);
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
        err_prefix(err, "%s", arguments->master_path);
        return code;
    }
    struct isf_curve curve;
    const struct frames_info *info = frames_info(frames);
    outcome->n_frames = ttcf.n_frames;
    outcome->n_pixels = ttcf.n_pixels;
    outcome->n_photons = ttcf.n_photons;
    outcome->is_fitted = isf_fit(&ttcf, info->frame_time_s, &outcome->fit, &curve, &outcome->reason) == 0;
    struct result result = {.master_path = arguments->master_path,
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

static int analyze_frames(const struct arguments *arguments, struct frames *frames, struct outcome *outcome,
                          struct err *err)
{
    const struct frames_info *info = frames_info(frames);
    size_t end_frame = arguments->end_frame ? arguments->end_frame : info->n_frames;
    if (end_frame > info->n_frames)
        return err_set(err, ERR_ARG, "frames %zu:%zu asked for, but %s has %zu", arguments->first_frame, end_frame,
                       arguments->master_path, info->n_frames);
    struct photon_list list = {0};
    struct detector detector;
    int code = detector_init(&detector, frames, err);
    if (code == 0) {
        size_t n_valid = number_pixels(&detector, frames_pixel_mask(frames));
        code = photon_list_init(&list, n_valid, end_frame - arguments->first_frame, err);
        if (code)
            err_prefix(err, "%s", arguments->master_path);
    }
    if (code == 0)
        code = read_frames(frames, arguments->first_frame, &list, &detector, err);
    if (code == 0)
        code = correlate(arguments, frames, &list, &detector, outcome, err);
    photon_list_free(&list);
    detector_free(&detector);
    return code;
}

static int analyze(const struct arguments *arguments, struct outcome *outcome, struct err *err)
{
    struct frames *frames;
    int64_t start_ns = clock_wall_ns();
    int code = frames_open(&frames, arguments->master_path, err);
    if (code)
        return code;
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
    print_json_text("master", arguments->master_path);
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
    printf("%s: %zu frames, %zu pixels, %zu photons, %.2f s\n", arguments->master_path, outcome->n_frames,
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
