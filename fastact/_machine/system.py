"""What the operating system reports about the processor, and how much of it we may use."""

import os
import platform
from pathlib import Path

# Errors from files under /proc and /sys that cannot be read or have unexpected contents.
_UNUSABLE = (OSError, ValueError, ArithmeticError)


def cpu_model() -> str:
    """Return the name of the processor, from /proc/cpuinfo if it has one."""
    try:
        lines = _text(Path("/proc/cpuinfo")).splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def affinity() -> int | None:
    """Return how many cores this process may run on, or None if the system has no such limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cgroup_limit(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return how many cores' worth of time the control groups grant, as set for containers.

    Parameters
    ----------
    groups : Path
        The file that lists the control groups of this process.
    mount : Path
        Where the hierarchies are mounted.

    Returns
    -------
    float or None
        The tightest limit of the group and its ancestors; None if there is no limit.

    Raises
    ------
    OSError, ValueError, ArithmeticError
        If no limit is found and a file could not be read.
    """
    try:
        lines = _text(groups).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    limits, failures = [], []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if line.startswith("0::"):  # version 2, which has one hierarchy
            top, read = mount, _quota_v2
        elif "cpu" in controllers.split(","):
            top, read = mount / controllers, _quota_v1
            top = top if os.path.exists(top) else mount / "cpu"
        else:
            continue
        # In a container, the path may be the one on the host, and its last parts missing here.
        group = top / path.lstrip("/")
        for place in [group, *group.parents]:
            if not place.is_relative_to(top):
                break
            try:
                limits.append(read(place))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except _UNUSABLE as reason:
                failures.append(reason)
    found = [limit for limit in limits if limit is not None]
    if failures and not found:
        raise failures[0]
    return min(found, default=None)


def _quota_v2(place: Path) -> float | None:
    quota, period = _text(place / "cpu.max").split()
    return None if quota == "max" else _cores(int(quota), int(period))


def _quota_v1(place: Path) -> float | None:
    quota = int(_text(place / "cpu.cfs_quota_us"))
    return None if quota == -1 else _cores(quota, int(_text(place / "cpu.cfs_period_us")))


def _cores(quota: int, period: int) -> float:
    cores = quota / period
    if not cores > 0:
        raise ValueError(f"expected a positive CPU quota, got {quota} for a period of {period}")
    return cores


def _text(path: Path) -> str:
    # Names of groups are bytes, and need not be text in the encoding of the locale.
    return os.fsdecode(path.read_bytes())
