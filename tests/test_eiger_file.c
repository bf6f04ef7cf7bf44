/*
 * Goal: the files are those a reader of EIGER2 data expects, byte for byte where it matters.
 * Method: write series of random events, 16 and 32 bit, of a size that leaves a short last block, and read them back
 * through the master's external links with the HDF5 library and the bitshuffle plugin of the system, an independent
 * decoder: every pixel of every frame must agree. Then the layout: chunk, filter parameters, attributes, a cut series.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/eiger_file.h"
#include "sim/random.h"

#define HEIGHT 73 /* with 104 columns: a short last block at both depths */
#define WIDTH 104
#define N_PIXELS (WIDTH * HEIGHT)

static char directory[] = "/tmp/isobar-eiger-XXXXXX";
static uint32_t mask[N_PIXELS];

static struct eiger_file_settings settings_of(const char *stem, int bit_depth, int n_images)
{
    return (struct eiger_file_settings){.directory = directory,
                                        .stem = stem,
                                        .width = WIDTH,
                                        .height = HEIGHT,
                                        .bit_depth = bit_depth,
                                        .n_images = n_images,
                                        .n_triggers = 1,
                                        .n_images_per_file = 4,
                                        .pixel_mask = mask,
                                        .count_time_s = 0.0999,
                                        .frame_time_s = 0.1,
                                        .readout_time_s = 1e-7,
                                        .photon_energy_ev = 21000,
                                        .threshold_ev = 10500,
                                        .beam_center_x_px = 50,
                                        .beam_center_y_px = 30,
                                        .distance_m = 1.5,
                                        .pixel_size_m = 75e-6,
                                        .sensor_thickness_m = 450e-6,
                                        .count_cutoff = 100000,
                                        .description = "test",
                                        .serial_number = "1",
                                        .firmware_version = "1.8.0",
                                        .utc_ns = 1700000000123456789};
}

/* Random events of one frame, sorted, with the largest counts the depth allows among them; also as a dense image. */
static int draw(struct random *random, int bit_depth, struct speckle_event *events, uint32_t *dense)
{
    int n = 0;
    uint32_t flag = bit_depth == 16 ? UINT16_MAX : UINT32_MAX;
    for (uint32_t i = 0; i < N_PIXELS; i++) {
        dense[i] = mask[i] ? flag : 0;
        if (mask[i] || random_uniform(random) > 0.05)
            continue;
        uint32_t count = random_uniform(random) < 0.9 ? 1 : 1 + (uint32_t)random_bits(random) % (flag - 1);
        events[n++] = (struct speckle_event){i, count};
        dense[i] = count;
    }
    return n;
}

static void check_layout(hid_t data, int bit_depth, int n_frames, uint64_t low)
{
    hid_t create = H5Dget_create_plist(data), type = H5Dget_type(data), space = H5Dget_space(data);
    hsize_t chunk[3], dims[3], dims_max[3];
    unsigned flags, filter[8];
    size_t n = 8;
    assert_int_equal(H5Pget_chunk(create, 3, chunk), 3);
    assert_true(chunk[0] == 1 && chunk[1] == HEIGHT && chunk[2] == WIDTH);
    assert_int_equal(H5Pget_filter2(create, 0, &flags, &n, filter, 0, NULL, NULL), 32008);
    assert_int_equal(n, 5);
    assert_memory_equal(filter, ((unsigned[]){0, 3, (unsigned)bit_depth / 8, 0, 2}), 5 * sizeof filter[0]);
    assert_true(H5Tequal(type, bit_depth == 16 ? H5T_STD_U16LE : H5T_STD_U32LE) > 0);
    H5Sget_simple_extent_dims(space, dims, dims_max);
    assert_int_equal(dims[0], n_frames);
    assert_true(dims_max[0] == H5S_UNLIMITED);
    uint64_t numbers[2];
    for (int i = 0; i < 2; i++) {
        hid_t attribute = H5Aopen(data, i ? "image_nr_high" : "image_nr_low", H5P_DEFAULT);
        assert_true(H5Aread(attribute, H5T_NATIVE_UINT64, &numbers[i]) >= 0);
        H5Aclose(attribute);
    }
    assert_int_equal(numbers[0], low);
    assert_int_equal(numbers[1], low + (uint64_t)n_frames - 1);
    H5Pclose(create);
    H5Tclose(type);
    H5Sclose(space);
}

static void write_and_read(const char *stem, int bit_depth, int n_announced, int n_written)
{
    static struct speckle_event events[N_PIXELS];
    static uint32_t dense[16][N_PIXELS], seen[16 * N_PIXELS];
    struct random random = {(uint64_t)bit_depth};
    struct eiger_file_settings settings = settings_of(stem, bit_depth, n_announced);
    struct eiger_file *file;
    char master[512];
    assert_int_equal(eiger_file_open(&file, &settings, NULL), 0);
    snprintf(master, sizeof master, "%s", eiger_file_master_path(file));
    for (int k = 0; k < n_written; k++) {
        int n = draw(&random, bit_depth, events, dense[k]);
        assert_int_equal(eiger_file_append(file, events, n, NULL), k % 4 == 3 ? 1 : 0);
        assert_int_equal(eiger_file_count(file), (k + 1) / 4 * 4);
    }
    if (n_written == n_announced)
        assert_int_equal(eiger_file_append(file, events, 0, NULL), ERR_FULL);
    assert_int_equal(eiger_file_close(file, NULL), 0);

    H5PLset_loading_state(H5PL_ALL_PLUGIN);
    H5PLprepend("/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins");
    hid_t h5 = H5Fopen(master, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int first = 0, i = 1; first < n_written; first += 4, i++) {
        char name[40];
        int n = n_written - first < 4 ? n_written - first : 4;
        snprintf(name, sizeof name, "/entry/data/data_%06d", i);
        hid_t data = H5Dopen2(h5, name, H5P_DEFAULT);
        assert_true(data >= 0);
        check_layout(data, bit_depth, n, (uint64_t)first + 1);
        assert_true(H5Dread(data, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, seen) >= 0);
        assert_memory_equal(seen, dense[first], (size_t)n * sizeof dense[0]);
        H5Dclose(data);
    }
    H5Fclose(h5);
}

static void test_round_trip_32(void **state) { (void)state, write_and_read("a_1", 32, 10, 10); }
static void test_round_trip_16(void **state) { (void)state, write_and_read("b_1", 16, 8, 8); }

/* A series cut after 6 of 12 frames: the second file is closed at 2 frames, the third link dangles. */
static void test_cut_series(void **state)
{
    (void)state;
    write_and_read("c_1", 32, 12, 6);
    char path[512];
    snprintf(path, sizeof path, "%s/c_1_master.h5", directory);
    hid_t h5 = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(H5Lexists(h5, "/entry/data/data_000003", H5P_DEFAULT) > 0);
    assert_true(H5Dopen2(h5, "/entry/data/data_000003", H5P_DEFAULT) < 0);
    assert_true(H5Lexists(h5, "/entry/data/data_000004", H5P_DEFAULT) == 0);
    H5Fclose(h5);
}

static void test_refusals(void **state)
{
    (void)state;
    struct eiger_file *file = NULL;
    struct err err;
    struct eiger_file_settings settings = settings_of("d_1", 8, 1);
    assert_int_equal(eiger_file_open(&file, &settings, &err), ERR_ARG);
    settings = settings_of("d_1", 32, 1);
    settings.directory = "/nowhere";
    assert_int_equal(eiger_file_open(&file, &settings, &err), ERR_IO);
    assert_non_null(strstr(err.message, "/nowhere/d_1_master.h5"));
    assert_null(file);
}

int main(void)
{
    assert_non_null(mkdtemp(directory));
    for (uint32_t i = 0; i < N_PIXELS; i++)
        mask[i] = i % WIDTH >= 40 && i % WIDTH < 46 ? EIGER_FILE_GAP : i % 997 == 5 ? EIGER_FILE_DEAD : 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip_32), cmocka_unit_test(test_round_trip_16),
                                       cmocka_unit_test(test_cut_series), cmocka_unit_test(test_refusals)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    static const char *const stems[] = {"a_1", "b_1", "c_1"};
    for (size_t i = 0; i < 3; i++)
        for (int k = 0; k <= 3; k++) {
            char path[512];
            snprintf(path, sizeof path, k ? "%s/%s_data_%06d.h5" : "%s/%s_master.h5", directory, stems[i], k);
            unlink(path);
        }
    rmdir(directory);
    return failed;
}
