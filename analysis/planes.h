/*
 * Photon pairs of a bright q bin, counted in bit planes: the pairs of frames t1 < t2 that analysis/ttcf counts photon
 * by photon, whatever their number, at the price of its pixels. Pure (allocates).
 *
 * A frame is a plane of one bit per pixel: this pixel has a photon. The pairs of two frames are then the ones of their
 * planes' AND: a sum of outer products of bits, which is how binary matrices are multiplied (Warren, Hacker's Delight,
 * 2nd ed., chapter 5, counts the ones); nothing is approximated. Brighter bins take more planes, the binary digits of
 * the count: digits j and k of two frames give 2^(j + k) pairs for each one of their AND. `n_digits` of them hold
 * counts up to m = 2^n_digits - 1 whole, and of a larger one m photons. With held h = min(c, m) and surplus s = c - h
 * of a count c
 *
 *     c1 c2 = h1 h2  (planes)  +  s1 h2  (the pixel's earlier surplus, kept here photon by photon)  +  c1 s2
 *
 * and c1 s2 is for the caller, who has all photons of the pixel: planes_add_frame tells the surplus of each event. All
 * are whole numbers, so that every sum is the same as without planes.
 *
 * The jackknife costs nothing. A word of 64 pixels is of one group (pixel / 64 % 16), and a bin's words stand in rows
 * of 16, the column being the group: the lanes of a sum down the rows are the sixteen groups' pairs. Only words with
 * pixels of the bin are there; one that two bins share is in both, each with its own pixels.
 *
 * In memory a chunk of up to 31 rows and eight columns (a vector of 512 bits) of all frames stands together, frame by
 * frame: 2 kB each. Frames are gathered, and the chunk of every earlier frame is read once for up to PLANES_BATCH new
 * ones, in tiles of 4 x 4 frames whose sums stay in registers. So memory is read in one stream, and seldom.
 *
 * Three paths give the same numbers; the best that the processor has is the caller's choice. `portable` counts ones by
 * adding bits in place (planes_portable.c) and decides what is right; AVX2 counts nibbles by table, AVX-512 has an
 * instruction for it (VPOPCNTDQ).
 */
#ifndef ANALYSIS_PLANES_H
#define ANALYSIS_PLANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/ttcf.h"
#include "base/err.h"

#define PLANES_BATCH 16
#define PLANES_DIGITS_MAX 4

enum planes_path { PLANES_PORTABLE, PLANES_AVX2, PLANES_AVX512, PLANES_PATH_COUNT };

enum planes_path planes_best_path(void);

/* "portable", "avx2", "avx512" */
const char *planes_path_name(enum planes_path path);

struct planes_settings {
    size_t n_frames;             /* at most so many will be */
    size_t n_frames_before;      /* of them have been, and come by planes_put_photon */
    size_t n_pixels;             /* of the detector */
    const uint8_t *bin_of_pixel; /* [n_pixels]; those of `bin` are in the planes */
    int bin;
    const uint8_t *range_of_lag; /* [n_frames], below TTCF_LAG_RANGES_MAX, from lag 1 on; not copied */
    int n_digits;                /* 1 .. PLANES_DIGITS_MAX */
    enum planes_path path;       /* no better than planes_best_path() */
};

struct planes_size {
    size_t n_rows;      /* of 16 words, before they are rounded up to whole chunks */
    size_t digit_bytes; /* of each digit: 1/8 per pixel and frame, if every pixel is in the bin */
    size_t other_bytes; /* 33 per pixel, 64 per frame */
};

/* Whatever n_digits and path are. */
struct planes_size planes_measure(const struct planes_settings *settings);

/* What counting `n_frame_pairs` pairs of frames takes: a fit to measurements (docs/benchmarks.md), good to a factor of
 * 1.5 on processors like that one. */
double planes_cost_ns(const struct planes_settings *settings, size_t n_rows, double n_frame_pairs);

struct planes;

/* Errors: ERR_SYSTEM (memory). Free with planes_end. Memory beyond planes_measure: 2.5 bytes per surplus photon. */
int planes_begin(struct planes **ret_planes, const struct planes_settings *settings, struct err *err);

/* One more photon of one of the frames before, in any order. Its pairs are not counted. Errors: ERR_SYSTEM (memory). */
int planes_put_photon(struct planes *planes, size_t frame, uint32_t pixel, struct err *err);

/* Photons of an event that the planes do not hold. */
struct planes_surplus {
    uint32_t pixel, photons;
};

/*
 * The next frame. Not more than PLANES_BATCH may wait for planes_count.
 *   pixel, count  [n_events], no pixel twice; pixels that are not in the planes are passed over, and so is a count of 0
 *   ret_surplus   [n_events], in order: photons that the caller pairs with all earlier ones of their pixels
 *   group_pairs   [TTCF_GROUPS] by range of lags: pairs with earlier surplus are added
 * Errors: ERR_SYSTEM (memory).
 */
int planes_add_frame(struct planes *planes, const uint32_t *pixel, const uint8_t *count, size_t n_events,
                     struct planes_surplus *ret_surplus, size_t *ret_n_surplus,
                     uint64_t (*group_pairs)[TTCF_LAG_RANGES_MAX], struct err *err);

/* Pairs of frame t with each earlier one, [t + 1], to which the caller may add; complete after planes_count, and lost
 * when frame t + PLANES_BATCH comes. Only of frames that planes_add_frame has brought. */
uint32_t *planes_row(struct planes *planes, size_t t);

/* Frames that wait for planes_count. */
size_t planes_n_waiting(const struct planes *planes);

/* Counts the pairs of the frames that wait, into their rows and into group_pairs. */
void planes_count(struct planes *planes, uint64_t (*group_pairs)[TTCF_LAG_RANGES_MAX]);

/* No more photons of this pixel; those that it had stay. */
void planes_drop_pixel(struct planes *planes, uint32_t pixel);

void planes_end(struct planes *planes); /* NULL is fine */

#endif
