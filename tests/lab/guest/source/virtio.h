/* Modern virtio over PCI: a device's registers, and its queues. Queues are polled; the device is told not to
   interrupt. */
#pragma once

#include "pci.h"

#define QUEUE_SLOTS 16

enum virtio_feature {
    VIRTIO_FEATURE_VERSION_1 = 32,
};

/* A part of a BAR that a capability points at. */
struct virtio_region {
    uint8_t bar;
    uint32_t offset;
    uint32_t memory; /* where it lies; 0 if that is out of reach, then it is accessed through the window */
};

struct virtio_device {
    pci_function function;
    struct virtio_region common;
    struct virtio_region notify;
    struct virtio_region specific;
    uint32_t notify_stride;
    uint8_t window; /* the capability that reaches into BARs from configuration space, 0 if there is none */
};

struct virtio_descriptor {
    uint32_t address;
    uint32_t address_high;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct virtio_used {
    uint32_t slot;
    uint32_t length;
};

struct virtio_queue {
    struct virtio_descriptor descriptors[QUEUE_SLOTS] __attribute__((aligned(16)));
    struct {
        uint16_t flags;
        uint16_t next;
        uint16_t slots[QUEUE_SLOTS];
    } available;
    volatile struct {
        uint16_t flags;
        uint16_t next;
        struct virtio_used slots[QUEUE_SLOTS];
    } used __attribute__((aligned(4)));
    const struct virtio_device *device;
    uint16_t index;
    uint16_t notify_place;
    uint16_t taken;
};

/* Find the device's registers and agree on features, one bit for each number. False: this device is not for us. */
bool virtio_start(struct virtio_device *device, pci_function function, uint64_t features);
/* Hand a queue over. Between start and ready. */
bool virtio_add_queue(struct virtio_device *device, struct virtio_queue *queue, uint16_t index);
/* Let the device work. */
void virtio_set_ready(struct virtio_device *device);
uint32_t virtio_read_specific(const struct virtio_device *device, uint32_t offset);

/* Offer a buffer for the device to fill, or to read. The slot says which one comes back. */
void queue_offer_empty(struct virtio_queue *queue, uint16_t slot, void *buffer, uint32_t length);
void queue_offer_full(struct virtio_queue *queue, uint16_t slot, const void *buffer, uint32_t length);
/* Tell the device that buffers were offered. */
void queue_notify(struct virtio_queue *queue);
/* Take a buffer back that the device is done with. False: none. */
bool queue_take(struct virtio_queue *queue, struct virtio_used *taken);
