#include "analysis/frames.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/bslz4.h"
#include "analysis/dense.h"
#include "analysis/event_cache.h"
#include "base/clock.h"

#define SLOTS_MAX (2 * FRAMES_THREADS_MAX + 2)
#define LOCATED_AT_ONCE 64
#define FOLLOW_POLL_MS 100
#define FOLLOW_GRACE_NS (10 * NS_PER_S)
#define RETRY_MS 200
#define RETRIES_MAX 25

/* A frame on its way: the threads fill slot t % n_slots, and it is theirs again when the caller has asked for more. */
struct slot {
    struct event_sink sink;
    size_t frame_index; /* SIZE_MAX: not decoded yet */
    int code;
    struct err err;
};

/* What one decoding thread has for itself. */
struct worker {
    struct frames *frames;
    pthread_t thread;
    uint8_t *chunk, *scratch; /* the compressed frame; a dense one, for LZ4 without bitshuffle */
    size_t chunk_size;
};

struct frames {
    char path[1024];
    struct frames_settings settings;
    struct frame_file *file;   /* or */
    struct event_cache *cache; /* the other is NULL */
    struct frames_info info;
    uint8_t *is_masked;
    uint64_t *valid_bits;
    struct frame_shape shape;
    int64_t ended_ns; /* when end_fd was closed; 0: not yet */
    /* set by frames_start */
    size_t first, end;
    struct frame_place *places; /* [end - first] */
    int n_slots, n_threads;     /* threads beside the caller's */
    struct slot slots[SLOTS_MAX];
    struct worker workers[FRAMES_THREADS_MAX];
    size_t n_given; /* frames that frames_next has given out, of end - first */
    /* between the threads, under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    bool is_ended;
    size_t n_located; /* frames whose places are known */
    size_t n_taken;   /* frames that a thread has begun */
    size_t n_free;    /* frames the caller is through with */
};

/* ---- one frame, in any thread -------------------------------------------------------------------------------- */

static int allocate_sink(const struct frames *frames, struct event_sink *sink, struct err *err)
{
    size_t n = frames->info.n_rows * frames->info.n_columns;
    sink->events = malloc((n + EVENT_SLACK) * sizeof *sink->events);
    sink->bright = malloc(n * sizeof *sink->bright);
    return sink->events && sink->bright ? 0 : err_set(err, ERR_SYSTEM, "no memory for the events of %zu pixels", n);
}

static void free_worker(struct worker *worker)
{
    free(worker->chunk);
    free(worker->scratch);
}

static int read_chunk(struct frames *frames, struct worker *worker, const struct frame_place *place, struct err *err)
{
    if (place->n_bytes > worker->chunk_size) {
        uint8_t *larger = realloc(worker->chunk, place->n_bytes);
        if (!larger)
            return err_set(err, ERR_SYSTEM, "no memory for a chunk of %u bytes", place->n_bytes);
        worker->chunk = larger;
        worker->chunk_size = place->n_bytes;
    }
    size_t done = 0;
    while (done < place->n_bytes) {
        ssize_t n = pread(frame_file_part_fd(frames->file, place->part), worker->chunk + done, place->n_bytes - done,
                          (off_t)(place->address + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_IO, "%zu of %u bytes read: %s", done, place->n_bytes,
                           n < 0 ? strerror(errno) : "the file is cut short");
        done += (size_t)n;
    }
    return 0;
}

static int decode_chunk(const struct frames *frames, struct worker *worker, size_t n_bytes, struct event_sink *sink,
                        struct err *err)
{
    switch (frame_file_codec(frames->file)) {
    case FRAME_BSLZ4:
        return bslz4_decode_frame(&frames->shape, worker->chunk, n_bytes, sink, err);
    case FRAME_LZ4:
        if (!worker->scratch)
            worker->scratch = malloc(frames->shape.n_pixels * (size_t)frames->shape.element_bytes);
        return worker->scratch ? dense_decode_lz4(&frames->shape, worker->chunk, n_bytes, worker->scratch, sink, err)
                               : err_set(err, ERR_SYSTEM, "no memory for a frame");
    case FRAME_DENSE:
        return dense_decode_frame(&frames->shape, worker->chunk, n_bytes, sink, err);
    case FRAME_SPARSE:
        break;
    }
    return err_set(err, ERR_STATE, "sparse frames have no chunks");
}

/* Frame `i` of those started; `sink` from its beginning. */
static int decode(struct frames *frames, struct worker *worker, size_t i, struct event_sink *sink, struct err *err)
{
    const struct frame_place *place = &frames->places[i];
    struct err reason = {0};
    int code = read_chunk(frames, worker, place, &reason);
    if (code == 0)
        code = decode_chunk(frames, worker, place->n_bytes, sink, &reason);
    for (int k = 0; frames->settings.is_followed && code != 0 && k < RETRIES_MAX; k++) {
        poll(NULL, 0, RETRY_MS);
        code = read_chunk(frames, worker, place, &reason);
        if (code == 0)
            code = decode_chunk(frames, worker, place->n_bytes, sink, &reason);
    }
    if (code)
        err_set(err, code, "%s, frame %zu of %zu: %s", frame_file_part_path(frames->file, place->part),
                frames->first + i + 1, frames->info.n_frames, reason.message);
    return code;
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    struct frames *frames = worker->frames;
    pthread_mutex_lock(&frames->mutex);
    while (!frames->is_ended) {
        size_t i = frames->n_taken;
        if (i >= frames->n_located || i >= frames->n_free + (size_t)frames->n_slots) {
            pthread_cond_wait(&frames->work, &frames->mutex);
            continue;
        }
        frames->n_taken++;
        struct slot *slot = &frames->slots[i % (size_t)frames->n_slots];
        pthread_mutex_unlock(&frames->mutex);
        int code = decode(frames, worker, i, &slot->sink, &slot->err);
        pthread_mutex_lock(&frames->mutex);
        slot->code = code;
        slot->frame_index = i;
        pthread_cond_signal(&frames->done);
    }
    pthread_mutex_unlock(&frames->mutex);
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

/* Waits a little, or less when the end is told meanwhile. False: the end was told more than the grace ago. */
static bool wait_for_files(struct frames *frames)
{
    struct pollfd wait = {.fd = frames->settings.end_fd, .events = POLLIN};
    if (frames->ended_ns)
        wait.fd = -1;
    char rest[64];
    if (poll(&wait, 1, FOLLOW_POLL_MS) > 0 && read(wait.fd, rest, sizeof rest) <= 0)
        frames->ended_ns = clock_wall_ns();
    return !frames->ended_ns || clock_wall_ns() - frames->ended_ns < FOLLOW_GRACE_NS;
}

static int open_file(struct frames *frames, struct err *err)
{
    const struct frames_settings *settings = &frames->settings;
    int code = frame_file_open(&frames->file, frames->path, &settings->stated, settings->is_followed, err);
    while (settings->is_followed && code != 0 && code != ERR_ARG && wait_for_files(frames))
        code = frame_file_open(&frames->file, frames->path, &settings->stated, true, err);
    if (code == 0)
        frames->info = *frame_file_info(frames->file);
    return code;
}

static int open_cache(struct frames *frames, struct err *err)
{
    int code = event_cache_open(&frames->cache, frames->path, err);
    if (code == 0)
        frames->info = *event_cache_info(frames->cache);
    return code;
}

static int allocate_mask(struct frames *frames, struct err *err)
{
    size_t n = frames->info.n_rows * frames->info.n_columns;
    frames->is_masked = calloc(n, 1);
    frames->valid_bits = calloc((n + 63) / 64, sizeof *frames->valid_bits);
    if (!frames->is_masked || !frames->valid_bits)
        return err_set(err, ERR_SYSTEM, "no memory for the mask of %zu pixels", n);
    for (size_t i = 0; i < n; i++) {
        if (frames->cache)
            frames->is_masked[i] = !(event_cache_valid_bits(frames->cache)[i / 64] >> i % 64 & 1);
        else
            frames->is_masked[i] = frame_file_pixel_mask(frames->file)[i] != 0;
        if (!frames->is_masked[i])
            frames->valid_bits[i / 64] |= UINT64_C(1) << i % 64;
    }
    return 0;
}

/* The flagged pixels of the first frame, for files that have no mask: see frame_file.h. */
static int mask_flagged_pixels(struct frames *frames, struct err *err)
{
    struct frame_place place;
    struct event_sink sink = {0};
    struct worker worker = {.frames = frames};
    uint32_t count_max = frames->shape.count_max;
    int code = frame_file_locate(frames->file, 0, 1, &place, err);
    if (code == 0)
        code = allocate_sink(frames, &sink, err);
    frames->places = &place;
    frames->shape.count_max = UINT32_MAX;
    if (code == 0)
        code = decode(frames, &worker, 0, &sink, err);
    frames->shape.count_max = count_max;
    frames->places = NULL;
    struct event_frame frame = event_frame_of(&sink, frames->shape.pixel_bits);
    size_t next_bright = 0;
    for (size_t i = 0; code == 0 && i < frame.n_events; i++) {
        size_t pixel = event_pixel(&frame, i);
        if (event_count(&frame, i, &next_bright) != UINT32_MAX >> (32 - 8 * frames->shape.element_bytes))
            continue;
        frames->is_masked[pixel] = 1;
        frames->valid_bits[pixel / 64] &= ~(UINT64_C(1) << pixel % 64);
    }
    free(sink.events);
    free(sink.bright);
    free_worker(&worker);
    return code;
}

static void settle_shape(struct frames *frames)
{
    size_t n_pixels = frames->info.n_rows * frames->info.n_columns;
    frames->info.element_bytes = frame_file_info(frames->file)->element_bytes;
    frames->shape = (struct frame_shape){.n_pixels = n_pixels,
                                         .element_bytes = frames->info.element_bytes,
                                         .pixel_bits = event_pixel_bits(n_pixels),
                                         .count_max = frame_file_count_max(frames->file),
                                         .valid_bits = frames->valid_bits};
}

int frames_open(struct frames **ret_frames, const char *path, const struct frames_settings *settings, struct err *err)
{
    struct frames *frames = calloc(1, sizeof *frames);
    if (!frames)
        return err_set(err, ERR_SYSTEM, "no memory");
    snprintf(frames->path, sizeof frames->path, "%s", path);
    frames->settings = *settings;
    pthread_mutex_init(&frames->mutex, NULL);
    pthread_cond_init(&frames->work, NULL);
    pthread_cond_init(&frames->done, NULL);
    int code = settings->from_events ? open_cache(frames, err) : open_file(frames, err);
    if (code == 0)
        code = allocate_mask(frames, err);
    if (code == 0 && frames->file && frame_file_count(frames->file) > 0) {
        settle_shape(frames);
        if (!frame_file_has_mask(frames->file))
            code = mask_flagged_pixels(frames, err);
    }
    if (code)
        frames_close(frames);
    else
        *ret_frames = frames;
    return code;
}

void frames_close(struct frames *frames)
{
    if (!frames)
        return;
    pthread_mutex_lock(&frames->mutex);
    frames->is_ended = true;
    pthread_cond_broadcast(&frames->work);
    pthread_mutex_unlock(&frames->mutex);
    for (int i = 0; i < frames->n_threads; i++)
        pthread_join(frames->workers[i].thread, NULL);
    for (int i = 0; i < FRAMES_THREADS_MAX; i++)
        free_worker(&frames->workers[i]);
    for (int i = 0; i < frames->n_slots; i++) {
        free(frames->slots[i].sink.events);
        free(frames->slots[i].sink.bright);
    }
    pthread_mutex_destroy(&frames->mutex);
    pthread_cond_destroy(&frames->work);
    pthread_cond_destroy(&frames->done);
    frame_file_close(frames->file);
    event_cache_close(frames->cache);
    free(frames->places);
    free(frames->is_masked);
    free(frames->valid_bits);
    free(frames);
}

const struct frames_info *frames_info(const struct frames *frames) { return &frames->info; }

const char *frames_master_path(const struct frames *frames)
{
    return frames->cache ? event_cache_master_path(frames->cache) : frames->path;
}

const uint8_t *frames_is_masked(const struct frames *frames) { return frames->is_masked; }

const uint64_t *frames_valid_bits(const struct frames *frames) { return frames->valid_bits; }

/* ---- in order, in the caller's thread ------------------------------------------------------------------------ */

/* Waits until the next data file of a followed series is whole. */
static int wait_for_part(struct frames *frames, struct err *err)
{
    for (bool is_last_try = false;; is_last_try = !wait_for_files(frames)) {
        int code = frame_file_extend(frames->file, is_last_try, err);
        if (code > 0 && frames->shape.n_pixels == 0)
            settle_shape(frames);
        if (code != 0)
            return code < 0 ? code : 0;
        if (is_last_try)
            return err_set(err, ERR_DATA, "%s announces %zu frames, the series ended with %zu", frames->path,
                           frames->info.n_frames, frame_file_count(frames->file));
    }
}

int frames_start(struct frames *frames, size_t first, size_t end, int n_threads, struct err *err)
{
    assert(frames->n_slots == 0 && first <= end && end <= frames->info.n_frames);
    assert(n_threads >= 1 && n_threads <= FRAMES_THREADS_MAX);
    frames->first = first;
    frames->end = end;
    if (frames->cache)
        return 0;
    int code = frame_file_count(frames->file) == 0 ? wait_for_part(frames, err) : 0;
    if (code)
        return code;
    bool is_alone = n_threads == 1 || frame_file_codec(frames->file) == FRAME_SPARSE;
    int n_slots = is_alone ? 1 : 2 * n_threads + 2;
    frames->places = malloc((end - first + 1) * sizeof *frames->places);
    if (!frames->places)
        return err_set(err, ERR_SYSTEM, "no memory for the places of %zu frames", end - first);
    for (int i = 0; i < n_slots && code == 0; i++, frames->n_slots++) {
        frames->slots[i] = (struct slot){.frame_index = SIZE_MAX};
        code = allocate_sink(frames, &frames->slots[i].sink, err);
    }
    for (int i = 0; i < FRAMES_THREADS_MAX; i++)
        frames->workers[i].frames = frames;
    for (int i = 0; !is_alone && i < n_threads && code == 0; i++) {
        int cause = pthread_create(&frames->workers[i].thread, NULL, run, &frames->workers[i]);
        if (cause)
            code = err_set(err, ERR_SYSTEM, "no thread to decode with: %s", strerror(cause));
        else
            frames->n_threads++;
    }
    return code;
}

/* Makes sure that frame `i` has a place, and some after it, if their files are there. */
static int locate(struct frames *frames, size_t i, struct err *err)
{
    if (i + (size_t)frames->n_slots <= frames->n_located || frames->n_located == frames->end - frames->first)
        return 0;
    int code = 0;
    while (code == 0 && frames->first + i >= frame_file_count(frames->file))
        code = wait_for_part(frames, err);
    size_t next = frames->first + frames->n_located, n = frame_file_count(frames->file);
    n = n < frames->end ? n : frames->end;
    n = n > next ? n - next : 0;
    n = n < LOCATED_AT_ONCE ? n : LOCATED_AT_ONCE;
    if (code == 0 && n > 0)
        code = frame_file_locate(frames->file, next, n, frames->places + frames->n_located, err);
    if (code)
        return code;
    pthread_mutex_lock(&frames->mutex);
    frames->n_located += n;
    pthread_cond_broadcast(&frames->work);
    pthread_mutex_unlock(&frames->mutex);
    return 0;
}

static int wait_for_slot(struct frames *frames, size_t i, struct slot *slot, struct err *err)
{
    pthread_mutex_lock(&frames->mutex);
    while (slot->frame_index != i)
        pthread_cond_wait(&frames->done, &frames->mutex);
    pthread_mutex_unlock(&frames->mutex);
    return slot->code ? err_set(err, slot->code, "%s", slot->err.message) : 0;
}

int frames_next(struct frames *frames, struct event_frame *ret_frame, struct err *err)
{
    size_t i = frames->n_given;
    if (i == frames->end - frames->first)
        return 0;
    if (frames->cache) {
        *ret_frame = event_cache_frame(frames->cache, frames->first + i);
        frames->n_given++;
        return 1;
    }
    pthread_mutex_lock(&frames->mutex);
    frames->n_free = i;
    pthread_cond_broadcast(&frames->work);
    pthread_mutex_unlock(&frames->mutex);
    int code = locate(frames, i, err);
    if (code)
        return code;
    struct slot *slot = &frames->slots[i % (size_t)frames->n_slots];
    if (frame_file_codec(frames->file) == FRAME_SPARSE)
        code = frame_file_read_sparse(frames->file, frames->first + i, &frames->shape, &slot->sink, err);
    else if (frames->n_threads == 0)
        code = decode(frames, &frames->workers[0], i, &slot->sink, err);
    else
        code = wait_for_slot(frames, i, slot, err);
    if (code)
        return code;
    *ret_frame = event_frame_of(&slot->sink, frames->shape.pixel_bits);
    frames->n_given++;
    return 1;
}
