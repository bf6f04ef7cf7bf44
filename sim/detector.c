#include "sim/detector.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "sim/eiger_file.h"
#include "sim/glass.h"
#include "sim/random.h"
#include "sim/speckle.h"

#define REQUEST_S 0.005 /* one parameter over the detector's web interface */
#define ENERGY_S 2.0    /* a new photon energy: flat field and thresholds are computed anew */
#define ARM_S_MIN 0.3
#define ARM_S_MAX 3.0
#define TAIL_S 0.6              /* from disarming to the last file's name */
#define BIT_DEPTH_TIME_S 6.6e-3 /* shorter exposures stay within 16 bit */
#define PACE_IDLE 1e6
#define PACE_MARGIN 0.6     /* of the sustained pace: the rest is for everybody else's share of the processors */
#define FRAME_COST_S 0.5e-3 /* until measured */
#define BACKLOG_S_MAX 1.0
#define GAP_COLUMN 122 /* first of 12 columns */
#define GAP_ROW 126    /* first of 4 rows */
#define DEAD_PIXELS 20

enum { STATE_IDLE = 0, STATE_ACQUIRE = 1, STATE_ERROR = 6, STATE_ABORTED = 10 }; /* DetectorState_RBV */

struct detector {
    struct parameter_table *table;
    struct world *world;
    struct clock *clock;
    struct detector_settings settings;
    struct speckle *speckle;
    struct speckle_event *events;
    uint32_t *pixel_mask;
    struct random random;
    double frame_cost_s; /* wall time to draw, encode and write one frame: running mean */
    pthread_t control, status;
    pthread_mutex_t mutex; /* guards the four flags */
    pthread_cond_t woken;
    bool is_start_pending, is_start_cancelled; /* a start the control thread has not picked up yet */
    bool is_stopping;                          /* the running series */
    bool is_ending;                            /* the program */
};

/* One series: parameters latched at its start, and what becomes of it. */
struct series {
    int n_images, n_triggers, trigger_mode;
    double count_time_s, frame_time_s;
    bool is_written;
    struct eiger_file *file; /* NULL unless is_written */
    int n_frames;            /* exposed so far */
    int64_t t_ns_start;
    double theta_start;
    double *theta; /* [n_images * n_triggers] */
    double beta;   /* at the start */
    double pressure_gpa_start, pressure_gpa_end;
    int n_frames_shadowed; /* by the ruby's optics in the beam */
    int n_frames_lit;      /* by the ruby's laser */
};

static double number(struct detector *detector, enum parameter parameter)
{
    return parameter_number(detector->table, parameter);
}

static void set(struct detector *detector, enum parameter parameter, double value)
{
    parameter_set_number(detector->table, parameter, value);
}

static void set_message(struct detector *detector, const char *message)
{
    parameter_set_text(detector->table, PARAMETER_STATUS_MESSAGE, message);
}

static bool is_stopping(struct detector *detector)
{
    pthread_mutex_lock(&detector->mutex);
    bool stopping = detector->is_stopping || detector->is_ending;
    pthread_mutex_unlock(&detector->mutex);
    return stopping;
}

/* Waits in experiment time; returns early, with true, when the series is stopped. */
static bool wait_s(struct detector *detector, double duration_s)
{
    int64_t t_ns_end = clock_now_ns(detector->clock) + ns_from_s(duration_s);
    while (clock_now_ns(detector->clock) < t_ns_end) {
        if (is_stopping(detector))
            return true;
        clock_sleep_until(detector->clock, t_ns_end, 5);
    }
    return is_stopping(detector);
}

/* ---- one frame ----------------------------------------------------------------------------------------------- */

/* The sample at `t_ns`, once clock and physics have come that far. Returns 1 when stopped meanwhile. */
static int wait_sample(struct detector *detector, int64_t t_ns_end, int64_t t_ns, struct world_sample *ret_sample,
                       struct err *err)
{
    while (clock_now_ns(detector->clock) < t_ns_end) {
        if (is_stopping(detector))
            return 1;
        clock_sleep_until(detector->clock, t_ns_end, 5);
    }
    for (;;) {
        int code = world_sample_at(detector->world, t_ns, ret_sample, err);
        if (code != ERR_STATE)
            return code;
        if (is_stopping(detector))
            return 1;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

static int draw_photons(struct detector *detector, double theta, bool is_shadowed)
{
    struct world_state state;
    world_read(detector->world, &state);
    double flux = is_shadowed ? 0.0 : state.ring_current_ma / detector->settings.ring_current_ma_nominal;
    return speckle_draw_frame(detector->speckle, theta, fmin(flux, 1.0), detector->events,
                              speckle_events_max(detector->speckle));
}

/* The driver counts the images of the files it fetches: a file at a time, and only when files are its source. */
static void count_images(struct detector *detector, int n_images)
{
    if (number(detector, PARAMETER_DATA_SOURCE) == 1)
        set(detector, PARAMETER_NUM_IMAGES_COUNTER, n_images);
}

static int expose_frame(struct detector *detector, struct series *series, int64_t t_ns, struct err *err)
{
    struct world_sample sample;
    int code = wait_sample(detector, t_ns + ns_from_s(series->count_time_s),
                           t_ns + ns_from_s(0.5 * series->count_time_s), &sample, err);
    if (code)
        return code;
    int64_t wall_ns_start = clock_wall_ns();
    if (series->n_frames == 0) {
        series->t_ns_start = t_ns;
        series->theta_start = sample.theta;
        series->pressure_gpa_start = sample.pressure_gpa;
    }
    series->pressure_gpa_end = sample.pressure_gpa;
    series->theta[series->n_frames] = sample.theta - series->theta_start;
    series->n_frames_shadowed += sample.shadow > 0.0;
    series->n_frames_lit += sample.laser > 0.0;
    int n_events = draw_photons(detector, series->theta[series->n_frames], sample.shadow > 0.0);
    if (n_events < 0)
        return err_set(err, n_events, "more photons in one frame than the detector can count");
    code = series->file ? eiger_file_append(series->file, detector->events, n_events, err) : 0;
    if (code < 0)
        return code;
    series->n_frames++;
    if (code == 1)
        count_images(detector, eiger_file_count(series->file));
    double cost_s = s_from_ns(clock_wall_ns() - wall_ns_start);
    detector->frame_cost_s += 0.02 * (cost_s - detector->frame_cost_s);
    return 0;
}

/* The pace at which frames are produced as fast as they are exposed; a tenth of it while there is a backlog to work
 * off, as after a moment in which the processors were busy with others. */
static void request_pace(struct detector *detector, const struct series *series, double backlog_s)
{
    double pace = PACE_MARGIN * series->frame_time_s / detector->frame_cost_s;
    if (backlog_s > BACKLOG_S_MAX)
        pace *= 0.1;
    clock_request_pace(detector->clock, "detector", fmax(pace, 1.0));
}

static int expose_trigger(struct detector *detector, struct series *series, struct err *err)
{
    int64_t t_ns_trigger = clock_now_ns(detector->clock), period_ns = ns_from_s(series->frame_time_s);
    for (int k = 0; k < series->n_images; k++) {
        int64_t t_ns = t_ns_trigger + k * period_ns;
        int code = expose_frame(detector, series, t_ns, err);
        if (code)
            return code;
        if (k % 8 == 7)
            request_pace(detector, series, s_from_ns(clock_now_ns(detector->clock) - t_ns));
    }
    return 0;
}

/* ---- one series ---------------------------------------------------------------------------------------------- */

static bool series_check(struct detector *detector, const struct series *series, const char **ret_message)
{
    int source = (int)number(detector, PARAMETER_DATA_SOURCE);
    bool saves = number(detector, PARAMETER_SAVE_FILES) > 0;
    if ((source == 1 || saves) && number(detector, PARAMETER_FW_ENABLE) < 1)
        *ret_message = "FileWriter API is disabled";
    else if (source == 2)
        *ret_message = "Stream API is disabled";
    else if (series->is_written && number(detector, PARAMETER_FILE_PATH_EXISTS) < 1)
        *ret_message = "Invalid file path";
    else
        return true;
    return false;
}

/* The name pattern with every $id replaced by the sequence id. */
static void stem_make(struct detector *detector, int sequence_id, char *ret_stem, size_t size)
{
    char pattern[PARAMETER_TEXT_MAX];
    parameter_text(detector->table, PARAMETER_FW_NAME_PATTERN, pattern);
    size_t n = 0;
    for (const char *p = pattern; *p && n + 12 < size;) {
        if (strncmp(p, "$id", 3) == 0) {
            n += (size_t)snprintf(ret_stem + n, size - n, "%d", sequence_id);
            p += 3;
        } else {
            ret_stem[n++] = *p++;
        }
    }
    ret_stem[n] = '\0';
}

static int series_open_file(struct detector *detector, struct series *series, int sequence_id, struct err *err)
{
    char directory[PARAMETER_TEXT_MAX], stem[200];
    char description[PARAMETER_TEXT_MAX], serial_number[PARAMETER_TEXT_MAX], firmware_version[PARAMETER_TEXT_MAX];
    parameter_text(detector->table, PARAMETER_FILE_PATH, directory);
    parameter_text(detector->table, PARAMETER_DESCRIPTION, description);
    parameter_text(detector->table, PARAMETER_SERIAL_NUMBER, serial_number);
    parameter_text(detector->table, PARAMETER_FIRMWARE_VERSION, firmware_version);
    directory[strlen(directory) - 1] = '\0'; /* without the slash that ends it: write_file_path sees to it */
    stem_make(detector, sequence_id, stem, sizeof stem);
    int n_per_file = (int)number(detector, PARAMETER_FW_N_IMAGES_PER_FILE);
    struct eiger_file_settings settings = {
        .directory = directory,
        .stem = stem,
        .width = detector->settings.width,
        .height = detector->settings.height,
        .bit_depth = (int)number(detector, PARAMETER_BIT_DEPTH_IMAGE),
        .n_images = series->n_images,
        .n_triggers = series->n_triggers,
        .n_images_per_file = n_per_file,
        .pixel_mask = detector->pixel_mask,
        .count_time_s = series->count_time_s,
        .frame_time_s = series->frame_time_s,
        .readout_time_s = number(detector, PARAMETER_DEAD_TIME),
        .photon_energy_ev = number(detector, PARAMETER_PHOTON_ENERGY),
        .threshold_ev = number(detector, PARAMETER_THRESHOLD_ENERGY),
        .beam_center_x_px = number(detector, PARAMETER_BEAM_X),
        .beam_center_y_px = number(detector, PARAMETER_BEAM_Y),
        .distance_m = number(detector, PARAMETER_DET_DIST),
        .pixel_size_m = number(detector, PARAMETER_PIXEL_SIZE_X),
        .sensor_thickness_m = number(detector, PARAMETER_SENSOR_THICKNESS),
        .count_cutoff = (uint32_t)number(detector, PARAMETER_COUNT_CUTOFF),
        .description = description,
        .serial_number = serial_number,
        .firmware_version = firmware_version,
        .utc_ns = clock_utc_ns(detector->clock, clock_now_ns(detector->clock)),
    };
    return eiger_file_open(&series->file, &settings, err);
}

/* Arms: 0, 1 when stopped meanwhile, or an error. */
static int series_arm(struct detector *detector, struct series *series, struct err *err)
{
    set_message(detector, "Arming");
    parameter_set_text(detector->table, PARAMETER_STATE, "configure");
    int sequence_id = (int)number(detector, PARAMETER_SEQUENCE_ID) + 1;
    struct world_state state;
    world_read(detector->world, &state);
    struct world_sample sample;
    /* The newest sample is always in the history; its beta holds for the series. */
    int code = world_sample_at(detector->world, state.t_ns, &sample, err);
    if (code)
        return code;
    series->beta = sample.beta;
    speckle_start_scan(detector->speckle, sample.beta, (uint64_t)state.t_ns);
    if (wait_s(detector, ARM_S_MIN + (ARM_S_MAX - ARM_S_MIN) * random_uniform(&detector->random)))
        return 1;
    code = series->is_written ? series_open_file(detector, series, sequence_id, err) : 0;
    if (code)
        return code;
    set(detector, PARAMETER_NUM_IMAGES_COUNTER, 0);
    set(detector, PARAMETER_SEQUENCE_ID, sequence_id);
    if (series->file)
        parameter_set_text(detector->table, PARAMETER_FULL_FILE_NAME, eiger_file_master_path(series->file));
    parameter_set_text(detector->table, PARAMETER_STATE, "acquire");
    parameter_set_text(detector->table, PARAMETER_FW_STATE, series->file ? "acquire" : "ready");
    set(detector, PARAMETER_ARMED, 1);
    set_message(detector, "Armed");
    return 0;
}

/* A clock that runs fast through a quiet hold must have slowed down before the first frame. */
static void settle_pace(struct detector *detector, const struct series *series)
{
    request_pace(detector, series, 0);
    double pace = fmax(series->frame_time_s / detector->frame_cost_s, 1.0);
    for (int i = 0; i < 100 && clock_speed(detector->clock) > pace; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static int series_expose(struct detector *detector, struct series *series, struct err *err)
{
    int code = 0;
    if (series->trigger_mode >= 2) {
        set_message(detector, "Waiting for external triggers (press Stop when done)");
        while (!wait_s(detector, 1.0))
            ;
        return 1;
    }
    for (int i = 0; i < series->n_triggers && code == 0; i++) {
        set_message(detector, "Triggering");
        code = expose_trigger(detector, series, err);
    }
    return code;
}

/* Disarms, closes the last file, and waits until the driver has fetched it. */
static int series_close(struct detector *detector, struct series *series, struct err *err)
{
    set(detector, PARAMETER_ARMED, 0);
    set_message(detector, "Processing files");
    parameter_set_text(detector->table, PARAMETER_STATE, "idle");
    int64_t t_ns_end = clock_now_ns(detector->clock) + ns_from_s(TAIL_S);
    char master_path[1024] = "";
    if (series->file)
        snprintf(master_path, sizeof master_path, "%s", eiger_file_master_path(series->file));
    int code = eiger_file_close(series->file, err);
    while (clock_now_ns(detector->clock) < t_ns_end && clock_is_alive(detector->clock))
        clock_sleep_until(detector->clock, t_ns_end, 5);
    if (code == 0)
        count_images(detector, series->n_frames);
    series->file = NULL;
    parameter_set_text(detector->table, PARAMETER_FW_STATE,
                       number(detector, PARAMETER_FW_ENABLE) > 0 ? "ready" : "disabled");
    return code;
}

static void write_truth(struct detector *detector, const struct series *series, const char *master_path)
{
    struct glass_truth truth;
    struct err err;
    char fit[100] = "\"tau_s\":null,\"beta\":null", line[1500];
    if (glass_fit_truth(series->theta, (size_t)series->n_frames, series->frame_time_s, series->beta, &truth, &err) == 0)
        snprintf(fit, sizeof fit, "\"tau_s\":%.6g,\"beta\":%.6g", truth.tau_s, truth.beta);
    snprintf(line, sizeof line,
             "{\"kind\":\"scan\",\"master\":\"%s\",\"sequence_id\":%d,\"n_frames\":%d,\"t_ns_start\":%lld,"
             "\"frame_time_s\":%.9g,\"photons_per_pixel\":%.6g,\"contrast\":%.6g,\"baseline\":%.6g,%s,"
             "\"pressure_gpa_start\":%.6g,\"pressure_gpa_end\":%.6g,\"n_frames_shadowed\":%d,\"n_frames_lit\":%d}",
             master_path, (int)number(detector, PARAMETER_SEQUENCE_ID), series->n_frames, (long long)series->t_ns_start,
             series->frame_time_s, detector->settings.photons_per_pixel, speckle_contrast(detector->speckle),
             speckle_baseline(detector->speckle), fit, series->pressure_gpa_start, series->pressure_gpa_end,
             series->n_frames_shadowed, series->n_frames_lit);
    world_write_truth(detector->world, line);
}

/* Arms, exposes and disarms. Returns the sentence that ends the series, and the state beside it. */
static const char *series_run(struct detector *detector, struct series *series, int *ret_state)
{
    static const char *const failures[] = {"Failed to arm the detector", "Failed to take or write the images"};
    const char *refusal;
    struct err err;
    *ret_state = STATE_ERROR;
    if (!series_check(detector, series, &refusal))
        return refusal;
    int code = series_arm(detector, series, &err);
    if (code < 0) {
        parameter_set_text(detector->table, PARAMETER_STATE, "error");
        return failures[0];
    }
    char master_path[1024] = "";
    if (series->file)
        snprintf(master_path, sizeof master_path, "%s", eiger_file_master_path(series->file));
    if (code == 0) {
        settle_pace(detector, series);
        code = series_expose(detector, series, &err);
    }
    int code_close = series_close(detector, series, &err);
    if (code < 0 || code_close < 0)
        return failures[1];
    if (code == 1 || is_stopping(detector)) {
        *ret_state = STATE_ABORTED;
        return "Acquisition aborted";
    }
    write_truth(detector, series, master_path);
    *ret_state = STATE_IDLE;
    return "Ready";
}

static void acquire(struct detector *detector)
{
    struct series series = {
        .n_images = (int)number(detector, PARAMETER_NUM_IMAGES),
        .n_triggers = (int)number(detector, PARAMETER_NUM_TRIGGERS),
        .trigger_mode = (int)number(detector, PARAMETER_TRIGGER_MODE),
        .count_time_s = number(detector, PARAMETER_ACQUIRE_TIME),
        .frame_time_s = number(detector, PARAMETER_ACQUIRE_PERIOD),
        .is_written = number(detector, PARAMETER_FW_ENABLE) > 0 && number(detector, PARAMETER_SAVE_FILES) > 0,
    };
    series.theta = malloc((size_t)series.n_images * (size_t)series.n_triggers * sizeof *series.theta);
    assert(series.theta);
    int state;
    const char *message = series_run(detector, &series, &state);
    clock_request_pace(detector->clock, "detector", PACE_IDLE);
    free(series.theta);
    set(detector, PARAMETER_DETECTOR_STATE, state);
    set(detector, PARAMETER_ACQUIRE, 0);
    set(detector, PARAMETER_ACQUIRE_RBV, 0);
    set(detector, PARAMETER_ACQUIRE_BUSY, 0);
    set_message(detector, message);
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

static void *control_main(void *context)
{
    struct detector *detector = context;
    for (;;) {
        pthread_mutex_lock(&detector->mutex);
        while (!detector->is_start_pending && !detector->is_ending)
            pthread_cond_wait(&detector->woken, &detector->mutex);
        bool is_ending = detector->is_ending;
        detector->is_start_pending = false;
        detector->is_stopping = detector->is_start_cancelled;
        pthread_mutex_unlock(&detector->mutex);
        if (is_ending)
            return NULL;
        acquire(detector);
    }
}

/* The ring current once per second of experiment time, and not more than fifty times per second of wall time. */
static void *status_main(void *context)
{
    struct detector *detector = context;
    for (;;) {
        pthread_mutex_lock(&detector->mutex);
        bool is_ending = detector->is_ending;
        pthread_mutex_unlock(&detector->mutex);
        if (is_ending)
            return NULL;
        struct world_state state;
        world_read(detector->world, &state);
        set(detector, PARAMETER_RING_CURRENT, state.ring_current_ma);
        int64_t t_ns_next = clock_now_ns(detector->clock) + NS_PER_S;
        nanosleep(&(struct timespec){.tv_nsec = 20 * NS_PER_MS}, NULL);
        clock_sleep_until(detector->clock, t_ns_next, 200);
    }
}

/* ---- writes of clients --------------------------------------------------------------------------------------- */

static void write_acquire(struct detector *detector, bool on)
{
    bool is_acquiring = number(detector, PARAMETER_ACQUIRE) > 0;
    if (on == is_acquiring)
        return;
    pthread_mutex_lock(&detector->mutex);
    if (on)
        detector->is_start_pending = true;
    else if (!detector->is_start_pending)
        detector->is_stopping = true;
    detector->is_start_cancelled = !on;
    pthread_mutex_unlock(&detector->mutex);
    set(detector, PARAMETER_DETECTOR_STATE, on ? STATE_ACQUIRE : STATE_ABORTED);
    set(detector, PARAMETER_ACQUIRE_BUSY, on);
    set(detector, PARAMETER_ACQUIRE_RBV, on);
    set(detector, PARAMETER_ACQUIRE, on);
    pthread_cond_signal(&detector->woken);
}

static void write_energy(struct detector *detector, double energy_ev)
{
    energy_ev = fmin(fmax(energy_ev, 4000.0), 100000.0);
    if (fabs(energy_ev - number(detector, PARAMETER_PHOTON_ENERGY)) < number(detector, PARAMETER_ENERGY_EPS))
        return; /* as the driver: such a small change is not sent */
    char message[PARAMETER_TEXT_MAX];
    parameter_text(detector->table, PARAMETER_STATUS_MESSAGE, message);
    set_message(detector, "Setting Photon Energy...");
    clock_sleep_until(detector->clock, clock_now_ns(detector->clock) + ns_from_s(ENERGY_S), 5000);
    set(detector, PARAMETER_PHOTON_ENERGY, energy_ev);
    set(detector, PARAMETER_THRESHOLD_ENERGY, 0.5 * energy_ev);
    set_message(detector, message);
}

static void write_times(struct detector *detector, double count_time_s, double frame_time_s, bool is_count_leading)
{
    double readout_s = number(detector, PARAMETER_DEAD_TIME);
    count_time_s = fmin(fmax(count_time_s, 1e-5), 1800.0);
    frame_time_s = fmin(fmax(frame_time_s, 1e-5 + readout_s), 1800.0 + readout_s);
    if (frame_time_s < count_time_s + readout_s) {
        if (is_count_leading)
            frame_time_s = count_time_s + readout_s;
        else
            count_time_s = frame_time_s - readout_s;
    }
    set(detector, PARAMETER_ACQUIRE_TIME, count_time_s);
    set(detector, PARAMETER_ACQUIRE_PERIOD, frame_time_s);
    set(detector, PARAMETER_BIT_DEPTH_IMAGE, count_time_s < BIT_DEPTH_TIME_S ? 16 : 32);
}

static void write_file_path(struct detector *detector, const char *text)
{
    char path[PARAMETER_TEXT_MAX];
    struct stat status;
    snprintf(path, sizeof path - 1, "%s", text);
    size_t length = strlen(path);
    if (length && path[length - 1] != '/')
        memcpy(path + length, "/", 2);
    parameter_set_text(detector->table, PARAMETER_FILE_PATH, path);
    set(detector, PARAMETER_FILE_PATH_EXISTS, length && stat(path, &status) == 0 && S_ISDIR(status.st_mode));
}

static int write_menu(struct detector *detector, enum parameter parameter, double value)
{
    int index = (int)value;
    bool is_supported = index >= 0 && index < parameter_choice_count(parameter);
    if (parameter == PARAMETER_COMPRESSION_ALGO || parameter == PARAMETER_FW_COMPRESSION)
        is_supported = index == 1; /* bitshuffle and LZ4 is all this detector writes */
    if (!is_supported)
        return ERR_ARG;
    set(detector, parameter, index);
    if (parameter == PARAMETER_TRIGGER_MODE && (index == 1 || index == 3))
        set(detector, PARAMETER_NUM_IMAGES, 1);
    if (parameter == PARAMETER_FW_ENABLE)
        parameter_set_text(detector->table, PARAMETER_FW_STATE, index ? "ready" : "disabled");
    return 0;
}

int detector_write(struct detector *detector, enum parameter parameter, double value, const char *text)
{
    clock_sleep_until(detector->clock, clock_now_ns(detector->clock) + ns_from_s(REQUEST_S), 20);
    if (parameter == PARAMETER_ACQUIRE)
        write_acquire(detector, value > 0);
    else if (parameter == PARAMETER_ACQUIRE_TIME)
        write_times(detector, value, number(detector, PARAMETER_ACQUIRE_PERIOD), true);
    else if (parameter == PARAMETER_ACQUIRE_PERIOD)
        write_times(detector, number(detector, PARAMETER_ACQUIRE_TIME), value, false);
    else if (parameter == PARAMETER_PHOTON_ENERGY)
        write_energy(detector, value);
    else if (parameter == PARAMETER_THRESHOLD_ENERGY)
        set(detector, parameter, fmin(fmax(value, 2700.0), number(detector, PARAMETER_PHOTON_ENERGY)));
    else if (parameter == PARAMETER_FILE_PATH)
        write_file_path(detector, text);
    else if (parameter_laws[parameter].kind == PARAMETER_TEXT)
        parameter_set_text(detector->table, parameter, text);
    else if (parameter_laws[parameter].kind == PARAMETER_MENU)
        return write_menu(detector, parameter, value);
    else if (parameter_laws[parameter].kind == PARAMETER_INTEGER)
        set(detector, parameter, fmin(fmax(value, 1.0), 1e6));
    else
        set(detector, parameter, value);
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void mask_fill(struct detector *detector)
{
    int width = detector->settings.width, height = detector->settings.height;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            if ((x >= GAP_COLUMN && x < GAP_COLUMN + 12) || (y >= GAP_ROW && y < GAP_ROW + 4))
                detector->pixel_mask[y * width + x] = EIGER_FILE_GAP;
    for (int i = 0; i < DEAD_PIXELS; i++)
        detector->pixel_mask[random_bits(&detector->random) % (uint64_t)(width * height)] |= EIGER_FILE_DEAD;
}

/* Detector mask and optics; on failure nothing is kept. */
static int optics_open(struct detector *detector, struct err *err)
{
    const struct detector_settings *settings = &detector->settings;
    if (settings->width < 8 || settings->height < 8)
        return err_set(err, ERR_ARG, "detector of %d x %d pixels refused", settings->width, settings->height);
    size_t n_pixels = (size_t)settings->width * (size_t)settings->height;
    detector->pixel_mask = calloc(n_pixels, sizeof *detector->pixel_mask);
    uint8_t *is_masked = calloc(n_pixels, 1);
    assert(detector->pixel_mask && is_masked);
    mask_fill(detector);
    for (size_t i = 0; i < n_pixels; i++)
        is_masked[i] = detector->pixel_mask[i] != 0;
    struct speckle_settings optics = {.width = settings->width,
                                      .height = settings->height,
                                      .photons_per_pixel = settings->photons_per_pixel,
                                      .amplitude = settings->amplitude,
                                      .is_masked = is_masked,
                                      .seed = world_seed(detector->world)};
    int code = speckle_open(&detector->speckle, &optics, err);
    free(is_masked);
    if (code)
        return code;
    detector->events = malloc((size_t)speckle_events_max(detector->speckle) * sizeof *detector->events);
    assert(detector->events);
    return 0;
}

static void detector_free(struct detector *detector)
{
    speckle_close(detector->speckle);
    free(detector->events);
    free(detector->pixel_mask);
    free(detector);
}

int detector_start(struct detector **ret_detector, struct parameter_table *table, struct world *world,
                   struct clock *clock, const struct detector_settings *settings, struct err *err)
{
    if (!(settings->ring_current_ma_nominal > 0))
        return err_set(err, ERR_ARG, "nominal ring current %g mA refused: must be positive",
                       settings->ring_current_ma_nominal);
    struct detector *detector = calloc(1, sizeof *detector);
    assert(detector);
    *detector = (struct detector){.table = table,
                                  .world = world,
                                  .clock = clock,
                                  .settings = *settings,
                                  .random = {world_seed(world) ^ UINT64_C(0x6465746563746f72)},
                                  .frame_cost_s = FRAME_COST_S};
    int code = optics_open(detector, err);
    if (code) {
        detector_free(detector);
        return code;
    }
    set(detector, PARAMETER_MAX_SIZE_X, settings->width);
    set(detector, PARAMETER_MAX_SIZE_Y, settings->height);
    parameter_set_text(table, PARAMETER_STATE, "idle");
    set_message(detector, "Ready");
    clock_request_pace(clock, "detector", PACE_IDLE);
    pthread_mutex_init(&detector->mutex, NULL);
    pthread_cond_init(&detector->woken, NULL);
    bool is_running = pthread_create(&detector->control, NULL, control_main, detector) == 0 &&
                      pthread_create(&detector->status, NULL, status_main, detector) == 0;
    assert(is_running);
    *ret_detector = detector;
    return 0;
}

void detector_stop(struct detector *detector)
{
    if (!detector)
        return;
    pthread_mutex_lock(&detector->mutex);
    detector->is_ending = true;
    pthread_cond_signal(&detector->woken);
    pthread_mutex_unlock(&detector->mutex);
    pthread_join(detector->control, NULL);
    pthread_join(detector->status, NULL);
    detector_free(detector);
}
