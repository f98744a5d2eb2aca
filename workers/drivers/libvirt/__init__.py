"""The driver of real hosts: VMs through libvirt, devices through VFIO, disks in libvirt storage pools."""
