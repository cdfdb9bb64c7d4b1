# SPDX-License-Identifier: Apache-2.0
"""Replicas and pipelines on several hosts, with a network between them: what crosses it, and what happens when a host is lost.
The hosts are namespaces of this machine (hosts.py)."""
import unittest

import hosts
from cli import LIMIT_S, LOCKSTEP, MPIEXEC, CliTest, overrides

# 216072 parameters, 64 rows of width 256 between the stages.
NET = """\
name: net
model: {type: mlp, inputs: 64, width: 256, layers: 4, outputs: 8}
data: {type: synthetic, task: regression, inputs: 64, outputs: 8, samples: 512}
train: {steps: 20, batch: 64, micro_batches: 8, gradient_groups: 2, loss: mean_squared_error, log_every: 1000}
pipeline: {stages: 2, schedule: 1f1b}
replicas: {count: 2}
"""
# Seconds over the network; who waits for a host that is gone finds out after two.
LONG = """\
name: long
model: {type: mlp, inputs: 64, width: 64, layers: 4, outputs: 8}
data: {type: synthetic, task: regression, inputs: 64, outputs: 8, samples: 512}
train: {steps: 500, batch: 64, micro_batches: 8, loss: mean_squared_error, log_every: 1000}
pipeline: {stages: 2, schedule: 1f1b}
replicas: {count: 2}
checkpoint: {every: 50}
comm: {watchdog_s: 2}
"""
STEPS, GRADIENTS, ACTIVATIONS = 20, 4 * 216072, 4 * 64 * 256  # bytes of a step


class HostsTest(CliTest):
    def setUp(self):
        lacks = hosts.missing()
        self.assertEqual(lacks, "", f"this test makes hosts of namespaces, and cannot: {lacks}")
        super().setUp()
        self.write("net.yaml", NET)
        self.write("long.yaml", LONG)

    def make_hosts(self, *names):
        made = hosts.Hosts(self.folder, names)
        self.addCleanup(made.close)
        return made

    @staticmethod
    def line_on(net, where, *arguments, settings):
        """`where`: as mpiexec takes hosts, such as node1:2,node2:2."""
        ranks = sum(int(host.partition(":")[2]) for host in where.split(","))
        return net.on_head([MPIEXEC, *net.flags, "-host", where, "-n", str(ranks), LOCKSTEP, "train", *arguments, *overrides(settings)])

    def train_on(self, net, where, *arguments, settings):
        result = self.run_command(self.line_on(net, where, *arguments, settings=settings))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stderr

    def wait_for_checkpoint(self, process):
        self.wait_until(lambda: list((self.folder / "run/checkpoints").glob("step-????????")), "its first checkpoint", process)

    def same_bits(self, *runs):
        self.assertEqual(len({(self.folder / run / "fingerprint.json").read_bytes() for run in runs}), 1, runs)

    # ---- what crosses the network ----

    def test_replicas_on_two_hosts_give_the_bits_of_one_process_and_send_what_the_placement_says(self):
        net = self.make_hosts("node1", "node2")
        self.train("net.yaml", "one", settings=["replicas.count=1"])
        for placement, bytes_of_step in (("pipeline_first", GRADIENTS), ("replicas_first", ACTIVATIONS)):
            with self.subTest(placement):
                before = [net.sent(host) for host in ("node1", "node2")]
                said = self.train_on(net, "node1:2,node2:2", "net.yaml", settings=[f"run_dir={placement}", f"replicas.placement={placement}"])
                self.assertIn("2 replicas of 2 stages, 4 workers on 4 rank(s)", said)
                self.same_bits("one", placement)
                for host, sent in zip(("node1", "node2"), before):
                    # Of mirrored gradients each host sends half, and half of the sums; TCP and the start add little.
                    self.assertGreaterEqual(net.sent(host) - sent, STEPS * bytes_of_step)
                    self.assertLess(net.sent(host) - sent, 1.2 * STEPS * bytes_of_step + 500_000)

    # ---- a host is lost ----

    def test_a_host_that_vanishes_is_left_out_by_launch_and_the_job_ends_with_the_same_bits(self):
        net = self.make_hosts("node1", "node2")
        flags = ["--mpiexec", " ".join([MPIEXEC, *net.flags]), "--hosts", "node1:2,node2:2", "--restarts", "1", "--shrink"]
        process = self.start(net.on_head([LOCKSTEP, "launch", "-n", "4", *flags, "train", "long.yaml", "--set", "run_dir=run"]))
        self.wait_for_checkpoint(process)
        net.cut("node2")  # no connection is closed: nobody is told
        net.kill("node2")
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stderr, r"(?m)^lockstep: launch: host node2 does not answer: '.* -host node2 -n 1 true' ")
        self.assertIn("\nlockstep: launch: restart 1 of 1 without host node2 (no answer): 2 ranks, 1 replica of 2 workers\n", stderr)
        self.assertRegex(stderr, r"(?m)^resumed after step \d+ from run/checkpoints/")
        self.train("long.yaml", "one", settings=["replicas.count=1", "train.gradient_groups=2"])
        self.same_bits("run", "one")

    def test_what_a_killed_host_leaves_goes_on_by_hand_on_the_other_to_the_same_bits(self):
        net = self.make_hosts("node1", "node2")
        process = self.start(self.line_on(net, "node1:2,node2:2", "long.yaml", settings=["run_dir=run"]))
        self.wait_for_checkpoint(process)
        net.kill("node1")  # rank 0's
        process.communicate(timeout=LIMIT_S)
        self.assertNotEqual(process.returncode, 0)
        self.train_on(net, "node2:2", "long.yaml", "--resume", "auto", settings=["run_dir=run", "replicas.count=1"])
        self.train("long.yaml", "one", settings=["replicas.count=1", "train.gradient_groups=2"])
        self.same_bits("run", "one")


if __name__ == "__main__":
    unittest.main()
