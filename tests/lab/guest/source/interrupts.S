/* Interrupt entries: the timer's tick, what may be forgotten, and faults, which end the guest with a line that says
   so.

   They come back by a far return, which leaves interrupts off, as sleep_until_interrupt() wants them anyway: where
   KVM has to emulate every instruction of a guest, it knows iret in real mode alone. */

        .set FLAGS_BYTES, 4

        .text
        .code32

        .globl on_tick
on_tick:
        incl    ticks
        pushl   %eax
        movb    $0x20, %al                      /* end of interrupt, to the first controller */
        outb    %al, $0x20
        popl    %eax
        lret    $FLAGS_BYTES

/* All other lines are masked; a controller that loses a request reports this one, which wants no answer. */
        .globl on_spurious
on_spurious:
        lret    $FLAGS_BYTES

        .globl on_fault
on_fault:
        call    fault_seen

        .section .note.GNU-stack, "", @progbits
