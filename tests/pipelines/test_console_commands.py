"""The command `console`: in a pipe, in a terminal, without TensorFlow."""

import contextlib
import functools
import json
import re
import subprocess
import sys
import time

import pexpect
import pyte
import pytest

from tests import conftest
from tests.conftest import ROOT, pipeline_environment, run_pipeline

ask, refused = (functools.partial(command, task="next_word") for command in (conftest.ask, conftest.refused))

LITERT = ("--model", "saved_models/next_word_litert")


def test_console_through_a_pipe(next_word_trained):
    done = run_pipeline(
        "console",
        *LITERT,
        "--count",
        "1",
        cwd=next_word_trained,
        task="next_word",
        text="the cat likes the\nthe k\n/stats\n",
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("the ")
    assert done.stdout.splitlines()[1].split()[0] in ("king", "kingdom", "kitchen")
    assert done.stderr.strip().endswith("0 words remembered, 0 new ones learnt")
    found = json.loads(ask("console", "--json", *LITERT, cwd=next_word_trained, text="A dog sees a shiny \n"))
    assert found["words"][0]["word"] == "kingdom"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/top " + "9" * 5000, "9, but must be a whole number from 1 to 9"),
        ("/top ٣", "/top is ٣, but must be a whole number from 1 to 9"),
        ("/save " + "a" * 300, "each name in it 255; give a shorter one; give another file"),
        ("/\x1b]0;title\x07", "/\\x1b]0;title\\x07 is not a command; see /help"),
    ],
)
def test_console_commands_that_cannot_be_are_one_line(next_word_trained, command, message):
    lines = f"/learn on\nthe cat likes the\n{command}\n"
    done = run_pipeline("console", *LITERT, cwd=next_word_trained, task="next_word", text=lines)
    assert done.returncode == 0, done.stderr
    assert message in done.stderr.splitlines()[-1]


def test_console_without_tensorflow(next_word_trained):
    code = (
        "import sys; from pipelines import next_word; from nlp_rnn.cli import main as cli; "
        f"cli.main(next_word, ['console', '--model', "
        f"{str(next_word_trained / 'saved_models' / 'next_word_litert')!r}]); "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input="the \n", capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "False"


class Console:
    """The console in a terminal of 24 lines."""

    def __init__(self, folder, *arguments, **environment):
        command = ["-m", "pipelines.next_word", "console", *LITERT, *arguments]
        whole = pipeline_environment(folder) | {"TERM": "xterm"} | environment
        self.child = pexpect.spawn(
            sys.executable,
            command,
            cwd=str(folder),
            env=whole,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(24, 100),
        )
        self.screen = pyte.Screen(100, 24)
        self.screen.write_process_input = self.child.send  # answers where the cursor is
        self.stream = pyte.Stream(self.screen)
        self.see("help shows all keys")

    def type(self, *texts):
        for text in texts:
            self.child.send(text)

    def see(self, pattern):
        """Waits until the screen shows what matches."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = re.search(pattern, "\n".join(self.screen.display))
            if found:
                return found
            with contextlib.suppress(pexpect.TIMEOUT):
                self.stream.feed(self.child.read_nonblocking(4096, timeout=0.2))
        raise AssertionError(f"{pattern!r} is not on the screen:\n" + "\n".join(self.screen.display))

    def resize(self, rows, columns):
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    def leave(self):
        self.type("/quit\r")
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0


def test_console_in_a_terminal(next_word_trained):
    console = Console(next_word_trained, "--learn")
    console.type("the cat likes the gr")
    console.see(r"> the cat likes the green[^$]* 1 green 100\.0%")
    console.type("\x1b[C")  # Right
    console.see(" 1 garden")
    console.type("\x1b1")  # Alt-1
    console.see(r"> the cat likes the green garden (?! *1 garden)")
    console.see(r"9 keys saved")
    console.resize(12, 60)
    console.type("\r", "/stats\r")
    found = console.see(r"(\d+) of (\d+) keystrokes saved \(\d+ %\), (\d+) words accepted")
    assert found.groups() == ("9", str(len("the cat likes the green garden ")), "2")  # "een" and "garden"
    console.type("my neighbour")
    console.see(r"> my neighbour[^$]* 1 [^$]* \d+ keys saved")  # five suggestions would leave no room for it
    console.type("\r")
    console.see(r"> my neighbour *\n")  # what was entered stands without a suggestion
    console.type("my dog\x03")  # Ctrl-C: the line is gone, the console stays
    console.type("\U0001f600 \u05e9\u05dc\u05d5\u05dd \r")
    console.type("/save memory.json\r")
    assert int(console.see(r"(\d+) words and 0 new ones saved")[1]) >= 7
    console.leave()
    again = Console(next_word_trained, "--memory", "memory.json")
    again.type("/stats\r")
    assert int(again.see(r"(\d+) words remembered")[1]) >= 7
    again.leave()


def test_console_learns_words_and_not_in_private(next_word_trained):
    console = Console(next_word_trained, "--learn")
    console.type("/private on\r", "the cat likes Hrubieszow\r", "the cat likes Hrubieszow\r", "/private off\r")
    console.type("the cat likes Zofia\r", "the cat likes Zofia\r")
    console.type("the dog sees Zo")
    console.see(r"> the dog sees Zofia[^$]* 1 Zofia ")
    console.type("\t\r", "/words\r")
    console.see(r"Zofia \(3\)")
    console.type("/forget\r", "/words\r")
    console.see("no words yet")
    console.leave()


def test_console_takes_a_pasted_page_and_a_plain_terminal(next_word_trained):
    console = Console(next_word_trained, TERM="dumb", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    console.type("the cat likes the green garden . " * 60 + "\r")
    console.type("a dog\r", "/top 0\r")
    console.see("/top is 0")
    console.type("/nonsense\r")
    console.see("/nonsense is not a command")
    console.leave()
