/* The devices that stand in for GPUs and NVSwitches.

   A GPU is QEMU's `edu`: registers that identify it, one that computes factorials, and DMA between memory and a
   buffer of its own. It takes 100 ms for a transfer, whatever the length, so all GPUs transfer at the same time: 16
   of them take as long as one. An NVSwitch is QEMU's `pci-testdev`, which is only looked at. */

#include "serial.h"
#include "stand_ins.h"
#include "timer.h"

#define IDENTIFICATION 0x010000ed

enum {
    STAND_INS_LIMIT = 64,
    GPUS_LIMIT = 32,
    /* Half of the device's buffer: older versions of QEMU abort on a transfer that ends where the buffer ends. */
    TRANSFER_BYTES = 2048,
    TRANSFER_WORDS = TRANSFER_BYTES / 4,
    DEVICE_BUFFER = 0x40000,
    COMPUTE_TICKS_LIMIT = 1000,
    TRANSFER_TICKS_LIMIT = 1000,
    /* Registers, in words. */
    REGISTER_IDENTIFICATION = 0x00 / 4,
    REGISTER_FACTORIAL = 0x08 / 4,
    REGISTER_STATUS = 0x20 / 4,
    REGISTER_DMA_SOURCE = 0x80 / 4,
    REGISTER_DMA_TARGET = 0x88 / 4,
    REGISTER_DMA_BYTES = 0x90 / 4,
    REGISTER_DMA_COMMAND = 0x98 / 4,
    STATUS_COMPUTING = 0x01,
    DMA_RUN = 0x01,
    DMA_TO_MEMORY = 0x02,
};

enum kind { KIND_GPU, KIND_SWITCH };
enum outcome { OUTCOME_FAIL, OUTCOME_OK, OUTCOME_UNREACHABLE };

static const char *const outcome_names[] = {"FAIL", "ok", "unreachable"};

struct stand_in {
    pci_function function;
    uint32_t id;
    enum kind kind;
    volatile uint32_t *registers; /* null if they are out of reach */
    uint32_t identification;
    enum outcome compute;
    enum outcome dma;
    bool is_transferring;
    uint32_t *sent;
    uint32_t *received;
};

static const struct {
    uint32_t id; /* device above vendor */
    enum kind kind;
} known[] = {
    {0x11e81234, KIND_GPU},    /* edu */
    {0x1db810de, KIND_GPU},    /* the same, made to look like a V100 */
    {0x00051b36, KIND_SWITCH}, /* pci-testdev */
    {0x1ac210de, KIND_SWITCH}, /* the same, made to look like an NVSwitch */
};

static struct stand_in stand_ins[STAND_INS_LIMIT];
static uint32_t stand_ins_count;
static uint32_t gpus_count;
static uint32_t buffers[GPUS_LIMIT][2][TRANSFER_WORDS] __attribute__((section(".buffers")));

static void note(pci_function function, uint32_t id, enum kind kind)
{
    if (stand_ins_count == STAND_INS_LIMIT || (kind == KIND_GPU && gpus_count == GPUS_LIMIT)) {
        serial_print_string("fault what=too-many-stand-ins");
        return;
    }
    struct stand_in *noted = &stand_ins[stand_ins_count++];
    *noted = (struct stand_in){.function = function, .id = id, .kind = kind};
    if (kind == KIND_GPU) {
        noted->sent = buffers[gpus_count][0];
        noted->received = buffers[gpus_count][1];
        gpus_count++;
    }
}

void stand_ins_note(pci_function function, uint32_t id)
{
    for (unsigned at = 0; at < sizeof known / sizeof *known; at++)
        if (id == known[at].id)
            note(function, id, known[at].kind);
}

static uint32_t factorial(uint32_t number) { return number < 2 ? 1 : number * factorial(number - 1); }

static enum outcome try_compute(struct stand_in *gpu)
{
    uint32_t number = 5 + (gpu->function >> 3) % 8; /* up to 12, whose factorial still fits */
    gpu->registers[REGISTER_FACTORIAL] = number;
    /* By time, not by looks: it computes in a thread of QEMU, which on a busy machine may wait for its turn. */
    for (int tick = 0; gpu->registers[REGISTER_STATUS] & STATUS_COMPUTING; tick++) {
        if (tick == COMPUTE_TICKS_LIMIT)
            return OUTCOME_FAIL;
        timer_sleep();
    }
    return gpu->registers[REGISTER_FACTORIAL] == factorial(number) ? OUTCOME_OK : OUTCOME_FAIL;
}

static void identify(struct stand_in *gpu)
{
    pci_enable(gpu->function);
    gpu->registers = (volatile uint32_t *)pci_bar(gpu->function, 0);
    if (!gpu->registers) {
        gpu->compute = gpu->dma = OUTCOME_UNREACHABLE;
        return;
    }
    gpu->identification = gpu->registers[REGISTER_IDENTIFICATION];
    if (gpu->identification == IDENTIFICATION)
        gpu->compute = try_compute(gpu);
}

/* No two GPUs have the same word at the same place, and no GPU has a word twice. */
static uint32_t pattern(const struct stand_in *gpu, uint32_t word)
{
    return (uint32_t)gpu->function << 16 ^ word * 0x9e3779b1u ^ 0x5a5a0000u;
}

static void fill_buffers(struct stand_in *gpu)
{
    for (uint32_t word = 0; word < TRANSFER_WORDS; word++) {
        gpu->sent[word] = pattern(gpu, word);
        gpu->received[word] = 0;
    }
}

static void start_transfer(struct stand_in *gpu, uint32_t source, uint32_t target, uint32_t direction)
{
    order_memory();
    gpu->registers[REGISTER_DMA_SOURCE] = source;
    gpu->registers[REGISTER_DMA_TARGET] = target;
    gpu->registers[REGISTER_DMA_BYTES] = TRANSFER_BYTES;
    gpu->registers[REGISTER_DMA_COMMAND] = DMA_RUN | direction;
    gpu->is_transferring = true;
}

static bool is_any_transferring(void)
{
    bool is_any = false;
    for (uint32_t at = 0; at < stand_ins_count; at++) {
        struct stand_in *gpu = &stand_ins[at];
        if (gpu->is_transferring)
            gpu->is_transferring = gpu->registers[REGISTER_DMA_COMMAND] & DMA_RUN;
        is_any |= gpu->is_transferring;
    }
    return is_any;
}

static void wait_for_transfers(void)
{
    for (int tick = 0; tick < TRANSFER_TICKS_LIMIT && is_any_transferring(); tick++)
        timer_sleep();
    order_memory();
}

static bool can_transfer(const struct stand_in *gpu)
{
    return gpu->kind == KIND_GPU && gpu->identification == IDENTIFICATION && !gpu->is_transferring;
}

static enum outcome compare(const struct stand_in *gpu)
{
    for (uint32_t word = 0; word < TRANSFER_WORDS; word++)
        if (gpu->received[word] != pattern(gpu, word))
            return OUTCOME_FAIL;
    return OUTCOME_OK;
}

/* Memory to device, device to memory, compare. One that never ends the first leg is left out of the second. */
static void try_dma(void)
{
    for (uint32_t at = 0; at < stand_ins_count; at++)
        if (can_transfer(&stand_ins[at])) {
            fill_buffers(&stand_ins[at]);
            start_transfer(&stand_ins[at], (uint32_t)stand_ins[at].sent, DEVICE_BUFFER, 0);
        }
    wait_for_transfers();
    for (uint32_t at = 0; at < stand_ins_count; at++)
        if (can_transfer(&stand_ins[at]))
            start_transfer(&stand_ins[at], DEVICE_BUFFER, (uint32_t)stand_ins[at].received, DMA_TO_MEMORY);
    wait_for_transfers();
    for (uint32_t at = 0; at < stand_ins_count; at++)
        if (can_transfer(&stand_ins[at]))
            stand_ins[at].dma = compare(&stand_ins[at]);
}

static void print_gpu(struct text *line, const struct stand_in *gpu)
{
    text_put(line, " kind=gpu ident=");
    if (gpu->registers)
        text_put_hex(line, gpu->identification, 8);
    else
        text_put(line, outcome_names[OUTCOME_UNREACHABLE]);
    text_put(line, " compute=");
    text_put(line, outcome_names[gpu->compute]);
    text_put(line, " dma=");
    text_put(line, outcome_names[gpu->dma]);
}

static void print(const struct stand_in *stand_in)
{
    static struct text line;
    text_clear(&line);
    text_put(&line, "pci ");
    text_put_pci(&line, stand_in->function);
    text_put_char(&line, ' ');
    text_put_hex(&line, stand_in->id & 0xffff, 4);
    text_put_char(&line, ':');
    text_put_hex(&line, stand_in->id >> 16, 4);
    text_put(&line, " class=");
    text_put_hex(&line, pci_read32(stand_in->function, PCI_CLASS) >> 8, 6);
    if (stand_in->kind == KIND_GPU)
        print_gpu(&line, stand_in);
    else
        text_put(&line, " kind=nvswitch");
    serial_print(&line);
}

void stand_ins_try(void)
{
    for (uint32_t at = 0; at < stand_ins_count; at++)
        if (stand_ins[at].kind == KIND_GPU)
            identify(&stand_ins[at]);
    try_dma();
    for (uint32_t at = 0; at < stand_ins_count; at++)
        print(&stand_ins[at]);
}

void stand_ins_print_summary(uint32_t boots)
{
    uint32_t dma_ok = 0;
    for (uint32_t at = 0; at < stand_ins_count; at++)
        dma_ok += stand_ins[at].dma == OUTCOME_OK;
    static struct text line;
    text_clear(&line);
    text_put(&line, "summary gpus=");
    text_put_decimal(&line, gpus_count);
    text_put(&line, " switches=");
    text_put_decimal(&line, stand_ins_count - gpus_count);
    text_put(&line, " dma_ok=");
    text_put_decimal(&line, dma_ok);
    text_put(&line, " boots=");
    text_put_decimal(&line, boots);
    serial_print(&line);
}
