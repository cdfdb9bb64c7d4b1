# SPDX-License-Identifier: Apache-2.0
"""Hosts on one machine, for tests: each has its own network, name, processes, /dev/shm and System V memory (namespaces), so that
MPI finds no shared memory between them and has to take the network, a bridge on a host of its own, `head`.

A host is a process, and all of it is gone when that ends, which it does with the test at the latest: nothing is left on the
machine, whatever happens. Files are those of the machine: the shared file system. Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN),
iproute2 and util-linux."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

HEAD = "head"
SSH = """\
#!/bin/sh
# As hydra calls ssh: flags HOST COMMAND...
while case $1 in -*) true ;; *) false ;; esac; do shift; done
host=$1
shift
exec nsenter --target "$(cat "{folder}/$host.pid")" --net --uts --ipc --mount --pid sh -c "$*"
"""


def missing():
    """What this machine lacks for it, for people; empty: nothing."""
    if os.geteuid() != 0:
        return "not root; run the test as root, or leave it out: tools/test.sh -E cli_hosts"
    lacking = [tool for tool in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(tool)]
    if lacking:
        return f"no {', '.join(lacking)}; apt-get install iproute2 util-linux (tools/setup_tests.sh does)"
    tried = subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c",
                            "ip link add try0 type veth peer name try1 && ip link add try2 type bridge"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"{tried.stderr.strip()}: no namespaces, veth or bridge; a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN (--privileged)"
    return ""


class Hosts:
    """`names` are joined by a bridge on `head`, where launchers run: line() and launcher."""

    def __init__(self, folder, names):
        self.folder = pathlib.Path(folder)
        self.pids, self.holders = {}, {}
        try:
            self._hold(HEAD, "--net", "--uts")
            self._ip(HEAD, "link add br0 type bridge", "addr add 10.0.0.254/24 dev br0", "link set br0 up", "link set lo up")
            for number, name in enumerate(names, 1):
                self._hold(name, "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
                self._ip(HEAD, f"link add {name} type veth peer name eth0 netns {self.pids[name]}", f"link set {name} master br0 up")
                self._ip(name, f"addr add 10.0.0.{number}/24 dev eth0", "link set eth0 up", "link set lo up")
            ssh = self.folder / "ssh"
            ssh.write_text(SSH.format(folder=self.folder))
            ssh.chmod(0o755)
        except BaseException:
            self.close()
            raise
        self.flags = ["-launcher", "ssh", "-launcher-exec", str(ssh), "-iface", "br0"]

    def _hold(self, name, *namespaces):
        """Starts the process that is the host. It ends with ours, even if that is killed."""
        private = "mount -t tmpfs tmpfs /dev/shm && " if "--mount" in namespaces else ""
        errors = self.folder / f"{name}.err"
        line = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "sh", "-c",
                f"hostname {name} && {private} echo up && exec sleep infinity"]
        with errors.open("w") as file:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True)
        self.holders[name] = process
        if process.stdout.readline() != "up\n":
            raise RuntimeError(f"host {name} did not come up: {errors.read_text()}")
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.pids[name] = int(children[0]) if "--fork" in namespaces else process.pid
        (self.folder / f"{name}.pid").write_text(str(self.pids[name]))

    def _ip(self, name, *lines):
        for line in lines:
            subprocess.run(["nsenter", "--target", str(self.pids[name]), "--net", "ip", *line.split()], check=True)

    def on_head(self, line):
        """The command, run on the head host."""
        return ["nsenter", "--target", str(self.pids[HEAD]), "--net", "--uts", *line]

    def sent(self, name):
        """Bytes that left the host so far."""
        said = subprocess.run(self.on_head(["ip", "-json", "-stats", "link", "show", name]), capture_output=True, text=True, check=True)
        return json.loads(said.stdout)[0]["stats64"]["rx"]["bytes"]  # what its end on the bridge received

    def cut(self, name):
        """From here on nothing gets there, or from there."""
        self._ip(HEAD, f"link set {name} down")

    def kill(self, name):
        """All its processes at once, and its network with them."""
        os.kill(self.pids[name], signal.SIGKILL)
        self.holders.pop(name).communicate()

    def close(self):
        for name in list(self.holders):
            self.holders[name].kill()  # --kill-child
            self.holders.pop(name).communicate()
