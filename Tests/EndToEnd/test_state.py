"""State directories: permissions, full disks, damaged files."""

import concurrent.futures
import json
import os
import re
import unittest

import backends
from administration import run
from backends import Listener
from harness import EndToEndTest, wait_until
from namespaces import TwoHosts

WRONG_PIN = "sha256/" + "A" * 43 + "="

# Makes writes fail as on a full disk, with another errno; sockets and pipes are not affected (setrlimit(2)).
FULL_DISK = ("sh", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "sh")


class Directories(EndToEndTest):
    def test_gateway_with_one_that_others_can_write_to(self):
        state = self.stage.new_directory("shared")
        for mode in (0o777, 0o775, 0o757):
            with self.subTest(oct(mode)):
                state.chmod(mode)
                gateway = self.stage.gateway(state=state, ready=False)
                self.assertEqual(gateway.wait_exit(), 73)
                self.assertIn(f"{state}: other users can write to it: run chmod go-w {state}", gateway.output)
                self.assertEqual(list(state.iterdir()), [])
                check = run(self.stage, "diglett-server", "check", "--state-dir", state)
                self.assertEqual(check.returncode, 64, check)
                self.assertIn(f"run chmod go-w {state}", check.stdout + check.stderr)
        # The command in the message fixes it.
        state.chmod(state.stat().st_mode & ~0o022)
        self.stage.gateway(state=state)

    def test_agent_with_one_that_others_can_write_to(self):
        state = self.stage.new_directory("shared")
        state.chmod(0o777)
        for arguments in (["-g", "127.0.0.1:9", "-n", "example", "9"], ["key"]):
            result = run(self.stage, "diglett", *arguments, "--state-dir", state)
            self.assertEqual(result.returncode, 78, result)
            self.assertIn(f"run chmod go-w {state}", result.stderr)
        self.assertEqual(list(state.iterdir()), [])

    def test_sticky_bit_and_parents(self):
        """Directories with the sticky bit, like /tmp, and writable parents, like those of a container's volume."""
        state = self.stage.new_directory("shared")
        state.chmod(0o1777)
        self.stage.gateway(state=state)
        parent = self.stage.new_directory("parent")
        parent.chmod(0o777)
        self.stage.gateway(state=parent / "below")
        self.assertEqual((parent / "below").stat().st_mode & 0o777, 0o700)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_another_users(self):
        state = self.stage.new_directory("theirs")
        os.chown(state, 65534, 65534)
        gateway = self.stage.gateway(state=state, ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertIn(f"{state}: belongs to another user (uid 65534)", gateway.output)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_administers_the_directory_of_a_service(self):
        """Root can run every documented command while a service's user owns the directory (DynamicUser)."""
        state = self.stage.new_directory("service")
        os.chown(state, 65534, 65534)
        for code, *command in (
                (0, "diglett", "key"), (0, "diglett", "key"), (69, "diglett", "status"),
                (0, "diglett-server", "agent", "add", "x", "--names", "x"), (0, "diglett-server", "agent", "list"),
                (0, "diglett-server", "agent", "rotate", "x"), (0, "diglett-server", "agent", "pin", "x", WRONG_PIN),
                (0, "diglett-server", "agent", "remove", "x"), (0, "diglett-server", "check"),
                (69, "diglett-server", "ctl", "status")):
            with self.subTest(command):
                result = run(self.stage, *command, "--state-dir", state)
                self.assertEqual(result.returncode, code, result)
                # Such advice would take the directory away from the service.
                self.assertNotIn("chown", result.stdout + result.stderr)
                # The service must be able to use what root has written.
                self.assertEqual({path.stat().st_uid for path in state.iterdir()} - {65534}, set())
        self.assertTrue((state / "agent.pem").exists())
        self.assertTrue((state / "identity.pem").exists())

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_planted_agents_file(self):
        """The sticky bit does not prevent another user from creating a file first."""
        state = self.stage.new_directory("shared")
        state.chmod(0o1777)
        for name, code in (("agents.toml", 78), ("identity.pem", 78)):
            with self.subTest(name):
                (state / name).touch(mode=0o600)
                os.chown(state / name, 65534, 65534)
                gateway = self.stage.gateway(state=state, ready=False)
                self.assertEqual(gateway.wait_exit(), code)
                self.assertIn(f"{state / name}: belongs to another user (uid 65534)", gateway.output)
                (state / name).unlink()


class FullDisk(EndToEndTest):
    def test_first_start(self):
        state = self.stage.new_directory("full")
        gateway = self.stage.gateway(state=state, prefix=FULL_DISK, ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertRegex(gateway.output, rf"{state}/identity.pem\S*: cannot be written")
        self.assertEqual([path.name for path in state.iterdir()], ["lock"], "nothing is left in part")
        self.stage.gateway(state=state)

    def test_agent(self):
        state = self.stage.new_directory("full")
        agent = self.stage.agent("127.0.0.1:9", "-n", "example", "9", state=state, prefix=FULL_DISK)
        self.assertEqual(agent.wait_exit(), 78)
        self.assertRegex(agent.output, rf"{state}/instance.key\S*: cannot be written")
        self.assertEqual(list(state.iterdir()), [])

    def test_later_start(self):
        """A gateway that has its key starts on a full disk."""
        first = self.stage.gateway()
        first.stop()
        second = self.stage.gateway(state=first.state, prefix=FULL_DISK)
        self.assertEqual(second.pin, first.pin)

    def test_ports_are_saved_later(self):
        """Ports are saved later without another registration; the log has the failure once, and its end."""
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        gateway = self.stage.gateway()
        obstacle = gateway.state / "ports.json.new"
        obstacle.mkdir()
        ports = {}
        for name in ("one", "two"):
            agent = self.stage.agent(gateway, "-n", name, backend)
            ports[name] = agent.wait_registered(name)
        gateway.wait_log("ERROR .*cannot save the public ports of names")
        obstacle.rmdir()
        gateway.wait_log("saving public ports works again")
        saved = json.loads((gateway.state / "ports.json").read_text())["ports"]
        self.assertEqual({entry["name"]: entry["port"] for entry in saved}, ports)
        self.assertEqual(len(re.findall("ERROR .*cannot save the public ports", gateway.output)), 1)


class KnownGateways(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()
        self.state = self.stage.new_directory("agent-state")
        self.file = self.state / "known_gateways"
        self.line = f"{self.gateway.address} {self.gateway.pin}"

    def agent(self, *arguments, **more):
        return self.stage.agent(self.gateway, "-n", "example", "9", *arguments, state=self.state, **more)

    def test_carriage_returns_and_a_byte_order_mark(self):
        for content in (f"{self.line}\r\n", f"\ufeff{self.line}\n", f"\ufeff# mine\r\n\r\n{self.line}\r\n", self.line):
            with self.subTest(content):
                self.file.write_bytes(content.encode())
                agent = self.agent()
                agent.wait_registered()
                agent.stop()
                self.assertNotIn("damaged", agent.output)
                self.assertEqual(self.file.read_bytes(), content.encode())

    def test_another_key_in_such_a_file(self):
        """The key counts as changed."""
        self.file.write_bytes(f"\ufeff{self.gateway.address} {WRONG_PIN}\r\n".encode())
        self.assertEqual(self.agent().wait_exit(), 10)

    def test_damaged_line_on_this_machine(self):
        for content in (self.line[:25], self.line[:-10], "\0" * 64, f"{self.line} x\n", "nonsense\n"):
            with self.subTest(content):
                self.file.write_text(content)
                agent = self.agent()
                agent.wait_registered()
                agent.wait_log(rf"WARN .*{self.file}:1: the line is damaged: delete it")
                self.assertIn(self.line, self.file.read_text().splitlines())
                agent.stop()
        # A damaged line of the same gateway is replaced.
        self.assertEqual(len(self.file.read_text().splitlines()), 2)

    def test_damaged_line_of_a_gateway_elsewhere(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway("--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        self.file.write_text(f"# mine\n{gateway.address} {gateway.pin[:20]}\n")
        agent = self.stage.agent(gateway, "-n", "example", "9", state=self.state, prefix=hosts.far)
        status, event = agent.refusal()
        self.assertEqual((status, event["code"]), (10, "wrong-gateway-key"))
        self.assertIn(f"{self.file}:2 is damaged: delete that line", event["message"])
        self.assertNotIn("changed", event["message"])

    def test_file_that_cannot_be_read(self):
        """The agent reports its configuration, not the gateway's key."""
        self.file.mkdir()
        status, event = self.agent().refusal()
        self.assertEqual((status, event["code"]), (78, "configuration"))
        self.assertIn(f"{self.file}: cannot be read: it is a directory", event["message"])

    def test_agents_that_start_at_once(self):
        """Agents share a state directory, like programs of one user."""
        gateways = [self.gateway, *(self.stage.gateway() for _ in range(3))]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            agents = list(pool.map(
                lambda gateway: self.stage.agent(gateway, "-n", "example", "9", state=self.state), gateways))
        for agent in agents:
            agent.wait_registered()
        expected = sorted(f"{gateway.address} {gateway.pin}" for gateway in gateways)
        wait_until(lambda: sorted(self.file.read_text().splitlines()) == expected, "all gateways to be known")
