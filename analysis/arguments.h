/*
 * What isobar-analyze was asked for. Nothing is opened here.
 */
#ifndef ANALYSIS_ARGUMENTS_H
#define ANALYSIS_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "analysis/frames.h"
#include "analysis/qmap.h"
#include "analysis/ttcf.h"

#define ARGUMENTS_MASKS_MAX 8

struct arguments {
    const char *input_path, *result_path, *poni_path; /* poni_path NULL: the series' own geometry */
    const char *mask_paths[ARGUMENTS_MASKS_MAX], *polygon_paths[ARGUMENTS_MASKS_MAX];
    int n_masks, n_polygons;
    const char *flat_path; /* NULL: none */
    double arm_deg[2];     /* as qmap_geometry_of_arm takes it */
    bool has_arm;
    int n_bands, n_sectors, n_ages;
    struct qmap_range bands[QMAP_BINS_MAX]; /* [n_bands] when has_ranges */
    bool has_ranges;
    bool is_json, with_matrix, without_events, with_progress, with_hits;
    size_t memory_bytes;           /* for full matrices until they are on the disk */
    size_t first_frame, end_frame; /* 0, 0: all */
    int n_threads;
    struct frames_settings settings;
};

extern const char arguments_usage[];

/* Returns 0, or -1: the usage should be shown. */
int arguments_parse(int argc, char **argv, struct arguments *ret_arguments);

#endif
