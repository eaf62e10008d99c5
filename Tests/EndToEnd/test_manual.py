"""Man pages and completions: complete, valid, and consistent with `--help`."""

import os
import re
import subprocess
import tomllib

from commandlines import PROGRAMS, commands, options, run
from harness import REPOSITORY, EndToEndTest, program_path, wait_until
from realservers import require
from terminals import Terminal

SECTIONS = {"diglett": 1, "diglett-server": 8}
HEADINGS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "CONFIGURATION", "FILES", "EXIT STATUS",
            "SIGNALS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"]

# Requests completions from bash as readline does: the arguments are the words, the last one incomplete.
BASH = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"_$1" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""

# Makes zsh write the completions that it offers at each tab to a file, and then the line "(end)". zsh's own functions
# also call compadd for words that they do not offer yet (-O, -A, -D; zshcompwid(1)).
ZSH = r"""
fpath=(DIRECTORY $fpath); autoload -Uz compinit; compinit -D -u
compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        local -a offered; builtin compadd -A offered "$@"; print -rl -- $offered >>FILE
    fi
    builtin compadd "$@"
}
# Otherwise zsh asks before it shows a long list.
unsetopt autolist
offer() { zle complete-word; print -r -- '(end)' >>FILE; zle kill-buffer }
zle -N offer; bindkey '^I' offer; PS1='rea'dy
"""


class Commands(EndToEndTest):
    def test_all_are_found(self):
        """The other tests in this module check each of these commands."""
        self.assertEqual(
            set(commands()),
            {("diglett", ()), *(("diglett", (name,)) for name in ("check", "explain", "key", "status")),
             ("diglett-server", ()),
             *(("diglett-server", (name,)) for name in ("agent", "check", "ctl", "explain")),
             *(("diglett-server", ("agent", name)) for name in ("add", "list", "rotate", "remove", "pin")),
             *(("diglett-server", ("ctl", name)) for name in (
                 "status", "agents", "exposures", "streams", "penalties", "bans", "kick", "ban", "unban", "drain",
                 "reload", "log-level"))})

    def test_help_of_key_makes_no_key(self):
        program = self.stage.start("diglett", [program_path("diglett"), "help", "key"])
        self.assertEqual(program.wait_exit(), 0)
        self.assertIn("USAGE: diglett key [--state-dir <dir>]", program.output)
        self.assertFalse((self.stage.directory / "state-home").exists())


class ManualPages(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.pages = {}
        for program in PROGRAMS:
            path = self.stage.directory / f"{program}.{SECTIONS[program]}"
            text = subprocess.run(
                [REPOSITORY / "scripts" / "manual-page", program_path(program), "--date", "2026-11-23"],
                check=True, capture_output=True, text=True).stdout
            path.write_text(text)
            self.pages[program] = path

    def shown(self, program):
        """The rendered page, without bold and underlined text."""
        text = subprocess.run([require("mandoc"), "-Tutf8", "-Owidth=200", self.pages[program]], check=True,
                              capture_output=True, text=True).stdout
        return re.sub(".\x08", "", text)

    def test_no_complaint(self):
        for program, page in self.pages.items():
            with self.subTest(program=program):
                lint = subprocess.run([require("mandoc"), "-Tlint", page], capture_output=True, text=True)
                # Depends on the installed pages: one of the same name may exist, or those of systemd may be missing.
                said = [line for line in lint.stdout.splitlines() if "referenced manual not found" not in line]
                self.assertEqual(said, [])
                man = subprocess.run([require("man"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
                                     capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
                self.assertEqual((man.returncode, man.stderr), (0, ""))

    def test_headings(self):
        for program in PROGRAMS:
            with self.subTest(program=program):
                headings = re.findall(r"^([A-Z][A-Z ]+)$", self.shown(program), re.MULTILINE)
                self.assertEqual(headings, HEADINGS)

    def test_every_option_and_subcommand(self):
        for program, path in commands():
            with self.subTest(command=[program, *path]):
                text = self.shown(program)
                if path:
                    _, _, text = text.partition(f"\n   {' '.join(path)}\n")
                    text = re.split(r"\n   (?=\S)", text)[0]
                    self.assertTrue(text, "has no section")
                else:
                    text = re.search(r"\nOPTIONS\n(.*?)\n[A-Z]", text, re.DOTALL)[1]
                # Every subcommand has --version and --help; the page lists them only once.
                wanted = options(program, *path) - ({"--version", "--help", "-h"} if path else set())
                there = set(re.findall(r"(?:^ +|, )(--?[\w-]+)", text, re.MULTILINE))
                self.assertEqual(wanted - there, set())

    def test_every_exit_code(self):
        for program, codes in (("diglett", (0, 10, 18, 64, 69, 78)), ("diglett-server", (0, 64, 71, 73, 78))):
            with self.subTest(program=program):
                text = re.search(r"\nEXIT STATUS\n(.*?)\n[A-Z]", self.shown(program), re.DOTALL)[1]
                for code in codes:
                    self.assertRegex(text, rf"(?m)^ +{code} +\w")

    def flat(self, program, heading):
        """A section as a single line."""
        return " ".join(re.search(rf"\n{heading}\n(.*?)\n[A-Z]", self.shown(program), re.DOTALL)[1].split())

    def test_exit_codes_are_explained(self):
        """The page has the name, meaning and advice of each code in docs/errors.md."""
        document = (REPOSITORY / "docs" / "errors.md").read_text()
        for program in PROGRAMS:
            section = re.search(rf"(?ms)^## {program}\n(.*?)^## ", document)[1]
            rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d", line)]
            self.assertGreater(len(rows), 7)
            text = self.flat(program, "EXIT STATUS")
            for code, name, meaning, _, advice in rows:
                with self.subTest(program=program, code=code):
                    meaning = meaning[0].upper() + meaning[1:]
                    self.assertIn(" ".join(f"{code} {name} {meaning}. {advice}".split()), text)

    def test_every_variable(self):
        """The page has exactly the variables in docs/configuration.md."""
        document = (REPOSITORY / "docs" / "configuration.md").read_text().partition("## The environment")[2]
        rows = re.findall(r"^\| (`[A-Z].*?) \| (\w+) \|", document, re.MULTILINE)
        handed_on = set(re.findall(r"`(\w+)`", re.search(r"^Programs that a gateway starts get .*", document, re.MULTILINE)[0]))
        for program, owner in (("diglett", "agent"), ("diglett-server", "gateway")):
            with self.subTest(program=program):
                wanted = {name for names, of in rows if of in ("both", owner) for name in re.findall(r"\w+", names)}
                if owner == "gateway":
                    wanted |= handed_on
                section = re.search(r"\nENVIRONMENT\n(.*?)\n[A-Z]", self.shown(program), re.DOTALL)[1]
                terms = re.findall(r"^ {7}([A-Z][A-Z_, ]*?)(?: +[A-Z][a-z].*)?$", section, re.MULTILINE)
                self.assertEqual({name for term in terms for name in term.split(", ")}, wanted)

    def test_examples_can_be_copied(self):
        """Commands are not wrapped: a wrapped command would read as two."""
        for program, page in self.pages.items():
            with self.subTest(program=program):
                source = tomllib.loads((REPOSITORY / "scripts" / "manual" / f"{program}.toml").read_text())
                text = subprocess.run([require("man"), "-l", "-E", "UTF-8", page], check=True, capture_output=True,
                                      text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}).stdout
                lines = [line.strip() for line in text.splitlines()]
                for example in source["example"]:
                    self.assertIn(example["command"], lines)


class Completions(EndToEndTest):
    def script(self, shell, program):
        """Writes a completion script, named as the shell requires; returns its path."""
        directory = self.stage.directory / shell
        directory.mkdir(exist_ok=True)
        path = directory / {"bash": program, "zsh": f"_{program}", "fish": f"{program}.fish"}[shell]
        path.write_text(run(program, "--generate-completion-script", shell))
        return path

    def test_shells_understand_them(self):
        for shell in ("bash", "zsh", "fish"):
            for program in PROGRAMS:
                with self.subTest(shell=shell, program=program):
                    result = subprocess.run([require(shell), "-n", self.script(shell, program)],
                                            capture_output=True, text=True)
                    self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def bash(self, *words):
        script = self.script("bash", words[0])
        # Split like readline: each colon and equals sign is a separate word.
        parts = [part for word in words for part in re.findall(r"[:=]|[^:=]+", word) or [""]]
        result = subprocess.run([require("bash"), "--norc", "-c", BASH, "bash", script, *parts], check=True,
                                capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        return set(result.stdout.split())

    def fish(self, *words):
        script = self.script("fish", words[0])
        line = " ".join(words)
        result = subprocess.run(
            [require("fish"), "--no-config", "-c", f"source {script}; complete -C '{line}'"], check=True,
            capture_output=True, text=True, env=self.stage.environment())
        self.assertEqual(result.stderr, "")
        return {row.split("\t")[0] for row in result.stdout.splitlines()}

    def zsh(self, lines):
        """The completions at the end of each line, from a single shell: {words: completions}."""
        directory = [self.script("zsh", program).parent for program in PROGRAMS][0]
        file = self.stage.directory / "offered"
        setup = self.stage.directory / "setup"
        setup.write_text(ZSH.replace("DIRECTORY", str(directory)).replace("FILE", str(file)))
        found = {}
        with Terminal([require("zsh"), "-f", "-i"], self.stage) as terminal:
            terminal.write(f". {setup}\n")
            terminal.await_text(r"\nready|\rready")
            for words in lines:
                file.write_text("")
                terminal.write(" ".join(words) + "\t")
                wait_until(lambda: file.read_text().endswith("(end)\n"), f"what zsh offers for {words}")
                found[words] = set(file.read_text().split()) - {"(end)"}
        return found

    def test_bash_offers_its_options_and_no_others(self):
        for program, path in commands():
            with self.subTest(command=[program, *path]):
                self.assertEqual(self.bash(program, *path, "-"), options(program, *path))

    def test_fish_offers_its_options_and_no_others(self):
        for program, path in commands():
            with self.subTest(command=[program, *path]):
                wanted = {name for name in options(program, *path) if name.startswith("--")}
                self.assertEqual(self.fish(program, *path, "--"), wanted)

    def test_zsh_offers_its_options_and_no_others(self):
        lines = {(program, *path, "-"): options(program, *path) for program, path in commands()}
        for words, offered in self.zsh(lines).items():
            with self.subTest(words=words):
                self.assertEqual(offered, lines[words])

    def test_options_behind_others(self):
        """Completion works after the program's options in any position, after its argument, and after colons."""
        server, agent = "diglett-server", "diglett"
        streams = {name for name in options(server, "ctl", "streams") if name.startswith("--")}
        its_own = {name for name in options(agent) if name.startswith("--")}
        cases = {
            (server, "--state-dir", "x", "ctl", "streams", "--"): streams,
            (server, "ctl", "--state-dir", "x", "streams", "--"): streams,
            (server, "ctl", "--control", "/x", "-d", "streams", "--"): streams,
            (server, "ctl", "streams", "--state-dir", "x", "--"): streams,
            (server, "-l", "127.0.0.1:0", "ctl", "streams", "--"): streams,
            (agent, "localhost:9000", "--"): its_own,
            (agent, "-n", "x", "localhost:9000", "--"): its_own - {"--name"},
            (agent, "-g", "h:1", "-n", "x", "--"): its_own - {"--gateway", "--name"},
            (agent, "status", "--state-dir", "x:y", "--"): {"--output", "--version", "--help"},
        }
        by_zsh = self.zsh(cases)
        for words, wanted in cases.items():
            # Shells differ in whether they offer an option again that was already given.
            given = {"--gateway", "--name", "--state-dir", "--control", "--debug"} & options(*words[:1])
            for shell, offered in (("bash", self.bash(*words)), ("fish", self.fish(*words)), ("zsh", by_zsh[words])):
                with self.subTest(shell=shell, words=words):
                    self.assertLessEqual(wanted - given, offered)
                    self.assertLessEqual(offered, wanted | (given if wanted is not streams else set()))

    def test_bash_at_a_terminal(self):
        with Terminal([require("bash"), "--norc", "-i"], self.stage) as terminal:
            terminal.write("bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0'\n")
            for program in PROGRAMS:
                terminal.write(f"source {self.script('bash', program)}\n")
            for line, wanted, unwanted in (
                    ("diglett status --", "--output", "--gateway"),
                    ("diglett -g h:1 --", "--once", "status"),
                    ("diglett-server -l 127.0.0.1:0 ctl --state-dir x streams --", "--watch", "--listen")):
                with self.subTest(line):
                    terminal.write("\x15" + line + "\t")
                    terminal.await_text(rf"\n(?s:.*){wanted}(?s:.*)\n")
                    terminal.await_text("--help")
                    self.assertNotIn(unwanted, terminal.shown.split("\n", 1)[1].replace(line, ""))

    def test_subcommands_and_values(self):
        cases = {("diglett-server", "agent", "ro"): {"rotate"}, ("diglett-server", "che"): {"check"},
                 ("diglett-server", "--auth", "f"): {"file"}, ("diglett", "--output", "j"): {"json"},
                 ("diglett-server", "agent", "list", "--output", ""): {"text", "json"},
                 ("diglett", "--proxy-protocol", "v"): {"v1", "v2"}}
        for words, wanted in cases.items():
            for shell in (self.bash, self.fish):
                with self.subTest(shell=shell.__name__, words=words):
                    self.assertEqual(shell(*words), wanted)

    def test_files(self):
        """Options with a file as value offer files; --config offers only TOML files."""
        for name in ("a.toml", "a.txt"):
            (self.stage.directory / name).touch()
        start = f"{self.stage.directory}/a"
        self.assertEqual(self.bash("diglett-server", "--config", start), {f"{start}.toml"})
        self.assertEqual(self.bash("diglett", "--token-file", start), {f"{start}.toml", f"{start}.txt"})

    def test_zsh_completes(self):
        directory = [self.script("zsh", program).parent for program in PROGRAMS][0]
        with Terminal([require("zsh"), "-f", "-i"], self.stage) as terminal:
            # The prompt is concatenated from parts, so its own command does not match it.
            terminal.write(f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -D -u; PS1='rea'dy\n")
            terminal.await_text(r"\nready|\rready")
            terminal.write("diglett-server --expose-b\t")
            terminal.await_text("diglett-server --expose-bind ")
            terminal.write("\x15diglett-server agent ro\t")
            terminal.await_text("diglett-server agent rotate ")
            terminal.write("\x15diglett --output j\t")
            terminal.await_text("diglett --output json ")
