/* The power button, and switching off: ACPI's fixed registers, as the ICH9 of a q35 machine has them. */

#include "pci.h"
#include "power.h"
#include "serial.h"

enum {
    LPC_BRIDGE = 0x1f << 3,
    LPC_PM_BASE = 0x40,
    PM1_STATUS = 0,
    PM1_ENABLE = 2,
    PM1_CONTROL = 4,
    POWER_BUTTON = 1 << 8,
    /* S5 has the sleep type 0 on this machine. */
    SLEEP_S5 = 1 << 13,
    RESET_PORT = 0xcf9,
    RESET_FULL = 0x06,
};

/* Where the firmware has put the registers. */
static uint16_t pm_base;

bool power_start(void)
{
    pm_base = (uint16_t)(pci_read32(LPC_BRIDGE, LPC_PM_BASE) & 0xff80);
    if (pm_base == 0 || pm_base == 0xff80) {
        pm_base = 0;
        return false;
    }
    outw(pm_base + PM1_STATUS, POWER_BUTTON);
    outw(pm_base + PM1_ENABLE, POWER_BUTTON);
    return true;
}

bool power_take_button(void)
{
    if (!pm_base || !(inw(pm_base + PM1_STATUS) & POWER_BUTTON))
        return false;
    outw(pm_base + PM1_STATUS, POWER_BUTTON);
    return true;
}

_Noreturn void power_off(void)
{
    serial_print_string("poweroff");
    if (pm_base)
        outw(pm_base + PM1_CONTROL, SLEEP_S5);
    stop_forever();
}

_Noreturn void power_reset(void)
{
    outb(RESET_PORT, RESET_FULL);
    stop_forever();
}
