/* The timer: PIT, PIC and the IDT that leads to interrupts.S. */

#include "serial.h"
#include "timer.h"

enum {
    PIT_HZ = 1193182,
    PIT_CHANNEL_0 = 0x40,
    PIT_COMMAND = 0x43,
    PIT_RATE_GENERATOR = 0x34,
    PIC_FIRST = 0x20,
    PIC_SECOND = 0xa0,
    PIC_INITIALISE = 0x11,
    PIC_8086_MODE = 0x01,
    FIRST_VECTOR = 0x20,
    VECTORS = FIRST_VECTOR + 16,
    CODE_SEGMENT = 0x08,
    INTERRUPT_GATE = 0x8e00,
};

struct gate {
    uint16_t offset_low;
    uint16_t segment;
    uint16_t kind;
    uint16_t offset_high;
};

volatile uint32_t ticks;
static struct gate gates[VECTORS];

void on_tick(void);
void on_spurious(void);
void on_fault(void);

_Noreturn void fault_seen(void)
{
    serial_print_string("fault what=processor");
    stop_forever();
}

static void set_gate(int vector, void (*entry)(void))
{
    uint32_t offset = (uint32_t)entry;
    gates[vector] = (struct gate){(uint16_t)offset, CODE_SEGMENT, INTERRUPT_GATE, (uint16_t)(offset >> 16)};
}

/* Lines 0..7 become vectors 0x20..0x27, beyond the processor's own; all but the timer's are masked. */
static void start_controllers(void)
{
    outb(PIC_FIRST, PIC_INITIALISE);
    outb(PIC_SECOND, PIC_INITIALISE);
    outb(PIC_FIRST + 1, FIRST_VECTOR);
    outb(PIC_SECOND + 1, FIRST_VECTOR + 8);
    outb(PIC_FIRST + 1, 1 << 2); /* the second one hangs on line 2 */
    outb(PIC_SECOND + 1, 2);
    outb(PIC_FIRST + 1, PIC_8086_MODE);
    outb(PIC_SECOND + 1, PIC_8086_MODE);
    outb(PIC_FIRST + 1, 0xfe);
    outb(PIC_SECOND + 1, 0xff);
}

void interrupts_start(void)
{
    for (int vector = 0; vector < VECTORS; vector++)
        set_gate(vector, vector < FIRST_VECTOR ? on_fault : on_spurious);
    set_gate(FIRST_VECTOR, on_tick);
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } table = {sizeof gates - 1, (uint32_t)gates};
    __asm__ volatile("lidt %0" : : "m"(table) : "memory");
    start_controllers();
}

void timer_start(uint32_t rate_hz)
{
    uint32_t divisor = PIT_HZ / rate_hz;
    outb(PIT_COMMAND, PIT_RATE_GENERATOR);
    outb(PIT_CHANNEL_0, (uint8_t)divisor);
    outb(PIT_CHANNEL_0, (uint8_t)(divisor >> 8));
}

void timer_sleep(void)
{
    uint32_t before = ticks;
    while (ticks == before)
        sleep_until_interrupt();
}
