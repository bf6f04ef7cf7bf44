#include "controller/rehearsal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "controller/command.h"
#include "controller/interlock.h"
#include "controller/json.h"
#include "controller/program.h"
#include "controller/verdict.h"

#define PATH_MAX_BYTES 1024
#define POLL_MS 200
#define WALL_S_MAX 1500 /* a rehearsal that holds for want of an operator is stopped, and has failed */
#define STOP_S_MAX 600  /* a retreat at the wall's pace */
#define LINE_EVERY_S 10 /* of progress when the output is not a terminal */
#define ANSWER_MAX 4096

struct rehearsal {
    char directory[PATH_MAX_BYTES]; /* absolute */
    pid_t simulator, daemon;
    pid_t hands;         /* 0: none at work */
    int deed;            /* what they do: index into HANDS */
    uint32_t deeds_done; /* bits of HANDS: each is done once */
    FILE *log;           /* the daemon's, followed */
    bool is_terminal;
    int64_t shown_wall_ns;
};

static void path_in(const struct rehearsal *rehearsal, const char *name, char *ret_path, size_t size)
{
    snprintf(ret_path, size, "%s/%s", rehearsal->directory, name);
}

/* ---- the folder of artefacts --------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

/* Removes what an earlier rehearsal left, by name: nothing else that lies in the folder is touched. */
static int clear_directory(const struct rehearsal *rehearsal, struct err *err)
{
    static const char *const names[] = {
        "night.db",    "night.db-wal", "night.db-shm", "night.db.lock", "night.db.sock", "results", "raw",
        "truth.jsonl", "isobard.log",  "sim.log",      "beamline.lua",  "clock",         "world",   "servers"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_MAX_BYTES + 32];
        path_in(rehearsal, names[i], path, sizeof path);
        if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
            return err_set(err, ERR_IO, "%s of an earlier rehearsal cannot be removed: %s", path, strerror(errno));
    }
    return 0;
}

static int make_directory(struct rehearsal *rehearsal, const char *directory, struct err *err)
{
    char path[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "%s", directory);
    for (char *c = path + 1; *c; c++)
        if (*c == '/') {
            *c = '\0';
            mkdir(path, 0777);
            *c = '/';
        }
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "%s cannot be made: %s", directory, strerror(errno));
    if (!realpath(directory, rehearsal->directory))
        return err_set(err, ERR_IO, "%s cannot be used: %s", directory, strerror(errno));
    int code = clear_directory(rehearsal, err);
    if (code)
        return code;
    snprintf(path, sizeof path, "%s/raw", directory);
    return mkdir(path, 0777) == 0 ? 0 : err_set(err, ERR_IO, "%s cannot be made: %s", path, strerror(errno));
}

/* ---- processes ----------------------------------------------------------------------------------------------- */

static void redirect(const struct rehearsal *rehearsal, const char *name, int fd)
{
    char path[PATH_MAX_BYTES + 32];
    path_in(rehearsal, name, path, sizeof path);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (log >= 0) {
        dup2(log, fd);
        close(log);
    }
}

/* Root reads every file unless it gives this up: with it gone, and from the bounding set too, mode 0200 holds. */
static void drop_read_privilege(void)
{
    static const cap_value_t privileges[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH};
    if (geteuid() != 0)
        return;
    for (int i = 0; i < 2; i++)
        prctl(PR_CAPBSET_DROP, privileges[i]);
    cap_t capabilities = cap_get_proc();
    cap_set_flag(capabilities, CAP_EFFECTIVE, 2, privileges, CAP_CLEAR);
    cap_set_flag(capabilities, CAP_PERMITTED, 2, privileges, CAP_CLEAR);
    cap_set_flag(capabilities, CAP_INHERITABLE, 2, privileges, CAP_CLEAR);
    cap_set_proc(capabilities);
    cap_free(capabilities);
}

static int start_simulator(struct rehearsal *rehearsal, const struct rehearsal_settings *settings, struct err *err)
{
    int ends[2];
    char program[PATH_MAX_BYTES + 32], number[32], answer[16] = "";
    program_path("isobar-sim", program, sizeof program);
    snprintf(number, sizeof number, "%" PRIu64, settings->seed);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_set(err, ERR_SYSTEM, "no pipe for the simulator: %s", strerror(errno));
    rehearsal->simulator = fork();
    if (rehearsal->simulator == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        setpgid(0, 0); /* an interrupt at the terminal ends the daemon first */
        dup2(ends[1], STDOUT_FILENO);
        redirect(rehearsal, "sim.log", STDERR_FILENO);
        execl(program, "isobar-sim", "beamline", "--dir", rehearsal->directory, "--seed", number, "--ruby-access",
              settings->ruby_access, "--membrane", settings->membrane, "--spectrometer", settings->spectrometer,
              "--cell", settings->is_cell_open ? "open" : "closed", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], answer, sizeof answer - 1); /* it says "ready", or ends */
    close(ends[0]);
    if (n > 0 && strncmp(answer, "ready", 5) == 0)
        return 0;
    return err_set(err, ERR_SYSTEM, "the simulator did not start; see %s/sim.log", rehearsal->directory);
}

static int start_daemon(struct rehearsal *rehearsal, const struct rehearsal_settings *settings, struct err *err)
{
    char program[PATH_MAX_BYTES + 32], beamline[PATH_MAX_BYTES + 32], db[PATH_MAX_BYTES + 32],
        results[PATH_MAX_BYTES + 32], log[PATH_MAX_BYTES + 32];
    program_path("isobard", program, sizeof program);
    path_in(rehearsal, "beamline.lua", beamline, sizeof beamline);
    path_in(rehearsal, "night.db", db, sizeof db);
    path_in(rehearsal, "results", results, sizeof results);
    path_in(rehearsal, "isobard.log", log, sizeof log);
    close(open(log, O_WRONLY | O_CREAT, 0666));
    rehearsal->log = fopen(log, "re");
    rehearsal->daemon = fork();
    if (rehearsal->daemon == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        redirect(rehearsal, "isobard.log", STDOUT_FILENO);
        redirect(rehearsal, "isobard.log", STDERR_FILENO);
        setpgid(0, 0); /* an interrupt at the terminal comes once, through the rehearsal */
        drop_read_privilege();
        execl(program, "isobard", "--sequence", settings->sequence_path, "--beamline", beamline, "--db", db,
              "--results", results, settings->cell_path ? "--cell" : NULL, settings->cell_path, (char *)NULL);
        _exit(127);
    }
    return rehearsal->daemon > 0 ? 0 : err_set(err, ERR_SYSTEM, "isobard cannot be started: %s", strerror(errno));
}

/* What the person at the bench is called for, by the reason that the daemon holds for. */
static const struct hands_call {
    uint32_t reason;
    const char *deed, *words;
    bool is_resumed; /* the daemon is told when it is done; otherwise it sees that */
} HANDS[] = {
    {HOLD_PRELOAD, "preload", "the cell is closed and preloaded", true},
    {HOLD_DEFLATE, "deflate", "the cell is locked and the membrane emptied", false},
};
enum { HANDS_COUNT = sizeof HANDS / sizeof HANDS[0] };

static void start_hands(struct rehearsal *rehearsal)
{
    char program[PATH_MAX_BYTES + 32];
    program_path("isobar-sim", program, sizeof program);
    printf("%srehearsal: the daemon waits for hands: %s\n", rehearsal->is_terminal ? "\r\033[K" : "",
           HANDS[rehearsal->deed].words);
    fflush(stdout);
    rehearsal->hands = fork();
    if (rehearsal->hands != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0); /* an interrupt at the terminal ends the daemon first */
    redirect(rehearsal, "sim.log", STDERR_FILENO);
    execl(program, "isobar-sim", "hands", "--dir", rehearsal->directory, HANDS[rehearsal->deed].deed, (char *)NULL);
    _exit(127);
}

static void tend_hands(struct rehearsal *rehearsal)
{
    char socket_path[PATH_MAX_BYTES + 32], answer[ANSWER_MAX];
    int status;
    path_in(rehearsal, "night.db.sock", socket_path, sizeof socket_path);
    if (rehearsal->hands > 0 && waitpid(rehearsal->hands, &status, WNOHANG) == rehearsal->hands) {
        rehearsal->hands = 0;
        rehearsal->deeds_done |= 1u << rehearsal->deed;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            printf("\nrehearsal: the hands could not do it (%s); see sim.log\n", HANDS[rehearsal->deed].deed);
        else if (HANDS[rehearsal->deed].is_resumed)
            command_ask(socket_path, "resume", answer, sizeof answer, NULL);
    }
    if (rehearsal->hands != 0)
        return;
    if (command_ask(socket_path, "status json", answer, sizeof answer, NULL))
        return;
    double reasons = json_number(answer, "hold_reasons");
    for (int i = 0; reasons > 0.0 && i < HANDS_COUNT && rehearsal->hands == 0; i++)
        if (((uint32_t)reasons & HANDS[i].reason) && !(rehearsal->deeds_done >> i & 1)) {
            rehearsal->deed = i;
            start_hands(rehearsal);
        }
}

/* ---- what the newcomer sees ---------------------------------------------------------------------------------- */

static void show_log(struct rehearsal *rehearsal)
{
    char line[2048];
    while (rehearsal->log && fgets(line, sizeof line, rehearsal->log))
        printf("%s%s", rehearsal->is_terminal ? "\r\033[K" : "", line);
    if (rehearsal->log)
        clearerr(rehearsal->log);
}

static void show_progress(struct rehearsal *rehearsal)
{
    char socket_path[PATH_MAX_BYTES + 32], answer[ANSWER_MAX];
    int64_t wall_ns = clock_wall_ns();
    if (!rehearsal->is_terminal && wall_ns - rehearsal->shown_wall_ns < LINE_EVERY_S * NS_PER_S)
        return;
    path_in(rehearsal, "night.db.sock", socket_path, sizeof socket_path);
    if (command_ask(socket_path, "status", answer, sizeof answer, NULL))
        return;
    rehearsal->shown_wall_ns = wall_ns;
    struct winsize window;
    bool has_width = rehearsal->is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
    if (has_width && strlen(answer) >= window.ws_col)
        answer[window.ws_col - 1] = '\0'; /* a line that wraps cannot be overwritten */
    printf(rehearsal->is_terminal ? "\r\033[K%s" : "%s\n", answer);
}

static volatile sig_atomic_t n_signals;

static void count_signal(int signal_number)
{
    (void)signal_number;
    n_signals++;
}

/* Follows the daemon to its end; its exit status. */
static int follow(struct rehearsal *rehearsal)
{
    int status;
    pid_t pid;
    int64_t deadline_wall_ns = clock_wall_ns() + WALL_S_MAX * NS_PER_S;
    bool is_stopping = false;
    int n_passed_on = 0;
    while ((pid = waitpid(rehearsal->daemon, &status, WNOHANG)) == 0 || (pid < 0 && errno == EINTR)) {
        show_log(rehearsal);
        show_progress(rehearsal);
        tend_hands(rehearsal);
        fflush(stdout);
        bool is_late = clock_wall_ns() > deadline_wall_ns;
        if (is_late && !is_stopping)
            printf("\nrehearsal: no end after %d s on the wall: the run is stopped\n", WALL_S_MAX);
        if (is_late || n_signals > n_passed_on) { /* the daemon stops; asked again, at once; at last it is killed */
            kill(rehearsal->daemon, is_late && is_stopping ? SIGKILL : SIGTERM);
            n_passed_on = n_signals;
            is_stopping = true;
            deadline_wall_ns = clock_wall_ns() + STOP_S_MAX * NS_PER_S;
        }
        usleep(POLL_MS * 1000);
    }
    show_log(rehearsal);
    if (rehearsal->is_terminal)
        printf("\r\033[K");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void stop_simulator(const struct rehearsal *rehearsal)
{
    if (rehearsal->hands > 0) { /* nothing is left for them to do */
        kill(rehearsal->hands, SIGTERM);
        while (waitpid(rehearsal->hands, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    if (rehearsal->simulator <= 0)
        return;
    kill(rehearsal->simulator, SIGTERM);
    while (waitpid(rehearsal->simulator, NULL, 0) < 0 && errno == EINTR)
        continue;
}

static int judge(const struct rehearsal *rehearsal, int daemon_status, struct err *err)
{
    char db[PATH_MAX_BYTES + 32], truth[PATH_MAX_BYTES + 32];
    struct verdict verdict;
    path_in(rehearsal, "night.db", db, sizeof db);
    path_in(rehearsal, "truth.jsonl", truth, sizeof truth);
    chmod(truth, 0444);
    if (daemon_status == 2 && access(db, F_OK) != 0)
        return err_set(err, ERR_STATE, "isobard did not start; it says why above, and in %s/isobard.log",
                       rehearsal->directory);
    int code = verdict_print(db, truth, &verdict, err);
    if (code)
        return code;
    printf("  %s: night.db, results/, truth.jsonl, isobard.log\n", rehearsal->directory);
    bool is_passed = daemon_status == 0 && verdict.n_passed == verdict.n_checks;
    if (is_passed)
        printf("rehearsal: passed %d of %d checks\n", verdict.n_passed, verdict.n_checks);
    else
        printf("rehearsal: failed %d of %d checks%s\n", verdict.n_checks - verdict.n_passed, verdict.n_checks,
               daemon_status ? ", and isobard did not end well: see isobard.log" : "");
    return is_passed ? 0 : 1;
}

int rehearsal_run(const struct rehearsal_settings *settings, struct err *err)
{
    struct rehearsal rehearsal = {.is_terminal = isatty(STDOUT_FILENO)};
    int code = make_directory(&rehearsal, settings->directory, err);
    if (code)
        return code;
    printf("rehearsal of %s on simulated instruments, seed %" PRIu64 " (SEED=%" PRIu64 " repeats it)\n",
           settings->sequence_path, settings->seed, settings->seed);
    fflush(stdout);
    code = start_simulator(&rehearsal, settings, err);
    if (code == 0)
        code = start_daemon(&rehearsal, settings, err);
    if (code == 0) {
        signal(SIGINT, count_signal); /* passed on: the daemon leaves the cell safe and ends */
        signal(SIGTERM, count_signal);
        int daemon_status = follow(&rehearsal);
        stop_simulator(&rehearsal);
        code = judge(&rehearsal, daemon_status, err);
    } else {
        stop_simulator(&rehearsal);
    }
    if (rehearsal.log)
        fclose(rehearsal.log);
    return code;
}
