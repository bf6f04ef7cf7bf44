#include "controller/command.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controller/request.h"

#define ANSWER_MAX COMMAND_ANSWER_MAX
#define CLIENT_MS_MAX 1000
#define DOCTOR_MS_MAX 60000 /* a database of a long night is read through */
#define WAIT_MS 100

struct command_server {
    char socket_path[108];
    char db_path[512];
    int fd;
    struct loop *loop;
    pthread_t thread;
    _Atomic bool is_ended;
};

static int make_address(struct sockaddr_un *ret_address, const char *socket_path, struct err *err)
{
    memset(ret_address, 0, sizeof *ret_address);
    ret_address->sun_family = AF_UNIX;
    if (strlen(socket_path) >= sizeof ret_address->sun_path)
        return err_set(err, ERR_SYSTEM, "command socket %s refused: a path of at most %zu bytes is possible",
                       socket_path, sizeof ret_address->sun_path - 1);
    memcpy(ret_address->sun_path, socket_path, strlen(socket_path) + 1);
    return 0;
}

/* Up to the first newline, or to the end, whose last newline is taken off; false when nothing comes in time. */
static bool read_text(int fd, bool is_line, int wait_ms, char *ret_line, size_t size)
{
    size_t used = 0;
    while (used + 1 < size) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, wait_ms) <= 0)
            return false;
        ssize_t n = read(fd, ret_line + used, size - 1 - used);
        if (n <= 0)
            break;
        used += (size_t)n;
        if (is_line && memchr(ret_line, '\n', used))
            break;
    }
    ret_line[used] = '\0';
    if (is_line)
        ret_line[strcspn(ret_line, "\n")] = '\0';
    else if (used > 0 && ret_line[used - 1] == '\n')
        ret_line[used - 1] = '\0';
    return used > 0;
}

static void answer(struct command_server *server, const char *line, char *ret_text, size_t size)
{
    static const struct {
        enum event_command command;
        const char *answer;
    } commands[REQUEST_KIND_COUNT] = {
        [REQUEST_HOLD] = {COMMAND_HOLD, "hold: asked for; `isobar resume` ends it"},
        [REQUEST_RESUME] = {COMMAND_RESUME, "resume: asked for"},
        [REQUEST_STOP] = {COMMAND_STOP, "stop: the run ends as soon as the cell is left in a safe state"},
    };
    struct request request;
    struct err err = {0};
    if (request_parse(&request, line, &err)) {
        snprintf(ret_text, size, "%s", err.message);
    } else if (request.kind == REQUEST_STATUS) {
        char text[ANSWER_MAX], json[ANSWER_MAX];
        loop_status(server->loop, text, sizeof text, json, sizeof json);
        snprintf(ret_text, size, "%s", request.is_json ? json : text);
    } else if (request.kind == REQUEST_DOCTOR) {
        static struct doctor_report report; /* one client at a time */
        loop_doctor(server->loop, server->db_path, &report);
        doctor_print(&report, request.is_json, ret_text, size);
    } else {
        loop_command(server->loop, commands[request.kind].command);
        snprintf(ret_text, size, "%s", commands[request.kind].answer);
    }
}

static void serve(struct command_server *server, int client)
{
    char request[REQUEST_SIZE_MAX], text[ANSWER_MAX];
    if (!read_text(client, true, CLIENT_MS_MAX, request, sizeof request))
        return;
    answer(server, request, text, sizeof text - 1);
    size_t n = strlen(text);
    text[n++] = '\n';
    if (send(client, text, n, MSG_NOSIGNAL) < 0)
        return; /* the client has gone: nothing is lost by it */
}

static void *run(void *argument)
{
    struct command_server *server = argument;
    while (!server->is_ended) {
        struct pollfd wait = {.fd = server->fd, .events = POLLIN};
        if (poll(&wait, 1, WAIT_MS) <= 0)
            continue;
        int client = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        serve(server, client);
        close(client);
    }
    return NULL;
}

int command_server_start(struct command_server **ret_server, const char *db_path, struct loop *loop, struct err *err)
{
    struct sockaddr_un address;
    char socket_path[600];
    snprintf(socket_path, sizeof socket_path, "%s.sock", db_path);
    int code = make_address(&address, socket_path, err);
    if (code)
        return code;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(socket_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0) {
        code = err_set(err, ERR_SYSTEM, "command socket %s cannot be made: %s", socket_path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return code;
    }
    struct command_server *server = calloc(1, sizeof *server);
    assert(server);
    server->fd = fd;
    server->loop = loop;
    snprintf(server->db_path, sizeof server->db_path, "%s", db_path);
    snprintf(server->socket_path, sizeof server->socket_path, "%s", socket_path);
    code = pthread_create(&server->thread, NULL, run, server);
    assert(code == 0);
    *ret_server = server;
    return 0;
}

void command_server_join(struct command_server *server)
{
    server->is_ended = true;
    pthread_join(server->thread, NULL);
    close(server->fd);
    unlink(server->socket_path);
    free(server);
}

int command_ask(const char *socket_path, const char *request, char *ret_answer, size_t size, struct err *err)
{
    struct sockaddr_un address;
    int code = make_address(&address, socket_path, err);
    if (code)
        return code;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, ERR_SYSTEM, "no socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        code =
            err_set(err, ERR_LINK, "no daemon answers at %s (%s); is a run under way?", socket_path, strerror(errno));
    } else {
        char line[REQUEST_SIZE_MAX];
        int wait_ms = strncmp(request, request_word(REQUEST_DOCTOR), strlen(request_word(REQUEST_DOCTOR))) == 0
                          ? DOCTOR_MS_MAX
                          : CLIENT_MS_MAX;
        int n = snprintf(line, sizeof line, "%s\n", request);
        if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n || !read_text(fd, false, wait_ms, ret_answer, size))
            code = err_set(err, ERR_TIMEOUT, "the daemon at %s gave no answer within %d ms", socket_path, wait_ms);
    }
    close(fd);
    return code;
}
