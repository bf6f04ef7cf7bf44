/*
 * The events of a whole series in one file beside its result, so that another mask or q map never decodes again.
 *
 * The events are those under the detector's own mask, which is kept with them: any smaller choice of pixels can be
 * taken from it. Everything is little endian; version 1:
 *
 *        0  the header, 1024 bytes, below
 *     1024  uint64 valid_bits[(n_pixels + 63) / 64], bit i of word w: pixel 64 w + i is valid
 *           uint32 events[n_events] as in analysis/event.h, frame after frame, and 4 bytes of 0 if n_events is odd
 *           uint64 first_event[n_frames + 1]
 *           uint64 first_bright[n_frames + 1]
 *           uint32 index, uint32 count of bright[n_bright], index within the frame
 *           uint32 n_invalid[n_frames], valid pixels without an event, and 4 bytes of 0 if n_frames is odd
 *
 *   header  0 "ISBEVENT", 8 uint32 version, 12 uint32 pixel_bits, uint64: 16 n_rows, 24 n_columns, 32 n_frames, 40
 *           n_events, 48 n_bright, 56 element_bytes; float64: 64 frame_time_s, 72 count_time_s, 80 photon_energy_ev,
 *           88 detector_distance_m, 96 beam_center_x_px, 104 beam_center_y_px, 112 pixel_size_m; 128 start_time[64],
 *           192 master_path[768], both ended by 0; uint64: 960 hash of valid_bits, 968 hash of events, 976 hash of all
 *           that follows the events, 984 to 1015 zero, 1016 hash of bytes 0 to 1015
 *
 * Hashes are XXH3, 64 bit, seed 0. A file is written under another name and renamed when it is on the disk, so one of
 * the right name is whole; hashes and the order of the events are checked all the same when it is opened.
 */
#ifndef ANALYSIS_EVENT_CACHE_H
#define ANALYSIS_EVENT_CACHE_H

#include "analysis/frame_file.h"

struct event_cache_writer;

/* Begins `path` for the n_frames of `info`. Errors: ERR_IO, ERR_SYSTEM. End with event_cache_commit or _discard. */
int event_cache_create(struct event_cache_writer **ret_writer, const char *path, const struct frames_info *info,
                       const char *master_path, const uint64_t *valid_bits, struct err *err);

/* The next frame. Errors: ERR_IO (disk full), ERR_SYSTEM. */
int event_cache_append(struct event_cache_writer *writer, const struct event_frame *frame, struct err *err);

/* After the last frame: the file is on the disk under its name, or, on ERR_IO, nothing is left. Frees the writer. */
int event_cache_commit(struct event_cache_writer *writer, struct err *err);

/* Leaves nothing behind; NULL is allowed. */
void event_cache_discard(struct event_cache_writer *writer);

struct event_cache;

/* Whether the file begins as an event cache does. */
bool event_cache_is_at(const char *path);

/*
 * Reads and checks the whole file. Memory: its size. Errors: ERR_IO (missing, unreadable), ERR_DATA (not an event
 * cache, another version, cut, damaged): the sentence says which.
 */
int event_cache_open(struct event_cache **ret_cache, const char *path, struct err *err);

/* The same from memory, [n_bytes], which must stay until event_cache_close: what a fuzzer feeds. */
int event_cache_parse(struct event_cache **ret_cache, const uint8_t *bytes, size_t n_bytes, struct err *err);
void event_cache_close(struct event_cache *cache);

const struct frames_info *event_cache_info(const struct event_cache *cache);
const char *event_cache_master_path(const struct event_cache *cache);
const uint64_t *event_cache_valid_bits(const struct event_cache *cache);

/* Of the mask the events were taken under. */
uint64_t event_cache_mask_hash(const struct event_cache *cache);

/* Frame 0 .. n_frames - 1; lives as long as the cache. */
struct event_frame event_cache_frame(const struct event_cache *cache, size_t frame_index);

#endif
