#include "analysis/ttcf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_PIXELS 64 /* neighbours share a group: speckles do not straddle many */

struct work {
    uint32_t *row;   /* [n_frames] pair counts of the present frame with each later one */
    size_t *cursor;  /* [n_pixels] first photon of each pixel that is not earlier than the present frame */
    double *sum_c;   /* [n_frames] by lag */
    uint32_t *n_c;   /* [n_frames] by lag */
    double *pairs;   /* [n_frames] by lag, counted */
    double *map_sum; /* [map_n * map_n] */
    uint32_t *map_count;
    double *group_photons[TTCF_GROUPS]; /* [n_frames], photons of each frame in one group */
    uint64_t *group_pairs;              /* [n_frames] by lag, of one group */
};

static size_t group_of(size_t pixel) { return pixel / GROUP_PIXELS % TTCF_GROUPS; }

/* ---- one row ------------------------------------------------------------------------------------------------- */

/* Photon pairs of frame t with itself and every later frame; a pixel's list is ascending in time. */
static void count_row(const struct photon_list *list, struct work *work, size_t t)
{
    memset(work->row + t, 0, (list->n_frames - t) * sizeof *work->row);
    for (size_t i = list->first_event[t]; i < list->first_event[t + 1]; i++) {
        size_t pixel = list->events[i].pixel;
        uint32_t count = list->events[i].count;
        const uint16_t *photon = list->frames + work->cursor[pixel];
        const uint16_t *end = list->frames + list->first_photon[pixel + 1];
        for (; photon < end; photon++)
            work->row[*photon] += count;
        work->cursor[pixel] += count;
    }
}

/* Here C(t1, t2) is normalised: <I(t1) I(t2)>_p / (<I(t1)>_p <I(t2)>_p) = pairs * n_pixels / (photons1 * photons2). */
static void fold_row(struct ttcf *ttcf, struct work *work, size_t t)
{
    const double *photons = ttcf->photons_per_frame;
    size_t n = ttcf->n_frames, map_row = t / ttcf->map_binning * ttcf->map_n;
    size_t n_mapped = ttcf->map_n * ttcf->map_binning;
    float *matrix_row = ttcf->matrix ? ttcf->matrix + t * n - t * (t - 1) / 2 - t : NULL;
    for (size_t t2 = t; t2 < n; t2++) {
        size_t lag = t2 - t;
        double expected = photons[t] * photons[t2] / (double)ttcf->n_pixels;
        work->pairs[lag] += work->row[t2];
        ttcf->pairs_expected[lag] += expected;
        double c = expected > 0.0 ? work->row[t2] / expected : NAN;
        if (matrix_row)
            matrix_row[t2] = (float)c;
        if (!(expected > 0.0))
            continue;
        work->sum_c[lag] += c;
        work->n_c[lag]++;
        if ((lag > 0 || ttcf->map_binning == 1) && t2 < n_mapped) {
            work->map_sum[map_row + t2 / ttcf->map_binning] += c;
            work->map_count[map_row + t2 / ttcf->map_binning]++;
        }
    }
}

static void finish_rows(struct ttcf *ttcf, const struct work *work)
{
    for (size_t lag = 0; lag < ttcf->n_frames; lag++) {
        ttcf->g2_mean[lag] = work->n_c[lag] ? work->sum_c[lag] / work->n_c[lag] : NAN;
        ttcf->g2[lag] = ttcf->pairs_expected[lag] > 0.0 ? work->pairs[lag] / ttcf->pairs_expected[lag] : NAN;
    }
    for (size_t row = 0; row < ttcf->map_n; row++)
        for (size_t i = row * ttcf->map_n + row; i < (row + 1) * ttcf->map_n; i++)
            ttcf->map[i] = work->map_count[i] ? (float)(work->map_sum[i] / work->map_count[i]) : NAN;
}

/* ---- the jackknife's groups ---------------------------------------------------------------------------------- */

static void count_group_photons(const struct photon_list *list, struct work *work)
{
    for (size_t t = 0; t < list->n_frames; t++)
        for (size_t i = list->first_event[t]; i < list->first_event[t + 1]; i++)
            work->group_photons[group_of(list->events[i].pixel)][t] += list->events[i].count;
}

static size_t count_group_pairs(const struct photon_list *list, struct work *work, size_t group)
{
    size_t n_pixels = 0;
    memset(work->group_pairs, 0, list->n_frames * sizeof *work->group_pairs);
    for (size_t p = 0; p < list->n_pixels; p++) {
        if (group_of(p) != group)
            continue;
        n_pixels++;
        const uint16_t *end = list->frames + list->first_photon[p + 1];
        for (const uint16_t *a = list->frames + list->first_photon[p]; a < end; a++)
            for (const uint16_t *b = a + 1; b < end; b++)
                work->group_pairs[*b - *a]++;
    }
    return n_pixels;
}

/* sum over t of x[t] x[t + lag]; four sums at a time, which may be added in any order. */
static double autocorrelation(const double *x, size_t n, size_t lag)
{
    double sum[4] = {0.0};
    size_t t = 0;
    for (; t + lag + 3 < n; t += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += x[t + k] * x[t + k + lag];
    for (; t + lag < n; t++)
        sum[0] += x[t] * x[t + lag];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

/* g2 of all pixels but one group's: pairs and frame sums without that group. Lag 0 is not used. */
static void leave_out(struct ttcf *ttcf, const struct photon_list *list, struct work *work, size_t group)
{
    size_t n = ttcf->n_frames, n_pixels = ttcf->n_pixels - count_group_pairs(list, work, group);
    double *rest = work->group_photons[group], *g2 = ttcf->g2_without[group];
    for (size_t t = 0; t < n; t++)
        rest[t] = ttcf->photons_per_frame[t] - rest[t];
    g2[0] = NAN;
    for (size_t lag = 1; lag < n; lag++) {
        double expected = autocorrelation(rest, n, lag) / (double)n_pixels;
        g2[lag] = expected > 0.0 ? (work->pairs[lag] - (double)work->group_pairs[lag]) / expected : NAN;
    }
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static int allocate(struct ttcf *ttcf, struct work *work, int with_matrix, struct err *err)
{
    size_t n = ttcf->n_frames, map = ttcf->map_n * ttcf->map_n;
    ttcf->photons_per_frame = calloc(n, sizeof(double));
    ttcf->g2 = calloc(n, sizeof(double));
    ttcf->g2_mean = calloc(n, sizeof(double));
    ttcf->pairs_expected = calloc(n, sizeof(double));
    ttcf->map = calloc(map, sizeof(float));
    ttcf->matrix = with_matrix ? malloc(n * (n + 1) / 2 * sizeof(float)) : NULL;
    work->row = calloc(n, sizeof *work->row);
    work->cursor = malloc(ttcf->n_pixels * sizeof *work->cursor);
    work->sum_c = calloc(n, sizeof(double));
    work->n_c = calloc(n, sizeof *work->n_c);
    work->pairs = calloc(n, sizeof(double));
    work->map_sum = calloc(map, sizeof(double));
    work->map_count = calloc(map, sizeof *work->map_count);
    work->group_pairs = calloc(n, sizeof *work->group_pairs);
    int is_short = !ttcf->photons_per_frame || !ttcf->g2 || !ttcf->g2_mean || !ttcf->pairs_expected || !ttcf->map ||
                   (with_matrix && !ttcf->matrix) || !work->row || !work->cursor || !work->sum_c || !work->n_c ||
                   !work->pairs || !work->map_sum || !work->map_count || !work->group_pairs;
    for (int g = 0; g < TTCF_GROUPS; g++) {
        ttcf->g2_without[g] = calloc(n, sizeof(double));
        work->group_photons[g] = calloc(n, sizeof(double));
        is_short = is_short || !ttcf->g2_without[g] || !work->group_photons[g];
    }
    return is_short ? err_set(err, ERR_SYSTEM, "no memory to correlate %zu frames of %zu pixels", n, ttcf->n_pixels)
                    : 0;
}

static void free_work(struct work *work)
{
    free(work->row);
    free(work->cursor);
    free(work->sum_c);
    free(work->n_c);
    free(work->pairs);
    free(work->map_sum);
    free(work->map_count);
    free(work->group_pairs);
    for (int g = 0; g < TTCF_GROUPS; g++)
        free(work->group_photons[g]);
}

void ttcf_free(struct ttcf *ttcf)
{
    free(ttcf->photons_per_frame);
    free(ttcf->g2);
    free(ttcf->g2_mean);
    free(ttcf->pairs_expected);
    free(ttcf->map);
    free(ttcf->matrix);
    for (int g = 0; g < TTCF_GROUPS; g++)
        free(ttcf->g2_without[g]);
    *ttcf = (struct ttcf){0};
}

static void correlate(struct ttcf *ttcf, const struct photon_list *list, struct work *work)
{
    for (size_t t = 0; t < list->n_frames; t++) {
        for (size_t i = list->first_event[t]; i < list->first_event[t + 1]; i++)
            ttcf->photons_per_frame[t] += list->events[i].count;
        ttcf->n_empty_frames += ttcf->photons_per_frame[t] == 0.0;
    }
    memcpy(work->cursor, list->first_photon, list->n_pixels * sizeof *work->cursor);
    for (size_t t = 0; t < list->n_frames; t++) {
        count_row(list, work, t);
        fold_row(ttcf, work, t);
    }
    finish_rows(ttcf, work);
    count_group_photons(list, work);
    for (size_t group = 0; group < TTCF_GROUPS; group++)
        leave_out(ttcf, list, work, group);
}

/* A row's pair counts are 32 bits wide; none is above the largest sum of squares of a frame (Cauchy and Schwarz). */
static int check_counts(const struct photon_list *list, struct err *err)
{
    for (size_t t = 0; t < list->n_frames; t++) {
        double squares = 0.0;
        for (size_t i = list->first_event[t]; i < list->first_event[t + 1]; i++)
            squares += (double)list->events[i].count * (double)list->events[i].count;
        if (!(squares <= UINT32_MAX))
            return err_set(err, ERR_LIMIT,
                           "frame %zu: its counts squared sum to %.3g, above %.3g: too bright for photon correlation; "
                           "mask the brightest pixels or attenuate the beam",
                           t + 1, squares, (double)UINT32_MAX);
    }
    return 0;
}

int ttcf_correlate(struct ttcf *ret_ttcf, const struct photon_list *list, int with_matrix, struct err *err)
{
    if (list->n_photons == 0)
        return err_set(err, ERR_DATA, "no photons in %zu frames of %zu valid pixels", list->n_frames, list->n_pixels);
    struct ttcf ttcf = {.n_frames = list->n_frames, .n_pixels = list->n_pixels, .n_photons = list->n_photons};
    struct work work = {0};
    ttcf.map_binning = (list->n_frames + TTCF_MAP_MAX - 1) / TTCF_MAP_MAX;
    ttcf.map_n = list->n_frames / ttcf.map_binning;
    int code = check_counts(list, err);
    if (code)
        return code;
    code = allocate(&ttcf, &work, with_matrix, err);
    if (code == 0)
        correlate(&ttcf, list, &work);
    free_work(&work);
    if (code)
        ttcf_free(&ttcf);
    else
        *ret_ttcf = ttcf;
    return code;
}
