#include "controller/loop.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "controller/access_link.h"
#include "controller/analyst.h"
#include "controller/cell.h"
#include "controller/detector_link.h"
#include "controller/examine.h"
#include "controller/inbox.h"
#include "controller/membrane_link.h"
#include "controller/printer.h"
#include "controller/program.h"
#include "controller/ruby_link.h"

#define VERSION "0.1"
#define EVENTS_PER_PASS_MAX 64
#define PASS_MS_MAX 1
#define CADENCE_S_FIRST 5.0
#define STATUS_EVERY_NS (50 * NS_PER_MS)
#define STATUS_AGE_S_MAX 2.0
#define TEXT_MAX 1400
#define RESULT_WAIT_NS (20 * NS_PER_S)
#define BEAM_MA_STEP 1.0 /* told at once: a dip between two readings of the ruby cuts a scan */

/* What the status line is made of; copied under the mutex by the control thread, read by any. */
struct status {
    int64_t now_ns;
    enum core_phase phase;
    int step_index;
    enum loading_state loading_state;
    double pressure_gpa, pressure_gpa_sigma, membrane_bar;
    int64_t scan_number, scan_attempt;
    double scan_frames;
    double tau_s, beta;
    int64_t result_scan_number;
    uint32_t reasons;
    bool goes_on;
    double speed;
    char sentence[TEXT_MAX];
    int64_t wall_ns; /* when this was written */
};

struct loop {
    struct loop_settings settings;
    struct core core;
    struct inbox *inbox;
    struct instrument_context context;
    struct membrane_link *membrane;
    struct ruby_link *ruby;
    struct detector_link *detector;
    struct access_link *access; /* NULL: the ruby can always be read */
    struct analyst *analyst;
    struct printer *printer;
    char run_uid[64];
    int64_t seq, pass, now_ns;
    int64_t started_ns, started_wall_ns;
    int64_t intent_number, durable_number;
    bool is_store_failure_told;
    bool has_begun; /* all instruments have answered once */
    double pace_wanted;
    int64_t event_ns_last, membrane_ns_last, ruby_ns_last;
    int64_t beam_ns_last;
    double beam_ma_last;
    bool membrane_up, ruby_up, detector_up, access_up;
    int64_t scan_started_ns;
    char scan_master_path[EVENT_TEXT_MAX];
    char calibration_text[TEXT_MAX];
    char last_text[EVENT_KIND_COUNT][EVENT_TEXT_MAX];
    struct event last[EVENT_KIND_COUNT]; /* of each kind; under the mutex, for the doctor */
    int finished;                        /* -1: not yet */
    int64_t status_wall_ns;
    int64_t result_wall_ns; /* since when a result is awaited; 0: none is */
    int64_t step_started_ns;
    pthread_mutex_t mutex;
    struct status status;
};

/* ---- words --------------------------------------------------------------------------------------------------- */

static void format_utc(const struct loop *loop, int64_t t_ns, char *ret_text, size_t size)
{
    time_t utc_s = (time_t)(clock_utc_ns(loop->settings.clock, t_ns) / NS_PER_S);
    struct tm utc;
    gmtime_r(&utc_s, &utc);
    strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static void say(struct loop *loop, const char *severity, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void say(struct loop *loop, const char *severity, const char *format, ...)
{
    char text[TEXT_MAX], line[TEXT_MAX + 64], utc[32];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    format_utc(loop, loop->now_ns, utc, sizeof utc);
    snprintf(line, sizeof line, "%s %-7s %s", utc, severity, text);
    printer_say(loop->printer, line);
    const struct store_value row[] = {store_integer(loop->now_ns), store_text(severity), store_text(text)};
    store_put(loop->settings.store, STORE_LOG, row, 3, 0, NULL);
}

/* "load to 3.30 GPa", "isobar at 3.30 GPa". */
static void describe_step(const struct loop *loop, int step_index, char *ret_text, size_t size)
{
    const struct plan_step *step = &loop->settings.plan->steps[step_index];
    if (step->kind == PLAN_CALIBRATE_RUBY) {
        snprintf(ret_text, size, "%s by %d readings", plan_kind_name(step->kind), step->n_readings);
        return;
    }
    snprintf(ret_text, size, "%s %s %.2f GPa", plan_kind_name(step->kind),
             step->kind == PLAN_LOAD || step->kind == PLAN_UNLOAD ? "to" : "at", step->pressure_gpa_target);
}

/* What is to be said beside every pressure of an isobar. */
static const char *gap_words(const struct loop *loop)
{
    return loop->core.settings.access.is_between_scans ? "; ruby read between scans only" : "";
}

/* The reasons in sentences, with the last words of the drivers they concern. */
static void describe_hold(const struct loop *loop, uint32_t reasons, char *ret_text, size_t size)
{
    static const struct {
        uint32_t bit;
        enum event_kind kind;
    } details[] = {
        {HOLD_JOURNAL, EVENT_JOURNAL_FAILED},      {HOLD_MEMBRANE_LINK, EVENT_MEMBRANE_LOST},
        {HOLD_RUBY_LINK, EVENT_SPECTROMETER_LOST}, {HOLD_RUBY_REJECTED, EVENT_RUBY_REJECTED},
        {HOLD_DETECTOR_LINK, EVENT_DETECTOR_LOST}, {HOLD_SCAN, EVENT_SCAN_FAILED},
        {HOLD_MEMBRANE_FOREIGN, EVENT_MEMBRANE},   {HOLD_RUBY_ACCESS, EVENT_ACCESS_LOST},
        {HOLD_RUBY_ACCESS, EVENT_ACCESS},
    };
    interlock_sentence(reasons, ret_text, (int32_t)size);
    size_t written = strlen(ret_text);
    if (reasons & HOLD_CALIBRATION)
        snprintf(ret_text + written, size - written, " (%s)", loop->calibration_text);
    for (size_t i = 0; i < sizeof details / sizeof details[0]; i++) {
        const char *text = loop->last_text[details[i].kind];
        size_t used = strlen(ret_text);
        if ((reasons & details[i].bit) && text[0])
            snprintf(ret_text + used, size - used, " (%s)", text);
    }
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static void put(struct loop *loop, enum store_table table, const struct store_value *row, int n, int64_t durable)
{
    struct err err = {0};
    if (store_put(loop->settings.store, table, row, n, durable, &err) && !loop->is_store_failure_told) {
        loop->is_store_failure_told = true;
        struct event event = inbox_event(EVENT_JOURNAL_FAILED, err.message);
        inbox_post(loop->inbox, &event);
    }
}

static void put_event(struct loop *loop, const struct event *event)
{
    const struct store_value row[] = {
        store_integer(event->seq),        store_integer(event->pass),
        store_integer(event->t_ns),       store_text(event_kind_name(event->kind)),
        store_real(event->value[0]),      event->text[0] ? store_text(event->text) : store_null(),
        store_blob(event, sizeof *event),
    };
    put(loop, STORE_EVENT, row, 7, 0);
}

static void put_decision(struct loop *loop, int ordinal, const struct action *action)
{
    const struct store_value row[] = {
        store_integer(loop->seq),
        store_integer(ordinal),
        store_text(action_kind_name(action->kind)),
        store_real(action->value[0]),
        action->kind == ACTION_JOURNAL ? store_text(intent_kind_name((int32_t)action->integer[1])) : store_null(),
        store_blob(action, sizeof *action),
    };
    put(loop, STORE_DECISION, row, 6, 0);
}

static void put_scan(struct loop *loop, const struct event *event, const char *state)
{
    const struct plan_step *step = &loop->settings.plan->steps[loop->core.step_index];
    const struct store_value row[] = {
        store_integer(event->integer[0]),
        store_integer(event->integer[1]),
        store_integer(loop->core.step_index),
        store_integer(loop->scan_started_ns),
        store_integer(event->now_ns),
        store_integer(step->n_frames),
        store_real(step->frame_time_s),
        store_text(event->kind == EVENT_SCAN_COMPLETE ? event->text : ""),
        store_text(state),
        event->kind == EVENT_SCAN_COMPLETE ? store_null() : store_text(event->text),
    };
    put(loop, STORE_SCAN, row, 10, 0);
}

static void put_run(struct loop *loop)
{
    const struct loop_settings *settings = &loop->settings;
    char hash[32];
    snprintf(hash, sizeof hash, "%016" PRIx64, settings->plan->hash);
    const struct store_value row[] = {
        store_integer(1),
        store_text(loop->run_uid),
        store_text(settings->sequence_name),
        store_integer(loop->now_ns),
        store_integer(clock_utc_ns(settings->clock, loop->now_ns) - loop->now_ns),
        store_text(settings->beamline->clock),
        store_text(hash),
        store_text(settings->plan->source),
        store_text(settings->beamline->source),
        store_text(settings->plan->cell.name),
        store_blob(&loop->core.settings, sizeof loop->core.settings),
        store_text(VERSION),
    };
    put(loop, STORE_RUN, row, 12, 0);
    for (int i = 0; i < settings->plan->n_steps; i++) {
        const struct plan_step *step = &settings->plan->steps[i];
        const struct store_value step_row[] = {
            store_integer(i),
            store_text(plan_kind_name(step->kind)),
            store_real(step->pressure_gpa_target),
            store_real(step->rate_bar_per_min),
            store_real(step->duration_s),
            store_integer(step->n_scans),
            store_integer(step->n_frames),
            store_real(step->frame_time_s),
            store_real(step->drift_gpa_max),
        };
        put(loop, STORE_STEP, step_row, 9, 0);
    }
}

/* ---- actions ------------------------------------------------------------------------------------------------- */

static void execute_journal(struct loop *loop, const struct action *action)
{
    loop->intent_number = action->integer[0];
    clock_request_pace(loop->settings.clock, "control", 1.0); /* at once: DURABLE_S_MAX is experiment time */
    const struct store_value row[] = {
        store_integer(action->integer[0]),    store_integer(loop->now_ns),
        store_integer(loop->core.step_index), store_text(intent_kind_name((int32_t)action->integer[1])),
        store_real(action->value[0]),         store_real(action->value[1]),
    };
    put(loop, STORE_INTENT, row, 6, action->integer[0]);
}

/* A change is done, or the locked cell is measured: what it has taught of the cell. */
static void put_branch(struct loop *loop, const struct action *action)
{
    enum plan_kind kind = loop->settings.plan->steps[action->integer[0]].kind;
    int direction = kind == PLAN_LOAD ? 1 : kind == PLAN_UNLOAD ? -1 : 0;
    struct store_value row[11] = {store_integer(action->integer[0]), store_integer(loop->now_ns),
                                  store_integer(direction)};
    for (int i = PHASE_PRESSURE_GPA; i < PHASE_VALUE_COUNT; i++) /* in the order of the columns */
        row[2 + i] = direction || i == PHASE_PRESSURE_GPA ? store_real(action->value[i]) : store_null();
    put(loop, STORE_CELL_BRANCH, row, 11, 0);
}

static void execute_phase(struct loop *loop, const struct action *action)
{
    char step[64];
    int step_index = (int)action->integer[0];
    enum core_phase phase = (enum core_phase)action->integer[1];
    if (phase == CORE_DEFLATED && action->value[PHASE_STATE] != 0.0) {
        put_branch(loop, action);
        say(loop, "info", "membrane empty, cell mechanically locked: %.3f GPa", action->value[PHASE_PRESSURE_GPA]);
        return;
    }
    if (phase == CORE_LOADING && action->value[PHASE_STATE] == LOADING_DONE)
        put_branch(loop, action);
    const char *name = phase == CORE_LOADING && action->value[0] != 0.0
                           ? loading_state_name((enum loading_state)action->value[0])
                           : core_phase_name(phase);
    const struct store_value row[] = {store_integer(loop->now_ns), store_integer(step_index), store_text(name)};
    put(loop, STORE_PHASE, row, 3, 0);
    if (phase == CORE_JOURNAL)
        loop->step_started_ns = loop->now_ns;
    bool is_announced = phase == CORE_LOADING ? action->value[0] != 0.0 && action->value[0] != LOADING_DONE
                                              : phase == CORE_CALIBRATION || phase == CORE_PRELOADED ||
                                                    phase == CORE_ISOBAR || phase == CORE_DEFLATED;
    if (!is_announced)
        return;
    describe_step(loop, step_index, step, sizeof step);
    say(loop, "info", "step %d of %d, %s%s%s%s", step_index + 1, loop->settings.plan->n_steps, step,
        phase == CORE_LOADING ? ": " : "", phase == CORE_LOADING ? name : "",
        phase == CORE_ISOBAR ? gap_words(loop) : "");
}

static void execute_isobar_done(struct loop *loop, const struct action *action)
{
    int step_index = (int)action->integer[0];
    const struct plan_step *step = &loop->settings.plan->steps[step_index];
    const struct store_value row[] = {
        store_integer(step_index),
        store_integer(action->integer[1]),
        store_integer(loop->now_ns),
        store_real(step->pressure_gpa_target),
        store_real(action->value[0]),
        store_real(action->value[1]),
        store_real(action->value[2]),
        store_real(step->drift_gpa_max),
        store_text(loop->settings.beamline->ruby.ruby_access),
    };
    put(loop, STORE_ISOBAR, row, 9, 0);
    say(loop, fabs(action->value[2]) <= step->drift_gpa_max ? "info" : "warning",
        "isobar at %.2f GPa done: %.3f GPa at its start, %.3f GPa at its end, largest departure %+.3f GPa (limit "
        "%.2f)%s",
        step->pressure_gpa_target, action->value[0], action->value[1], action->value[2], step->drift_gpa_max,
        gap_words(loop));
}

static void execute_drift(struct loop *loop, const struct action *action)
{
    const struct plan_step *step = &loop->settings.plan->steps[action->integer[0]];
    const char *answer = action->integer[1] > 0   ? "corrected now: the membrane goes up a little"
                         : action->integer[1] < 0 ? "corrected now: the membrane goes down a little"
                                                  : "not corrected";
    bool is_beyond = fabs(action->value[0]) > step->drift_gpa_max;
    if (is_beyond)
        say(loop, "warning",
            "drift: %+.3f GPa/h takes the end of the isobar to %+.3f +- %.3f GPa from its start, more than the %.3f "
            "GPa "
            "allowed; %s",
            3600.0 * action->value[2], action->value[0], action->value[1], step->drift_gpa_max, answer);
    else
        say(loop, "info",
            "drift: the end of the isobar is expected within the %.3f GPa allowed again (%+.3f +- %.3f GPa)",
            step->drift_gpa_max, action->value[0], action->value[1]);
}

static void execute_hold(struct loop *loop, const struct action *action)
{
    uint32_t reasons = (uint32_t)action->integer[0];
    char sentence[TEXT_MAX];
    describe_hold(loop, reasons, sentence, sizeof sentence);
    const struct store_value row[] = {store_integer(loop->now_ns), store_integer(reasons != 0), store_integer(reasons),
                                      store_text(sentence)};
    put(loop, STORE_HOLD, row, 4, 0);
    pthread_mutex_lock(&loop->mutex);
    bool is_first = loop->status.reasons == 0;
    loop->status.reasons = reasons;
    loop->status.goes_on = action->integer[1] != 0;
    snprintf(loop->status.sentence, sizeof loop->status.sentence, "%s", sentence);
    pthread_mutex_unlock(&loop->mutex);
    bool is_waiting = !loop->has_begun;
    loop->has_begun = loop->has_begun || reasons == 0;
    if (reasons && is_waiting && is_first)
        say(loop, "info", "waiting: %s", sentence);
    else if (reasons && !is_waiting)
        say(loop, "warning", "%s: %s", action->integer[1] ? "the step goes on" : "hold", sentence);
    else if (!reasons)
        say(loop, "info", is_waiting ? "all instruments answer" : "the reasons for holding are gone: going on");
}

/* The calibration of the ruby in a sentence: what it has given, or why it is refused. */
static void describe_calibration(const struct loop *loop, const struct action *action, char *ret_text, size_t size)
{
    const double *value = action->value;
    const struct beamline_ruby *ruby = &loop->settings.beamline->ruby;
    int n_used = (int)value[CALIBRATION_N_USED];
    int n_wanted = loop->settings.plan->steps[action->integer[0]].n_readings;
    switch ((enum calibration_verdict)action->integer[1]) {
    case CALIBRATION_DRIFT:
        snprintf(ret_text, size,
                 "R1 drifts by %+.4f nm in %d readings, with %.4f nm of noise in each: is the ruby still warming, or "
                 "moving?",
                 value[CALIBRATION_DRIFT_NM], n_wanted, value[CALIBRATION_NOISE_NM]);
        return;
    case CALIBRATION_SCATTER:
        snprintf(ret_text, size, "%d of %d readings of R1 scatter by %.4f nm, their own sigma is %.4f nm", n_used,
                 n_wanted, value[CALIBRATION_SCATTER_NM], value[CALIBRATION_NOISE_NM]);
        return;
    case CALIBRATION_RANGE:
        snprintf(ret_text, size,
                 "lambda0 %.4f nm is outside %.1f to %.1f nm: the ruby is not free, or the wavelength axis is off",
                 value[CALIBRATION_LAMBDA0_NM], CALIBRATION_NM_MIN, CALIBRATION_NM_MAX);
        return;
    case CALIBRATION_STRANGE:
        snprintf(
            ret_text, size,
            "lambda0 %.4f nm is %+.4f nm from the beamline file's %.4f, more than the %.4f nm that %.2g K of doubt "
            "and %.4f nm of it (lambda0_nm_sigma) explain: the ruby is not free or not at %.2f K, or the file is wrong",
            value[CALIBRATION_LAMBDA0_NM], value[CALIBRATION_LAMBDA0_NM] - ruby->lambda0_nm, ruby->lambda0_nm,
            value[CALIBRATION_TOLERANCE_NM], value[CALIBRATION_TEMPERATURE_K_SIGMA], ruby->lambda0_nm_sigma,
            value[CALIBRATION_TEMPERATURE_K]);
        return;
    case CALIBRATION_PASSPORT:
        snprintf(ret_text, size,
                 "lambda0 %.4f nm is %+.4f nm from the %.4f nm of the cell's passport, at most %.2f nm are one ruler: "
                 "this is another ruby, or it is not free; without the passport (--cell) the run could go on",
                 value[CALIBRATION_LAMBDA0_NM],
                 value[CALIBRATION_LAMBDA0_NM] - loop->core.settings.calibration.passport_lambda0_nm,
                 loop->core.settings.calibration.passport_lambda0_nm, CELL_LAMBDA0_NM_MAX);
        return;
    case CALIBRATION_GOOD:
    case CALIBRATION_VERDICT_COUNT:
        break;
    }
    snprintf(ret_text, size,
             "ruby calibrated: lambda0 %.4f +- %.4f nm at %g K (stated %.4f) from %d of %d readings, R1 %.4f nm at "
             "%.2f +- %.2g K "
             "(%s); "
             "the pressures of this run are on it from here on",
             value[CALIBRATION_LAMBDA0_NM], value[CALIBRATION_LAMBDA0_NM_SIGMA], ruby->temperature_k_zero,
             ruby->lambda0_nm, n_used, n_wanted, value[CALIBRATION_R1_NM], value[CALIBRATION_TEMPERATURE_K],
             value[CALIBRATION_TEMPERATURE_K_SIGMA], ruby->temperature_pv[0] ? "by its thermometer" : "as stated");
}

static void execute_calibration(struct loop *loop, const struct action *action)
{
    char text[TEXT_MAX];
    const double *value = action->value;
    const struct beamline_ruby *ruby = &loop->settings.beamline->ruby;
    bool is_good = action->integer[1] == CALIBRATION_GOOD;
    describe_calibration(loop, action, text, sizeof text);
    const struct store_value row[] = {
        store_integer(loop->now_ns),
        store_integer(loop->core.calibration.readings[0].t_ns),
        store_integer((int64_t)value[CALIBRATION_N_USED]),
        store_real(value[CALIBRATION_R1_NM]),
        store_real(value[CALIBRATION_SCATTER_NM]),
        store_real(value[CALIBRATION_NOISE_NM]),
        store_real(value[CALIBRATION_DRIFT_NM]),
        store_real(value[CALIBRATION_LAMBDA0_NM]),
        store_real(value[CALIBRATION_LAMBDA0_NM_SIGMA]),
        store_real(ruby->lambda0_nm),
        store_real(value[CALIBRATION_TOLERANCE_NM]),
        store_real(value[CALIBRATION_TEMPERATURE_K]),
        store_real(value[CALIBRATION_TEMPERATURE_K_SIGMA]),
        store_real(ruby->temperature_k_zero),
        is_good ? store_null() : store_text(text),
    };
    put(loop, STORE_RUBY_CALIBRATION, row, sizeof row / sizeof row[0], 0);
    snprintf(loop->calibration_text, sizeof loop->calibration_text, "%s", text); /* for the hold it is */
    if (!is_good)
        return;
    ruby_link_set_lambda0(loop->ruby, value[CALIBRATION_LAMBDA0_NM], 1);
    say(loop, "info", "%s", text);
}

static void execute_analyse(struct loop *loop, const struct action *action)
{
    struct err err = {0};
    if (analyst_add(loop->analyst, action->integer[0], action->integer[1], loop->scan_master_path, &err))
        say(loop, "error", "%s", err.message);
}

static void execute(struct loop *loop, const struct action *action)
{
    switch ((enum action_kind)action->kind) {
    case ACTION_JOURNAL:
        execute_journal(loop, action);
        break;
    case ACTION_SETPOINT:
        membrane_link_setpoint(loop->membrane, action->value[0]);
        break;
    case ACTION_SLEW:
        membrane_link_slew(loop->membrane, action->value[0]);
        break;
    case ACTION_CADENCE:
        loop->context.cadence_s = action->value[0];
        break;
    case ACTION_SCAN_START:
        say(loop, "info", "scan %" PRId64 " attempt %" PRId64 ": %.0f frames of %g s", action->integer[0],
            action->integer[1], action->value[0], action->value[1]);
        detector_link_scan(loop->detector, &(struct detector_link_scan){.scan_number = action->integer[0],
                                                                        .attempt = action->integer[1],
                                                                        .n_frames = (int)action->value[0],
                                                                        .frame_time_s = action->value[1]});
        break;
    case ACTION_SCAN_ABORT:
        detector_link_abort(loop->detector, action->integer[0], action->integer[1]);
        analyst_drop(loop->analyst, action->integer[0], action->integer[1],
                     loop->status.reasons ? loop->status.sentence : "aborted");
        break;
    case ACTION_ANALYSE:
        execute_analyse(loop, action);
        break;
    case ACTION_PHASE:
        execute_phase(loop, action);
        break;
    case ACTION_ISOBAR_DONE:
        execute_isobar_done(loop, action);
        break;
    case ACTION_HOLD:
        execute_hold(loop, action);
        break;
    case ACTION_PACE:
        loop->pace_wanted = action->value[0];
        break;
    case ACTION_FINISHED:
        loop->finished = (int)action->integer[0];
        break;
    case ACTION_DRIFT:
        execute_drift(loop, action);
        break;
    case ACTION_ACCESS:
        access_link_move(loop->access, (enum access_move)action->integer[0]);
        break;
    case ACTION_VALVES_SHUT:
        membrane_link_shut(loop->membrane);
        break;
    case ACTION_CALIBRATION:
        execute_calibration(loop, action);
        break;
    case ACTION_KIND_COUNT:
        break;
    }
}

/* ---- events -------------------------------------------------------------------------------------------------- */

/* What the loop itself keeps of an event: for words, rows and the pace; never for decisions. */
static void note(struct loop *loop, const struct event *event)
{
    struct status *status = &loop->status;
    if (event->text[0])
        snprintf(loop->last_text[event->kind], EVENT_TEXT_MAX, "%s", event->text);
    pthread_mutex_lock(&loop->mutex);
    loop->last[event->kind] = *event;
    switch ((enum event_kind)event->kind) {
    case EVENT_MEMBRANE:
        loop->membrane_ns_last = event->t_ns;
        status->membrane_bar = event->value[0];
        break;
    case EVENT_RUBY:
        if (!access_believes(&loop->core.access, event->integer[0]))
            break;
        status->pressure_gpa = event->value[0];
        status->pressure_gpa_sigma = event->value[1];
        loop->ruby_ns_last = event->t_ns;
        break;
    case EVENT_RUBY_REJECTED:
        loop->ruby_ns_last = event->t_ns;
        break;
    case EVENT_MEMBRANE_LOST:
    case EVENT_MEMBRANE_FOUND:
        loop->membrane_up = event->kind == EVENT_MEMBRANE_FOUND;
        loop->membrane_ns_last = event->t_ns;
        break;
    case EVENT_SPECTROMETER_LOST:
    case EVENT_SPECTROMETER_FOUND:
        loop->ruby_up = event->kind == EVENT_SPECTROMETER_FOUND;
        loop->ruby_ns_last = event->t_ns;
        break;
    case EVENT_DETECTOR_LOST:
    case EVENT_DETECTOR_FOUND:
        loop->detector_up = event->kind == EVENT_DETECTOR_FOUND;
        break;
    case EVENT_ACCESS:
        loop->last_text[EVENT_ACCESS_LOST][0] = '\0';
        break;
    case EVENT_ACCESS_LOST:
        loop->last_text[EVENT_ACCESS][0] = '\0';
        loop->access_up = false;
        break;
    case EVENT_ACCESS_FOUND:
        loop->access_up = true;
        break;
    case EVENT_SCAN_STARTED:
        loop->scan_started_ns = event->t_ns;
        status->scan_number = event->integer[0];
        status->scan_attempt = event->integer[1];
        status->scan_frames = 0.0;
        break;
    case EVENT_SCAN_PROGRESS:
        status->scan_frames = event->value[0];
        break;
    case EVENT_SCAN_COMPLETE:
        snprintf(loop->scan_master_path, sizeof loop->scan_master_path, "%s", event->text);
        status->scan_number = 0;
        break;
    case EVENT_SCAN_FAILED:
        status->scan_number = 0;
        break;
    case EVENT_RESULT:
        status->result_scan_number = event->integer[0];
        status->tau_s = event->value[0];
        status->beta = event->value[1];
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&loop->mutex);
}

static void tell(struct loop *loop, const struct event *event)
{
    if (event->kind == EVENT_SCAN_COMPLETE) {
        put_scan(loop, event, "complete");
        say(loop, "info", "scan %" PRId64 " complete: %s", event->integer[0], event->text);
    } else if (event->kind == EVENT_SCAN_FAILED) {
        put_scan(loop, event, "failed");
        say(loop, "warning", "scan %" PRId64 " attempt %" PRId64 " failed: %s", event->integer[0], event->integer[1],
            event->text);
    } else if ((event->kind == EVENT_RUBY || event->kind == EVENT_SPECTROMETER_FOUND) && event->text[0]) {
        bool is_warning = event->kind == EVENT_SPECTROMETER_FOUND || event->integer[2];
        say(loop, is_warning ? "warning" : "info", "%s", event->text);
    } else if (event->kind == EVENT_RESULT && event->integer[1]) {
        say(loop, "info", "scan %" PRId64 ": tau %.1f s, beta %.2f, contrast %.4f (|F|^2 = exp(-2 (t/tau)^beta))",
            event->integer[0], event->value[0], event->value[1], event->value[2]);
    } else if (event->kind == EVENT_RESULT) {
        say(loop, "warning", "scan %" PRId64 " not fitted: %s", event->integer[0], event->text);
    } else if (event->kind == EVENT_FOLLOWER_LOST) {
        say(loop, "warning",
            "scan %" PRId64 " attempt %" PRId64
            ": the analysis that followed it gave no result (%s); it is analysed as "
            "a whole after its end; %" PRId64 " such in this run",
            event->integer[0], event->integer[1], event->text, event->integer[2]);
    } else if (event->kind == EVENT_COMMAND) {
        static const char *const names[] = {"", "hold", "resume", "stop"};
        say(loop, "info", "operator: %s", names[event->integer[0]]);
    }
}

/* The analysis follows what the detector takes: a head start, and no decision. */
static void lead_analyst(struct loop *loop, const struct event *event)
{
    if (event->kind == EVENT_SCAN_STARTED && event->text[0])
        analyst_follow(loop->analyst, event->integer[0], event->integer[1], event->text);
    else if (event->kind == EVENT_SCAN_FAILED)
        analyst_drop(loop->analyst, event->integer[0], event->integer[1], event->text);
}

static void handle(struct loop *loop, struct event *event)
{
    struct core_actions actions;
    event->seq = ++loop->seq;
    event->pass = loop->pass;
    event->now_ns = loop->now_ns;
    loop->event_ns_last = loop->now_ns;
    note(loop, event);
    put_event(loop, event);
    tell(loop, event);
    lead_analyst(loop, event);
    core_step(&loop->core, event, &actions);
    for (int i = 0; i < actions.n; i++) {
        put_decision(loop, i, &actions.list[i]);
        execute(loop, &actions.list[i]);
    }
    bool is_dark = !access_is_readable(&loop->core.access);
    if (loop->context.is_ruby_dark && !is_dark)
        loop->ruby_ns_last = loop->now_ns; /* from here on a reading can be late */
    loop->context.is_ruby_dark = is_dark;
}

/* Events of the loop's own: the journal's progress, the ring current's latest value, and the tick. */
static void handle_own(struct loop *loop)
{
    struct err err = {0};
    int64_t durable_number = store_durable_number(loop->settings.store);
    if (durable_number > loop->durable_number) {
        loop->durable_number = durable_number;
        struct event event = inbox_event(EVENT_DURABLE, NULL);
        event.integer[0] = durable_number;
        event.t_ns = loop->now_ns;
        handle(loop, &event);
    }
    if (!loop->is_store_failure_told && store_failure(loop->settings.store, &err)) {
        loop->is_store_failure_told = true;
        struct event event = inbox_event(EVENT_JOURNAL_FAILED, err.message);
        event.t_ns = loop->now_ns;
        handle(loop, &event);
    }
    double current_ma = detector_link_current_ma(loop->detector);
    double change_ma = fabs(current_ma - loop->beam_ma_last); /* NaN when either is not known */
    bool is_changed = isnan(current_ma) != isnan(loop->beam_ma_last) || change_ma > BEAM_MA_STEP;
    if (is_changed || s_from_ns(loop->now_ns - loop->beam_ns_last) > loop->context.cadence_s) {
        loop->beam_ns_last = loop->now_ns;
        loop->beam_ma_last = current_ma;
        struct event event = inbox_event(EVENT_BEAM, NULL);
        event.t_ns = loop->now_ns;
        event.value[0] = current_ma;
        handle(loop, &event);
    }
    if (s_from_ns(loop->now_ns - loop->event_ns_last) > 0.4 * loop->context.cadence_s) {
        struct event event = inbox_event(EVENT_TICK, NULL);
        event.t_ns = loop->now_ns;
        handle(loop, &event);
    }
}

/* ---- pace and status ----------------------------------------------------------------------------------------- */

/* Whether a finished scan's result is still to come; for pace, not longer than a busy machine may keep a rehearsal. */
static bool is_result_awaited(struct loop *loop)
{
    int64_t wall_ns = clock_wall_ns();
    if (analyst_is_idle(loop->analyst))
        loop->result_wall_ns = 0;
    else if (loop->result_wall_ns == 0)
        loop->result_wall_ns = wall_ns;
    return loop->result_wall_ns != 0 && wall_ns - loop->result_wall_ns < RESULT_WAIT_NS;
}

/* As fast as the phase can do with; at 1 while a link is down, a reading is late, or a commit or a scan's result is
 * pending. */
static void request_pace(struct loop *loop)
{
    double cadence_s = loop->context.cadence_s;
    bool is_late = s_from_ns(loop->now_ns - loop->membrane_ns_last) > cadence_s ||
                   (!loop->context.is_ruby_dark && s_from_ns(loop->now_ns - loop->ruby_ns_last) > 3.0 * cadence_s);
    bool is_down = !loop->membrane_up || !loop->ruby_up || (loop->access && !loop->access_up) ||
                   (loop->core.settings.needs_detector && !loop->detector_up);
    bool is_pending = loop->durable_number < loop->intent_number || is_result_awaited(loop);
    clock_request_pace(loop->settings.clock, "control", is_late || is_down || is_pending ? 1.0 : loop->pace_wanted);
}

static void update_status(struct loop *loop)
{
    int64_t wall_ns = clock_wall_ns();
    if (wall_ns - loop->status_wall_ns < STATUS_EVERY_NS)
        return;
    loop->status_wall_ns = wall_ns;
    pthread_mutex_lock(&loop->mutex);
    loop->status.wall_ns = wall_ns;
    loop->status.now_ns = loop->now_ns;
    loop->status.phase = loop->core.phase;
    loop->status.step_index = loop->core.step_index;
    loop->status.loading_state = loop->core.loading.state;
    loop->status.speed = clock_speed(loop->settings.clock);
    pthread_mutex_unlock(&loop->mutex);
}

/* Experiment time still to go: the rest of this step and all later ones. */
static void estimate_rest(const struct loop *loop, const struct status *status, double *ret_s_min, double *ret_s_max)
{
    const struct plan *plan = loop->settings.plan;
    double in_step_s = s_from_ns(status->now_ns - loop->step_started_ns);
    *ret_s_min = *ret_s_max = 0.0;
    for (int i = status->step_index; i < plan->n_steps && status->phase != CORE_FINISHED; i++) {
        double s_min, s_max;
        plan_estimate_step(plan, i, &s_min, &s_max);
        double done_s = i == status->step_index ? in_step_s : 0.0;
        *ret_s_min += fmax(0.0, s_min - done_s);
        *ret_s_max += fmax(0.0, s_max - done_s);
    }
}

static void format_duration(double s, char *ret_text, size_t size)
{
    int minutes = (int)(s / 60.0 + 0.5);
    snprintf(ret_text, size, "%d:%02d h", minutes / 60, minutes % 60);
}

static void format_status(const struct loop *loop, const struct status *status, char *ret_text, size_t size)
{
    char step[64], scan[64] = "", rest[32], done[32], wall[48] = "", stale[80] = "";
    double s_min, s_max;
    describe_step(loop, status->step_index, step, sizeof step);
    estimate_rest(loop, status, &s_min, &s_max);
    double done_s = s_from_ns(status->now_ns - loop->started_ns);
    format_duration(done_s, done, sizeof done);
    format_duration((s_min + s_max) / 2.0, rest, sizeof rest);
    if (status->scan_number)
        snprintf(scan, sizeof scan, ", scan %" PRId64 ": %.0f frames", status->scan_number, status->scan_frames);
    double wall_s = s_from_ns(clock_wall_ns() - loop->started_wall_ns);
    if (!clock_is_real(loop->settings.clock) && done_s > 1.0)
        snprintf(wall, sizeof wall, " (%.0f s on the wall, %.0fx)", (s_min + s_max) / 2.0 * wall_s / done_s,
                 status->speed);
    bool is_plain = status->phase == CORE_CALIBRATION || status->phase == CORE_ISOBAR ||
                    status->phase == CORE_PRELOADED || status->phase == CORE_DEFLATED; /* the step says it all */
    const char *phase =
        status->phase == CORE_LOADING ? loading_state_name(status->loading_state) : core_phase_name(status->phase);
    const char *mark = status->phase == CORE_WAITING ? "waiting: " : status->goes_on ? "note: " : "HOLD: ";
    double age_s = s_from_ns(clock_wall_ns() - status->wall_ns);
    if (age_s > STATUS_AGE_S_MAX)
        snprintf(stale, sizeof stale, "NOT CURRENT: the control loop was last seen %.0f s ago; ", age_s);
    snprintf(ret_text, size, "[%d/%d %s%s%s] %s%s%s%s%.3f GPa, membrane %.1f bar%s%s; %s done, %s to go%s",
             status->step_index + 1, loop->settings.plan->n_steps, step, is_plain ? "" : ": ", is_plain ? "" : phase,
             stale, status->reasons ? mark : "", status->sentence, status->reasons ? "; " : "", status->pressure_gpa,
             fmax(status->membrane_bar, 0.0), scan, status->phase == CORE_ISOBAR ? gap_words(loop) : "", done, rest,
             wall);
}

static void format_json(const struct loop *loop, const struct status *status, char *ret_json, size_t size)
{
    double s_min, s_max;
    estimate_rest(loop, status, &s_min, &s_max);
    snprintf(ret_json, size,
             "{\"phase\":\"%s\",\"step_index\":%d,\"n_steps\":%d,\"loading_state\":\"%s\",\"pressure_gpa\":%.4f,"
             "\"pressure_gpa_sigma\":%.4f,\"membrane_bar\":%.3f,\"scan_number\":%" PRId64 ",\"scan_frames\":%.0f,"
             "\"hold_reasons\":%u,\"goes_on\":%s,\"ruby_access\":\"%s\",\"speed\":%.1f,\"remaining_s_min\":%.0f,"
             "\"remaining_s_max\":%.0f,"
             "\"simulated\":%s}",
             core_phase_name(status->phase), status->step_index, loop->settings.plan->n_steps,
             loading_state_name(status->loading_state), status->pressure_gpa, status->pressure_gpa_sigma,
             status->membrane_bar, status->scan_number, status->scan_frames, status->reasons,
             status->goes_on ? "true" : "false", loop->settings.beamline->ruby.ruby_access, status->speed, s_min, s_max,
             clock_is_real(loop->settings.clock) ? "false" : "true");
}

void loop_status(struct loop *loop, char *ret_text, size_t text_size, char *ret_json, size_t json_size)
{
    pthread_mutex_lock(&loop->mutex);
    struct status status = loop->status;
    pthread_mutex_unlock(&loop->mutex);
    format_status(loop, &status, ret_text, text_size);
    format_json(loop, &status, ret_json, json_size);
}

/* ---- the doctor ---------------------------------------------------------------------------------------------- */

/* An instrument of which the last that was heard is its loss, or nothing yet; *ret_has_said otherwise. */
static bool is_lost(const struct event *last, enum event_kind lost, enum event_kind found, struct doctor_report *report,
                    enum doctor_part part, enum doctor_wire wire)
{
    struct err err;
    if (last[found].seq > last[lost].seq)
        return false;
    err_set(&err, last[lost].seq ? (int)last[lost].integer[0] : ERR_TIMEOUT, "%s",
            last[lost].text[0] ? last[lost].text : "nothing was heard of it yet");
    doctor_add_failure(report, part, wire, &err);
    return true;
}

static void report_membrane(const struct event *last, int64_t now_ns, double cadence_s, struct doctor_report *report)
{
    const struct event *membrane = &last[EVENT_MEMBRANE];
    double membrane_s = s_from_ns(now_ns - membrane->t_ns);
    if (is_lost(last, EVENT_MEMBRANE_LOST, EVENT_MEMBRANE_FOUND, report, DOCTOR_MEMBRANE, DOCTOR_LINE))
        return;
    bool is_late = membrane->seq == 0 || membrane_s > 4.0 * cadence_s;
    bool is_astray = (membrane->integer[0] & MEMBRANE_NOT_FOLLOWING) != 0;
    doctor_add(report, DOCTOR_MEMBRANE,
               is_late     ? DOCTOR_BAD
               : is_astray ? DOCTOR_DOUBT
                           : DOCTOR_GOOD,
               is_late     ? "the line to the controller"
               : is_astray ? "control mode and valves at the controller"
                           : "",
               "%.2f bar, set point %.2f bar, full scale %.0f bar, %.0f s ago", membrane->value[0], membrane->value[1],
               membrane->value[2], membrane_s);
}

/* By the last reading: its sigma tells whether the thermometer was believed. */
static void report_thermometer(const struct event *ruby, const struct beamline_ruby *settings,
                               struct doctor_report *report)
{
    bool is_believed = ruby->value[5] <= settings->temperature_k_sigma;
    if (!settings->temperature_pv[0])
        return;
    if (ruby->seq == 0)
        doctor_add(report, DOCTOR_THERMOMETER, DOCTOR_DOUBT, "the ruby: it is asked with every reading of it",
                   "%s has not been asked yet", settings->temperature_pv);
    else
        doctor_add(report, DOCTOR_THERMOMETER, is_believed ? DOCTOR_GOOD : DOCTOR_DOUBT,
                   is_believed ? "" : "the sensor and its IOC; the log says why it is not believed",
                   "%s: the last ruby reading was taken at %.2f +- %.2g K", settings->temperature_pv, ruby->value[4],
                   ruby->value[5]);
}

static void report_spectrometer(const struct event *last, int64_t now_ns, const struct beamline_spectrometer *settings,
                                struct doctor_report *report)
{
    const struct event *ruby = &last[EVENT_RUBY], *refused = &last[EVENT_RUBY_REJECTED];
    const struct event *newest = ruby->seq > refused->seq ? ruby : refused;
    const char *note = last[EVENT_SPECTROMETER_FOUND].text; /* the rate that it does not follow to */
    const char *place = settings->address[0] ? settings->address : settings->counts_pv;
    if (is_lost(last, EVENT_SPECTROMETER_LOST, EVENT_SPECTROMETER_FOUND, report, DOCTOR_SPECTROMETER,
                settings->address[0] ? DOCTOR_LINE : DOCTOR_EPICS))
        return;
    if (newest->seq == 0) {
        doctor_add(report, DOCTOR_SPECTROMETER, DOCTOR_DOUBT, "the exposure time",
                   "%s at %s: connected, and no spectrum yet", settings->driver, place);
        return;
    }
    doctor_add(report, DOCTOR_SPECTROMETER, note[0] ? DOCTOR_DOUBT : DOCTOR_GOOD,
               note[0] ? "the baud rate in its address, to which it does not follow" : "",
               "%s at %s: the last spectrum came %.0f s ago", settings->driver, place,
               s_from_ns(now_ns - newest->t_ns));
    if (newest == ruby)
        doctor_add(report, DOCTOR_RUBY, DOCTOR_GOOD, "", "R1 %.3f +- %.4f nm: %.3f +- %.3f GPa", ruby->value[2],
                   ruby->value[3], ruby->value[0], ruby->value[1]);
    else
        doctor_add(report, DOCTOR_RUBY, DOCTOR_DOUBT, "laser, shutter and focus", "%s", refused->text);
}

void loop_doctor(struct loop *loop, const char *db_path, struct doctor_report *ret_report)
{
    struct event last[EVENT_KIND_COUNT];
    pthread_mutex_lock(&loop->mutex);
    memcpy(last, loop->last, sizeof last);
    pthread_mutex_unlock(&loop->mutex);
    int64_t now_ns = clock_now_ns(loop->settings.clock);
    ret_report->n = 0;
    const struct beamline *beamline = loop->settings.beamline;
    report_membrane(last, now_ns, loop->context.cadence_s, ret_report);
    report_thermometer(&last[EVENT_RUBY], &beamline->ruby, ret_report);
    report_spectrometer(last, now_ns, &beamline->spectrometer, ret_report);
    if (loop->access && !is_lost(last, EVENT_ACCESS_LOST, EVENT_ACCESS_FOUND, ret_report, DOCTOR_OPTICS, DOCTOR_EPICS))
        doctor_add(ret_report, DOCTOR_OPTICS, DOCTOR_GOOD, "", "%s", last[EVENT_ACCESS].text);
    if (!is_lost(last, EVENT_DETECTOR_LOST, EVENT_DETECTOR_FOUND, ret_report, DOCTOR_DETECTOR, DOCTOR_EPICS))
        doctor_add(ret_report, DOCTOR_DETECTOR, DOCTOR_GOOD, "", "connected");
    examine_files(&loop->settings.beamline->detector, detector_link_epics(loop->detector), ret_report);
    double current_ma = detector_link_current_ma(loop->detector),
           needed_ma = loop->settings.beamline->ring.current_ma_min;
    doctor_add(ret_report, DOCTOR_RING,
               isnan(current_ma)        ? DOCTOR_BAD
               : current_ma < needed_ma ? DOCTOR_DOUBT
                                        : DOCTOR_GOOD,
               current_ma >= needed_ma ? "" : "whether there is beam, and current_pv in the beamline file",
               "%s: %.1f mA, needed %.1f mA", loop->settings.beamline->ring.current_pv, current_ma, needed_ma);
    examine_disk(db_path, ret_report);
    examine_clock(loop->settings.clock, ret_report);
    examine_database(db_path, ret_report);
}

void loop_command(struct loop *loop, enum event_command command)
{
    struct event event = inbox_event(EVENT_COMMAND, NULL);
    event.integer[0] = command;
    inbox_post(loop->inbox, &event);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void make_uid(struct loop *loop)
{
    char utc[32];
    time_t utc_s = (time_t)(clock_utc_ns(loop->settings.clock, loop->now_ns) / NS_PER_S);
    struct tm broken;
    gmtime_r(&utc_s, &broken);
    strftime(utc, sizeof utc, "%Y%m%dT%H%M%S", &broken);
    snprintf(loop->run_uid, sizeof loop->run_uid, "%s_%04x", utc, (unsigned)(clock_wall_ns() / 1000 % 65536));
}

int loop_start(struct loop **ret_loop, const struct loop_settings *settings, struct err *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    struct core_settings *core_settings = calloc(1, sizeof *core_settings);
    if (!loop || !core_settings)
        return err_set(err, ERR_SYSTEM, "no memory for the control loop");
    loop->settings = *settings;
    loop->finished = -1;
    loop->pace_wanted = 1.0;
    pthread_mutex_init(&loop->mutex, NULL);
    loop->now_ns = loop->started_ns = loop->step_started_ns = loop->event_ns_last = clock_now_ns(settings->clock);
    loop->started_wall_ns = clock_wall_ns();
    loop->status.now_ns = loop->now_ns;
    make_uid(loop);
    core_settings_init(core_settings, settings->plan, settings->beamline);
    core_settings->loading.cell = settings->cell;
    core_settings->calibration.passport_lambda0_nm = settings->passport_lambda0_nm;
    core_init(&loop->core, core_settings);
    free(core_settings);
    loop->inbox = inbox_new(settings->clock);
    loop->context.clock = settings->clock;
    loop->context.inbox = loop->inbox;
    loop->context.cadence_s = CADENCE_S_FIRST;
    int code = detector_link_start(&loop->detector, settings->beamline, loop->run_uid, &loop->context, err);
    if (code)
        return code;
    if (loop->core.settings.access.is_between_scans)
        code = access_link_start(&loop->access, &settings->beamline->ruby, detector_link_epics(loop->detector),
                                 &loop->context, err);
    if (code)
        return code;
    char analysis[1024];
    program_path("isobar-analyze", analysis, sizeof analysis);
    code = analyst_start(&loop->analyst, loop->inbox, settings->store, analysis, settings->results_directory, err);
    if (code)
        return code;
    loop->printer = printer_start();
    put_run(loop);
    if (settings->cell_note)
        say(loop, "info", "%s", settings->cell_note);
    code = ruby_link_start(&loop->ruby, settings->beamline, detector_link_epics(loop->detector), &loop->context,
                           settings->store, err);
    if (code)
        return code;
    loop->membrane = membrane_link_start(&settings->beamline->membrane, &loop->context, settings->store);
    *ret_loop = loop;
    return 0;
}

static int check_clock(const struct loop *loop, struct err *err)
{
    if (clock_is_alive(loop->settings.clock))
        return 0;
    return err_set(err, ERR_STATE,
                   "the experiment clock %s has no keeper: time stands still; the membrane keeps its set point; start "
                   "the simulator again and then a new rehearsal",
                   loop->settings.beamline->clock);
}

int loop_run(struct loop *loop, struct err *err)
{
    struct event event;
    while (loop->finished < 0 || !analyst_is_idle(loop->analyst)) {
        bool has_event = inbox_take(loop->inbox, &event, PASS_MS_MAX);
        int code = check_clock(loop, err);
        if (code)
            return code;
        int64_t now_ns = clock_now_ns(loop->settings.clock);
        loop->now_ns = now_ns > loop->now_ns ? now_ns : loop->now_ns;
        loop->pass++;
        for (int n = 0; has_event && n < EVENTS_PER_PASS_MAX; n++) {
            handle(loop, &event);
            has_event = n + 1 < EVENTS_PER_PASS_MAX && inbox_take(loop->inbox, &event, 0);
        }
        handle_own(loop);
        request_pace(loop);
        update_status(loop);
    }
    while (inbox_take(loop->inbox, &event, 0))
        handle(loop, &event);
    const char *status = loop->finished ? "stopped" : "complete";
    say(loop, "info", "run %s: %s", loop->run_uid, status);
    const struct store_value row[] = {store_integer(loop->now_ns), store_text(status)};
    put(loop, STORE_RUN_END, row, 2, 0);
    return store_failure(loop->settings.store, err) ? ERR_DB : loop->finished;
}

void loop_free(struct loop *loop)
{
    loop->context.is_ended = true;
    membrane_link_join(loop->membrane);
    ruby_link_join(loop->ruby);
    access_link_join(loop->access);
    detector_link_join(loop->detector);
    analyst_join(loop->analyst);
    if (inbox_dropped(loop->inbox))
        fprintf(stderr, "isobard: %" PRId64 " events dropped: the inbox was full\n", inbox_dropped(loop->inbox));
    printer_join(loop->printer);
    inbox_free(loop->inbox);
    pthread_mutex_destroy(&loop->mutex);
    free(loop);
}
