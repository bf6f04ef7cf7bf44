/*
 * Parser: the files of an EIGER2 series (analysis/frames), through the HDF5 library, which is the system's own and has
 * no sanitizer inside. Input: one byte chooses which file of a small good series is replaced, the master or the first
 * data file, then the file. Property: a series that is accepted has the sizes its header promises, and its photons lie
 * in the frame, in pixel order, in valid pixels.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "analysis/frames.h"
#include "sim/eiger_file.h"
#include "tests/fuzz.h"
#include "tests/fuzz/photons.h"

#define WIDTH 16
#define HEIGHT 8
#define FRAMES_LOOKED_AT 4
enum { MASTER, DATA, FILE_COUNT };

const char *const fuzz_words[] = {
    "\x89HDF\r\n\x1a\n", "TREE",       "SNOD",       "HEAP",        "OHDR", "FRHP", "BTHD",
    "\xff\xff\xff\xff",  "frame_time", "pixel_mask", "data_000001", NULL};

const int fuzz_is_brittle = 1; /* HDF5 follows null pointers in damaged files, sooner or later */

static char directory[] = "/dev/shm/isobar-fuzz-frames-XXXXXX"; /* in memory: on a disk every rewriting waits for it */
static char paths[FILE_COUNT][64];
static uint8_t good[FILE_COUNT][1 << 17];
static size_t good_size[FILE_COUNT];

static void remove_series(void)
{
    for (int i = 0; i < FILE_COUNT; i++)
        unlink(paths[i]);
    char second[64];
    snprintf(second, sizeof second, "%s/s_data_000002.h5", directory);
    unlink(second);
    rmdir(directory);
}

static void write_file(int which, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(paths[which], "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        abort();
}

/* Three frames of one photon in every fifth pixel, two frames to a file. */
static void make_series(void)
{
    static const uint32_t mask[WIDTH * HEIGHT] = {[3] = EIGER_FILE_GAP, [40] = EIGER_FILE_DEAD};
    struct speckle_event events[WIDTH * HEIGHT];
    struct eiger_file *file;
    struct err err = {0};
    int n = 0;
    for (uint32_t pixel = 0; pixel < WIDTH * HEIGHT; pixel += 5)
        if (!mask[pixel])
            events[n++] = (struct speckle_event){pixel, 1 + pixel % 3};
    if (!mkdtemp(directory))
        abort();
    atexit(remove_series);
    snprintf(paths[MASTER], sizeof paths[0], "%s/s_master.h5", directory);
    snprintf(paths[DATA], sizeof paths[0], "%s/s_data_000001.h5", directory);
    struct eiger_file_settings settings = {.directory = directory,
                                           .stem = "s",
                                           .width = WIDTH,
                                           .height = HEIGHT,
                                           .bit_depth = 16,
                                           .n_images = 3,
                                           .n_triggers = 1,
                                           .n_images_per_file = 2,
                                           .pixel_mask = mask,
                                           .count_time_s = 0.0999,
                                           .frame_time_s = 0.1,
                                           .photon_energy_ev = 21000,
                                           .threshold_ev = 10500,
                                           .distance_m = 5,
                                           .pixel_size_m = 75e-6,
                                           .sensor_thickness_m = 450e-6,
                                           .count_cutoff = 1000,
                                           .description = "d",
                                           .serial_number = "1",
                                           .firmware_version = "1"};
    int code = eiger_file_open(&file, &settings, &err);
    for (int i = 0; i < 3 && code >= 0; i++)
        code = eiger_file_append(file, events, n, &err);
    if (code < 0 || eiger_file_close(file, &err))
        abort();
    for (int i = 0; i < FILE_COUNT; i++) {
        FILE *stream = fopen(paths[i], "rb");
        good_size[i] = stream ? fread(good[i], 1, sizeof good[i], stream) : 0;
        if (good_size[i] == 0 || good_size[i] == sizeof good[i] || fclose(stream) != 0)
            abort();
    }
}

void fuzz_plant_seeds(void)
{
    static uint8_t input[1 + sizeof good[0]];
    make_series();
    for (int i = 0; i < FILE_COUNT; i++) {
        input[0] = (uint8_t)i;
        memcpy(input + 1, good[i], good_size[i]);
        fuzz_plant(input, 1 + good_size[i]);
    }
}

static void read_frames(struct frames *frames)
{
    const struct frames_info *info = frames_info(frames);
    size_t n_pixels = info->n_rows * info->n_columns;
    struct event_frame frame;
    struct err err = {0};
    FUZZ_CHECK(n_pixels >= 1 && n_pixels <= EVENT_PIXELS_MAX, "%zu x %zu", info->n_rows, info->n_columns);
    FUZZ_CHECK(info->element_bytes == 1 || info->element_bytes == 2 || info->element_bytes == 4, "%d bytes",
               info->element_bytes);
    FUZZ_CHECK(info->frame_time_s > 0 && isfinite(info->frame_time_s), "frames of %g s", info->frame_time_s);
    FUZZ_CHECK(memchr(info->start_time, 0, sizeof info->start_time), "no end of the start time");
    if (info->n_frames == 0 || frames_start(frames, 0, info->n_frames, 1, &err))
        return;
    for (int i = 0; i < FRAMES_LOOKED_AT && frames_next(frames, &frame, &err) == 1; i++)
        fuzz_check_photons(&frame, frames_valid_bits(frames), n_pixels, UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frames *frames;
    struct err err = {0};
    if (good_size[0] == 0)
        make_series();
    if (size < 1)
        return 0;
    int which = data[0] % FILE_COUNT;
    write_file(which, data + 1, size - 1);
    const struct frames_settings settings = {.end_fd = -1};
    if (frames_open(&frames, paths[MASTER], &settings, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
    } else {
        read_frames(frames);
        frames_close(frames);
    }
    write_file(which, good[which], good_size[which]);
    return 0;
}
