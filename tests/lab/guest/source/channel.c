/* The channel between the guest agent and the host: a driver for virtio-serial with many ports (Virtual I/O Device
   1.1, 5.3).

   The device names its ports over a pair of control queues; the one that has the agent's name is opened, and the
   host then shows the channel as connected. Other ports are left alone. */

#include "channel.h"
#include "virtio.h"

#define PORT_NAME "org.qemu.guest_agent.0"

enum {
    FEATURE_MANY_PORTS = 1,
    CONFIG_PORTS = 4,
    PORTS_LIMIT = 8, /* the agent's port is among the first; libvirt numbers them from 1 */
    CONTROL_IN = 2,
    CONTROL_OUT = 3,
    CONTROL_BYTES = 128,
    SENDING_SLOTS = 4,
    NO_PORT = 0xffffffff,
};

enum event {
    EVENT_DEVICE_READY = 0,
    EVENT_PORT_ADD = 1,
    EVENT_PORT_REMOVE = 2,
    EVENT_PORT_READY = 3,
    EVENT_PORT_OPEN = 6,
    EVENT_PORT_NAME = 7,
};

struct message {
    uint32_t port;
    uint16_t event;
    uint16_t value;
};

static const uint32_t serial_devices[] = {0x10431af4, 0x10031af4}; /* modern, transitional */

static pci_function serial_function;
static bool is_noted;
static struct virtio_device device;
static struct virtio_queue control_in, control_out;
static struct virtio_queue port_in[PORTS_LIMIT], port_out[PORTS_LIMIT];
static char control_buffers[QUEUE_SLOTS][CONTROL_BYTES];
static struct message sent_messages[QUEUE_SLOTS];
static uint32_t sent_count;
static char received[QUEUE_SLOTS][CHANNEL_PIECE_BYTES];
static char sending[SENDING_SLOTS][TEXT_BYTES];
static bool is_sending[SENDING_SLOTS];
static uint32_t ports_count;
static uint32_t agent_port;

void channel_note(pci_function function, uint32_t id)
{
    for (unsigned at = 0; at < sizeof serial_devices / sizeof *serial_devices; at++)
        if (id == serial_devices[at] && !is_noted) {
            serial_function = function;
            is_noted = true;
        }
}

static void send_message(uint32_t port, enum event event, uint16_t value)
{
    struct virtio_used done;
    while (queue_take(&control_out, &done))
        ;
    uint16_t slot = (uint16_t)(sent_count++ % QUEUE_SLOTS);
    sent_messages[slot] = (struct message){port, (uint16_t)event, value};
    queue_offer_full(&control_out, slot, &sent_messages[slot], sizeof *sent_messages);
    queue_notify(&control_out);
}

/* Ports 0 and 1 have the queues 0, 1 and 4, 5: the control queues lie between. */
static uint16_t first_queue(uint32_t port) { return (uint16_t)(port == 0 ? 0 : 2 * port + 2); }

static bool add_queues(void)
{
    if (!virtio_add_queue(&device, &control_in, CONTROL_IN) || !virtio_add_queue(&device, &control_out, CONTROL_OUT))
        return false;
    ports_count = virtio_read_specific(&device, CONFIG_PORTS);
    if (ports_count > PORTS_LIMIT)
        ports_count = PORTS_LIMIT;
    for (uint32_t port = 0; port < ports_count; port++)
        if (!virtio_add_queue(&device, &port_in[port], first_queue(port)) ||
            !virtio_add_queue(&device, &port_out[port], first_queue(port) + 1))
            return false;
    return true;
}

bool channel_start(void)
{
    agent_port = NO_PORT;
    if (!is_noted ||
        !virtio_start(&device, serial_function, 1ull << VIRTIO_FEATURE_VERSION_1 | 1ull << FEATURE_MANY_PORTS) ||
        !add_queues())
        return false;
    virtio_set_ready(&device);
    for (uint16_t slot = 0; slot < QUEUE_SLOTS; slot++)
        queue_offer_empty(&control_in, slot, control_buffers[slot], CONTROL_BYTES);
    queue_notify(&control_in);
    send_message(NO_PORT, EVENT_DEVICE_READY, 1);
    return true;
}

/* Buffers first: what the host has been waiting to say comes at once. */
static void open_port(uint32_t port)
{
    agent_port = port;
    for (uint16_t slot = 0; slot < QUEUE_SLOTS; slot++)
        queue_offer_empty(&port_in[port], slot, received[slot], CHANNEL_PIECE_BYTES);
    queue_notify(&port_in[port]);
    send_message(port, EVENT_PORT_OPEN, 1);
}

static void handle(const struct message *message, const char *name)
{
    if (message->port >= ports_count)
        return;
    if (message->event == EVENT_PORT_ADD)
        send_message(message->port, EVENT_PORT_READY, 1);
    if (message->event == EVENT_PORT_NAME && agent_port == NO_PORT && text_equals(name, PORT_NAME))
        open_port(message->port);
}

static void poll_control(void)
{
    struct virtio_used taken;
    bool has_any = false;
    while (queue_take(&control_in, &taken)) {
        char *buffer = control_buffers[taken.slot];
        struct message message;
        memcpy(&message, buffer, sizeof message);
        /* A name that fills the buffer is none of ours. QEMU's end in a zero, which the standard does not ask for. */
        buffer[taken.length < CONTROL_BYTES ? taken.length : CONTROL_BYTES - 1] = 0;
        if (taken.length >= sizeof message)
            handle(&message, buffer + sizeof message);
        queue_offer_empty(&control_in, (uint16_t)taken.slot, buffer, CONTROL_BYTES);
        has_any = true;
    }
    if (has_any)
        queue_notify(&control_in);
}

static void take_back_sent(void)
{
    struct virtio_used taken;
    while (queue_take(&port_out[agent_port], &taken))
        is_sending[taken.slot] = false;
}

void channel_poll(void)
{
    if (ports_count > 0)
        poll_control();
}

bool channel_is_open(void) { return agent_port != NO_PORT; }

uint32_t channel_receive(char *piece)
{
    struct virtio_used taken;
    if (!channel_is_open() || !queue_take(&port_in[agent_port], &taken))
        return 0;
    uint32_t length = taken.length < CHANNEL_PIECE_BYTES ? taken.length : CHANNEL_PIECE_BYTES;
    memcpy(piece, received[taken.slot], length);
    queue_offer_empty(&port_in[agent_port], (uint16_t)taken.slot, received[taken.slot], CHANNEL_PIECE_BYTES);
    queue_notify(&port_in[agent_port]);
    return length;
}

void channel_send(const struct text *answer)
{
    take_back_sent();
    for (uint16_t slot = 0; slot < SENDING_SLOTS; slot++) {
        if (is_sending[slot])
            continue;
        is_sending[slot] = true;
        memcpy(sending[slot], answer->bytes, answer->length);
        queue_offer_full(&port_out[agent_port], slot, sending[slot], answer->length);
        queue_notify(&port_out[agent_port]);
        return;
    }
}
