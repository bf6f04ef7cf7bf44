/*
 * A two-time correlation in the making: what analysis/ttcf.c keeps while frames come and analysis/ttcf_result.c reads
 * when a result is asked for. Private to the two.
 */
#ifndef ANALYSIS_TTCF_RUN_H
#define ANALYSIS_TTCF_RUN_H

#include "analysis/planes.h"
#include "analysis/profile.h"
#include "analysis/short_lags.h"
#include "analysis/ttcf.h"

#define LINE_PHOTONS 29
#define POOL_BLOCK_LINES 65536 /* 4 MB */
#define BLOCK_PIXELS 64        /* whose bins are looked up in one table that stays near; one of all pixels would not */
#define BLOCK_MIXED 255

/* The newest photons of one pixel, by their rows; one entry per photon, ascending. */
struct line {
    uint8_t n;
    uint8_t bin; /* of the pixel */
    uint16_t row[LINE_PHOTONS];
    uint32_t older; /* line of the pool, 0: none (that line stays empty); every line of the pool is full */
};

_Static_assert(sizeof(struct line) == 64, "a line of photons is a line of the cache");

/* A pixel of the present frame on its way back through its older photons. */
struct walk {
    uint32_t line; /* of the pool, the next one */
    uint8_t count, group;
};

/* The bins of BLOCK_PIXELS pixels in a row: the border between two bins goes through few blocks more than once. */
struct block {
    uint8_t change; /* the first pixel of the second bin, up to BLOCK_PIXELS; BLOCK_MIXED: ask bin_of_pixel */
    uint8_t first, second;
};

struct bin {
    int number; /* 1 .. n_bins */
    size_t n_pixels, n_photons;
    size_t n_pixels_begun;                            /* with the dead: C is folded with this number of pixels */
    size_t first_event;                               /* where its events of a frame stand */
    uint32_t *row;                                    /* [n_rows] pairs of the present row with each; 0 at its start */
    uint64_t row_squares;                             /* counts squared of the present row */
    double *photons_per_row;                          /* [n_rows] */
    double *inverse;                                  /* [n_rows], 1 / photons_per_row, 0 where there are none */
    uint64_t *pairs;                                  /* [n_ages * n_rows] by lag */
    double *sum_c;                                    /* [n_rows] by lag */
    float *matrix;                                    /* as in struct ttcf, or NULL */
    double *map_sum;                                  /* [map_n * map_n], at (t2, t1) */
    uint32_t *group_photons;                          /* [TTCF_GROUPS * n_rows] */
    uint64_t (*group_pairs)[TTCF_LAG_RANGES_MAX];     /* [TTCF_GROUPS] by range of lags; behind the last one, lag 0 */
    uint64_t (*row_group_pairs)[TTCF_LAG_RANGES_MAX]; /* the present row's; the same memory if it is one frame */
    struct planes *planes;                            /* NULL: its pairs are counted photon by photon */
    int n_digits;                                     /* of the planes, 0: there are none */
};

struct ttcf_run {
    size_t n_frames_max, n_frames, n_pixels;
    size_t frames_per_row, n_rows_max, n_rows; /* the rows that are whole */
    int n_bins, n_parts, n_ages;
    size_t age_first[TTCF_AGES_MAX + 1]; /* rows */
    uint8_t *bin_of_pixel;               /* [n_pixels] */
    struct block *blocks;                /* [n_pixels / BLOCK_PIXELS + 1] */
    uint16_t *part_of_pixel;             /* [n_pixels], NULL: as many parts as bins */
    float *sensitivity;                  /* [n_pixels], NULL: all alike */
    uint32_t *photons;                   /* [n_pixels], of the first n_frames_counted frames */
    size_t n_frames_counted, n_frames_profiled;
    struct profile *profiles; /* [n_bins], of the first n_frames_profiled frames */
    uint8_t *is_bright;       /* [n_pixels], had more than TTCF_COUNT_MAX photons in a frame */
    size_t map_binning, map_n;
    struct ttcf_lags lags;         /* in rows */
    size_t coarse_range;           /* the first of them that counts; below it, the short lags */
    struct short_lags *short_lags; /* NULL where a row is one frame */
    uint8_t *range_of_lag;         /* [n_rows_max]; of lag 0, the place behind the last range */
    struct bin *bins;              /* [n_bins] */
    struct line *lines;            /* [n_pixels] */
    struct line **pool;            /* [POOL_BLOCKS_MAX] */
    uint32_t n_pool;               /* lines in use */
    /* the present frame's events: for each bin in a place of its own with room for all its pixels and AHEAD more, in
     * pixel order */
    uint32_t *pixel;
    uint8_t *count;
    struct walk *walks;             /* [n_pixels] */
    struct planes_surplus *surplus; /* [n_pixels] of the present frame and bin */
    /* how pairs are counted */
    enum ttcf_counting counting;
    int planes_path, n_digits;
    size_t planes_bytes, planes_bytes_max;
    /* the same memory for all bins where a row is one frame, so that it stays in the first cache */
    uint32_t *row; /* [n_rows_max], or as many for each bin */
    float *c;      /* [n_rows_max] the row normalised */
};

static inline struct line *older_line(const struct ttcf_run *run, uint32_t index)
{
    return &run->pool[index / POOL_BLOCK_LINES][index % POOL_BLOCK_LINES];
}

/* The one before, full; NULL: none. */
static inline const struct line *next_line(const struct ttcf_run *run, const struct line *line)
{
    return line->older ? older_line(run, line->older) : NULL;
}

/* Folds the rows of the frames that wait in the bin's planes, the last ones, in their order. */
void ttcf_take_waiting_rows(const struct ttcf_run *run, struct bin *bin);

#endif
