#include "controller/analyst.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controller/json.h"

#define QUEUE_MAX 64
#define ANALYSIS_S_MAX 1800 /* from the moment the scan is whole */
#define NICENESS 10
#define LINE_MAX_BYTES 4096
#define POLL_MS 1000
#define STATUS_NO_PROGRAM 127

enum job_state { JOB_FOLLOWED, JOB_COMPLETE, JOB_DROPPED };

struct job {
    int64_t scan_number, attempt;
    char master_path[512], stem[300]; /* stem: what the names of all its files begin with */
    enum job_state state;             /* under the mutex, like the next */
    char drop_reason[EVENT_TEXT_MAX];
};

struct analyst {
    struct inbox *inbox;
    struct store *store;
    char results_directory[512];
    char program[512];
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int wake_fd; /* readable when a state has changed: for a thread that waits for a child */
    bool is_ended;
    int first, n; /* the first is the one at work; it leaves the queue when it is done */
    struct job queue[QUEUE_MAX];
    int64_t n_lost; /* followers that gave no result; the thread's own */
};

/* One run of isobar-analyze. */
struct child {
    pid_t pid;
    int output_fd, end_fd; /* end_fd: closed, -1, when nothing more will come */
    char line[LINE_MAX_BYTES];
    size_t n_read;
};

/* ---- the child ----------------------------------------------------------------------------------------------- */

static void become_analysis(const struct analyst *analyst, const struct job *job, const char *result_path,
                            bool is_followed, const int input[2], const int output[2])
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* the daemon's threads block what ends a process */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(input[0], STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    setpriority(PRIO_PROCESS, 0, NICENESS);
    execl(analyst->program, "isobar-analyze", job->master_path, "-o", result_path, "--json",
          is_followed ? "--follow" : (char *)NULL, (char *)NULL);
    _exit(STATUS_NO_PROGRAM);
}

static int start_child(const struct analyst *analyst, const struct job *job, const char *result_path, bool is_followed,
                       struct child *ret_child, struct err *err)
{
    int input[2], output[2];
    if (pipe2(input, O_CLOEXEC) != 0)
        return err_set(err, ERR_SYSTEM, "no pipe for the analysis: %s", strerror(errno));
    if (pipe2(output, O_CLOEXEC) != 0) {
        err_set(err, ERR_SYSTEM, "no pipe for the analysis: %s", strerror(errno));
        close(input[0]);
        close(input[1]);
        return ERR_SYSTEM;
    }
    pid_t pid = fork();
    if (pid == 0)
        become_analysis(analyst, job, result_path, is_followed, input, output);
    int cause = errno;
    close(input[0]);
    close(output[1]);
    *ret_child = (struct child){.pid = pid, .output_fd = output[0], .end_fd = input[1]};
    if (pid > 0)
        return 0;
    close(input[1]);
    close(output[0]);
    return err_set(err, ERR_SYSTEM, "the analysis cannot be started: %s", strerror(cause));
}

static void say_end(struct child *child)
{
    if (child->end_fd >= 0)
        close(child->end_fd);
    child->end_fd = -1;
}

/* What it has printed since; false at its end. */
static bool read_line(struct child *child)
{
    char rest[256];
    bool has_room = child->n_read + 1 < sizeof child->line;
    ssize_t n = has_room ? read(child->output_fd, child->line + child->n_read, sizeof child->line - 1 - child->n_read)
                         : read(child->output_fd, rest, sizeof rest);
    if (n < 0 && errno == EINTR)
        return true;
    child->n_read += has_room && n > 0 ? (size_t)n : 0;
    return n > 0;
}

static enum job_state state_of(struct analyst *analyst, const struct job *job, bool *ret_is_ended)
{
    pthread_mutex_lock(&analyst->mutex);
    enum job_state state = job->state;
    *ret_is_ended = analyst->is_ended;
    pthread_mutex_unlock(&analyst->mutex);
    return state;
}

/* Reads what it prints until it ends, tells it when the scan is whole, and ends it when the scan has failed or it takes
 * too long. Returns whether it was late. */
static bool attend(struct analyst *analyst, const struct job *job, struct child *child)
{
    int64_t deadline_ns = 0;
    struct pollfd waits[2] = {{.fd = child->output_fd, .events = POLLIN}, {.fd = analyst->wake_fd, .events = POLLIN}};
    for (;;) {
        bool is_ended;
        enum job_state state = state_of(analyst, job, &is_ended);
        bool is_unwanted = state == JOB_DROPPED || (state == JOB_FOLLOWED && is_ended);
        if (state == JOB_COMPLETE && !deadline_ns) {
            deadline_ns = clock_wall_ns() + ANALYSIS_S_MAX * NS_PER_S;
            say_end(child);
        }
        bool is_late = deadline_ns && clock_wall_ns() > deadline_ns;
        if (is_unwanted || is_late) {
            kill(child->pid, SIGKILL);
            return is_late;
        }
        if (poll(waits, 2, POLL_MS) <= 0)
            continue;
        uint64_t n_changes;
        if (waits[1].revents && read(analyst->wake_fd, &n_changes, sizeof n_changes) < 0)
            assert(errno == EAGAIN || errno == EINTR);
        if (waits[0].revents && !read_line(child))
            return false;
    }
}

/* Runs the analysis once; its line into `ret_line`. Returns its exit status, or an error: ERR_SYSTEM, ERR_TIMEOUT. */
static int run_child(struct analyst *analyst, const struct job *job, const char *result_path, bool is_followed,
                     char ret_line[LINE_MAX_BYTES], struct err *err)
{
    struct child child;
    int status, code = start_child(analyst, job, result_path, is_followed, &child, err);
    if (code)
        return code;
    bool is_late = attend(analyst, job, &child);
    say_end(&child);
    close(child.output_fd);
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR)
        continue;
    child.line[child.n_read] = '\0';
    memcpy(ret_line, child.line, child.n_read + 1);
    if (is_late)
        return err_set(err, ERR_TIMEOUT, "the analysis took longer than %d s and was ended", ANALYSIS_S_MAX);
    if (WIFSIGNALED(status))
        return err_set(err, ERR_SYSTEM, "the analysis ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* ---- rows and events ----------------------------------------------------------------------------------------- */

static struct store_value number_or_null(double value) { return isnan(value) ? store_null() : store_real(value); }

static void put_row(struct analyst *analyst, const struct job *job, const char *result_path, const char *json,
                    const char *reason)
{
    static const char *const keys[] = {"tau_s",    "tau_s_sigma",    "beta",    "beta_sigma",
                                       "contrast", "contrast_sigma", "baseline"};
    struct store_value row[11] = {store_integer(job->scan_number)};
    for (int i = 0; i < 7; i++)
        row[1 + i] = number_or_null(json_number(json, keys[i]));
    double n_photons = json_number(json, "n_photons");
    row[8] = isnan(n_photons) ? store_null() : store_integer((int64_t)n_photons);
    row[9] = store_text(result_path);
    row[10] = reason[0] ? store_text(reason) : store_null();
    store_put(analyst->store, STORE_RESULT, row, 11, 0, NULL);
}

static void report(struct analyst *analyst, const struct job *job, const char *result_path, const char *json,
                   const char *reason)
{
    put_row(analyst, job, result_path, json, reason);
    struct event event = inbox_event(EVENT_RESULT, reason);
    event.integer[0] = job->scan_number;
    event.integer[1] = reason[0] == '\0';
    event.value[0] = json_number(json, "tau_s");
    event.value[1] = json_number(json, "beta");
    event.value[2] = json_number(json, "contrast");
    inbox_post(analyst->inbox, &event);
}

/* The row stands until a later attempt of the scan puts its own in its place. */
static void report_dropped(struct analyst *analyst, const struct job *job)
{
    char reason[EVENT_TEXT_MAX + 100];
    snprintf(reason, sizeof reason, "attempt %lld is not whole, nothing of it is used: %s", (long long)job->attempt,
             job->drop_reason);
    put_row(analyst, job, "", "", reason);
}

static void report_loss(struct analyst *analyst, const struct job *job, const char *reason)
{
    struct event event = inbox_event(EVENT_FOLLOWER_LOST, reason);
    event.integer[0] = job->scan_number;
    event.integer[1] = job->attempt;
    event.integer[2] = ++analyst->n_lost;
    inbox_post(analyst->inbox, &event);
}

/* ---- one scan ------------------------------------------------------------------------------------------------ */

/* Removes what analyses of this attempt have left behind, finished or not. */
static void remove_files(const struct analyst *analyst, const struct job *job)
{
    char prefix[sizeof job->stem + 1];
    int n = snprintf(prefix, sizeof prefix, "%s_", job->stem);
    DIR *folder = opendir(analyst->results_directory);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strncmp(entry->d_name, prefix, (size_t)n) == 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

/* Why there is no result, or "" when there is one; a fit that was refused has its reason beside its result. */
static void find_reason(const struct analyst *analyst, int code, const char *line, const struct err *err,
                        char *ret_reason, size_t size)
{
    if (code < 0)
        snprintf(ret_reason, size, "%s", err->message);
    else if (code == STATUS_NO_PROGRAM)
        snprintf(ret_reason, size, "%s cannot be run; it belongs beside isobard", analyst->program);
    else
        json_text(line, "reason", ret_reason, size);
    if (code > 0 && !ret_reason[0])
        snprintf(ret_reason, size, "the analysis ended with status %d and no reason", code);
}

/* How the scan has ended; JOB_FOLLOWED when the daemon ends before it has. */
static enum job_state wait_for_end(struct analyst *analyst, const struct job *job)
{
    pthread_mutex_lock(&analyst->mutex);
    while (job->state == JOB_FOLLOWED && !analyst->is_ended)
        pthread_cond_wait(&analyst->changed, &analyst->mutex);
    enum job_state state = job->state;
    pthread_mutex_unlock(&analyst->mutex);
    return state;
}

static void analyse(struct analyst *analyst, const struct job *job)
{
    char line[LINE_MAX_BYTES] = "", result_path[900], reason[1000] = "";
    struct err err = {0};
    bool is_ended;
    enum job_state state = state_of(analyst, job, &is_ended);
    bool is_followed = state == JOB_FOLLOWED;
    int code = ERR_STATE;
    snprintf(result_path, sizeof result_path, "%s/%s_results.hdf", analyst->results_directory, job->stem);
    if (is_followed) {
        code = run_child(analyst, job, result_path, true, line, &err);
        find_reason(analyst, code, line, &err, reason, sizeof reason);
        state = state_of(analyst, job, &is_ended);
        bool is_lost = code != 0 && state != JOB_DROPPED && !is_ended;
        if (is_lost)
            report_loss(analyst, job, reason);
        state = wait_for_end(analyst, job);
    }
    if (code != 0 || state != JOB_COMPLETE)
        remove_files(analyst, job);
    if (state == JOB_COMPLETE && code != 0) {
        reason[0] = '\0';
        code = run_child(analyst, job, result_path, false, line, &err);
        find_reason(analyst, code, line, &err, reason, sizeof reason);
    }
    if (state == JOB_COMPLETE)
        report(analyst, job, result_path, line, reason);
    else if (state == JOB_DROPPED)
        report_dropped(analyst, job);
}

static void *run(void *argument)
{
    struct analyst *analyst = argument;
    pthread_mutex_lock(&analyst->mutex);
    while (!analyst->is_ended) {
        if (analyst->n == 0) {
            pthread_cond_wait(&analyst->changed, &analyst->mutex);
            continue;
        }
        pthread_mutex_unlock(&analyst->mutex);
        analyse(analyst, &analyst->queue[analyst->first]);
        pthread_mutex_lock(&analyst->mutex);
        analyst->first = (analyst->first + 1) % QUEUE_MAX;
        analyst->n--;
    }
    pthread_mutex_unlock(&analyst->mutex);
    return NULL;
}

/* ---- public -------------------------------------------------------------------------------------------------- */

int analyst_start(struct analyst **ret_analyst, struct inbox *inbox, struct store *store, const char *program,
                  const char *results_directory, struct err *err)
{
    struct analyst *analyst = calloc(1, sizeof *analyst);
    assert(analyst);
    analyst->inbox = inbox;
    analyst->store = store;
    snprintf(analyst->results_directory, sizeof analyst->results_directory, "%s", results_directory);
    snprintf(analyst->program, sizeof analyst->program, "%s", program);
    analyst->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (analyst->wake_fd < 0) {
        free(analyst);
        return err_set(err, ERR_SYSTEM, "no descriptor for the analysis of scans: %s", strerror(errno));
    }
    pthread_mutex_init(&analyst->mutex, NULL);
    pthread_cond_init(&analyst->changed, NULL);
    int code = pthread_create(&analyst->thread, NULL, run, analyst);
    assert(code == 0);
    *ret_analyst = analyst;
    return 0;
}

/* These three under the mutex. */
static struct job *find_job(struct analyst *analyst, int64_t scan_number, int64_t attempt)
{
    for (int i = 0; i < analyst->n; i++) {
        struct job *job = &analyst->queue[(analyst->first + i) % QUEUE_MAX];
        if (job->scan_number == scan_number && job->attempt == attempt)
            return job;
    }
    return NULL;
}

static void wake(struct analyst *analyst)
{
    pthread_cond_signal(&analyst->changed);
    uint64_t one = 1;
    if (write(analyst->wake_fd, &one, sizeof one) < 0)
        assert(errno == EAGAIN); /* so many unread ones wake as well */
}

static struct job *queue_job(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *master_path)
{
    if (analyst->n == QUEUE_MAX)
        return NULL;
    struct job *job = &analyst->queue[(analyst->first + analyst->n++) % QUEUE_MAX];
    *job = (struct job){.scan_number = scan_number, .attempt = attempt, .state = JOB_FOLLOWED};
    const char *slash = strrchr(master_path, '/'), *name = slash ? slash + 1 : master_path;
    const char *suffix = strstr(name, "_master.h5");
    snprintf(job->master_path, sizeof job->master_path, "%s", master_path);
    snprintf(job->stem, sizeof job->stem, "%.*s", suffix ? (int)(suffix - name) : (int)strlen(name), name);
    return job;
}

void analyst_follow(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *master_path)
{
    pthread_mutex_lock(&analyst->mutex);
    queue_job(analyst, scan_number, attempt, master_path);
    wake(analyst);
    pthread_mutex_unlock(&analyst->mutex);
}

int analyst_add(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *master_path, struct err *err)
{
    pthread_mutex_lock(&analyst->mutex);
    struct job *job = find_job(analyst, scan_number, attempt);
    if (!job)
        job = queue_job(analyst, scan_number, attempt, master_path);
    if (job)
        job->state = JOB_COMPLETE;
    wake(analyst);
    pthread_mutex_unlock(&analyst->mutex);
    return job ? 0
               : err_set(err, ERR_FULL,
                         "scan %lld is not analysed: %d scans wait already; "
                         "run isobar-analyze on its master file by hand",
                         (long long)scan_number, QUEUE_MAX);
}

void analyst_drop(struct analyst *analyst, int64_t scan_number, int64_t attempt, const char *reason)
{
    pthread_mutex_lock(&analyst->mutex);
    struct job *job = find_job(analyst, scan_number, attempt);
    if (job && job->state == JOB_FOLLOWED) {
        job->state = JOB_DROPPED;
        snprintf(job->drop_reason, sizeof job->drop_reason, "%s", reason);
        wake(analyst);
    }
    pthread_mutex_unlock(&analyst->mutex);
}

bool analyst_is_idle(struct analyst *analyst)
{
    bool is_idle = true;
    pthread_mutex_lock(&analyst->mutex);
    for (int i = 0; i < analyst->n; i++)
        is_idle = is_idle && analyst->queue[(analyst->first + i) % QUEUE_MAX].state == JOB_FOLLOWED;
    pthread_mutex_unlock(&analyst->mutex);
    return is_idle;
}

void analyst_join(struct analyst *analyst)
{
    pthread_mutex_lock(&analyst->mutex);
    analyst->is_ended = true;
    wake(analyst);
    pthread_mutex_unlock(&analyst->mutex);
    pthread_join(analyst->thread, NULL);
    pthread_cond_destroy(&analyst->changed);
    pthread_mutex_destroy(&analyst->mutex);
    close(analyst->wake_fd);
    free(analyst);
}
