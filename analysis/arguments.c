#include "analysis/arguments.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_BYTES ((size_t)4 << 30)

const char arguments_usage[] =
    "usage: isobar-analyze <file.h5> -o <result.hdf> [options]\n"
    "       isobar-analyze --from-events <events.bin> -o <result.hdf> [options]\n"
    "  --json          one line of JSON on standard output instead of text\n"
    "  --progress      how far it is, and when it will be done, on standard error, also when that is no terminal\n"
    "  --frames A:B    only frames A to B - 1, counted from 0\n"
    "  --threads N     threads that decode frames (1)\n"
    "  --follow        the series is still being written; closing standard input says that it has ended\n"
    "  --no-events     do not keep the photon events beside the result, in <result without _results.hdf>_events.bin\n"
    "  --frame-time S, --shape ROWSxCOLUMNS  what a file without the detector's metadata leaves open\n"
    "which pixels:\n"
    "  --mask FILE[:/PATH]  leave out the pixels where this HDF5 dataset (/mask) is not 0; may be repeated\n"
    "  --polygon FILE  leave out the pixels in the polygons of this text file: a corner per line, column and row in\n"
    "                  pixels, an empty line between two polygons; may be repeated\n"
    "  --flat FILE[:/PATH]  what pixels count of uniform light (/flat_field), to any scale: it joins the profile that "
    "the\n"
    "                  correlation is normalised by; where it is not above 0 pixels are left out\n"
    "  --keep-hits     correlate gamma quanta and cosmic particles as well; else they are left out and counted\n"
    "q bins (without any: all valid pixels are one):\n"
    "  --poni FILE     the geometry from pyFAI's calibration instead of the series' own\n"
    "  --arm H[,V]     the detector's arm, degrees towards growing columns and rows: the series' beam centre is then\n"
    "                  where the detector's normal through the sample meets it\n"
    "  --bands N       the valid pixels' range of q in N equal bands\n"
    "  --bands A:B,C:D,...  these bands of q, in 1/angstrom, ascending\n"
    "  --sectors N     every band in N equal sectors of the azimuth that is covered\n"
    "what is kept:\n"
    "  --matrix        the two-time correlation at full resolution (2 n_frames^2 bytes per bin), else at most 1024 "
    "lines\n"
    "  --memory SIZE   the same, for as many bins, from the first, as this memory allows (4G, or such as 500M)\n"
    "  --ages N        g2 also in N slices of the waiting time\n";

/* A whole number, 1 to `max`; the whole of `text`. */
static bool parse_count(const char *text, int max, int *ret_n)
{
    char *rest;
    long n = strtol(text, &rest, 10);
    if (rest == text || *rest || n < 1 || n > max)
        return false;
    *ret_n = (int)n;
    return true;
}

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

static bool parse_memory(const char *text, size_t *ret_bytes)
{
    static const char units[] = "KMG";
    char *rest;
    double n = strtod(text, &rest);
    const char *unit = *rest ? strchr(units, *rest) : NULL;
    if (rest == text || (*rest && (!unit || rest[1])) || !(n > 0.0 && n < 1e9))
        return false;
    for (int i = 0; unit && i <= unit - units; i++)
        n *= 1024.0;
    *ret_bytes = (size_t)n;
    return n >= 1024.0;
}

static bool parse_arm(const char *text, struct arguments *arguments)
{
    char *rest;
    arguments->has_arm = true;
    arguments->arm_deg[0] = strtod(text, &rest);
    if (rest == text)
        return false;
    if (*rest == ',') {
        const char *second = rest + 1;
        arguments->arm_deg[1] = strtod(second, &rest);
        if (rest == second)
            return false;
    }
    return !*rest && fabs(arguments->arm_deg[0]) < 180.0 && fabs(arguments->arm_deg[1]) < 90.0;
}

/* "10", or "1.2:1.4,1.4:1.6". */
static bool parse_bands(const char *text, struct arguments *arguments)
{
    arguments->n_bands = 0;
    if (!strchr(text, ':'))
        return parse_count(text, QMAP_BINS_MAX, &arguments->n_bands);
    double end = 0.0;
    for (const char *next = text; arguments->n_bands < QMAP_BINS_MAX; next++) {
        struct qmap_range *band = &arguments->bands[arguments->n_bands];
        char *rest;
        band->min = strtod(next, &rest);
        if (rest == next || *rest != ':')
            return false;
        next = rest + 1;
        band->max = strtod(next, &rest);
        if (rest == next || !(band->min >= end && band->max > band->min && band->max < 1e3))
            return false;
        end = band->max;
        arguments->n_bands++;
        next = rest;
        if (!*next)
            return arguments->has_ranges = true;
        if (*next != ',')
            return false;
    }
    return false;
}

static bool take_path(const char *value, const char **paths, int *n)
{
    if (*n == ARGUMENTS_MASKS_MAX)
        return false;
    paths[(*n)++] = value;
    return true;
}

/* One option without a value, or with one that is taken as it is. */
static bool take_plain(int option, const char *value, struct arguments *arguments)
{
    switch (option) {
    case 'j':
        arguments->is_json = true;
        return true;
    case 'p':
        arguments->with_progress = true;
        return true;
    case 'm':
        arguments->with_matrix = true;
        return true;
    case 'K':
        arguments->with_hits = true;
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
    case 'g':
        arguments->poni_path = value;
        return true;
    case 'l':
        arguments->flat_path = value;
        return true;
    case 'e':
        arguments->input_path = value;
        arguments->settings.from_events = true;
        return true;
    default:
        return false;
    }
}

/* One option; false: the usage. */
static bool take_option(int option, const char *value, struct arguments *arguments)
{
    switch (option) {
    case 'k':
        return take_path(value, arguments->mask_paths, &arguments->n_masks);
    case 'y':
        return take_path(value, arguments->polygon_paths, &arguments->n_polygons);
    case 'f':
        return parse_frames(value, arguments);
    case 's':
        return parse_shape(value, &arguments->settings.stated);
    case 'i':
        return parse_frame_time(value, &arguments->settings.stated);
    case 't':
        return parse_count(value, FRAMES_THREADS_MAX, &arguments->n_threads);
    case 'a':
        return parse_arm(value, arguments);
    case 'b':
        return parse_bands(value, arguments);
    case 'c':
        return parse_count(value, QMAP_BINS_MAX, &arguments->n_sectors);
    case 'M':
        arguments->with_matrix = true;
        return parse_memory(value, &arguments->memory_bytes);
    case 'A':
        return parse_count(value, TTCF_AGES_MAX, &arguments->n_ages);
    default:
        return take_plain(option, value, arguments);
    }
}

int arguments_parse(int argc, char **argv, struct arguments *ret_arguments)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"progress", no_argument, NULL, 'p'},
                                            {"frames", required_argument, NULL, 'f'},
                                            {"matrix", no_argument, NULL, 'm'},
                                            {"memory", required_argument, NULL, 'M'},
                                            {"ages", required_argument, NULL, 'A'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"mask", required_argument, NULL, 'k'},
                                            {"flat", required_argument, NULL, 'l'},
                                            {"keep-hits", no_argument, NULL, 'K'},
                                            {"polygon", required_argument, NULL, 'y'},
                                            {"poni", required_argument, NULL, 'g'},
                                            {"arm", required_argument, NULL, 'a'},
                                            {"bands", required_argument, NULL, 'b'},
                                            {"sectors", required_argument, NULL, 'c'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"follow", no_argument, NULL, 'w'},
                                            {"no-events", no_argument, NULL, 'n'},
                                            {"from-events", required_argument, NULL, 'e'},
                                            {"frame-time", required_argument, NULL, 'i'},
                                            {"shape", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct arguments arguments = {.n_threads = 1,
                                  .n_bands = 1,
                                  .n_sectors = 1,
                                  .n_ages = 1,
                                  .memory_bytes = MEMORY_BYTES,
                                  .settings = {.end_fd = STDIN_FILENO}};
    for (int option; (option = getopt_long(argc, argv, "o:h", options, NULL)) != -1;)
        if (!take_option(option, optarg, &arguments))
            return -1;
    bool from_events = arguments.settings.from_events;
    if (optind != argc - !from_events || !arguments.result_path || (from_events && arguments.settings.is_followed) ||
        (arguments.has_arm && arguments.poni_path))
        return -1;
    if (!from_events)
        arguments.input_path = argv[optind];
    *ret_arguments = arguments;
    return 0;
}
