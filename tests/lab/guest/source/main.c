/* What the guest does, in order: say that it has booted, try every stand-in, open the agent's channel, say that it
   is ready, and wait, asleep but for a look now and then, until it is told to go. */

#include "agent.h"
#include "channel.h"
#include "firmware.h"
#include "power.h"
#include "serial.h"
#include "stand_ins.h"
#include "timer.h"

enum {
    FLAG_DEAF = 0x01, /* to the power button */
    /* While it boots somebody waits. Later, many such guests share a few cores: each tick costs all of them. */
    BOOTING_HZ = 100,
    IDLE_HZ = 20,
    CHANNEL_TICKS_LIMIT = 20,
};

/* The state sector; boot.S holds it, build.py knows its place on the disk. */
struct boot_state {
    char magic[8];
    uint32_t boots;
    uint8_t flags;
};

void guest_main(const struct boot_state *state, uint32_t is_write_refused);

static void print_booted(const struct boot_state *state, bool is_write_refused)
{
    static struct text line;
    text_clear(&line);
    text_put(&line, "booted boots=");
    text_put_decimal(&line, state->boots);
    text_put(&line, " vcpus=");
    text_put_decimal(&line, firmware_processors());
    text_put(&line, " memory_mib=");
    text_put_decimal(&line, firmware_memory_mib());
    serial_print(&line);
    if (is_write_refused)
        serial_print_string("fault what=disk-write");
}

static void note_function(pci_function function, uint32_t id)
{
    stand_ins_note(function, id);
    channel_note(function, id);
}

static void open_channel(void)
{
    bool is_there = channel_start();
    for (int tick = 0; is_there && !channel_is_open() && tick < CHANNEL_TICKS_LIMIT; tick++) {
        channel_poll();
        if (!channel_is_open())
            timer_sleep();
    }
    serial_print_string(channel_is_open() ? "agent open" : "agent absent");
}

static void look_at_button(bool is_deaf)
{
    if (!power_take_button())
        return;
    if (is_deaf) {
        serial_print_string("button ignored");
        return;
    }
    serial_print_string("button");
    power_off();
}

void guest_main(const struct boot_state *state, uint32_t is_write_refused)
{
    serial_start();
    print_booted(state, is_write_refused);
    interrupts_start();
    timer_start(BOOTING_HZ);
    if (!power_start())
        serial_print_string("fault what=no-power-management");
    pci_scan(note_function);
    stand_ins_try();
    stand_ins_print_summary(state->boots);
    open_channel();
    timer_start(IDLE_HZ);
    serial_print_string("ready");
    for (;;) {
        look_at_button(state->flags & FLAG_DEAF);
        agent_poll();
        timer_sleep();
    }
}
