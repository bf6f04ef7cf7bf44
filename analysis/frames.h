/*
 * The frames of a series as photon events, in order: from the detector's files (analysis/frame_file.h), decoded by
 * several threads, or from an event cache (analysis/event_cache.h).
 *
 * Places of chunks come first, from HDF5, in the caller's thread; threads then take the chunks with pread and decode
 * them (analysis/bslz4.h, analysis/dense.h). They are at most 2 n_threads + 2 frames ahead of the caller, so memory is
 * bounded: that many frames of events, which is 4 bytes per pixel with photons, and address space for a full one each.
 *
 * Masks: a pixel that the detector masks is invalid in every frame; a valid pixel above the count-rate cut-off, or at
 * one of the two flag values at the top of its range, is invalid in that frame. Neither is ever a photon.
 */
#ifndef ANALYSIS_FRAMES_H
#define ANALYSIS_FRAMES_H

#include "analysis/frame_file.h"

#define FRAMES_THREADS_MAX 64

struct frames;

struct frames_settings {
    struct frames_stated stated;
    bool from_events; /* the path is an event cache */
    /*
     * The series may still be growing: wait for its master and its data files, until `end_fd` is closed at its other
     * end, which says that nothing more will come. What is missing then is waited for 10 s longer, for network file
     * systems show a file late, and a frame that cannot be decoded is read again for 5 s.
     */
    bool is_followed;
    int end_fd;
};

/* Errors: those of frame_file_open and event_cache_open. */
int frames_open(struct frames **ret_frames, const char *path, const struct frames_settings *settings, struct err *err);
void frames_close(struct frames *frames);

const struct frames_info *frames_info(const struct frames *frames);

/* The master file; of an event cache, the one it was made from. */
const char *frames_master_path(const struct frames *frames);

/* [n_rows * n_columns], 1: masked by the detector. */
const uint8_t *frames_is_masked(const struct frames *frames);

/* The same as bits, [(n_pixels + 63) / 64], 1: valid. */
const uint64_t *frames_valid_bits(const struct frames *frames);

/*
 * From now on frames_next gives frames first .. end - 1. With n_threads 1 the caller's thread does everything; with
 * more, so many threads decode beside it. Waits for the first data file of a followed series, after which
 * frames_info holds all there is. Once per frames_open. Errors: ERR_SYSTEM (memory, threads), those of frames_next.
 */
int frames_start(struct frames *frames, size_t first, size_t end, int n_threads, struct err *err);

/*
 * The next frame; it holds until the next call. Returns 1, 0 after the last, or an error: ERR_IO, ERR_DATA (a corrupt,
 * truncated or missing chunk), with file and frame; ERR_DATA (the followed series ended early).
 */
int frames_next(struct frames *frames, struct event_frame *ret_frame, struct err *err);

#endif
