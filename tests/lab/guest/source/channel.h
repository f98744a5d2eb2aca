/* The channel between the guest agent and the host: the port of that name of a virtio-serial device. */
#pragma once

#include "pci.h"

/* Note the function if it is a virtio-serial device. */
void channel_note(pci_function function, uint32_t id);
/* Start the device that was noted. False: there is none that works. */
bool channel_start(void);
/* Answer what the device asks; between looks at the channel. */
void channel_poll(void);
/* Return whether the host sees the agent's end as open. */
bool channel_is_open(void);
/* Take one piece that has arrived, up to CHANNEL_PIECE_BYTES; returns its length, 0 if there is none. */
uint32_t channel_receive(char *piece);
/* Send an answer; it is lost if the host has not taken the last ones. */
void channel_send(const struct text *answer);

#define CHANNEL_PIECE_BYTES 512
