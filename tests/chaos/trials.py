"""The trials: each section yields trials without end, each (name, verdict, detail); see `commands.judge`."""

import gzip
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from nlp_rnn.config.loading import ALL_SETTINGS, load_config, to_yaml
from nlp_rnn.errors import ConfigError
from tests.chaos.commands import (
    Ended,
    fresh,
    judge,
    killed_at_rename,
    leftovers,
    resize,
    run,
    small_disk,
    with_short_files,
)  # fmt: skip
from tests.chaos.models import EXPORTS, LINES, SETTINGS, answer, arguments_of, commands_of, differences, outcome

Trial = tuple[str, str, str]
Section = Callable[[Path, Path, Random], Iterator[Trial]]

# Relative names only: the commands run as their user, and would write wherever an absolute one leads.
NAMES = [
    "", " ", ".", "-", "--", "é日", "a b", "[x]", "*", "?", "a\\b", "~", "$HOME", "%s", "{}", "a" * 256, "é" * 130,
    "a\0b", "\x1b]0;title\x07", "\x9b2J", "\u202egnp", "a\nb", "\udcff", "a/" * 2100, "nul", "CON", "-rf", "#",
    "x" * 5000,
]  # fmt: skip
TEXTS = [
    *NAMES, "\ufeff", "\u0000", "a\u0301" * 500, "word" * 30_000, "日" * 5_000, "<b>&amp;</b>", "$\\frac{$",
    "<pad> <unk> </s>",
    "\u2581", "{{7*7}}", "';--", "1" * 5001, "\t\r\n", "🏳️‍🌈", "ﷺ" * 100, "\u200b", "The the THE tHe",
]  # fmt: skip


def outcome_of(command: str, task: str, folder: Path, ended: Ended) -> list[str]:
    """How the result of a command that ended well differs from that without disturbance."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    name = {"train": "again", "resume": "part", "transfer": "moved"}.get(command)
    if name:
        return differences(outcome(folder / "runs" / name), expected["transfer" if command == "transfer" else "run"])
    if command == "export":
        asked = run(*arguments_of("predict", task), folder=folder)
        same = asked.status == 0 and answer("predict", asked) == expected["predict"]
        return [] if same else [f"the export answers {asked.status} {asked.message}"]
    wanted = expected.get(command)
    return ["the answer differs"] if wanted is not None and answer(command, ended) != wanted else []


def _attempt(command: str, task: str, folder: Path, **how: Any) -> tuple[Ended, str, str]:
    ended = run(*arguments_of(command, task), folder=folder, text=LINES, **how)
    return ended, *judge(ended, outcome_of(command, task, folder, ended) if ended.status == 0 else None)


def _any_command(generator: Random) -> tuple[str, str]:
    task = generator.choice(list(SETTINGS))
    return task, generator.choice(commands_of(task))


def _again(command: str, task: str, folder: Path) -> tuple[str, str]:
    """Runs a command that was disturbed once more: it must end well, and leave no temporary files."""
    for path in folder.rglob(".nlp-rnn-*"):
        os.utime(path, (1, 1), follow_symlinks=False)  # left over for long
    _, verdict, detail = _attempt(command, task, folder)
    if left := [name for name in leftovers(folder) if os.path.getmtime(folder / name) < 100]:
        return "FINDING", f"left {left}; {detail}"
    return ("FINDING", detail) if verdict == "refused" else (verdict, detail)


def kill(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Kills a command at any time, or stops it, and runs it again."""
    while True:
        task, command = _any_command(generator)
        folder = fresh(base / task, work)
        if generator.random() < 0.5:
            number = generator.randint(1, 8)
            name, how = f"killed at rename {number}", {"before": killed_at_rename(number)}
        else:
            seconds, number = (
                generator.uniform(0.02, 6),
                generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
            )
            name, how = f"{number.name} after {seconds:.2f} s", {"kill": (seconds, number)}
        ended, verdict, detail = _attempt(command, task, folder, **how)
        if ended.status in (0, 130, 128 + signal.SIGTERM) or (
            (ended.status or 0) < 0 and "Traceback" not in ended.errors
        ):
            verdict, detail = _again(command, task, folder)
        yield f"{task} {command}, {name}", verdict, detail


def disk(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Runs a command on a full disk, or with short files only, and once more with room."""
    while True:
        task, command = _any_command(generator)
        room = int(2 ** generator.uniform(9, 19))
        if generator.random() < 0.5:
            folder = fresh(base / task, work)
            _, verdict, detail = _attempt(command, task, folder, before=with_short_files(room))
            if verdict != "FINDING":
                verdict, detail = _again(command, task, folder)
            yield f"{task} {command}, files of at most {room} bytes", verdict, detail
            continue
        shutil.rmtree(work, ignore_errors=True)
        with small_disk(work, 2**30) as is_small:
            if not is_small:
                continue
            folder = fresh(base / task, work / "folder")
            used = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))
            resize(work, used + room)
            _, verdict, detail = _attempt(command, task, folder)
            is_advised = "free some space" in detail
            resize(work, 2**30)
            if verdict == "refused" and not is_advised:
                verdict = "FINDING"
            elif verdict != "FINDING":
                verdict, detail = _again(command, task, folder)
        yield f"{task} {command}, {room} bytes free", verdict, detail


def _damage(path: Path, generator: Random) -> str:
    content = bytearray(path.read_bytes())
    kind = generator.choice(["cut", "bit", "bit", "empty", "gone", "garbage", "folder"])
    place = generator.randrange(len(content)) if content else 0
    if kind in ("gone", "folder"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
    elif kind == "bit" and content:
        content[place] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes({"cut": content[:place], "garbage": generator.randbytes(len(content) + 9)}.get(kind, b""))
    return f"{kind} at {place}"


def damage(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Damages a file that a command reads: it may answer as before, or refuse."""
    while True:
        task, command = _any_command(generator)
        folder = fresh(base / task, work)
        model = f"saved_models/{EXPORTS[task]}"
        place = {
            "train": "cache", "prepare": "cache", "resume": "runs/part", "predict": model, "explain": model,
            "console": f"{model}_litert", "memory": generator.choice([f"{model}_litert", "memory.json"]),
            "transfer": generator.choice(["cache", "runs/language"]), "ensemble": "runs/other",
        }.get(command, "runs/small")  # fmt: skip
        paths = [path for path in (folder / place, *(folder / place).rglob("*")) if path.is_file()]
        path = generator.choice(sorted(paths))
        how = _damage(path, generator)
        _, verdict, detail = _attempt(command, task, folder)
        yield f"{task} {command}, {path.relative_to(folder)} {how}", verdict, detail


def names(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Gives an odd name to an option or a setting, or an odd text to a command."""
    paths = [
        "runs_dir=", "name=", "data.train=", "data.validation=", "data.cache_dir=", "tokenizer.vocabulary=",
        "data.dir=",
        "model.init_from=", "model.vectors=", "training.start_from=", "data.text_column=", "data.encoding=",
    ]  # fmt: skip
    while True:
        task, command = _any_command(generator)
        folder = fresh(base / task, work)
        before = sorted(work.parent.iterdir())
        odd = generator.choice(NAMES)
        arguments = arguments_of(command, task)
        options = [place for place in range(1, len(arguments)) if arguments[place - 1].startswith("--")]
        kind = generator.random()
        if command in ("train", "resume", "prepare", "transfer") and kind < 0.7:
            arguments.append(f"{generator.choice(paths)}{odd}")
        elif command in ("predict", "explain") and kind < 0.7:
            odd = generator.choice(TEXTS)
            arguments[-1] = odd
        elif options and kind < 0.9:
            arguments[generator.choice(options)] = odd
        else:
            arguments.insert(generator.randint(0, len(arguments)), odd)
        if any("\0" in each for each in arguments) and generator.random() < 0.8:
            continue  # no shell can pass one; Python's callers can
        ended = run(*arguments, folder=folder, text=LINES)
        verdict, detail = judge(ended)
        if sorted(work.parent.iterdir()) != before:
            verdict, detail = "FINDING", "wrote beside its folder"
        yield f"{task} {command}, {odd[:40]!r} in {arguments!r:.300}", verdict, detail


def config(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Reads odd YAML and odd settings."""
    values = [
        "null", "true", "0", "-1", "2147483648", "1" * 5000, "0x" + "f" * 5000, "1e999", ".nan", ".inf", "0b_",
        "1:" * 300 + "1",
        "2024-99-99", "[]", "{}", "[[[]]]", "{a: 1}", "[" * 3000, "{a: " * 800,
        "!!python/object/apply:os.system [true]",
        "!!bool x", "!!binary aaa=", "!!timestamp 9", "&a [*a]", "*x", "<<: 1", "? [1]", "'", '"', "|", "\t",
        "lstm", "last",
        "[last, last]", "0.5", "no", "~", *(name for name in NAMES if "\0" not in name),
    ]  # fmt: skip
    shipped = [path.read_text(encoding="utf-8") for path in sorted(Path("configs").glob("*.yaml"))]
    work.mkdir(exist_ok=True)
    path = work / "config.yaml"
    while True:
        keys = [*ALL_SETTINGS, "data", "model", "task", "x", "__class__", "data.", "a.b.c"]
        overrides = [
            f"{generator.choice(keys)}{generator.choice(['=', '=', '==', ''])}{generator.choice(values)}"
            for _ in range(generator.randint(0, 3))
        ]
        text = generator.choice(shipped)
        for _ in range(generator.randint(0, 4)):
            place = generator.randrange(len(text))
            inserted = generator.choice([*values, "\x00", "\xff", "{", ": ", "\n", "- ", "&a ", "%", text[:place]])
            text = text[:place] + inserted + text[place + generator.randint(0, 9) :]
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        task = generator.choice([*SETTINGS, None])
        begun, verdict, detail = time.monotonic(), "ok", ""
        try:
            read = load_config(path, overrides, task=task)
            (work / "back.yaml").write_text(to_yaml(read), encoding="utf-8")
            if load_config(work / "back.yaml") != read:
                verdict, detail = "FINDING", "to_yaml does not read back equal"
        except ConfigError as error:
            verdict, detail = ("refused", str(error)) if len(str(error)) < 20_000 else ("FINDING", "long message")
        except Exception as error:
            verdict, detail = "FINDING", f"{type(error).__name__}: {error}"
        if time.monotonic() - begun > 5:
            verdict, detail = "FINDING", f"took {time.monotonic() - begun:.1f} s"
        yield f"{overrides!r:.300} and {text[:80]!r}", verdict, detail


def data(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Reads damaged and odd data files with `nlp-rnn check`."""
    tmx = '<?xml version="1.0"?><tmx version="1.4"><header/><body>' + "".join(
        f'<tu><tuv xml:lang="en"><seg>the {n} king</seg></tuv><tuv xml:lang="de"><seg>der {n} König</seg></tuv></tu>'
        for n in range(60)
    )
    rows = [json.dumps({"text": f"film {n} was good", "label": n % 2}) for n in range(60)]
    files = {
        "csv": "text,label\n" + "".join(f'"film {n}, was good",{n % 2}\n' for n in range(60)),
        "tsv": "text\tlabel\n" + "".join(f"film {n} was good\t{n % 2}\n" for n in range(60)),
        "jsonl": "\n".join(rows) + "\n",
        "text": "".join(f"__label__{n % 2} film {n} was good\n" for n in range(60)),
        "documents": "the film was good . " * 300,
        "tmx": tmx + "</body></tmx>",
    }
    odd = [
        b"\x00", b"\xff\xfe", b'"', b"\n", b"\r", b"\x1b[31m", b"[" * 3000, b'{"a":' * 3000, b"9" * 5001,
        b"<a>" * 3000, b"NaN",
        b"1e999", b'"\\ud800"', b"&x;", b'<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]>', b'encoding="utf-7"',
        b"\xef\xbb\xbf", b",",
        b"\x1f\x8b", b"PK\x03\x04", b"\t", "日".encode("utf-16"), b"\x85", b"a" * 200_000,
    ]  # fmt: skip
    while True:
        source = generator.choice(list(files))
        content = files[source].encode()
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(content) + 1)
            if generator.random() < 0.7:
                content = content[:place] + generator.choice(odd) + content[place + generator.randint(0, 20) :]
            else:
                content = content[:place]
        suffix = generator.choice(["", "", ".gz"])
        content = gzip.compress(content) if suffix else content
        if suffix and generator.random() < 0.5:
            content = content[: generator.randrange(len(content))]
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / f"odd{suffix}").write_bytes(content)
        task = {"tmx": "translation", "documents": "char_generation"}.get(source, "sentiment")
        settings = ["data.test_fraction=0.1", "data.validation_fraction=0.2", "tokenizer.max_unknown=1.0"]
        given = ["check", "--task", task, f"data.source={source}", f"data.train=odd{suffix}", *settings, "--json"]
        ended = run(*given, folder=work)
        verdict, detail = judge(ended)
        if verdict == "FINDING":
            (work.parent / f"odd_{generator.getrandbits(32)}_{source}{suffix}").write_bytes(content)
        yield f"{source}{suffix} of {len(content)} bytes", verdict, detail


def console(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Types odd lines and commands, and restores odd memories."""
    commands = [
        "top",
        "temperature",
        "learn",
        "private",
        "words",
        "reset",
        "forget",
        "stats",
        "save",
        "quit",
        "help",
        "x",
        "",
    ]
    values = ["on", "off", "1", "9" * 5000, "nan", "-1", "٣", *NAMES, *TEXTS]
    memory = json.loads((base / "next_word" / "memory.json").read_text(encoding="utf-8"))
    while True:
        folder = fresh(base / "next_word", work)
        lines = []
        for _ in range(generator.randint(1, 12)):
            value = generator.choice(values)
            begun = f"/{generator.choice(commands)} " if generator.random() < 0.6 else ""
            lines.append((begun + value.replace("\n", "")).encode("utf-8", "surrogateescape"))
        arguments = arguments_of(generator.choice(["console", "memory"]), "next_word")
        if generator.random() < 0.5:
            _spoil(content := json.loads(json.dumps(memory)), generator)
            (folder / "memory.json").write_text(json.dumps(content), encoding="utf-8")
        ended = run(*arguments, folder=folder, text=b"\n".join(lines) + generator.choice([b"\n", b"", b"\xff"]))
        yield f"{[line[:40] for line in lines]!r:.300}", *judge(ended)


def _spoil(value: Any, generator: Random) -> None:
    """Replaces a value somewhere in JSON."""
    odd = [None, True, -1, 0, 0.5, 10**30, float("nan"), "", "é" * 300, "\x1b", [], {}, [[]], {"a": 1}, "AAAA", "=" * 9]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = generator.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and generator.random() < 0.7:
        _spoil(value[key], generator)
    else:
        value[key] = generator.choice(odd)
