#include "drivers/eiger.h"

#include <assert.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"

#define PUT_TIMEOUT_S 30.0 /* a new photon energy takes seconds */
#define ARM_TIMEOUT_S 120.0
#define LAG_S 2.0 /* status records may be this late behind the end of a put-callback */
#define FINISH_TIMEOUT_S 10.0
#define ABORT_TIMEOUT_S 30.0
#define READOUT_S 1e-4

/* Settings in the order they are written: mode before times, energy before threshold, count time before frame time. */
#define SETTING_LIST(X)                                                                                                \
    X(TRIGGER_MODE, "TriggerMode")                                                                                     \
    X(PHOTON_ENERGY, "PhotonEnergy")                                                                                   \
    X(THRESHOLD_ENERGY, "ThresholdEnergy")                                                                             \
    X(ACQUIRE_TIME, "AcquireTime")                                                                                     \
    X(ACQUIRE_PERIOD, "AcquirePeriod")                                                                                 \
    X(NUM_IMAGES, "NumImages")                                                                                         \
    X(NUM_TRIGGERS, "NumTriggers")                                                                                     \
    X(DATA_SOURCE, "DataSource")                                                                                       \
    X(FW_ENABLE, "FWEnable")                                                                                           \
    X(FW_COMPRESSION, "FWCompression")                                                                                 \
    X(COMPRESSION_ALGO, "CompressionAlgo")                                                                             \
    X(FW_NAME_PATTERN, "FWNamePattern")                                                                                \
    X(FW_N_IMAGES_PER_FILE, "FWNImagesPerFile")                                                                        \
    X(FILE_PATH, "FilePath")                                                                                           \
    X(SAVE_FILES, "SaveFiles")                                                                                         \
    X(BEAM_X, "BeamX")                                                                                                 \
    X(BEAM_Y, "BeamY")                                                                                                 \
    X(DET_DIST, "DetDist")

enum setting {
#define X(id, name) SETTING_##id,
    SETTING_LIST(X)
#undef X
        SETTING_COUNT
};

static const char *const setting_names[SETTING_COUNT] = {
#define X(id, name) name,
    SETTING_LIST(X)
#undef X
};

#define STATUS_LIST(X)                                                                                                 \
    X(ACQUIRE, "Acquire")                                                                                              \
    X(ACQUIRE_RBV, "Acquire_RBV")                                                                                      \
    X(ACQUIRE_BUSY, "AcquireBusy")                                                                                     \
    X(DETECTOR_STATE, "DetectorState_RBV")                                                                             \
    X(STATUS_MESSAGE, "StatusMessage_RBV")                                                                             \
    X(ARMED, "Armed")                                                                                                  \
    X(SEQUENCE_ID, "SequenceId")                                                                                       \
    X(NUM_IMAGES_COUNTER, "NumImagesCounter_RBV")                                                                      \
    X(FILE_PATH_EXISTS, "FilePathExists_RBV")                                                                          \
    X(HV_STATE, "HVState_RBV")

enum status {
#define X(id, name) STATUS_##id,
    STATUS_LIST(X)
#undef X
        STATUS_COUNT
};

static const char *const status_names[STATUS_COUNT] = {
#define X(id, name) name,
    STATUS_LIST(X)
#undef X
};

/* What a setting shall be: a text, or a number within a tolerance. */
struct target {
    const char *text;
    double real;
    double tolerance;
};

struct eiger {
    struct epics *epics;
    struct epics_channel *settings[SETTING_COUNT], *readbacks[SETTING_COUNT], *status[STATUS_COUNT];
    struct eiger_scan scan;
    bool is_configured, is_started;
    uint32_t n_connects; /* of the state's channel when the scan was configured */
    int32_t sequence_id_before;
};

/* ---- reading ------------------------------------------------------------------------------------------------- */

static struct epics_value read_status(struct eiger *eiger, enum status status)
{
    struct epics_value value;
    epics_channel_read(eiger->status[status], &value);
    return value;
}

static bool status_is(struct eiger *eiger, enum status status, const char *text)
{
    struct epics_value value = read_status(eiger, status);
    return value.is_known && strcmp(value.text, text) == 0;
}

static int32_t status_count(struct eiger *eiger, enum status status)
{
    struct epics_value value = read_status(eiger, status);
    return value.is_known && value.real >= 0 && value.real <= INT32_MAX ? (int32_t)value.real : 0;
}

static bool is_connected(struct eiger *eiger)
{
    for (int i = 0; i < STATUS_COUNT; i++)
        if (!read_status(eiger, (enum status)i).is_known)
            return false;
    return true;
}

/* The IOC has been there without interruption since the scan was configured. */
static bool is_unbroken(struct eiger *eiger)
{
    return is_connected(eiger) && read_status(eiger, STATUS_DETECTOR_STATE).n_connects == eiger->n_connects;
}

/* Both busy signals and the records they come from agree that nothing runs, and nothing is being wound up. */
static bool is_quiet(struct eiger *eiger)
{
    static const char *const winding_up[] = {"Arming", "Armed", "Triggering", "Processing files"};
    if (!status_is(eiger, STATUS_ACQUIRE_RBV, "Done") || !status_is(eiger, STATUS_ACQUIRE_BUSY, "Done") ||
        !status_is(eiger, STATUS_ARMED, "Unarmed") || epics_channel_is_pending(eiger->status[STATUS_ACQUIRE]))
        return false;
    for (size_t i = 0; i < sizeof winding_up / sizeof winding_up[0]; i++)
        if (status_is(eiger, STATUS_STATUS_MESSAGE, winding_up[i]))
            return false;
    struct epics_value message = read_status(eiger, STATUS_STATUS_MESSAGE);
    if (status_is(eiger, STATUS_DETECTOR_STATE, "Idle"))
        return strncmp(message.text, "Setting", 7) != 0;
    /* Aborted is said at once, while the old series is still being disarmed: only the message tells its end. */
    if (status_is(eiger, STATUS_DETECTOR_STATE, "Aborted"))
        return strcmp(message.text, "Acquisition aborted") == 0;
    return status_is(eiger, STATUS_DETECTOR_STATE, "Error");
}

static int stuck(struct eiger *eiger, const char *what, double timeout_s, struct err *err)
{
    if (!is_connected(eiger))
        return err_set(err, ERR_LINK, "%s: detector not connected; is its IOC running?", what);
    struct epics_value message = read_status(eiger, STATUS_STATUS_MESSAGE);
    return err_set(err, ERR_TIMEOUT,
                   "%s: not within %g s; Acquire %s, busy %s, state %s, high voltage %s, message \"%s\"; look at the "
                   "detector's screen, and initialize it if it stays so",
                   what, timeout_s, read_status(eiger, STATUS_ACQUIRE_RBV).text,
                   read_status(eiger, STATUS_ACQUIRE_BUSY).text, read_status(eiger, STATUS_DETECTOR_STATE).text,
                   read_status(eiger, STATUS_HV_STATE).text, message.text);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int eiger_open(struct eiger **ret_eiger, struct epics *epics, const char *prefix, struct err *err)
{
    struct eiger *eiger = calloc(1, sizeof *eiger);
    assert(eiger);
    eiger->epics = epics;
    char name[200];
    int code = 0;
    for (int i = 0; i < SETTING_COUNT && code == 0; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, setting_names[i]);
        code = epics_channel_open(&eiger->settings[i], epics, name, err);
        snprintf(name, sizeof name, "%s%s_RBV", prefix, setting_names[i]);
        if (code == 0)
            code = epics_channel_open(&eiger->readbacks[i], epics, name, err);
    }
    for (int i = 0; i < STATUS_COUNT && code == 0; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, status_names[i]);
        code = epics_channel_open(&eiger->status[i], epics, name, err);
    }
    if (code)
        free(eiger);
    else
        *ret_eiger = eiger;
    return code;
}

void eiger_close(struct eiger *eiger) { free(eiger); }

int eiger_wait_ready(struct eiger *eiger, double timeout_s, struct err *err)
{
    int64_t deadline = clock_wall_ns() + ns_from_s(timeout_s);
    uint64_t n_seen = 0;
    while (!is_connected(eiger) || !is_quiet(eiger) || !status_is(eiger, STATUS_HV_STATE, "READY"))
        if (!epics_wait(eiger->epics, &n_seen, deadline))
            return stuck(eiger, "waiting for the detector to be ready", timeout_s, err);
    return 0;
}

/* ---- configuring --------------------------------------------------------------------------------------------- */

static int check_scan(const struct eiger_scan *scan, struct err *err)
{
    double count_time_s = scan->count_time_s;
    if (scan->n_frames < 1 || scan->n_frames_per_file < 1 ||
        !(scan->frame_time_s >= 1e-3 && scan->frame_time_s <= 3600))
        return err_set(err, ERR_ARG, "scan of %d frames of %g s, %d per file, refused", scan->n_frames,
                       scan->frame_time_s, scan->n_frames_per_file);
    if (!(count_time_s >= 0 && count_time_s < scan->frame_time_s) || !(scan->photon_energy_ev > 0) ||
        !(scan->distance_m > 0))
        return err_set(err, ERR_ARG, "scan with count time %g s, photon energy %g eV, distance %g m refused",
                       count_time_s, scan->photon_energy_ev, scan->distance_m);
    if (!scan->name[0] || strchr(scan->name, '/') || strchr(scan->name, '$'))
        return err_set(err, ERR_ARG, "scan name \"%s\" refused: letters for a file name, no / and no $", scan->name);
    return 0;
}

/* Files of the same name would be overwritten without a word. */
static int check_absent(const struct eiger_scan *scan, struct err *err)
{
    char pattern[EIGER_PATH_MAX];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/%s_*.h5", scan->file_path, scan->name);
    bool is_absent = glob(pattern, GLOB_NOSORT, NULL, &found) == GLOB_NOMATCH;
    if (!is_absent)
        err_set(err, ERR_REFUSED, "scan %s refused: %s exists already, and the detector would overwrite it", scan->name,
                found.gl_pathc ? found.gl_pathv[0] : pattern);
    globfree(&found);
    return is_absent ? 0 : ERR_REFUSED;
}

static void targets_fill(const struct eiger_scan *scan, char pattern[128], struct target ret_targets[SETTING_COUNT])
{
    double count_time_s = scan->count_time_s > 0 ? scan->count_time_s : scan->frame_time_s - READOUT_S;
    snprintf(pattern, 128, "%s_$id", scan->name);
    const struct target targets[SETTING_COUNT] = {
        [SETTING_TRIGGER_MODE] = {.text = "Internal Series"},
        [SETTING_PHOTON_ENERGY] = {NULL, scan->photon_energy_ev, 0.1},
        [SETTING_THRESHOLD_ENERGY] = {NULL, 0.5 * scan->photon_energy_ev, 1.0},
        [SETTING_ACQUIRE_TIME] = {NULL, count_time_s, 1e-6},
        [SETTING_ACQUIRE_PERIOD] = {NULL, scan->frame_time_s, 1e-6},
        [SETTING_NUM_IMAGES] = {NULL, scan->n_frames, 0},
        [SETTING_NUM_TRIGGERS] = {NULL, 1, 0},
        [SETTING_DATA_SOURCE] = {.text = "FileWriter"},
        [SETTING_FW_ENABLE] = {.text = "Enable"},
        [SETTING_FW_COMPRESSION] = {.text = "Enable"},
        [SETTING_COMPRESSION_ALGO] = {.text = "BS LZ4"},
        [SETTING_FW_NAME_PATTERN] = {.text = pattern},
        [SETTING_FW_N_IMAGES_PER_FILE] = {NULL, scan->n_frames_per_file, 0},
        [SETTING_FILE_PATH] = {.text = scan->file_path},
        [SETTING_SAVE_FILES] = {.text = "Enable"},
        [SETTING_BEAM_X] = {NULL, scan->beam_center_x_px, 1e-3},
        [SETTING_BEAM_Y] = {NULL, scan->beam_center_y_px, 1e-3},
        [SETTING_DET_DIST] = {NULL, scan->distance_m, 1e-6},
    };
    memcpy(ret_targets, targets, sizeof targets);
}

/* A directory comes back with a slash at its end. */
static bool text_matches(const char *wanted, const char *seen)
{
    size_t length = strlen(wanted);
    while (length > 1 && wanted[length - 1] == '/')
        length--;
    return strncmp(wanted, seen, length) == 0 && (seen[length] == '\0' || strcmp(seen + length, "/") == 0);
}

static bool readback_matches(struct eiger *eiger, enum setting setting, const struct target *target,
                             struct epics_value *ret_seen)
{
    epics_channel_read(eiger->readbacks[setting], ret_seen);
    if (!ret_seen->is_known)
        return false;
    return target->text ? text_matches(target->text, ret_seen->text)
                        : fabs(ret_seen->real - target->real) <= target->tolerance;
}

static int compare(struct eiger *eiger, const struct target targets[SETTING_COUNT], struct err *err)
{
    int64_t deadline = clock_wall_ns() + ns_from_s(LAG_S);
    uint64_t n_seen = 0;
    for (int i = 0; i < SETTING_COUNT; i++) {
        struct epics_value seen;
        const struct target *target = &targets[i];
        while (!readback_matches(eiger, (enum setting)i, target, &seen)) {
            if (epics_wait(eiger->epics, &n_seen, deadline))
                continue;
            if (!seen.is_known)
                return err_set(err, ERR_LINK, "detector lost while its settings were read back");
            if (target->text)
                return err_set(err, ERR_REFUSED, "detector did not take %s = \"%s\": it says \"%s\"", setting_names[i],
                               target->text, seen.text);
            return err_set(err, ERR_REFUSED, "detector did not take %s = %g: it says %g; is it within its range?",
                           setting_names[i], target->real, seen.real);
        }
    }
    return 0;
}

static int write_settings(struct eiger *eiger, const struct target targets[SETTING_COUNT], struct err *err)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        struct epics_value seen;
        const struct target *target = &targets[i];
        /* A photon energy costs seconds and resets thresholds and flat field: written only to change it. */
        if (i == SETTING_PHOTON_ENERGY && readback_matches(eiger, SETTING_PHOTON_ENERGY, target, &seen))
            continue;
        int code = target->text ? epics_channel_put_text(eiger->settings[i], target->text, PUT_TIMEOUT_S, err)
                                : epics_channel_put_real(eiger->settings[i], target->real, PUT_TIMEOUT_S, err);
        if (code)
            return code;
    }
    return 0;
}

int eiger_configure(struct eiger *eiger, const struct eiger_scan *scan, struct err *err)
{
    char pattern[128];
    struct target targets[SETTING_COUNT];
    eiger->is_configured = eiger->is_started = false;
    int code = check_scan(scan, err);
    if (code == 0)
        code = check_absent(scan, err);
    if (code)
        return code;
    if (!is_connected(eiger))
        return err_set(err, ERR_LINK, "detector not connected; is its IOC running?");
    if (!is_quiet(eiger))
        return err_set(err, ERR_STATE, "detector is busy (state %s, message \"%s\"): not configured",
                       read_status(eiger, STATUS_DETECTOR_STATE).text, read_status(eiger, STATUS_STATUS_MESSAGE).text);
    eiger->n_connects = read_status(eiger, STATUS_DETECTOR_STATE).n_connects;
    targets_fill(scan, pattern, targets);
    code = write_settings(eiger, targets, err);
    if (code == 0)
        code = compare(eiger, targets, err);
    if (code)
        return code;
    if (!status_is(eiger, STATUS_FILE_PATH_EXISTS, "Yes"))
        return err_set(err, ERR_REFUSED, "directory %s does not exist on the computer of the detector's IOC; make it",
                       scan->file_path);
    eiger->sequence_id_before = status_count(eiger, STATUS_SEQUENCE_ID);
    eiger->scan = *scan;
    eiger->is_configured = is_unbroken(eiger);
    return eiger->is_configured ? 0 : err_set(err, ERR_LINK, "detector lost while it was configured");
}

/* ---- acquiring ----------------------------------------------------------------------------------------------- */

static bool has_armed(struct eiger *eiger)
{
    struct epics_value sequence_id = read_status(eiger, STATUS_SEQUENCE_ID);
    return sequence_id.is_known && status_count(eiger, STATUS_SEQUENCE_ID) != eiger->sequence_id_before;
}

static void master_path(struct eiger *eiger, char ret_path[EIGER_PATH_MAX])
{
    snprintf(ret_path, EIGER_PATH_MAX, "%s/%s_%d_master.h5", eiger->scan.file_path, eiger->scan.name,
             status_count(eiger, STATUS_SEQUENCE_ID));
}

int eiger_start(struct eiger *eiger, struct err *err)
{
    if (!eiger->is_configured || eiger->is_started)
        return err_set(err, ERR_STATE, "no scan is configured");
    eiger->is_configured = false;
    if (!is_unbroken(eiger))
        return err_set(err, ERR_LINK, "detector was away since it was configured: its settings are gone");
    int code = epics_channel_begin_text(eiger->status[STATUS_ACQUIRE], "Acquire", err);
    if (code)
        return code;
    eiger->is_started = true;
    int64_t deadline = clock_wall_ns() + ns_from_s(ARM_TIMEOUT_S);
    uint64_t n_seen = 0;
    bool is_over = false;
    while (!has_armed(eiger)) {
        if (!is_unbroken(eiger))
            return err_set(err, ERR_LINK, "detector lost while it was being armed");
        if (!is_over && !epics_channel_is_pending(eiger->status[STATUS_ACQUIRE])) {
            is_over = true; /* ended without arming, unless the sequence id is merely late */
            deadline = clock_wall_ns() + ns_from_s(LAG_S);
        }
        if (epics_wait(eiger->epics, &n_seen, deadline))
            continue;
        if (!is_over)
            return stuck(eiger, "arming", ARM_TIMEOUT_S, err);
        return err_set(err, ERR_REFUSED, "detector did not arm: state %s, message \"%s\"",
                       read_status(eiger, STATUS_DETECTOR_STATE).text, read_status(eiger, STATUS_STATUS_MESSAGE).text);
    }
    return 0;
}

void eiger_poll(struct eiger *eiger, struct eiger_progress *ret_progress)
{
    struct epics_value message = read_status(eiger, STATUS_STATUS_MESSAGE);
    struct eiger_progress progress = {
        .is_connected = eiger->is_started ? is_unbroken(eiger) : is_connected(eiger),
        .is_acquiring = !status_is(eiger, STATUS_ACQUIRE_RBV, "Done") || !status_is(eiger, STATUS_ACQUIRE_BUSY, "Done"),
    };
    snprintf(progress.detector_state, sizeof progress.detector_state, "%.39s",
             read_status(eiger, STATUS_DETECTOR_STATE).text);
    snprintf(progress.status_message, sizeof progress.status_message, "%s", message.text);
    if (eiger->is_started && progress.is_connected && has_armed(eiger)) {
        progress.n_images = status_count(eiger, STATUS_NUM_IMAGES_COUNTER);
        progress.sequence_id = status_count(eiger, STATUS_SEQUENCE_ID);
        master_path(eiger, progress.master_path);
        progress.is_done = is_quiet(eiger);
    }
    *ret_progress = progress;
}

/* ---- finishing ----------------------------------------------------------------------------------------------- */

/* The first file that is not there, or empty; false when all are well. */
static bool find_missing(const struct eiger *eiger, const char *master, char ret_path[EIGER_PATH_MAX])
{
    struct stat file;
    int n_files = (eiger->scan.n_frames + eiger->scan.n_frames_per_file - 1) / eiger->scan.n_frames_per_file;
    int stem_length = (int)(strlen(master) - strlen("_master.h5"));
    for (int i = 0; i <= n_files; i++) {
        if (i == 0)
            snprintf(ret_path, EIGER_PATH_MAX, "%s", master);
        else
            snprintf(ret_path, EIGER_PATH_MAX, "%.*s_data_%06d.h5", stem_length, master, i);
        if (stat(ret_path, &file) != 0 || file.st_size == 0)
            return true;
    }
    return false;
}

int eiger_finish(struct eiger *eiger, char ret_master_path[EIGER_PATH_MAX], struct err *err)
{
    struct eiger_progress progress;
    eiger_poll(eiger, &progress);
    if (!eiger->is_started || (progress.is_connected && !progress.is_done))
        return err_set(err, ERR_STATE, "no scan has ended");
    char missing[EIGER_PATH_MAX];
    int64_t deadline = clock_wall_ns() + ns_from_s(FINISH_TIMEOUT_S);
    uint64_t n_seen = 0;
    for (;;) {
        eiger_poll(eiger, &progress);
        if (!progress.is_connected)
            return err_set(err, ERR_LINK, "detector lost before its scan was verified");
        bool is_idle = strcmp(progress.detector_state, "Idle") == 0;
        bool is_missing = find_missing(eiger, progress.master_path, missing);
        if (is_idle && progress.n_images == eiger->scan.n_frames && !is_missing)
            break;
        /* Files give no event: look again every 50 ms. An abort or an error does not turn into success. */
        int64_t wall_ns = clock_wall_ns();
        if (is_idle && wall_ns < deadline) {
            epics_wait(eiger->epics, &n_seen, wall_ns + 50 * NS_PER_MS);
            continue;
        }
        return err_set(err, ERR_DATA, "scan %s is not whole: state %s, message \"%s\", %d of %d images%s%s",
                       eiger->scan.name, progress.detector_state, progress.status_message, progress.n_images,
                       eiger->scan.n_frames, is_missing ? ", missing or empty: " : "", is_missing ? missing : "");
    }
    eiger->is_started = false;
    snprintf(ret_master_path, EIGER_PATH_MAX, "%s", progress.master_path);
    return 0;
}

int eiger_abort(struct eiger *eiger, struct err *err)
{
    eiger->is_configured = false;
    if (!is_connected(eiger))
        return err_set(err, ERR_LINK, "detector not connected: nothing could be stopped");
    uint64_t n_seen = 0;
    int64_t deadline = clock_wall_ns() + ns_from_s(ABORT_TIMEOUT_S);
    /* A plain put: a second put-callback would make the IOC hold up the whole circuit behind the first. */
    int code = is_quiet(eiger) ? 0 : epics_channel_send_text(eiger->status[STATUS_ACQUIRE], "Done", err);
    while (code == 0 && !is_quiet(eiger)) {
        if (!is_connected(eiger))
            return err_set(err, ERR_LINK, "detector lost while its scan was being stopped");
        if (!epics_wait(eiger->epics, &n_seen, deadline))
            return stuck(eiger, "stopping the scan", ABORT_TIMEOUT_S, err);
    }
    eiger->is_started = false;
    return code;
}
