/* The serial console, COM1. Characters go out by the FIFO's depth: asking before each one would double the accesses,
   and every access leaves the emulated processor. */

#include "serial.h"

enum {
    COM1 = 0x3f8,
    DATA = COM1,
    INTERRUPT_ENABLE = COM1 + 1,
    FIFO_CONTROL = COM1 + 2,
    LINE_CONTROL = COM1 + 3,
    LINE_STATUS = COM1 + 5,
    FIFO_ENABLED_AND_CLEARED = 0x07,
    EIGHT_BITS_NO_PARITY = 0x03,
    FIFO_IS_EMPTY = 0x20,
    FIFO_BYTES = 16,
    LOOKS_LIMIT = 100000, /* nobody reads: the rest is lost, the guest goes on */
};

void serial_start(void)
{
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, EIGHT_BITS_NO_PARITY);
    outb(FIFO_CONTROL, FIFO_ENABLED_AND_CLEARED);
    /* The BIOS or an earlier boot may have left half a line. */
    serial_write("\n", 1);
}

static bool wait_for_room(void)
{
    for (int looks = 0; looks < LOOKS_LIMIT; looks++)
        if (inb(LINE_STATUS) & FIFO_IS_EMPTY)
            return true;
    return false;
}

void serial_write(const char *bytes, uint32_t length)
{
    for (uint32_t at = 0; at < length; at++) {
        if (at % FIFO_BYTES == 0 && !wait_for_room())
            return;
        outb(DATA, (uint8_t)bytes[at]);
    }
}

void serial_print(const struct text *line)
{
    /* In one piece, so that the FIFO is filled to its depth. Static, because the stack is small. */
    static struct text whole;
    text_clear(&whole);
    text_put(&whole, "GUEST ");
    text_put_span(&whole, line->bytes, line->bytes + line->length);
    if (whole.length == TEXT_BYTES)
        whole.length--;
    text_put_char(&whole, '\n');
    serial_write(whole.bytes, whole.length);
}

void serial_print_string(const char *line)
{
    static struct text text;
    text_clear(&text);
    text_put(&text, line);
    serial_print(&text);
}
