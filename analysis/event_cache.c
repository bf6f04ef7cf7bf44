#include "analysis/event_cache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC "ISBEVENT"
#define VERSION 1
#define HEADER_BYTES 1024
#define HEADER_HASHED_BYTES 1016
#define FRAMES_MAX 100000000
#define EVENTS_MAX (UINT64_C(1) << 40) /* the size that follows from the header cannot overflow */
#define BUFFER_EVENTS (1 << 18)

/* The header as it stands on the disk: every field is aligned by itself, and no byte is between them. */
struct header {
    char magic[8];
    uint32_t version, pixel_bits;
    uint64_t n_rows, n_columns, n_frames, n_events, n_bright, element_bytes;
    double frame_time_s, count_time_s, photon_energy_ev, detector_distance_m, beam_center_x_px, beam_center_y_px,
        pixel_size_m, unused;
    char start_time[64];
    char master_path[768];
    uint64_t mask_hash, events_hash, tables_hash, zeros[4], header_hash;
};

static_assert(sizeof(struct header) == HEADER_BYTES, "the header is documented byte by byte");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are written as they lie in memory");

static size_t mask_words(const struct header *header) { return (header->n_rows * header->n_columns + 63) / 64; }

/* ---- writing ------------------------------------------------------------------------------------------------- */

struct event_cache_writer {
    struct header header;
    char path[1024], unfinished[1060];
    int fd;
    XXH3_state_t *events_hash, *tables_hash;
    uint32_t *buffer; /* [BUFFER_EVENTS] */
    size_t n_buffered;
    uint64_t *first_event, *first_bright; /* [n_frames + 1] */
    uint32_t *n_invalid;                  /* [n_frames, one more if that is odd] */
    struct event_bright *bright;
    size_t size_bright;
    size_t n_appended;
};

static int put(struct event_cache_writer *writer, const void *bytes, size_t n, XXH3_state_t *hash, struct err *err)
{
    if (hash)
        XXH3_64bits_update(hash, bytes, n);
    for (const char *from = bytes; n > 0;) {
        ssize_t done = write(writer->fd, from, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_set(err, ERR_IO, "%s cannot be written: %s", writer->path, strerror(done ? errno : ENOSPC));
        from += done;
        n -= (size_t)done;
    }
    return 0;
}

static int flush_events(struct event_cache_writer *writer, struct err *err)
{
    size_t n = writer->n_buffered;
    writer->n_buffered = 0;
    return put(writer, writer->buffer, n * sizeof *writer->buffer, writer->events_hash, err);
}

void event_cache_discard(struct event_cache_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0) {
        close(writer->fd);
        unlink(writer->unfinished);
    }
    XXH3_freeState(writer->events_hash);
    XXH3_freeState(writer->tables_hash);
    free(writer->buffer);
    free(writer->first_event);
    free(writer->first_bright);
    free(writer->n_invalid);
    free(writer->bright);
    free(writer);
}

static int begin(struct event_cache_writer *writer, const uint64_t *valid_bits, struct err *err)
{
    struct header *header = &writer->header;
    size_t n_frames = header->n_frames, n_mask_bytes = mask_words(header) * sizeof *valid_bits;
    writer->events_hash = XXH3_createState();
    writer->tables_hash = XXH3_createState();
    writer->buffer = malloc(BUFFER_EVENTS * sizeof *writer->buffer);
    writer->first_event = calloc(n_frames + 1, sizeof *writer->first_event);
    writer->first_bright = calloc(n_frames + 1, sizeof *writer->first_bright);
    writer->n_invalid = calloc(n_frames + 1, sizeof *writer->n_invalid);
    if (!writer->events_hash || !writer->tables_hash || !writer->buffer || !writer->first_event ||
        !writer->first_bright || !writer->n_invalid)
        return err_set(err, ERR_SYSTEM, "no memory for the tables of %zu frames", n_frames);
    XXH3_64bits_reset(writer->events_hash);
    XXH3_64bits_reset(writer->tables_hash);
    writer->fd = open(writer->unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (writer->fd < 0)
        return err_set(err, ERR_IO, "%s cannot be made: %s", writer->unfinished, strerror(errno));
    header->mask_hash = XXH3_64bits(valid_bits, n_mask_bytes);
    int code = put(writer, header, sizeof *header, NULL, err); /* its place; it is written once more at the end */
    return code ? code : put(writer, valid_bits, n_mask_bytes, NULL, err);
}

int event_cache_create(struct event_cache_writer **ret_writer, const char *path, const struct frames_info *info,
                       const char *master_path, const uint64_t *valid_bits, struct err *err)
{
    struct event_cache_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return err_set(err, ERR_SYSTEM, "no memory");
    writer->fd = -1;
    writer->header = (struct header){.version = VERSION,
                                     .pixel_bits = event_pixel_bits(info->n_rows * info->n_columns),
                                     .n_rows = info->n_rows,
                                     .n_columns = info->n_columns,
                                     .n_frames = info->n_frames,
                                     .element_bytes = (uint64_t)info->element_bytes,
                                     .frame_time_s = info->frame_time_s,
                                     .count_time_s = info->count_time_s,
                                     .photon_energy_ev = info->photon_energy_ev,
                                     .detector_distance_m = info->detector_distance_m,
                                     .beam_center_x_px = info->beam_center_x_px,
                                     .beam_center_y_px = info->beam_center_y_px,
                                     .pixel_size_m = info->pixel_size_m};
    memcpy(writer->header.magic, MAGIC, sizeof writer->header.magic);
    snprintf(writer->header.start_time, sizeof writer->header.start_time, "%s", info->start_time);
    snprintf(writer->header.master_path, sizeof writer->header.master_path, "%s", master_path);
    int n = snprintf(writer->path, sizeof writer->path, "%s", path);
    snprintf(writer->unfinished, sizeof writer->unfinished, "%s.part-%d", path, (int)getpid());
    int code = n >= (int)sizeof writer->path ? err_set(err, ERR_ARG, "the path %.60s... is too long", path)
                                             : begin(writer, valid_bits, err);
    if (code)
        event_cache_discard(writer);
    else
        *ret_writer = writer;
    return code;
}

int event_cache_append(struct event_cache_writer *writer, const struct event_frame *frame, struct err *err)
{
    struct header *header = &writer->header;
    assert(writer->n_appended < header->n_frames && frame->pixel_bits == header->pixel_bits);
    int code = 0;
    for (size_t i = 0; i < frame->n_events && code == 0;) {
        size_t room = BUFFER_EVENTS - writer->n_buffered, left = frame->n_events - i, n = left < room ? left : room;
        memcpy(writer->buffer + writer->n_buffered, frame->events + i, n * sizeof *frame->events);
        writer->n_buffered += n;
        i += n;
        if (writer->n_buffered == BUFFER_EVENTS)
            code = flush_events(writer, err);
    }
    if (header->n_bright + frame->n_bright > writer->size_bright) {
        size_t size = 2 * (header->n_bright + frame->n_bright);
        struct event_bright *larger = realloc(writer->bright, size * sizeof *larger);
        if (!larger)
            return err_set(err, ERR_SYSTEM, "no memory for %zu bright pixels", size);
        writer->bright = larger;
        writer->size_bright = size;
    }
    if (frame->n_bright)
        memcpy(writer->bright + header->n_bright, frame->bright, frame->n_bright * sizeof *frame->bright);
    header->n_events += frame->n_events;
    header->n_bright += frame->n_bright;
    writer->n_invalid[writer->n_appended++] = (uint32_t)frame->n_invalid;
    writer->first_event[writer->n_appended] = header->n_events;
    writer->first_bright[writer->n_appended] = header->n_bright;
    return code;
}

static int put_tables(struct event_cache_writer *writer, struct err *err)
{
    struct header *header = &writer->header;
    XXH3_state_t *hash = writer->tables_hash;
    static const uint32_t zero;
    size_t n_frames = header->n_frames;
    int code = flush_events(writer, err);
    if (code == 0 && header->n_events % 2)
        code = put(writer, &zero, sizeof zero, hash, err);
    if (code == 0)
        code = put(writer, writer->first_event, (n_frames + 1) * sizeof *writer->first_event, hash, err);
    if (code == 0)
        code = put(writer, writer->first_bright, (n_frames + 1) * sizeof *writer->first_bright, hash, err);
    if (code == 0 && header->n_bright)
        code = put(writer, writer->bright, header->n_bright * sizeof *writer->bright, hash, err);
    if (code == 0)
        code = put(writer, writer->n_invalid, (n_frames + n_frames % 2) * sizeof *writer->n_invalid, hash, err);
    return code;
}

int event_cache_commit(struct event_cache_writer *writer, struct err *err)
{
    struct header *header = &writer->header;
    assert(writer->n_appended == header->n_frames);
    int code = put_tables(writer, err);
    header->events_hash = XXH3_64bits_digest(writer->events_hash);
    header->tables_hash = XXH3_64bits_digest(writer->tables_hash);
    header->header_hash = XXH3_64bits(header, HEADER_HASHED_BYTES);
    if (code == 0 && (pwrite(writer->fd, header, sizeof *header, 0) != (ssize_t)sizeof *header ||
                      fsync(writer->fd) != 0 || rename(writer->unfinished, writer->path) != 0))
        code = err_set(err, ERR_IO, "%s cannot be written: %s", writer->path, strerror(errno));
    if (code == 0) {
        close(writer->fd);
        writer->fd = -1; /* it has its name now: nothing to take away */
    }
    event_cache_discard(writer);
    return code;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

struct event_cache {
    struct frames_info info;
    struct header header;
    uint8_t *owned; /* the file, when it was read here */
    const uint64_t *valid_bits, *first_event, *first_bright;
    const uint32_t *events, *n_invalid;
    const struct event_bright *bright;
};

static int check_header(const struct header *header, size_t n_bytes, struct err *err)
{
    if (memcmp(header->magic, MAGIC, sizeof header->magic) != 0)
        return err_set(err, ERR_DATA, "not an event cache of isobar-analyze");
    if (header->version != VERSION)
        return err_set(err, ERR_DATA,
                       "event cache of version %u; this program reads version %d: analyse the series anew",
                       header->version, VERSION);
    if (header->header_hash != XXH3_64bits(header, HEADER_HASHED_BYTES))
        return err_set(err, ERR_DATA, "the header is damaged: analyse the series anew");
    bool is_possible = header->n_rows >= 1 && header->n_columns >= 1 && header->n_rows <= EVENT_PIXELS_MAX &&
                       header->n_columns <= EVENT_PIXELS_MAX / header->n_rows && header->n_frames <= FRAMES_MAX &&
                       header->n_events <= EVENTS_MAX && header->n_bright <= EVENTS_MAX &&
                       header->pixel_bits == event_pixel_bits(header->n_rows * header->n_columns) &&
                       header->frame_time_s > 0.0 && isfinite(header->frame_time_s) &&
                       (header->element_bytes == 1 || header->element_bytes == 2 || header->element_bytes == 4) &&
                       memchr(header->start_time, 0, sizeof header->start_time) &&
                       memchr(header->master_path, 0, sizeof header->master_path);
    if (!is_possible)
        return err_set(err, ERR_DATA, "the header makes no sense: analyse the series anew");
    uint64_t n_expected = HEADER_BYTES + 8 * mask_words(header) + 4 * (header->n_events + header->n_events % 2) +
                          16 * (header->n_frames + 1) + 8 * header->n_bright +
                          4 * (header->n_frames + header->n_frames % 2);
    if (n_bytes != n_expected)
        return err_set(err, ERR_DATA, "%zu bytes, its header counts on %llu: cut or spoilt, analyse the series anew",
                       n_bytes, (unsigned long long)n_expected);
    return 0;
}

static size_t count_valid(const struct event_cache *cache)
{
    size_t n = 0;
    for (size_t i = 0; i < cache->info.n_rows * cache->info.n_columns; i++)
        n += cache->valid_bits[i / 64] >> i % 64 & 1;
    return n;
}

/* One frame: pixels ascending, within the frame and valid; the bright ones where an event refers to them; and of the
 * valid pixels no more without an event than there are. */
static bool check_frame(const struct event_cache *cache, size_t t, size_t n_valid)
{
    struct event_frame frame = event_cache_frame(cache, t);
    size_t n_pixels = cache->info.n_rows * cache->info.n_columns, next_bright = 0;
    uint32_t escape = UINT32_MAX >> frame.pixel_bits;
    for (size_t i = 0; i < frame.n_events; i++) {
        uint32_t pixel = event_pixel(&frame, i);
        if (pixel >= n_pixels || (i > 0 && pixel <= event_pixel(&frame, i - 1)) ||
            !(cache->valid_bits[pixel / 64] >> pixel % 64 & 1))
            return false;
        if (frame.events[i] >> frame.pixel_bits != escape)
            continue;
        if (next_bright == frame.n_bright || frame.bright[next_bright].index != i ||
            frame.bright[next_bright].count <= escape)
            return false;
        next_bright++;
    }
    return next_bright == frame.n_bright && frame.n_invalid <= n_valid - frame.n_events;
}

static bool is_ascending(const uint64_t *first, size_t n, uint64_t end)
{
    for (size_t t = 0; t < n; t++)
        if (first[t] > first[t + 1])
            return false;
    return first[0] == 0 && first[n] == end;
}

static int check_content(const struct event_cache *cache, const uint8_t *end, struct err *err)
{
    const struct header *header = &cache->header;
    const uint8_t *tables = (const uint8_t *)(cache->events + header->n_events);
    if (header->mask_hash != XXH3_64bits(cache->valid_bits, 8 * mask_words(header)) ||
        header->events_hash != XXH3_64bits(cache->events, 4 * header->n_events) ||
        header->tables_hash != XXH3_64bits(tables, (size_t)(end - tables)))
        return err_set(err, ERR_DATA,
                       "its content does not have the hash it was written with: damaged, analyse the "
                       "series anew");
    if (!is_ascending(cache->first_event, header->n_frames, header->n_events) ||
        !is_ascending(cache->first_bright, header->n_frames, header->n_bright))
        return err_set(err, ERR_DATA, "its table of frames makes no sense: analyse the series anew");
    size_t n_valid = count_valid(cache);
    for (size_t t = 0; t < header->n_frames; t++)
        if (!check_frame(cache, t, n_valid))
            return err_set(err, ERR_DATA,
                           "frame %zu holds a masked pixel, pixels out of order, or counts more pixels than it has: "
                           "analyse the series anew",
                           t + 1);
    return 0;
}

static void read_info(struct event_cache *cache)
{
    const struct header *header = &cache->header;
    cache->info = (struct frames_info){.n_frames = header->n_frames,
                                       .n_rows = header->n_rows,
                                       .n_columns = header->n_columns,
                                       .element_bytes = (int)header->element_bytes,
                                       .frame_time_s = header->frame_time_s,
                                       .count_time_s = header->count_time_s,
                                       .photon_energy_ev = header->photon_energy_ev,
                                       .detector_distance_m = header->detector_distance_m,
                                       .beam_center_x_px = header->beam_center_x_px,
                                       .beam_center_y_px = header->beam_center_y_px,
                                       .pixel_size_m = header->pixel_size_m};
    memcpy(cache->info.start_time, header->start_time, sizeof cache->info.start_time);
}

int event_cache_parse(struct event_cache **ret_cache, const uint8_t *bytes, size_t n_bytes, struct err *err)
{
    struct event_cache *cache = n_bytes >= HEADER_BYTES ? calloc(1, sizeof *cache) : NULL;
    if (!cache)
        return n_bytes >= HEADER_BYTES
                   ? err_set(err, ERR_SYSTEM, "no memory")
                   : err_set(err, ERR_DATA, "%zu bytes, shorter than the header of an event cache", n_bytes);
    struct header *header = &cache->header;
    memcpy(header, bytes, sizeof *header);
    int code = check_header(header, n_bytes, err);
    if (code == 0) {
        read_info(cache);
        cache->valid_bits = (const uint64_t *)(const void *)(bytes + HEADER_BYTES);
        cache->events = (const uint32_t *)(cache->valid_bits + mask_words(header));
        cache->first_event = (const uint64_t *)(const void *)(cache->events + header->n_events + header->n_events % 2);
        cache->first_bright = cache->first_event + header->n_frames + 1;
        cache->bright = (const struct event_bright *)(cache->first_bright + header->n_frames + 1);
        cache->n_invalid = (const uint32_t *)(cache->bright + header->n_bright);
        code = check_content(cache, bytes + n_bytes, err);
    }
    if (code)
        event_cache_close(cache);
    else
        *ret_cache = cache;
    return code;
}

bool event_cache_is_at(const char *path)
{
    char magic[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_cache = fd >= 0 && read(fd, magic, sizeof magic) == sizeof magic && memcmp(magic, MAGIC, sizeof magic) == 0;
    if (fd >= 0)
        close(fd);
    return is_cache;
}

static int read_all(const char *path, uint8_t **ret_bytes, size_t *ret_n, struct err *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        err_set(err, ERR_IO, "%s", fd < 0 ? strerror(errno) : "not a file");
        if (fd >= 0)
            close(fd);
        return ERR_IO;
    }
    size_t n = (size_t)status.st_size, done = 0;
    uint8_t *bytes = malloc(n ? n : 1);
    while (bytes && done < n) {
        ssize_t got = read(fd, bytes + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    close(fd);
    if (!bytes || done < n) {
        free(bytes);
        return bytes ? err_set(err, ERR_IO, "%zu of %zu bytes read", done, n)
                     : err_set(err, ERR_SYSTEM, "no memory for %zu bytes", n);
    }
    *ret_bytes = bytes;
    *ret_n = n;
    return 0;
}

int event_cache_open(struct event_cache **ret_cache, const char *path, struct err *err)
{
    uint8_t *bytes = NULL;
    size_t n = 0;
    int code = read_all(path, &bytes, &n, err);
    if (code == 0)
        code = event_cache_parse(ret_cache, bytes, n, err);
    if (code) {
        free(bytes);
        if (err)
            err_prefix(err, "event cache %s", path);
        return code;
    }
    (*ret_cache)->owned = bytes;
    return 0;
}

void event_cache_close(struct event_cache *cache)
{
    if (!cache)
        return;
    free(cache->owned);
    free(cache);
}

const struct frames_info *event_cache_info(const struct event_cache *cache) { return &cache->info; }

const char *event_cache_master_path(const struct event_cache *cache) { return cache->header.master_path; }

const uint64_t *event_cache_valid_bits(const struct event_cache *cache) { return cache->valid_bits; }

uint64_t event_cache_mask_hash(const struct event_cache *cache) { return cache->header.mask_hash; }

struct event_frame event_cache_frame(const struct event_cache *cache, size_t frame_index)
{
    const uint64_t *first = cache->first_event + frame_index, *bright = cache->first_bright + frame_index;
    return (struct event_frame){.events = cache->events + first[0],
                                .bright = cache->bright + bright[0],
                                .n_events = first[1] - first[0],
                                .n_bright = bright[1] - bright[0],
                                .n_invalid = cache->n_invalid[frame_index],
                                .pixel_bits = cache->header.pixel_bits};
}
