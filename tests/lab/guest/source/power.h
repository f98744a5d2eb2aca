/* The power button, and switching off. */
#pragma once

#include "machine.h"

/* Find the chipset's power management, and let the button be felt from now on. Return false if there is none. */
bool power_start(void);
/* Return whether the button was pressed since the last look. */
bool power_take_button(void);
/* Print that it happens, and switch the machine off. */
_Noreturn void power_off(void);
/* Start the machine anew, from its firmware. */
_Noreturn void power_reset(void);
