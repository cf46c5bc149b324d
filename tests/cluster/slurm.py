"""A real SLURM of one node on this machine: Debian's packages, no systemd, no cgroups, no accounting."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
NODE = socket.gethostname().split(".")[0]
# MinJobAge: the workflow asks squeue, which forgets ended jobs; gpu: /dev/null twice, so that jobs get a number each
CONFIG = """\
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
KillWait=10
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={node} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={node} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def ask(*words: str) -> str:
    """What a SLURM command answers."""
    return subprocess.run(words, capture_output=True, encoding="utf-8", check=True, timeout=60).stdout.strip()


def install() -> None:
    """The packages, or a skip that says why not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a SLURM of one's own needs root on Linux")
    if ETC.is_dir() and any((ETC / name).exists() for name in FILES):
        pytest.skip(f"{ETC} is configured: this machine belongs to a cluster")
    if all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        return
    if not shutil.which("apt-get"):
        pytest.skip("no SLURM here, and no apt-get to install Debian's")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, encoding="utf-8", timeout=600)
    if done.returncode:
        pytest.skip(f"SLURM's packages cannot be installed: {done.stderr.strip().splitlines()[-1]}")


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[None]:
    """SLURM, idle, with its files in `folder`; stopped and forgotten afterwards."""
    configure(folder)
    started = start_munge()
    try:
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon], check=True, timeout=60)
        wait_until(lambda: node_state() == "idle", 60, f"SLURM did not start; see {folder}/*.log")
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, timeout=60)
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", *([Path("/run/munge/munged.pid")] * started)):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text(encoding="utf-8")), signal.SIGTERM)
        for name in FILES:
            (ETC / name).unlink(missing_ok=True)


def configure(folder: Path) -> None:
    """Write the configuration where SLURM's commands look: the workflow strips SLURM_CONF from what it starts."""
    memory = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20 * 0.9)
    text = CONFIG.format(node=NODE, folder=folder, cpus=os.cpu_count(), memory=memory)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for gpu in range(2):
        os.mknod(folder / f"gpu{gpu}", 0o020666, os.makedev(1, 3))
    gpus = "".join(f"NodeName={NODE} Name=gpu File={folder}/gpu{gpu}\n" for gpu in range(2))
    cgroup = "CgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"
    ETC.mkdir(exist_ok=True)
    for name, content in zip(FILES, (text, gpus, cgroup), strict=True):
        (ETC / name).write_text(content, encoding="utf-8")


def start_munge() -> bool:
    """SLURM's authentication; whether it had to be started."""
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        return False
    for name in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(name).mkdir(parents=True, exist_ok=True)
        shutil.chown(name, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    key = Path("/etc/munge/munge.key")
    if not key.is_file():
        key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    key.chmod(0o400)
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True, timeout=60)
    return True


def node_state() -> str:
    """SLURM's word for the node, in small letters."""
    done = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, encoding="utf-8", timeout=60)
    return (done.stdout.split() or [""])[0]


def wait_until(condition: object, seconds: float, complaint: str) -> None:
    """Poll until `condition()`; fails with the complaint."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)
