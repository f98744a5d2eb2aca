/* The timer, whose interrupt is the only one that is let in: time passes in ticks, asleep. */
#pragma once

#include "machine.h"

/* Take over the interrupt controllers and the vectors. Once, before the first sleep. */
void interrupts_start(void);
/* Tick at this rate, 19 Hz or more. May be called again for another rate. */
void timer_start(uint32_t rate_hz);
/* Sleep until the next tick. */
void timer_sleep(void);
