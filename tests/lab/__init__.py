"""The lab: an emulated DGX-2 whose libvirt, IOMMU, NUMA nodes and PCI devices the product drives."""
