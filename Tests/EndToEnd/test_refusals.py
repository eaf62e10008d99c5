"""Refusals: their messages and exit codes."""

import socket

import backends
from backends import Listener
from harness import EndToEndTest, free_port
from hooks import configure
from namespaces import TwoHosts
from visitors import get, read_exactly

WRONG_PIN = "sha256/" + "A" * 43 + "="


class RefusalTest(EndToEndTest):
    def check_refused(self, agent, code, exit_code, *words):
        """Checks that a refusal ends the agent even without --once, because retrying cannot fix it."""
        status, event = agent.refusal()
        self.assertEqual(event["code"], code)
        self.assertEqual(event["exit"], exit_code)
        self.assertEqual(status, exit_code)
        for word in words:
            self.assertIn(word, event["message"])
        return event


class GatewayIdentity(RefusalTest):
    """An agent must talk only to the gateway that it is configured for."""

    def test_wrong_pin(self):
        gateway = self.stage.gateway()
        agent = self.stage.agent(gateway, "--pin", WRONG_PIN, "-n", "example", "9")
        self.check_refused(agent, "wrong-gateway-key", 10, WRONG_PIN, gateway.pin)
        self.assertEqual(agent.events("registered"), [])

    def test_service_that_is_no_gateway(self):
        backend = self.stage.use(Listener(lambda connection: connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")))
        agent = self.stage.agent(backend.address, "--once", "-n", "example", "9")
        status, event = agent.refusal()
        self.assertEqual((status, event["code"]), (69, "unavailable"))
        self.assertIn(f"{backend.address} does not speak TLS", event["message"])

    def test_right_pin(self):
        gateway = self.stage.gateway()
        agent = self.stage.agent(gateway, "--pin", gateway.pin, "-n", "example", "9")
        agent.wait_registered()

    def test_second_pin_for_a_change_of_keys(self):
        gateway = self.stage.gateway()
        agent = self.stage.agent(
            gateway, "--pin", WRONG_PIN, "--pin", gateway.pin, "-n", "example", "9")
        agent.wait_registered()

    def test_address_with_pin_and_token(self):
        gateway = self.stage.gateway()
        agent = self.stage.agent(
            f"diglett://dgl_1_secret@{gateway.address}#{gateway.pin}", "-n", "example", "9")
        agent.wait_registered()
        wrong = self.stage.agent(
            f"diglett://dgl_1_secret@{gateway.address}#{WRONG_PIN}", "-n", "other", "9")
        self.check_refused(wrong, "wrong-gateway-key", 10, WRONG_PIN, gateway.pin)

    def test_first_contact_is_remembered(self):
        gateway = self.stage.gateway()
        agent = self.stage.agent(gateway, "-n", "example", "9")
        agent.wait_registered()
        lines = (agent.state / "known_gateways").read_text().splitlines()
        self.assertEqual(lines, [f"{gateway.address} {gateway.pin}"])

    def test_key_in_known_gateways_has_changed(self):
        gateway = self.stage.gateway()
        state = self.stage.new_directory("agent-state")
        (state / "known_gateways").write_text(f"{gateway.address} {WRONG_PIN}\n")
        agent = self.stage.agent(gateway, "-n", "example", "9", state=state)
        self.check_refused(agent, "wrong-gateway-key", 10, WRONG_PIN, gateway.pin)

    def test_another_gateway_in_the_place_of_a_known_one(self):
        """A gateway with a new state directory has another key."""
        first = self.stage.gateway()
        agent = self.stage.agent(first, "-n", "example", "9")
        agent.wait_registered()
        first.kill()
        agent.wait_event("interrupted")
        second = self.stage.gateway(listen=first.address)
        self.assertNotEqual(second.pin, first.pin)
        self.check_refused(agent, "wrong-gateway-key", 10, first.pin, second.pin)

    def test_state_files_are_private(self):
        """They include keys; known_gateways reveals which gateways this machine uses."""
        tunnel = self.stage.expose("9")
        for directory in (tunnel.gateway.state, tunnel.agent.state):
            files = [path for path in directory.rglob("*") if path.is_file()]
            self.assertTrue(files, f"nothing was kept in {directory}")
            for path in files:
                self.assertEqual(path.stat().st_mode & 0o077, 0, f"{path} is open to others")


class OpenGateway(RefusalTest):
    """Without tokens, the gateway accepts only agents on its own machine."""

    def test_agent_from_another_host(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway(listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        stranger = self.stage.agent(
            gateway, "--pin", gateway.pin, "-n", "example", "9", prefix=hosts.far)
        self.check_refused(stranger, "not-loopback", 12, "accepts only agents on its own machine", "agent add")

    def test_strangers_accepted_when_written_out(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway(
            "--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        agent = self.stage.agent(
            gateway, "--pin", gateway.pin, "-n", "example", "9", prefix=hosts.far)
        agent.wait_registered()

    def test_unknown_key_is_not_trusted_off_loopback(self):
        """Without a pin and without a terminal for a prompt, the agent must not connect."""
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway(
            "--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        agent = self.stage.agent(gateway, "-n", "example", "9", prefix=hosts.far)
        self.check_refused(agent, "wrong-gateway-key", 10, gateway.pin)
        self.assertEqual(agent.events("registered"), [])


class Names(RefusalTest):
    def test_taken_by_another_identity(self):
        backend = self.stage.use(Listener(backends.answering(b"the first")))
        tunnel = self.stage.expose(backend.address)
        second = self.stage.agent(tunnel.gateway, "-n", "example", "9")
        event = self.check_refused(second, "name-taken", 14, "example")
        self.assertEqual(event.get("name", "example"), "example")
        self.assertEqual(get(tunnel.url), b"the first")

    def test_second_instance_of_one_identity_replaces_the_first(self):
        gateway = self.stage.gateway()
        first = self.stage.agent(gateway, "-n", "example", "9")
        port = first.wait_registered()
        second = self.stage.agent(gateway, "-n", "example", "9", state=first.state)
        self.assertEqual(second.wait_registered(), port)
        self.check_refused(first, "replaced", 15)
        self.assertTrue(second.running)

    def test_badly_formed(self):
        """The agent checks names itself, without a gateway."""
        bad = {
            "Bad_Name!": "'_' is not allowed, only a-z, 0-9 and hyphens; try 'bad-name'", "a..b": "dots are not allowed",
            "-x": "it must not begin or end with a hyphen; try 'x'", "x-": "it must not begin or end with a hyphen; try 'x'",
            "ab--cd": "two hyphens at positions 3 and 4 are reserved", "": "the name is empty",
            "a" * 64: "it has 64 characters, 63 at most are allowed", "a b": "' ' is not allowed, only a-z, 0-9 and hyphens; try 'a-b'",
            "ä": "'ä' is not allowed", "a/b": "'/' is not allowed, only a-z, 0-9 and hyphens; try 'a-b'", "a\nb": r"'\u{A}' is not allowed, only a-z, 0-9 and hyphens; try 'a-b'",
        }
        for name, fault in bad.items():
            with self.subTest(name=name):
                agent = self.stage.agent(f"127.0.0.1:{free_port()}", "-n", name, "127.0.0.1:9")
                self.assertEqual(agent.wait_exit(), 64)
                self.assertEqual(agent.events("retrying"), [], "dialled before checking its arguments")
                if name.isascii() and name.isprintable():
                    self.assertIn(name, agent.output)
                self.assertIn(fault, agent.output, "the message must say what is wrong with the name")

    def test_well_formed(self):
        names = ("a", "0", "a-b", "abc--d", "x" * 63, "xn-a")
        gateway = self.stage.gateway()
        for name in names:
            with self.subTest(name=name):
                agent = self.stage.agent(gateway, "-n", name, "9")
                self.assertEqual(agent.wait_registered(name), gateway.wait_registered(name))

    def test_capitals_are_lowered(self):
        tunnel = self.stage.gateway()
        agent = self.stage.agent(tunnel, "-n", "EXample", "9")
        self.assertEqual(agent.wait_registered("example"), tunnel.wait_registered("example"))


class PublicPorts(RefusalTest):
    def test_wanted_port(self):
        wanted = free_port()
        tunnel = self.stage.expose("9", "--public-port", str(wanted))
        self.assertEqual(tunnel.port, wanted)

    def test_outside_of_the_range(self):
        allowed, outside = free_port(), free_port()
        gateway = self.stage.gateway("--expose-ports", f"{allowed}-{allowed}")
        agent = self.stage.agent(gateway, "--public-port", str(outside), "-n", "example", "9")
        self.check_refused(agent, "port-refused", 18, str(outside))

    def test_only_port_of_the_range(self):
        allowed = free_port()
        gateway = self.stage.gateway("--expose-ports", f"{allowed}-{allowed}")
        self.assertEqual(self.stage.expose("9", gateway=gateway).port, allowed)

    def test_taken_by_another_program(self):
        """The port may become free, so the agent retries, unless --once is set."""
        gateway = self.stage.gateway()
        with Listener(backends.serve_echo) as other:
            port = other.port
            agent = self.stage.agent(gateway, "--public-port", str(port), "-n", "example", "9")
            self.assertIn(str(port), agent.wait_event("missing", code="port-taken")["message"])
            impatient = self.stage.agent(gateway, "--once", "--public-port", str(port), "-n", "another", "9")
            self.check_refused(impatient, "port-refused", 18, str(port))
        self.assertEqual(agent.wait_registered("example"), port)

    def test_one_of_three(self):
        """Two free names of three are registered and stay; the third follows when its holder is gone."""
        gateway = self.stage.gateway()
        holder = self.stage.agent(gateway, "-n", "two", "9")
        holder.wait_registered("two")
        names = [word for name in ("one", "two", "three") for word in ("-n", f"{name}=9")]
        agent = self.stage.agent(gateway, *names)
        for name in ("one", "three"):
            agent.wait_registered(name)
        self.assertEqual(agent.wait_event("missing", name="two")["code"], "name-taken")
        agent.wait_log("'two' is not reachable")
        self.assertTrue(agent.running)
        impatient = self.stage.agent(gateway, "--once", "-n", "two=9", "-n", "four=9")
        self.check_refused(impatient, "name-taken", 14, "'two'")

    def test_none_of_them(self):
        gateway = self.stage.gateway()
        holder = self.stage.agent(gateway, "-n", "one=9", "-n", "two=9")
        holder.wait_registered("one")
        holder.wait_registered("two")
        agent = self.stage.agent(gateway, "-n", "one=9", "-n", "two=9")
        self.check_refused(agent, "name-taken", 14, "all 2 names")

    def test_more_names_than_the_gateway_allows(self):
        gateway = self.stage.gateway("-c", configure(self.stage, "[limits]\nnames-per-link = 2\n"))
        names = [word for number in range(4) for word in ("-n", f"name-{number}=9")]
        agent = self.stage.agent(gateway, *names)
        for number in range(2):
            agent.wait_registered(f"name-{number}")
        for number in (2, 3):
            self.assertEqual(agent.wait_event("missing", name=f"name-{number}")["code"], "too-many-names")
        impatient = self.stage.agent(gateway, "--once", *names)
        self.check_refused(impatient, "name-refused", 13, "2 names")

    def test_public_side_listens_on_loopback_only_by_default(self):
        tunnel = self.stage.expose("9")
        event = tunnel.agent.wait_event("registered")
        self.assertEqual(event["address"], f"127.0.0.1:{tunnel.port}")

    def test_other_address_for_visitors(self):
        gateway = self.stage.gateway("--expose-bind", "127.0.0.5")
        backend = self.stage.use(Listener(backends.answering(b"five")))
        tunnel = self.stage.expose(backend.address, gateway=gateway)
        self.assertEqual(get(f"http://127.0.0.5:{tunnel.port}/"), b"five")

    def test_both_families(self):
        """An IPv4 visitor has the same address as on an IPv4 socket."""
        gateway = self.stage.gateway("--expose-bind", "::")
        backend = self.stage.use(Listener(backends.serve_echo))
        agent = self.stage.agent(gateway, "--proxy-protocol", "v1", "-n", "example", backend.address)
        port = agent.wait_registered()
        for host, header in (("127.0.0.1", b"PROXY TCP4 127.0.0.1 "), ("::1", b"PROXY TCP6 ::1 ")):
            with socket.create_connection((host, port), 10) as visitor:
                self.assertEqual(read_exactly(visitor, len(header)), header)

    def test_several_addresses(self):
        hosts = ("127.0.0.5", "127.0.0.6", "[::1]")
        text = ", ".join(f'"{host.strip("[]")}"' for host in hosts)
        backend = self.stage.use(Listener(backends.answering(b"all")))
        taken = self.stage.use(Listener(backends.serve_echo, host="127.0.0.6"))
        free = free_port()
        # A port must be free on all addresses; otherwise the gateway looks for another one.
        for low, high, found in ((free, free, True), (taken.port, taken.port, False),
                                   (taken.port, min(taken.port + 9, 65535), True)):
            gateway = self.stage.gateway("-c", configure(self.stage, f"expose-bind = [{text}]\n"),
                                         "--expose-ports", f"{low}-{high}")
            if found:
                tunnel = self.stage.expose(backend.address, gateway=gateway)
                self.assertNotEqual(tunnel.port, taken.port)
                for host in hosts:
                    self.assertEqual(get(f"http://{host}:{tunnel.port}/"), b"all")
            else:
                agent = self.stage.agent(gateway, "-n", "example", "9")
                self.assertEqual(agent.wait_event("missing")["code"], "port-taken")
            gateway.stop()

    def test_an_address_twice(self):
        gateway = self.stage.gateway("--expose-bind", "::1", "--expose-bind", "::1", ready=False)
        self.assertEqual(gateway.wait_exit(), 64)
        self.assertIn("--expose-bind: '::1' was given twice", gateway.output)

    def test_address_that_comes_later(self):
        """After a power failure, the gateway may start before the machine has its public address."""
        hosts = self.stage.use(TwoHosts())
        late = "10.99.0.77"
        gateway = self.stage.gateway("--expose-bind", late, prefix=hosts.near)
        gateway.wait_log(rf"ERROR expose-bind: this machine does not have the address {late}; names wait until it has it")
        agent = self.stage.agent(gateway, "-n", "example", "9", prefix=hosts.near)
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        hosts.add_address(late)
        agent.wait_registered("example", timeout=60)
