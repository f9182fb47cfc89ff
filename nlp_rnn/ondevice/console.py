"""The interactive next-word console: suggestions while you type. Through a pipe: lines in, suggestions out."""

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.memory_file import save_memory
from nlp_rnn.ondevice.typing_session import Suggestion, TypingSession
from nlp_rnn.printable import printable

_NUM_SHOWN = 100  # words of /words

HELP = """\
Tab          accepts the first suggestion (shown in grey); Alt-1 ... Alt-9 accept the one with that number
Enter        ends the line; the text continues in the next one
Ctrl-C       clears the line; Ctrl-D on an empty line quits
/help        shows this text
/top N       shows N suggestions
/temperature T  flattens (above 1) or sharpens (below 1) the shown probabilities; 1 leaves them as they are
/learn on|off   adapts to your words: typed ones become likelier, unknown ones are suggested after their second use
/private on|off  learns nothing from what you type meanwhile
/words       shows the words that it has learnt from you
/reset       begins a new text; keeps what was learnt
/forget      forgets what was learnt
/stats       shows the keystrokes saved so far
/save FILE   saves what was learnt; console --memory FILE restores it
/quit        quits"""


class Quit(Exception):  # noqa: N818 - not an error
    """The user wants to quit."""


def run_command(session: TypingSession, line: str) -> str:
    """Runs a command, a line that begins with "/".

    Returns:
      the text to show.

    Raises:
      Quit: on /quit.
    """
    try:
        name, *arguments = shlex.split(line)
    except ValueError as error:
        return f"{line}: {error}; see /help"
    commands: dict[str, Callable[..., str]] = {
        "/help": lambda: HELP,
        "/top": lambda count: _set_count(session, count),
        "/temperature": lambda value: _set_temperature(session, value),
        "/learn": lambda state: _set_learning(session, state),
        "/private": lambda state: _set_private(session, state),
        "/words": lambda: _words(session),
        "/reset": lambda: _reset(session),
        "/forget": lambda: _forget(session),
        "/stats": lambda: (
            f"{session.statistics}; {len(session.memory):,} words remembered, {len(session.words):,} new ones learnt"
        ),
        "/save": lambda path: _save(session, path),
        "/quit": _quit,
    }
    if name not in commands:
        return f"{name} is not a command; see /help"
    wanted = {"/top": 1, "/temperature": 1, "/learn": 1, "/private": 1, "/save": 1}.get(name, 0)
    if len(arguments) != wanted:
        return f"{name} takes {('no argument', 'one argument')[wanted]}; see /help"
    return commands[name](*arguments)


def run_pipe(session: TypingSession, lines: Iterable[bytes]) -> Iterator[tuple[str, list[Suggestion]]]:
    """Yields the suggestions at the end of each line.

    Lines that begin with "/" are commands; they print to standard error.
    """
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("/"):
            try:
                print(printable(run_command(session, line)), file=sys.stderr)
            except Quit:
                return
            continue
        yield line, session.suggest(line)
        session.finish_line(line)


def run_terminal(session: TypingSession, *, history_file: str = "") -> None:
    """Reads lines from the terminal until the user quits."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        history = FileHistory(history_file) if history_file else InMemoryHistory()
        prompt = make_prompt(session, history)
    except OSError as error:
        raise ConfigError(
            f"--history is {history_file}, which cannot be opened ({error.strerror}); give another file"
        ) from None
    print(
        f"{session.model.name}: {len(session.model.words):,} words. Type; Tab accepts the suggestion, /help shows all "
        f"keys."
    )
    while True:
        try:
            line = prompt.prompt("> ")
        except KeyboardInterrupt:
            continue  # the line is cleared, the text stays
        except EOFError:
            break
        if line.startswith("/"):
            try:
                print(printable(run_command(session, line)))
            except Quit:
                break
        elif line:
            session.finish_line(line)
    print(session.statistics)


def make_prompt(session: TypingSession, history: Any, **options: Any) -> Any:
    """Builds a prompt_toolkit session with grey suggestion, bar and key bindings.

    Args:
      options: of PromptSession: input and output, for tests.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
    from prompt_toolkit.utils import get_cwidth

    shown: list[Suggestion] = []

    def look(buffer: Any) -> None:
        """Computes suggestions immediately: in the background, fast typing would overtake them."""
        text = buffer.document.text_before_cursor
        shown[:] = [] if text.startswith("/") or buffer.document.text_after_cursor else session.suggest(text)

    def take(buffer: Any, number: int) -> None:
        if number < len(shown):
            buffer.insert_text(session.accept(shown[number]))

    class Ghost(Processor):
        """Shows the rest of the first suggestion after the cursor."""

        def apply_transformation(self, transformation: TransformationInput) -> Transformation:
            is_last = transformation.lineno == transformation.document.line_count - 1 and not get_app().is_done
            fragments = list(transformation.fragments)
            return Transformation(
                [*fragments, ("class:auto-suggestion", shown[0].rest)] if shown and is_last else fragments
            )

    def bar() -> FormattedText:
        count = f"{session.statistics.saved} keys saved"
        room = get_app().output.get_size().columns - len(count) - 1
        parts: list[tuple[str, str]] = []
        for number, suggestion in enumerate(shown, start=1):
            name, share = f" {number} {suggestion.word}", f" {100 * suggestion.probability:.1f}% "
            room -= get_cwidth(name) + len(share)
            if room < 0:  # keep the count visible
                break
            parts += [("bold", name), ("", share)]
        return FormattedText([*parts, ("class:dim", f" {count}")])

    keys = KeyBindings()

    @keys.add("tab")
    def _take_first(event: Any) -> None:
        take(event.current_buffer, 0)

    @keys.add(
        "right", filter=Condition(lambda: bool(shown) and not get_app().current_buffer.document.text_after_cursor)
    )
    def _take_right(event: Any) -> None:
        take(event.current_buffer, 0)

    for number in range(1, 10):

        @keys.add("escape", str(number))
        def _take_numbered(event: Any, number: int = number) -> None:
            take(event.current_buffer, number - 1)

    prompt: Any = PromptSession(
        history=history,
        key_bindings=keys,
        bottom_toolbar=bar,
        input_processors=[Ghost()],
        complete_while_typing=False,
        **options,
    )
    prompt.default_buffer.on_text_changed += look
    prompt.default_buffer.on_cursor_position_changed += look
    prompt.app.pre_run_callables.append(lambda: look(prompt.default_buffer))
    return prompt


def _set_count(session: TypingSession, text: str) -> str:
    if not re.fullmatch("[1-9]", text):
        return f"/top is {text}, but must be a whole number from 1 to 9"
    session.count = int(text)
    return f"shows {text} suggestions"


def _set_temperature(session: TypingSession, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100:
        return f"/temperature is {text}, but must be a number from 0.01 to 100"
    session.temperature = value
    return f"temperature {value:g}"


def _set_learning(session: TypingSession, text: str) -> str:
    if text not in ("on", "off"):
        return f"/learn is {text}, but must be on or off"
    session.adapts = text == "on"
    return f"learning is {text}"


def _set_private(session: TypingSession, text: str) -> str:
    if text not in ("on", "off"):
        return f"/private is {text}, but must be on or off"
    session.is_private = text == "on"
    return "nothing is learnt until /private off" if session.is_private else "learning goes on as before"


def _words(session: TypingSession) -> str:
    words = session.words.words()
    if not words:
        return "no words yet; with /learn on, a word that the model does not know is learnt when it is typed twice"
    shown = ", ".join(f"{printable(word)} ({uses})" for word, uses in words[:_NUM_SHOWN])
    return shown + (f" and {len(words) - _NUM_SHOWN:,} more" if len(words) > _NUM_SHOWN else "")


def _reset(session: TypingSession) -> str:
    session.reset()
    return "a new text"


def _forget(session: TypingSession) -> str:
    session.memory.clear()
    session.words.clear()
    return "nothing is remembered"


def _save(session: TypingSession, path: str) -> str:
    if not len(session.memory) and not session.words.to_json():
        return "nothing was learnt yet; use /learn on and type some lines"
    try:
        save_memory(Path(path), session.words, session.memory)
    except (OSError, ConfigError) as error:
        return f"/save {path}: {error}; give another file"
    return f"{len(session.memory):,} words and {len(session.words):,} new ones saved to {path}"


def _quit() -> str:
    raise Quit
