"""The state of running agents: diglett status."""

import json
import re
import socket

import backends
from administration import run
from backends import Listener
from harness import EndToEndTest, wait_until


class Status(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"here"))).address
        self.gateway = self.stage.gateway()
        self.state = self.stage.new_directory("agent-state")

    def status(self, *arguments, code=0):
        result = run(self.stage, "diglett", "status", "--state-dir", self.state, *arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout if code != 69 else result.stderr

    def reports(self, code=0):
        return json.loads(self.status("--output", "json", code=code))

    def test_one(self):
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend, state=self.state)
        port = agent.wait_registered()
        report, = self.reports()
        self.assertEqual(
            (report["process"], report["gateway"], report["connected"], report["streams"], report["names"]),
            (agent.pid, self.gateway.address, True, 0,
             [{"name": "example", "backend": self.backend, "address": f"127.0.0.1:{port}", "reachable": True}]))
        lines = self.status().splitlines()
        self.assertEqual(lines[0], f"process {agent.pid}: connected to gateway {self.gateway.address}, 1 name exposed, "
                         "0 streams")
        self.assertTrue(re.fullmatch(rf"example  127.0.0.1:{port} +{self.backend}", lines[2]), lines)
        self.assertEqual(agent.stop(), 0)
        self.assertEqual(list(self.state.glob("*.sock")), [])
        self.assertIn(f"no running agent uses the state directory {self.state}", self.status(code=69))

    def test_gateway_is_away(self):
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend, state=self.state)
        agent.wait_registered()
        self.gateway.kill()
        wait_until(lambda: run(self.stage, "diglett", "status", "--state-dir", self.state).returncode == 1, "code 1")
        report, = self.reports(code=1)
        self.assertFalse(report["connected"])
        self.assertFalse(report["names"][0]["reachable"])
        self.assertIn("not reachable", self.status(code=1))

    def test_several_and_one_that_was_killed(self):
        first = self.stage.agent(self.gateway, "-n", "one", self.backend, state=self.state)
        first.wait_registered("one")
        second = self.stage.agent(self.gateway, "-n", "two", self.backend, state=self.state)
        second.wait_registered("two")
        self.assertEqual({report["process"] for report in self.reports()}, {first.pid, second.pid})
        first.kill()
        self.assertEqual([report["process"] for report in self.reports()], [second.pid])
        # The next agent removes the socket of the killed one.
        third = self.stage.agent(self.gateway, "-n", "three", self.backend, state=self.state)
        third.wait_registered("three")
        self.assertEqual(sorted(path.name for path in self.state.glob("*.sock")),
                         sorted(f"agent-{agent.pid}.sock" for agent in (second, third)))

    def test_version_1(self):
        gateway = self.stage.gateway("--listen-v1", "127.0.0.1:0")
        agent = self.stage.agent(gateway.wait_listening_v1(), "--v1", "-n", "old", self.backend, state=self.state)
        agent.wait_event("registered", name="old")
        self.assertRegex(self.status(), "old +see the gateway's log")

    def test_agent_that_hangs(self):
        """An agent that hangs is not reported as gone."""
        agents = [self.stage.agent(self.gateway, "-n", name, self.backend, state=self.state) for name in ("a", "b")]
        for agent, name in zip(agents, "ab"):
            agent.wait_registered(name)
        # Fill the listener's backlog, so that connect(2) itself would block.
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
            busy.bind(str(self.state / "agent-1.sock"))
            busy.listen(0)
            waiting.connect(str(self.state / "agent-1.sock"))
            result = run(self.stage, "diglett", "status", "--state-dir", self.state)
            self.assertEqual(result.returncode, 1)
            self.assertIn("does not respond", result.stderr)
            self.assertIn("connected to gateway", result.stdout)

    def test_instances_of_a_service(self):
        """Each instance has a directory below the common one."""
        for name in ("a", "b"):
            state = self.state / name
            state.mkdir(parents=True)
            self.stage.agent(self.gateway, "-n", name, self.backend, state=state).wait_registered(name)
        self.assertEqual(sorted(name["name"] for report in self.reports() for name in report["names"]), ["a", "b"])

    def test_a_directory_that_cannot_be_looked_at(self):
        path = self.stage.directory / "file"
        path.touch()
        result = run(self.stage, "diglett", "status", "--state-dir", path)
        self.assertEqual(result.returncode, 78)
        self.assertIn(f"cannot read the state directory: {path}: not a directory", result.stderr)

    def test_long_state_directory(self):
        """If the socket's path is too long, the agent has no status, but works otherwise."""
        self.state = self.stage.directory / ("x" * 100)
        agent = self.stage.agent(self.gateway, "-d", "-n", "example", self.backend, state=self.state)
        agent.wait_registered()
        agent.wait_log("WARN  'diglett status' is unavailable for this agent: .*name too long")
        self.status(code=69)
