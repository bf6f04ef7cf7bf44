#include "controller/analyst.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controller/json.h"
#include "controller/program.h"

#define QUEUE_MAX 64
#define ANALYSIS_S_MAX 1800
#define NICENESS 10
#define LINE_MAX_BYTES 4096

struct job {
    int64_t scan_number;
    char master_path[512];
};

struct analyst {
    struct inbox *inbox;
    struct store *store;
    char results_directory[512];
    char program[512];
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int first, n;
    bool is_busy, is_ended;
    struct job queue[QUEUE_MAX];
};

static pid_t start_child(const struct analyst *analyst, const struct job *job, const char *result_path, int *ret_fd,
                         struct err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_set(err, ERR_SYSTEM, "no pipe for the analysis: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL); /* the daemon's threads block what ends a process */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDOUT_FILENO);
        setpriority(PRIO_PROCESS, 0, NICENESS);
        execl(analyst->program, "isobar-analyze", job->master_path, "-o", result_path, "--json", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return err_set(err, ERR_SYSTEM, "the analysis cannot be started: %s", strerror(errno));
    }
    *ret_fd = ends[0];
    return pid;
}

/* Everything the child prints, up to `size`; kills it when it takes too long. */
static int collect(pid_t pid, int fd, char *ret_line, size_t size, struct err *err)
{
    int64_t deadline_ns = clock_wall_ns() + ANALYSIS_S_MAX * NS_PER_S;
    size_t used = 0;
    bool is_late = false;
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        is_late = clock_wall_ns() > deadline_ns;
        if (is_late)
            kill(pid, SIGKILL);
        if (poll(&wait, 1, 200) <= 0 && !is_late)
            continue;
        char rest[256];
        bool has_room = used + 1 < size;
        ssize_t n = has_room ? read(fd, ret_line + used, size - 1 - used) : read(fd, rest, sizeof rest);
        if (n <= 0)
            break;
        used += has_room ? (size_t)n : 0;
    }
    ret_line[used] = '\0';
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (is_late)
        return err_set(err, ERR_TIMEOUT, "the analysis took longer than %d s and was ended", ANALYSIS_S_MAX);
    if (WIFSIGNALED(status))
        return err_set(err, ERR_SYSTEM, "the analysis ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static struct store_value number_or_null(double value) { return isnan(value) ? store_null() : store_real(value); }

static void report(struct analyst *analyst, const struct job *job, const char *result_path, const char *json,
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
    struct event event = inbox_event(EVENT_RESULT, reason);
    event.integer[0] = job->scan_number;
    event.integer[1] = reason[0] == '\0';
    event.value[0] = json_number(json, "tau_s");
    event.value[1] = json_number(json, "beta");
    event.value[2] = json_number(json, "contrast");
    inbox_post(analyst->inbox, &event);
}

static void analyse(struct analyst *analyst, const struct job *job)
{
    char line[LINE_MAX_BYTES] = "", result_path[1100], reason[1000] = "";
    struct err err = {0};
    const char *name = strrchr(job->master_path, '/');
    name = name ? name + 1 : job->master_path;
    const char *suffix = strstr(name, "_master.h5");
    int n = suffix ? (int)(suffix - name) : (int)strlen(name);
    snprintf(result_path, sizeof result_path, "%s/%.*s_results.hdf", analyst->results_directory, n, name);
    int fd = -1;
    pid_t pid = start_child(analyst, job, result_path, &fd, &err);
    int code = pid < 0 ? pid : collect(pid, fd, line, sizeof line, &err);
    if (fd >= 0)
        close(fd);
    if (code < 0)
        snprintf(reason, sizeof reason, "%s", err.message);
    else
        json_text(line, "reason", reason, sizeof reason);
    if (code > 0 && !reason[0])
        snprintf(reason, sizeof reason, "the analysis ended with status %d and no reason", code);
    report(analyst, job, result_path, line, reason);
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
        struct job job = analyst->queue[analyst->first];
        analyst->first = (analyst->first + 1) % QUEUE_MAX;
        analyst->n--;
        analyst->is_busy = true;
        pthread_mutex_unlock(&analyst->mutex);
        analyse(analyst, &job);
        pthread_mutex_lock(&analyst->mutex);
        analyst->is_busy = false;
    }
    pthread_mutex_unlock(&analyst->mutex);
    return NULL;
}

struct analyst *analyst_start(struct inbox *inbox, struct store *store, const char *results_directory)
{
    struct analyst *analyst = calloc(1, sizeof *analyst);
    assert(analyst);
    analyst->inbox = inbox;
    analyst->store = store;
    snprintf(analyst->results_directory, sizeof analyst->results_directory, "%s", results_directory);
    program_path("isobar-analyze", analyst->program, sizeof analyst->program);
    pthread_mutex_init(&analyst->mutex, NULL);
    pthread_cond_init(&analyst->changed, NULL);
    int code = pthread_create(&analyst->thread, NULL, run, analyst);
    assert(code == 0);
    return analyst;
}

int analyst_add(struct analyst *analyst, int64_t scan_number, const char *master_path, struct err *err)
{
    pthread_mutex_lock(&analyst->mutex);
    bool has_room = analyst->n < QUEUE_MAX;
    if (has_room) {
        struct job *job = &analyst->queue[(analyst->first + analyst->n++) % QUEUE_MAX];
        job->scan_number = scan_number;
        snprintf(job->master_path, sizeof job->master_path, "%s", master_path);
        pthread_cond_signal(&analyst->changed);
    }
    pthread_mutex_unlock(&analyst->mutex);
    return has_room ? 0
                    : err_set(err, ERR_FULL,
                              "scan %lld is not analysed: %d scans wait already; "
                              "run isobar-analyze on its master file by hand",
                              (long long)scan_number, QUEUE_MAX);
}

bool analyst_is_idle(struct analyst *analyst)
{
    pthread_mutex_lock(&analyst->mutex);
    bool is_idle = !analyst->is_busy && analyst->n == 0;
    pthread_mutex_unlock(&analyst->mutex);
    return is_idle;
}

void analyst_join(struct analyst *analyst)
{
    pthread_mutex_lock(&analyst->mutex);
    analyst->is_ended = true;
    pthread_cond_signal(&analyst->changed);
    pthread_mutex_unlock(&analyst->mutex);
    pthread_join(analyst->thread, NULL);
    pthread_cond_destroy(&analyst->changed);
    pthread_mutex_destroy(&analyst->mutex);
    free(analyst);
}
