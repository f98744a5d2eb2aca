/* The guest agent: QEMU's guest agent protocol, as far as libvirt and Nightshift use it. */
#pragma once

/* Answer all commands that have arrived. May not return: one of them switches the machine off. */
void agent_poll(void);
