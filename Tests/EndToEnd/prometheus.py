"""A strict parser of a gateway's metrics, and Prometheus' own tools."""

import http.client
import re
import shutil
import socket
import subprocess
import unittest

from harness import REPOSITORY, Failure, wait_until

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
SHOWN = r"serving metrics on (\S+)$"


def promtool(*arguments, text=None):
    """Runs promtool; returns its output if it reports a problem, otherwise ""."""
    path = shutil.which("promtool") or REPOSITORY / ".build" / "tools" / "promtool"
    if not shutil.which(path):
        raise unittest.SkipTest("promtool is not installed")
    result = subprocess.run([path, *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 and not result.stderr else f"{result.returncode}: {result.stdout}{result.stderr}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Scrape:
    """The metrics at one moment."""

    def __init__(self, text):
        self.text = text
        self.types = {}
        self.samples = {}
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                if name != family or name in self.types:
                    raise Failure(f"out of place: {line}")
                self.types[name] = kind
            else:
                self._add(line)

    def _add(self, line):
        found = SAMPLE.fullmatch(line)
        if not found:
            raise Failure(f"no sample: {line!r}")
        name, text, value = found.groups()
        labels = LABEL.findall(text or "")
        if "".join(f'{key}="{value}",' for key, value in labels).rstrip(",") != (text or ""):
            raise Failure(f"no labels: {line!r}")
        series = (name, frozenset(labels))
        if series in self.samples:
            raise Failure(f"twice: {line!r}")
        self.samples[series] = float(value)

    @property
    def names(self):
        """The names of all samples, which queries can use."""
        return {name for name, _ in self.samples}

    def all(self, name, /, **labels):
        """The values of all series with the given labels, by their other labels."""
        wanted = set(labels.items())
        return {tuple(sorted(set(have) - wanted)): value for (own, have), value in self.samples.items()
                if own == name and wanted <= have}

    def value(self, name, /, **labels):
        """The value of the series with exactly these labels."""
        series = (name, frozenset(labels.items()))
        if series not in self.samples:
            raise Failure(f"there is no {name}{labels}; there are {self.all(name)}")
        return self.samples[series]

    def counted(self, name, *keys):
        """The nonzero series of a counter: values by the values of these labels."""
        return {tuple(dict(labels)[key] for key in keys) if len(keys) > 1 else dict(labels)[keys[0]]: value
                for labels, value in self.all(name).items() if value}


class Metrics:
    """A gateway's metrics endpoint, whose address is in its log."""

    def __init__(self, gateway):
        self.place = gateway.wait_log(SHOWN).group(1)

    def connection(self):
        if self.place.startswith("unix:"):
            return UnixConnection(self.place.removeprefix("unix:"))
        return http.client.HTTPConnection(self.place, timeout=10)

    def ask(self, path="/metrics", method="GET"):
        """Sends a request; returns the response, with its body in `text`."""
        connection = self.connection()
        try:
            connection.request(method, path)
            response = connection.getresponse()
            response.text = response.read().decode()
            return response
        finally:
            connection.close()

    def scrape(self):
        response = self.ask()
        if response.status != 200:
            raise Failure(f"status {response.status}: {response.text}")
        return Scrape(response.text)

    def wait(self, condition, what):
        """Waits for the first scrape for which `condition` holds, and returns it."""
        def look():
            scrape = self.scrape()
            return condition(scrape) and scrape

        return wait_until(look, what, interval=0.05)

    def dial(self):
        """A plain connection to the endpoint."""
        if self.place.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(15)
            connection.connect(self.place.removeprefix("unix:"))
            return connection
        host, port = self.place.rsplit(":", 1)
        return socket.create_connection((host.strip("[]"), int(port)), 15)
