/*
 * Parser: what a Modbus device answers, through libmodbus, the register maps and the judgement of drivers/membrane, as
 * an EL-PRESS and as an Alicat. Input: one byte chooses the device, then the answers one after the other: a byte says
 * whether the answer is well framed (the registers that were asked for follow), an exception, or raw bytes; when the
 * input is used up the peer hangs up. Property: what is accepted lies within the limits that drivers/membrane.h states,
 * and nothing is accepted after the wire has gone wrong without the device having been checked again.
 */
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/alicat.h"
#include "drivers/elpress.h"
#include "drivers/membrane.h"
#include "tests/fuzz.h"

#define CAPACITY_BAR 200.0f
#define PDU_MAX 260
enum { FRAMED, EXCEPTION = 0xfe, RAW = 0xff };

const char *const fuzz_words[] = {"\x43\x48", "\x7f\x80", "\xff\x80", "\x7f\xc0", "ba", "r ", "\x3f\x9e\x06\x51", NULL};

/* ---- the device at the other end ------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t mutex;
    const uint8_t *script; /* NULL: answers as a good device does, and writes the script of it */
    size_t size, at;
    uint8_t recorded[4096];
    size_t n_recorded;
    bool is_alicat;
    uint16_t address;
    int listener, port;
} peer = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static uint8_t next_byte(void) { return peer.at < peer.size ? peer.script[peer.at++] : 0; }

/* Registers of a device that is as it should be. */
static void good_entry(const struct registers_entry *entry, uint16_t words[REGISTERS_ENTRY_MAX])
{
    memset(words, 0, REGISTERS_ENTRY_MAX * sizeof *words);
    if (strcmp(entry->name, "CAPACITY_UNIT") == 0)
        registers_pack_string("bar", words, entry->n_registers);
    else if (strcmp(entry->name, "SIGNATURE") == 0)
        registers_pack_float(ALICAT_SIGNATURE_VALUE, REGISTERS_HIGH_FIRST, words);
    else if (strcmp(entry->name, "CAPACITY") == 0)
        registers_pack_float(CAPACITY_BAR, REGISTERS_HIGH_FIRST, words);
    else if (strcmp(entry->name, "SLOPE") == 0)
        words[0] = 30000;
    else if (entry->type == REGISTERS_F32 && strcmp(entry->name, "CAPACITY_ZERO") != 0)
        registers_pack_float(12.5f, REGISTERS_HIGH_FIRST, words);
}

static void good_registers(int address, int n, uint16_t *ret_words)
{
    const struct registers_entry *map = peer.is_alicat ? alicat_registers : elpress_registers;
    int n_entries = peer.is_alicat ? (int)ALICAT_PARAMETER_COUNT : (int)ELPRESS_PARAMETER_COUNT, n_run = 0;
    int first = registers_find_run(map, n_entries, address, n, &n_run), at = 0;
    for (int i = first; first >= 0 && i < first + n_run; at += map[i++].n_registers) {
        uint16_t words[REGISTERS_ENTRY_MAX];
        good_entry(&map[i], words);
        memcpy(ret_words + at, words, (size_t)map[i].n_registers * sizeof *words);
    }
}

static void record(const void *bytes, size_t n)
{
    if (peer.n_recorded + n > sizeof peer.recorded)
        abort();
    memcpy(peer.recorded + peer.n_recorded, bytes, n);
    peer.n_recorded += n;
}

/* Function, byte count and registers. Returns the size of the answer. */
static size_t answer_read(const uint8_t *request, uint8_t *answer)
{
    int address = request[8] << 8 | request[9], n = request[10] << 8 | request[11];
    uint16_t words[125] = {0};
    if (n > 125)
        return 0;
    if (!peer.script) {
        good_registers(address, n, words);
        record(&(uint8_t){FRAMED}, 1);
    }
    answer[8] = (uint8_t)(2 * n);
    for (int i = 0; i < n; i++) {
        answer[9 + 2 * i] = peer.script ? next_byte() : (uint8_t)(words[i] >> 8);
        answer[10 + 2 * i] = peer.script ? next_byte() : (uint8_t)words[i];
    }
    if (!peer.script)
        record(answer + 9, 2 * (size_t)n);
    return 9 + 2 * (size_t)n;
}

/* One answer into [PDU_MAX + 9]; 0 when the peer hangs up. */
static size_t answer_any(const uint8_t *request, size_t n_request, uint8_t *answer)
{
    if (peer.script && peer.at >= peer.size)
        return 0;
    uint8_t how = peer.script ? next_byte() : FRAMED;
    if (how == RAW) {
        size_t n = next_byte();
        for (size_t i = 0; i < n; i++)
            answer[i] = next_byte();
        return n;
    }
    memcpy(answer, request, n_request < 12 ? n_request : 12); /* a write is answered by its own beginning */
    size_t n = 12;
    if (how == EXCEPTION) {
        answer[7] |= 0x80;
        answer[8] = next_byte();
        n = 9;
    } else if (request[7] == 3) {
        n = answer_read(request, answer);
    } else if (!peer.script) {
        record(&(uint8_t){FRAMED}, 1);
    }
    answer[4] = (uint8_t)((n - 6) >> 8);
    answer[5] = (uint8_t)(n - 6);
    return n;
}

static void serve(int client)
{
    uint8_t request[300], answer[PDU_MAX + 9];
    for (;;) {
        if (recv(client, request, 6, MSG_WAITALL) != 6)
            return;
        size_t n = (size_t)(request[4] << 8 | request[5]);
        if (n < 6 || n > sizeof request - 6 || recv(client, request + 6, n, MSG_WAITALL) != (ssize_t)n)
            return;
        pthread_mutex_lock(&peer.mutex);
        size_t n_answer = answer_any(request, 6 + n, answer);
        pthread_mutex_unlock(&peer.mutex);
        if (n_answer == 0 || send(client, answer, n_answer, MSG_NOSIGNAL) != (ssize_t)n_answer)
            return;
    }
}

static void *peer_run(void *unused)
{
    (void)unused;
    for (;;) {
        int client = accept(peer.listener, NULL, NULL);
        if (client < 0)
            continue;
        serve(client);
        close(client);
    }
    return NULL;
}

static void peer_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    pthread_t thread;
    peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(peer.listener, (struct sockaddr *)&address, size) || listen(peer.listener, 8) ||
        getsockname(peer.listener, (struct sockaddr *)&address, &size) || pthread_create(&thread, NULL, peer_run, NULL))
        abort();
    pthread_detach(thread);
    peer.port = ntohs(address.sin_port);
}

/* ---- the driver at this end ------------------------------------------------------------------------------------ */

static void check_reading(const struct membrane_reading *reading)
{
    double capacity = reading->capacity_bar;
    FUZZ_CHECK(capacity >= 1 && capacity <= 1000, "full scale %g bar", capacity);
    FUZZ_CHECK(fabs(reading->membrane_bar) <= 1.4 * capacity, "%g bar of %g", reading->membrane_bar, capacity);
    FUZZ_CHECK(reading->membrane_bar_setpoint >= 0 && reading->membrane_bar_setpoint <= capacity, "set point %g bar",
               reading->membrane_bar_setpoint);
    FUZZ_CHECK(reading->slew_bar_per_min >= 0, "slew %g bar/min", reading->slew_bar_per_min);
}

static void drive(bool is_alicat)
{
    char address[40];
    snprintf(address, sizeof address, "tcp:127.0.0.1:%d", peer.port);
    struct membrane_settings settings = {.driver = is_alicat ? "alicat" : "bronkhorst",
                                         .address = address,
                                         .unit_id = 1,
                                         .full_scale_bar = is_alicat ? CAPACITY_BAR : 0,
                                         .membrane_bar_max = 130,
                                         .slew_bar_per_min_max = 20,
                                         .answer_ms = 50};
    struct membrane *membrane;
    struct membrane_reading reading;
    struct err err = {0};
    if (membrane_open(&membrane, &settings, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return;
    }
    for (int i = 0; i < 2; i++)
        if (membrane_read(membrane, &reading, &err) == 0)
            check_reading(&reading);
    membrane_write_slew(membrane, 5.0, &err);
    membrane_write_setpoint(membrane, 12.5, &err);
    membrane_shut(membrane, &err);
    if (membrane_read(membrane, &reading, &err) == 0)
        check_reading(&reading);
    membrane_close(membrane);
}

void fuzz_plant_seeds(void)
{
    peer_start();
    for (int i = 0; i < 2; i++) {
        peer.is_alicat = i;
        peer.n_recorded = 0;
        record(&(uint8_t){(uint8_t)i}, 1);
        drive(peer.is_alicat);
        fuzz_plant(peer.recorded, peer.n_recorded);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (peer.port == 0)
        peer_start();
    if (size < 1)
        return 0;
    pthread_mutex_lock(&peer.mutex);
    peer.script = data + 1;
    peer.size = size - 1;
    peer.at = 0;
    pthread_mutex_unlock(&peer.mutex);
    drive(data[0] & 1);
    pthread_mutex_lock(&peer.mutex);
    peer.size = peer.at = 0; /* the bytes are the caller's again */
    pthread_mutex_unlock(&peer.mutex);
    return 0;
}
