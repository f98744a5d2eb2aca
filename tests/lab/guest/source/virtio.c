/* Modern virtio over PCI (Virtual I/O Device 1.1, 4.1).

   Firmware puts 64-bit BARs above 4 GiB in machines with much memory, where this guest does not reach. Each device
   has a window in configuration space for that case: slow, but a few hundred accesses are all that is needed. */

#include "virtio.h"

enum {
    CAPABILITY_VENDOR = 0x09,
    CAPABILITIES_LIMIT = 48, /* that many fit; a broken list must not hold us */
    KIND_COMMON = 1,
    KIND_NOTIFY = 2,
    KIND_SPECIFIC = 4,
    KIND_WINDOW = 5,
    /* Offsets in a capability. */
    CAPABILITY_KIND = 3,
    CAPABILITY_BAR = 4,
    CAPABILITY_OFFSET = 8,
    CAPABILITY_LENGTH = 12,
    CAPABILITY_NOTIFY_STRIDE = 16,
    CAPABILITY_WINDOW_DATA = 16,
    /* Offsets in the common registers. */
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    DEVICE_STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_PLACE = 0x1e,
    QUEUE_DESCRIPTORS = 0x20,
    QUEUE_AVAILABLE = 0x28,
    QUEUE_USED = 0x30,
    STATUS_ACKNOWLEDGED = 0x01,
    STATUS_DRIVER = 0x02,
    STATUS_READY = 0x04,
    STATUS_FEATURES_OK = 0x08,
    RESET_LOOKS_LIMIT = 100000,
    NO_INTERRUPT = 1,
    DEVICE_WRITES = 2,
};

static void aim_window(
    const struct virtio_device *device, const struct virtio_region *region, uint32_t offset, int size)
{
    pci_write8(device->function, device->window + CAPABILITY_BAR, region->bar);
    pci_write32(device->function, device->window + CAPABILITY_OFFSET, region->offset + offset);
    pci_write32(device->function, device->window + CAPABILITY_LENGTH, (uint32_t)size);
}

static uint32_t read_register(
    const struct virtio_device *device, const struct virtio_region *region, uint32_t offset, int size)
{
    uint32_t value;
    if (!region->memory) {
        aim_window(device, region, offset, size);
        value = pci_read32(device->function, device->window + CAPABILITY_WINDOW_DATA);
    } else if (size == 1) {
        value = *(volatile uint8_t *)(region->memory + offset);
    } else if (size == 2) {
        value = *(volatile uint16_t *)(region->memory + offset);
    } else {
        value = *(volatile uint32_t *)(region->memory + offset);
    }
    return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

static void write_register(
    const struct virtio_device *device, const struct virtio_region *region, uint32_t offset, int size, uint32_t value)
{
    if (!region->memory) {
        aim_window(device, region, offset, size);
        pci_write32(device->function, device->window + CAPABILITY_WINDOW_DATA, value);
    } else if (size == 1) {
        *(volatile uint8_t *)(region->memory + offset) = (uint8_t)value;
    } else if (size == 2) {
        *(volatile uint16_t *)(region->memory + offset) = (uint16_t)value;
    } else {
        *(volatile uint32_t *)(region->memory + offset) = value;
    }
}

static uint32_t read_common(const struct virtio_device *device, uint32_t offset, int size)
{
    return read_register(device, &device->common, offset, size);
}

static void write_common(const struct virtio_device *device, uint32_t offset, int size, uint32_t value)
{
    write_register(device, &device->common, offset, size, value);
}

static struct virtio_region read_region(pci_function function, uint8_t capability)
{
    struct virtio_region region = {.bar = pci_read8(function, capability + CAPABILITY_BAR)};
    region.offset = pci_read32(function, capability + CAPABILITY_OFFSET);
    uint32_t bar = pci_bar(function, region.bar);
    region.memory = bar ? bar + region.offset : 0;
    return region;
}

/* Of each kind the first capability is the one that the device prefers. */
static void note_capability(struct virtio_device *device, uint8_t capability, uint32_t *kinds)
{
    uint8_t kind = pci_read8(device->function, capability + CAPABILITY_KIND);
    if (kind > KIND_WINDOW || *kinds & 1u << kind)
        return;
    *kinds |= 1u << kind;
    if (kind == KIND_COMMON)
        device->common = read_region(device->function, capability);
    if (kind == KIND_SPECIFIC)
        device->specific = read_region(device->function, capability);
    if (kind == KIND_WINDOW)
        device->window = capability;
    if (kind == KIND_NOTIFY) {
        device->notify = read_region(device->function, capability);
        device->notify_stride = pci_read32(device->function, capability + CAPABILITY_NOTIFY_STRIDE);
    }
}

static bool find_registers(struct virtio_device *device)
{
    const uint32_t needed = 1 << KIND_COMMON | 1 << KIND_NOTIFY | 1 << KIND_SPECIFIC;
    uint32_t kinds = 0;
    uint8_t capability = pci_read8(device->function, PCI_CAPABILITIES) & 0xfc;
    for (int seen = 0; capability && seen < CAPABILITIES_LIMIT; seen++) {
        if (pci_read8(device->function, capability) == CAPABILITY_VENDOR)
            note_capability(device, capability, &kinds);
        capability = pci_read8(device->function, capability + 1) & 0xfc;
    }
    bool is_all_in_reach = device->common.memory && device->notify.memory && device->specific.memory;
    return (kinds & needed) == needed && (is_all_in_reach || device->window);
}

static bool reset(const struct virtio_device *device)
{
    write_common(device, DEVICE_STATUS, 1, 0);
    for (int looks = 0; looks < RESET_LOOKS_LIMIT; looks++)
        if (read_common(device, DEVICE_STATUS, 1) == 0)
            return true;
    return false;
}

static void add_status(const struct virtio_device *device, uint32_t status)
{
    write_common(device, DEVICE_STATUS, 1, read_common(device, DEVICE_STATUS, 1) | status);
}

static bool agree_on_half(const struct virtio_device *device, uint32_t half, uint32_t wanted)
{
    write_common(device, DEVICE_FEATURE_SELECT, 4, half);
    if ((read_common(device, DEVICE_FEATURE, 4) & wanted) != wanted)
        return false;
    write_common(device, DRIVER_FEATURE_SELECT, 4, half);
    write_common(device, DRIVER_FEATURE, 4, wanted);
    return true;
}

bool virtio_start(struct virtio_device *device, pci_function function, uint64_t features)
{
    *device = (struct virtio_device){.function = function};
    pci_enable(function);
    if (!find_registers(device) || !reset(device))
        return false;
    add_status(device, STATUS_ACKNOWLEDGED);
    add_status(device, STATUS_DRIVER);
    if (!agree_on_half(device, 0, (uint32_t)features) || !agree_on_half(device, 1, (uint32_t)(features >> 32)))
        return false;
    add_status(device, STATUS_FEATURES_OK);
    return read_common(device, DEVICE_STATUS, 1) & STATUS_FEATURES_OK;
}

static void write_address(const struct virtio_device *device, uint32_t offset, const volatile void *address)
{
    write_common(device, offset, 4, (uint32_t)address);
    write_common(device, offset + 4, 4, 0);
}

bool virtio_add_queue(struct virtio_device *device, struct virtio_queue *queue, uint16_t index)
{
    write_common(device, QUEUE_SELECT, 2, index);
    if (read_common(device, QUEUE_SIZE, 2) < QUEUE_SLOTS)
        return false;
    queue->device = device;
    queue->index = index;
    queue->notify_place = (uint16_t)read_common(device, QUEUE_NOTIFY_PLACE, 2);
    queue->available.flags = NO_INTERRUPT;
    write_common(device, QUEUE_SIZE, 2, QUEUE_SLOTS);
    write_address(device, QUEUE_DESCRIPTORS, queue->descriptors);
    write_address(device, QUEUE_AVAILABLE, &queue->available);
    write_address(device, QUEUE_USED, &queue->used);
    write_common(device, QUEUE_ENABLE, 2, 1);
    return true;
}

void virtio_set_ready(struct virtio_device *device) { add_status(device, STATUS_READY); }

uint32_t virtio_read_specific(const struct virtio_device *device, uint32_t offset)
{
    return read_register(device, &device->specific, offset, 4);
}

static void offer(struct virtio_queue *queue, uint16_t slot, const void *buffer, uint32_t length, uint16_t flags)
{
    queue->descriptors[slot] = (struct virtio_descriptor){(uint32_t)buffer, 0, length, flags, 0};
    queue->available.slots[queue->available.next % QUEUE_SLOTS] = slot;
    order_memory();
    queue->available.next++;
}

void queue_offer_empty(struct virtio_queue *queue, uint16_t slot, void *buffer, uint32_t length)
{
    offer(queue, slot, buffer, length, DEVICE_WRITES);
}

void queue_offer_full(struct virtio_queue *queue, uint16_t slot, const void *buffer, uint32_t length)
{
    offer(queue, slot, buffer, length, 0);
}

void queue_notify(struct virtio_queue *queue)
{
    const struct virtio_device *device = queue->device;
    order_memory();
    write_register(device, &device->notify, queue->notify_place * device->notify_stride, 2, queue->index);
}

bool queue_take(struct virtio_queue *queue, struct virtio_used *taken)
{
    if (queue->taken == queue->used.next)
        return false;
    order_memory();
    taken->slot = queue->used.slots[queue->taken % QUEUE_SLOTS].slot;
    taken->length = queue->used.slots[queue->taken % QUEUE_SLOTS].length;
    queue->taken++;
    return true;
}
