/*
 * Two-time correlation and g2 of q bins from sparse photons, frame by frame as they come. Pure (allocates).
 *
 *     C(t1, t2) = <I(t1) I(t2)>_p / (<I(t1)>_p <I(t2)>_p) / profile      over the bin's pixels p, frames t1 <= t2
 *
 * The event correlator of Chushkin et al., J. Appl. Cryst. 45, 807 (2012), doi 10.1107/S0021889812023321, turned round
 * so that nothing is left to do when the last frame has come: each photon of frame t2 walks back over the earlier
 * photons of its pixel and counts one pair per step, by lag. The counts of one t2 are exact integers in a row that
 * stays in the first cache; the row is normalised, folded into g2 and into the binned map, and gone.
 *
 * Bright bins, from about 0.03 photons per pixel and frame on, have so many pairs that bit planes count them sooner
 * (analysis/planes.h): the same integers. After 16 frames and at each doubling, what the rest of the scan would cost
 * either way is estimated from the pairs and photons so far, and a bin goes over, once, when planes are cheaper. Then
 * its rows are folded up to 16 frames later, or when a result is asked for. Planes take n_digits / 8 bytes per pixel
 * and frame (one digit up to about 0.1 photons) and 33 per pixel, reserved for all frames at once; a bin whose planes
 * would take the sum of all beyond `planes_bytes_max` stays with its photons: slower, never wrong. So does a bin whose
 * rows are sums of several frames.
 *
 * The photons of a pixel stand in one cache line, the newest 29 of them; older ones are moved out of it to lines of a
 * pool. So a photon costs one line from memory, which is asked for four dozen photons ahead.
 *
 * Two conventions for g2 of a lag are kept side by side; they differ at the level of the noise:
 *     g2_mean    mean over t of C(t, t + lag)
 *     g2         sum over t of <I(t) I(t + lag)>_p  /  sum over t of <I(t)>_p <I(t + lag)>_p / profile     (fitted)
 *
 * profile = <w^2>_p / <w>_p^2 is that of the mean intensity w across the bin, smoothed over parts of it: without it an
 * intensity that differs from pixel to pixel would lift the baseline (analysis/profile.h). It is stated as the number
 * of pixels that a flat bin of the same noise would have, n_pixels_effective = n_pixels / profile. Counts stay whole.
 *
 * Long scans: frame numbers are 16 bits wide, and C is quadratic in them. Of more than TTCF_ROWS_MAX frames as many as
 * need be are summed to one row, which is the frame of all that is said here, and the lags that rows cannot tell are
 * counted frame by frame beside (analysis/short_lags.h): a multiple-tau correlation (Schaetzel, Drewel and Stimac,
 * J. Mod. Opt. 35, 711 (1988)) of two levels, whose coarse one is a whole two-time correlation. From TTCF_ROWS_COARSE
 * rows on a sum over rows blurs a lag by less than a sixteenth, symmetrically. Frames beyond the last whole row are in
 * the short lags only.
 *
 * Lag 0 is <I^2> as it is, with its shot noise: never fitted, and left out of the means of a binned map. A row
 * without photons has no C: NaN in the matrix, left out of g2_mean and of the map; in g2 it counts as it is (nothing).
 * Rows beyond a multiple of map_binning are not in the map.
 *
 * Hot pixels: one that has more than TTCF_HOT_MEANS times the mean photons of the bin's other pixels, and more than
 * TTCF_HOT_PHOTONS, is no speckle (exponentially distributed at worst); it would weigh like thousands in g2, and its
 * pairs cost the square of its photons. They are told (ttcf_find_hot), for the caller to mask them and begin again. One
 * with more than TTCF_COUNT_MAX photons in a frame is hot at once, and such a frame's photons of it are left out.
 *
 * Dead pixels: one without a photon in a part whose pixels have TTCF_DEAD_MEAN or more on average. A dark speckle that
 * never moves is as dark in two pixels of 10^6 at a contrast of 0.25. They have no pairs: they are dropped without
 * beginning again (ttcf_drop_dead).
 */
#ifndef ANALYSIS_TTCF_H
#define ANALYSIS_TTCF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/event.h"
#include "base/err.h"

#define TTCF_FRAMES_MAX 1048560 /* sixteen per row */
#define TTCF_ROWS_MAX 65535     /* row numbers are 16 bits wide */
#define TTCF_ROWS_COARSE 16     /* the shortest lag that is told by rows where they are sums */
#define TTCF_BINS_MAX 255
#define TTCF_HOT_MEANS 50
#define TTCF_HOT_PHOTONS 50
#define TTCF_COUNT_MAX 255
#define TTCF_DEAD_MEAN 100
#define TTCF_PARTS_MAX 65535
#define TTCF_AGES_MAX 64
#define TTCF_GROUPS 16       /* of pixels, for the jackknife */
#define TTCF_GROUP_PIXELS 64 /* neighbours share a group: pixel / 64 % 16; speckles do not straddle many */
#define TTCF_MAP_MAX 1024    /* lines of the binned map */
#define TTCF_LAG_RANGES_MAX 200
#define TTCF_SEGMENTS 10 /* of the scan, for the stability plot of pyXpcsViewer */

/* Lags in logarithmic ranges, ten per octave: range i holds lags first[i] .. first[i + 1] - 1, the first one lag 1. */
struct ttcf_lags {
    size_t n;
    size_t first[TTCF_LAG_RANGES_MAX + 1];
};

void ttcf_lags_init(struct ttcf_lags *ret_lags, size_t n_frames);

/* Photon pairs of a range of lags, counted and expected, and its mean lag in frames, weighted with the latter. */
struct ttcf_range {
    double pairs, pairs_expected, lag;
};

/* Of one q bin. A row is one frame, or the sum of frames_per_row. */
struct ttcf {
    size_t n_frames, frames_per_row, n_rows, n_pixels, n_photons, n_empty_rows;
    double n_pixels_effective; /* n_pixels without a profile */
    double *photons_per_row;   /* [n_rows] */
    double *g2;                /* [n_rows], by lag in rows */
    double *g2_mean;           /* [n_rows] */
    double *pairs;             /* [n_rows], photon pairs counted; whole numbers */
    double *pairs_expected;    /* [n_rows], denominator of g2 in photon pairs: its variance is 1 over this */
    struct ttcf_lags lags;     /* in frames */
    size_t n_short;            /* the first of their ranges, which are counted frame by frame; 0 where a row is one */
    struct ttcf_range range[TTCF_LAG_RANGES_MAX];
    struct ttcf_range without[TTCF_GROUPS][TTCF_LAG_RANGES_MAX]; /* without the pixels of a group; no lag */
    int n_ages; /* slices of the waiting time, that is, of the first frame t of a pair (t, t + lag) */
    size_t age_first[TTCF_AGES_MAX + 1];           /* slice a: frames age_first[a] .. age_first[a + 1] - 1 */
    struct ttcf_range (*age)[TTCF_LAG_RANGES_MAX]; /* [n_ages], the pairs of one slice; no lag */
    size_t map_binning;                            /* rows per line of the map */
    size_t map_n;                                  /* lines */
    float *map;    /* [map_n * map_n], mean of C over binning x binning rows, upper half, rest 0; NaN where no C */
    float *matrix; /* [n_rows * (n_rows + 1) / 2] or NULL: C(t1, t2) at t2 (t2 + 1) / 2 + t1, t1 <= t2, in rows */
};

enum ttcf_counting {
    TTCF_CHEAPEST, /* photon by photon, or in planes */
    TTCF_LISTS,    /* photon by photon */
    TTCF_PLANES    /* planes after 16 frames, whatever they cost */
};

struct ttcf_settings {
    size_t n_frames;               /* at most so many will come; 2 .. TTCF_FRAMES_MAX */
    size_t frames_per_row;         /* 0: as few as will do */
    size_t n_pixels;               /* of the detector */
    int n_bins;                    /* 1 .. TTCF_BINS_MAX */
    const uint8_t *bin_of_pixel;   /* [n_pixels], 0: in none, else bin 1 .. n_bins (which may be empty); copied */
    const uint16_t *part_of_pixel; /* [n_pixels], 1 .. n_parts where a pixel is in a bin; no part in two bins; NULL: the
                                      intensity is taken as flat in each bin; copied */
    int n_parts;                   /* up to TTCF_PARTS_MAX */
    const float *sensitivity; /* [n_pixels], photons counted of the same light, to any scale, above 0 where a pixel is
                                 in a bin; NULL: all alike; copied. It joins the profile: counts stay counts */
    int n_ages;               /* 0 .. TTCF_AGES_MAX; 0 is 1: the whole scan */
    bool with_matrix;         /* keep C at full resolution: 2 n_rows^2 bytes per bin */
    size_t matrix_bytes_max;  /* of as many bins, the first ones, as fit in here; 0: of all */
    size_t planes_bytes_max;  /* of all bins; 0: half of what the machine has to spare */
    enum ttcf_counting counting; /* all give the same; other than 0 for tests and benchmarks */
    int planes_path, n_digits;   /* with TTCF_PLANES, as in struct planes_settings; n_digits 0: what costs least */
};

struct ttcf_run;

/* Memory: 81 bytes per pixel, 2.2 per photon beyond 29 of a pixel, per bin 8 MB for the map and what a matrix takes.
 * Errors: ERR_ARG (frames, pixels or bins out of range), ERR_SYSTEM (memory). Free with ttcf_end. */
int ttcf_begin(struct ttcf_run **ret_run, const struct ttcf_settings *settings, struct err *err);

/* The next frame; pixels that are in no bin are passed over. Errors: ERR_LIMIT (too bright for 32 bit pair counts; more
 * frames than stated), ERR_SYSTEM (memory). */
int ttcf_add_frame(struct ttcf_run *run, const struct event_frame *frame, struct err *err);

/* Digits of the planes that hold the frames of a bin, 0: its pairs are counted photon by photon. */
int ttcf_n_digits(const struct ttcf_run *run, int bin);

/* Bytes of C at full resolution, of one bin. */
size_t ttcf_matrix_bytes(size_t n_rows);

/* Marks the hot pixels of what has come so far, ret_is_hot [n_pixels]; returns how many there are. */
size_t ttcf_find_hot(struct ttcf_run *run, uint8_t *ret_is_hot);

/* Takes the pixels out of their bins that are dead by what has come so far; marks them in ret_is_dead [n_pixels].
 * Errors: ERR_SYSTEM (memory). */
int ttcf_drop_dead(struct ttcf_run *run, uint8_t *ret_is_dead, size_t *ret_n, struct err *err);

/* Photons of every pixel so far, [n_pixels], until the next frame; 0 where it is in no bin. */
const uint32_t *ttcf_photons(struct ttcf_run *run);

/* What the frames so far give for one bin, 1 .. n_bins; may be asked while the scan goes on (not the matrix, which is
 * handed over with `is_last`). Errors: ERR_DATA (no photons, fewer than two frames), ERR_LIMIT (too many pixels too
 * bright), ERR_SYSTEM (memory). Free with ttcf_free. */
int ttcf_result(struct ttcf_run *run, int bin, bool is_last, struct ttcf *ret_ttcf, struct err *err);

/*
 * Photons by part (or by bin, where there are no parts) and by equal segments of the frames so far.
 *   ret_photons  [TTCF_SEGMENTS * n], n the parts or bins, from number 1 on; the segment first
 */
void ttcf_count_segments(const struct ttcf_run *run, uint64_t *ret_photons);

/*
 * Several bins as one: their pairs together, over the pairs expected of each by itself. So what differs from bin to bin
 * in intensity is no correlation here either. Without map and matrix; g2_mean is the bins', weighted with their pairs
 * expected. All of one run. Errors: ERR_SYSTEM (memory). Free with ttcf_free.
 */
int ttcf_join(const struct ttcf *bins, int n_bins, struct ttcf *ret_ttcf, struct err *err);

void ttcf_end(struct ttcf_run *run); /* NULL is fine */
void ttcf_free(struct ttcf *ttcf);

#endif
