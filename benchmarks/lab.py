"""Real VMs on the virtual DGX-2, started by Nightshift and by bare libvirt calls, and a swap of eight at once.

A start is measured from the moment that it is asked for until the guest's agent is connected, as a connection of its own
sees it. The limit is a script of bare calls for the same domain, devices already bound: create the disk, define,
create; the goal is 1.15 times that. The swap is from a VM with all 16 GPUs to eight with 2 each, from the first stop
until the last of the eight is up. Its limit is the longest chain in that same swap: the stop, and the steps of the
slowest of the eight; the goal is 1.25 times that. Beside it stand the same steps one after the other.

Nightshift's parts run in this process: real store, plan task, converge and drivers, and no messages through Redis. The
host and its guests are emulated on the cores of this machine, as is everything that they compute: a real host is faster
at what libvirt computes and slower at what devices do.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.driver_calls import STEPS
from tests.lab.guest.build import BuildError, build_guest
from tests.lab.host_image import HostImageError, build_host_image, default_cache
from tests.lab.machine import QEMU, LabError, boot

if TYPE_CHECKING:
    from benchmarks.lab_measures import Start, Swap
