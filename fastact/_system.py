"""What the operating system tells of the processor and of how much of it is ours."""

import os
import platform
from pathlib import Path


def cpu_model() -> str:
    """The name of the processor, from /proc/cpuinfo where there is one that tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def affinity() -> int | None:
    """On how many cores this process may run; None where the system has no such limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cgroup_limit(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """How many cores' worth of time the control groups grant, as containers limit it.

    Parameters
    ----------
    groups : Path
        The file that tells the groups of this process.
    mount : Path
        Where the hierarchies are mounted.

    Returns
    -------
    float or None
        The tightest limit of the group and those around it; None where there is none.
    """
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2, which has one hierarchy
            top, read = mount, _quota_v2
        elif "cpu" in controllers.split(","):
            top, read = mount / controllers, _quota_v1
            top = top if top.exists() else mount / "cpu"
        else:
            continue
        # In a container the path may be that outside of it, and its end is missing here.
        group = top / path.lstrip("/")
        for place in [group, *group.parents]:
            if place.is_relative_to(top) and (quota := read(place)):
                limits.append(quota)
    return min(limits, default=None)


def _quota_v2(place: Path) -> float | None:
    file = place / "cpu.max"
    quota, period = file.read_text().split() if file.exists() else ("max", "")
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(place: Path) -> float | None:
    file = place / "cpu.cfs_quota_us"
    quota = int(file.read_text()) if file.exists() else -1
    return None if quota < 0 else quota / int((place / "cpu.cfs_period_us").read_text())
