/* The guest agent: one JSON object a line, one answer for each. */

#include "agent.h"
#include "channel.h"
#include "json.h"
#include "pci.h"
#include "power.h"
#include "serial.h"

enum {
    LINE_BYTES = 4096,
    PIECES_LIMIT = 64, /* in one look, so that the power button is looked at too */
};

/* The byte that is in no JSON: it ends whatever was being said, on both sides. */
static const char delimiter = (char)0xff;

struct command {
    const char *name;
    void (*answer)(struct text *reply, const char *arguments);
};

static char line[LINE_BYTES];
static uint32_t line_length;
static bool is_line_too_long;

static void answer_error(struct text *reply, const char *description)
{
    text_put(reply, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"");
    text_put(reply, description);
    text_put(reply, "\"}}");
}

static void answer_sync(struct text *reply, const char *arguments)
{
    const char *id = json_member(arguments, "id");
    const char *end = id ? json_end(id) : NULL;
    if (!end) {
        answer_error(reply, "there is no id");
        return;
    }
    text_put(reply, "{\"return\":");
    text_put_span(reply, id, end); /* as it came: it may have 64 bits */
    text_put_char(reply, '}');
}

static void answer_sync_delimited(struct text *reply, const char *arguments)
{
    text_put_char(reply, delimiter);
    answer_sync(reply, arguments);
}

static void answer_nothing(struct text *reply, const char *arguments)
{
    (void)arguments;
    text_put(reply, "{\"return\":{}}");
}

static void answer_interfaces(struct text *reply, const char *arguments)
{
    (void)arguments;
    text_put(reply, "{\"return\":[]}");
}

static void answer_shutdown(struct text *reply, const char *arguments)
{
    (void)reply; /* success has no answer: the machine is gone */
    if (json_is_string(json_member(arguments, "mode"), "reboot")) {
        serial_print_string("agent reboot");
        power_reset();
    }
    serial_print_string("agent shutdown");
    power_off();
}

static void answer_exec(struct text *reply, const char *arguments)
{
    static struct text warning;
    text_clear(&warning);
    text_put(&warning, "warned ");
    json_put_string(&warning, json_last_item(json_member(arguments, "arg")));
    serial_print(&warning);
    text_put(reply, "{\"return\":{\"pid\":1}}");
}

static void answer_exec_status(struct text *reply, const char *arguments)
{
    (void)arguments;
    text_put(reply, "{\"return\":{\"exited\":true,\"exitcode\":0}}");
}

/* The one file that this guest has: its PCI functions, as Linux lists them, without the columns that nobody reads. */
static const char devices_path[] = "/proc/bus/pci/devices";
static struct text devices;

static void list_device(pci_function function, uint32_t id)
{
    text_put_hex(&devices, function, 4);
    text_put_char(&devices, '\t');
    text_put_hex(&devices, id & 0xffff, 4);
    text_put_hex(&devices, id >> 16, 4);
    text_put(&devices, "\t0\n");
}

static void put_base64(struct text *reply, const struct text *content)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (uint32_t at = 0; at < content->length; at += 3) {
        uint32_t left = content->length - at, bits = 0;
        for (uint32_t byte = 0; byte < 3; byte++)
            bits = bits << 8 | (byte < left ? (uint8_t)content->bytes[at + byte] : 0);
        for (uint32_t digit = 0; digit < 4; digit++)
            text_put_char(reply, digit <= left ? digits[bits >> (18 - 6 * digit) & 63] : '=');
    }
}

static void answer_file_open(struct text *reply, const char *arguments)
{
    if (!json_is_string(json_member(arguments, "path"), devices_path)) {
        answer_error(reply, "failed to open file: No such file or directory");
        return;
    }
    text_clear(&devices);
    pci_scan(list_device);
    text_put(reply, "{\"return\":1}");
}

static void answer_file_read(struct text *reply, const char *arguments)
{
    (void)arguments;
    text_put(reply, "{\"return\":{\"count\":");
    text_put_decimal(reply, devices.length);
    text_put(reply, ",\"buf-b64\":\"");
    put_base64(reply, &devices);
    text_put(reply, "\",\"eof\":true}}");
    text_clear(&devices); /* read to its end */
}

static void answer_info(struct text *reply, const char *arguments);

static const struct command commands[] = {
    {"guest-sync", answer_sync},
    {"guest-sync-delimited", answer_sync_delimited},
    {"guest-ping", answer_nothing},
    {"guest-info", answer_info},
    {"guest-shutdown", answer_shutdown},
    {"guest-exec", answer_exec},
    {"guest-exec-status", answer_exec_status},
    {"guest-network-get-interfaces", answer_interfaces},
    {"guest-file-open", answer_file_open},
    {"guest-file-read", answer_file_read},
    {"guest-file-close", answer_nothing},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void answer_info(struct text *reply, const char *arguments)
{
    (void)arguments;
    text_put(reply, "{\"return\":{\"version\":\"7.2.0\",\"supported_commands\":[");
    for (int at = 0; at < COMMANDS; at++) {
        text_put(reply, at ? ",{\"name\":\"" : "{\"name\":\"");
        text_put(reply, commands[at].name);
        text_put(reply, "\",\"enabled\":true,\"success-response\":");
        text_put(reply, commands[at].answer == answer_shutdown ? "false}" : "true}");
    }
    text_put(reply, "]}}");
}

static void answer_unknown(struct text *reply, const char *name)
{
    text_put(reply, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command ");
    if (json_end(name))
        text_put_span(reply, name + 1, json_end(name) - 1); /* escapes stay as they came */
    text_put(reply, " has not been found\"}}");
}

static void answer(struct text *reply, const char *request)
{
    const char *name = json_member(request, "execute");
    if (!name || *name != '"') {
        answer_error(reply, "this is no command");
        return;
    }
    for (int at = 0; at < COMMANDS; at++)
        if (json_is_string(name, commands[at].name)) {
            commands[at].answer(reply, json_member(request, "arguments"));
            return;
        }
    answer_unknown(reply, name);
}

static void handle_line(void)
{
    static struct text reply;
    line[line_length] = 0;
    text_clear(&reply);
    answer(&reply, is_line_too_long ? "" : line);
    text_put_char(&reply, '\n');
    channel_send(&reply);
}

static void start_line(void)
{
    line_length = 0;
    is_line_too_long = false;
}

static void handle_byte(char byte)
{
    if (byte == delimiter) {
        start_line();
    } else if (byte == '\n') {
        if (line_length > 0)
            handle_line();
        start_line();
    } else if (line_length < LINE_BYTES - 1) {
        line[line_length++] = byte;
    } else {
        is_line_too_long = true;
    }
}

void agent_poll(void)
{
    static char piece[CHANNEL_PIECE_BYTES];
    channel_poll();
    for (int pieces = 0; pieces < PIECES_LIMIT; pieces++) {
        uint32_t length = channel_receive(piece);
        if (length == 0)
            return;
        for (uint32_t at = 0; at < length; at++)
            handle_byte(piece[at]);
    }
}
