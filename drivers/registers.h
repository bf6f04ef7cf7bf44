/*
 * Register maps of Modbus devices: one entry per quantity, and the packing of values into registers. Pure.
 *
 * Addresses are those on the wire (most manuals print the register number, which is one more). A byte is the low byte
 * of one register; a float is IEEE 754 binary32 in two registers, in the device's word order; a string has two
 * characters per register. Values are packed here, because the float helpers of libmodbus differ between its versions
 * (that of Debian 12 writes 45 41 1F 85 for 12.345).
 */
#ifndef DRIVERS_REGISTERS_H
#define DRIVERS_REGISTERS_H

#include <stdbool.h>
#include <stdint.h>

enum registers_type {
    REGISTERS_U8,
    REGISTERS_U16,
    REGISTERS_U32,
    REGISTERS_F32,
    REGISTERS_STRING,
    REGISTERS_TYPE_COUNT
};

/* Which register of a float comes first: that with bits 31 to 16 (high), or that with bits 15 to 0. */
enum registers_order { REGISTERS_HIGH_FIRST, REGISTERS_LOW_FIRST, REGISTERS_ORDER_COUNT };

struct registers_entry {
    const char *name;
    uint16_t address;
    int n_registers;
    enum registers_type type;
    bool is_writable;
    uint16_t least, greatest; /* bytes and 16-bit values only */
};

#define REGISTERS_ENTRY_MAX 10 /* registers of one quantity */

void registers_pack_float(float value, enum registers_order order, uint16_t ret_registers[2]);
float registers_unpack_float(const uint16_t registers[2], enum registers_order order);
void registers_pack_u32(uint32_t value, enum registers_order order, uint16_t ret_registers[2]);
uint32_t registers_unpack_u32(const uint16_t registers[2], enum registers_order order);
/* Pads with spaces; what does not fit is cut off. */
void registers_pack_string(const char *text, uint16_t *ret_registers, int n_registers);
/* Trailing spaces and NULs are dropped. ret_text: [2 * n_registers + 1]. */
void registers_unpack_string(const uint16_t *registers, int n_registers, char *ret_text);

/* First entry of a request for `n_registers` from `address` on, when that is a run of whole entries of the ascending
 * map without a gap; negative otherwise (a device answers exception 2). `ret_n_run` is their count. */
int registers_find_run(const struct registers_entry *map, int n_entries, int address, int n_registers, int *ret_n_run);

#endif
