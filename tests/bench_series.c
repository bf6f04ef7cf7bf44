/*
 * bench_series FRAMES [FEWER...]: writes a series of an EIGER2 4M for tests/bench_whole.py, 32 bit, 0.002 photons per
 * pixel and frame, 100 frames per file, below build/bench (once; SEED=N draws others), and prints its master's path.
 * For each FEWER a shorter series: a master of its own, and links to the first data files.
 */
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/eiger_series.h"

#define FRAMES_PER_FILE 100
#define PHOTONS_PER_PIXEL 0.002

static void fail(const struct err *err)
{
    fprintf(stderr, "bench_series: %s\n", err->message);
    exit(1);
}

static void make_stem(char *ret_stem, size_t size, unsigned long seed, int n_frames)
{
    snprintf(ret_stem, size, "whole_u32_0.002_%lu_%d", seed, n_frames);
}

static void write_whole(struct eiger_series *series, const char *stem, int n_frames)
{
    char path[200];
    struct err err = {0};
    snprintf(path, sizeof path, SERIES_FOLDER "/%s.whole", stem); /* stands when the series is whole */
    if (access(path, F_OK) != 0) {
        fprintf(stderr, "bench_series: drawing " SERIES_FOLDER "/%s: 0.2 MB per frame\n", stem);
        struct eiger_file_settings settings = series_settings(series, stem, 32, n_frames, FRAMES_PER_FILE);
        series_sum_up_intensity(series, PHOTONS_PER_PIXEL);
        if (series_write(series, &settings, &err))
            fail(&err);
        FILE *mark = fopen(path, "w");
        if (mark)
            fclose(mark);
    }
    printf(SERIES_FOLDER "/%s_master.h5\n", stem);
}

static void link_fewer(const struct eiger_series *series, const char *whole_stem, const char *stem, int n_frames)
{
    char target[200], link[200];
    struct err err = {0};
    struct eiger_file *file;
    struct eiger_file_settings settings = series_settings(series, stem, 32, n_frames, FRAMES_PER_FILE);
    if (eiger_file_open(&file, &settings, &err) || eiger_file_close(file, &err))
        fail(&err);
    for (int k = 1; k <= n_frames / FRAMES_PER_FILE; k++) {
        snprintf(target, sizeof target, "%s_data_%06d.h5", whole_stem, k);
        snprintf(link, sizeof link, SERIES_FOLDER "/%s_data_%06d.h5", stem, k);
        unlink(link);
        if (symlink(target, link) != 0)
            fail(&(struct err){.message = "a link cannot be made in " SERIES_FOLDER});
    }
    printf(SERIES_FOLDER "/%s_master.h5\n", stem);
}

int main(int argc, char **argv)
{
    const char *text = getenv("SEED");
    unsigned long seed = text ? strtoul(text, NULL, 10) : 1;
    int n_frames = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0;
    char stem[64], fewer_stem[64];
    for (int i = 1; i < argc; i++) {
        int n = (int)strtol(argv[i], NULL, 10);
        if (n < FRAMES_PER_FILE || n % FRAMES_PER_FILE || n > n_frames || (i > 1 && n == n_frames))
            n_frames = 0;
    }
    if (n_frames == 0) {
        fputs("usage: bench_series FRAMES [FEWER...], all multiples of 100\n", stderr);
        return 2;
    }
    mkdir("build", 0777);
    mkdir(SERIES_FOLDER, 0777);
    struct eiger_series *series = series_new(seed);
    make_stem(stem, sizeof stem, seed, n_frames);
    write_whole(series, stem, n_frames);
    for (int i = 2; i < argc; i++) {
        int n = (int)strtol(argv[i], NULL, 10);
        make_stem(fewer_stem, sizeof fewer_stem, seed, n);
        link_fewer(series, stem, fewer_stem, n);
    }
    series_free(series);
    return 0;
}
