"""The interactive next-word console: suggestions while you type. Through a pipe: lines in, suggestions out."""

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.litert_file import is_ondevice
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.memory_file import save_memory
from nlp_rnn.ondevice.typing_session import Suggestion, TypingSession
from nlp_rnn.ondevice.typos import LAYOUTS
from nlp_rnn.printable import message, printable

_NUM_SHOWN = 100  # words of /words
_WITH_ARGUMENT = ("/top", "/temperature", "/corrections", "/layout", "/language", "/learn", "/private", "/save")

HELP = """\
Tab          accepts what is shown in grey; Right accepts its first word; Alt-1 ... Alt-9 accept the suggestion with
             that number; → before a word: it replaces what you have typed
Ctrl-Z       takes the accepted word back; what you type there instead is learnt at once
Enter        ends the line; the text continues in the next one
Ctrl-C       clears the line; Ctrl-D on an empty line quits
/help        shows this text
/top N       shows N suggestions
/temperature T  flattens (above 1) or sharpens (below 1) the shown probabilities; 1 leaves them as they are
/corrections on|off  suggests words that differ by one mistake from what you have typed
/layout NAME  your keyboard: qwerty, azerty or qwertz
/language [NAME]  shows the languages, or goes on in another one; a folder of a LiteRT export works too
/learn on|off   adapts to your words: typed ones become likelier, unknown ones are suggested after their second use
/private on|off  learns nothing from what you type meanwhile
/words       shows the words that it has learnt from you
/reset       begins a new text; keeps what was learnt
/forget      forgets what was learnt, in all languages
/stats       shows the keystrokes saved so far
/save FILE   saves what was learnt in this language; console --memory FILE restores it
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
        "/corrections": lambda state: _set_corrections(session, state),
        "/layout": lambda layout: _set_layout(session, layout),
        "/language": lambda *names: _language(session, *names),
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
    wanted = 1 if name in _WITH_ARGUMENT else 0
    if len(arguments) != wanted and (name != "/language" or len(arguments) > 1):
        return f"{name} takes {('no argument', 'one argument')[wanted]}; see /help"
    return commands[name](*arguments)


def run_pipe(session: TypingSession, lines: Iterable[str]) -> Iterator[tuple[str, list[Suggestion]]]:
    """Yields each line, without its line end, and the suggestions at its end.

    Lines that begin with "/" are commands; they print to standard error.
    """
    for line in lines:
        if line.startswith("/"):
            try:
                print(message(run_command(session, line)), file=sys.stderr)
            except Quit:
                return
            continue
        yield line, session.suggest(line)
        session.finish_line(line)


def run_terminal(session: TypingSession, *, history_file: str = "") -> None:
    """Reads lines from the terminal until the user quits."""
    prompt = make_prompt(session, make_history(session, history_file))
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
                print(message(run_command(session, line)))
            except Quit:
                break
            continue
        for part in filter(None, line.splitlines()):  # several, if they were pasted
            session.finish_line(part)
    print(session.statistics)


def make_history(session: TypingSession, file: str) -> Any:
    """The lines for the arrow keys: of earlier sessions too, kept in a file unless they are private, or of this one.

    Raises:
      ConfigError: if the file cannot be opened.
    """
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class History(FileHistory):
        def store_string(self, string: str) -> None:
            if not session.is_private:
                super().store_string(string)

    if not file:
        return InMemoryHistory()
    try:
        with open(file, "ab"):  # the first line is stored much later
            pass
    except OSError as error:
        raise ConfigError(
            f"--history is {file}, which cannot be opened ({error.strerror}); give another file"
        ) from None
    return History(file)


def make_prompt(session: TypingSession, history: Any, **options: Any) -> Any:
    """Builds a prompt_toolkit session with grey suggestion, bar and key bindings.

    Args:
      options: of PromptSession: input and output, for tests.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
    from prompt_toolkit.utils import get_cwidth

    shown: list[Suggestion] = []
    phrase: list[Suggestion] = []  # the first suggestion and what is likely to follow it
    taken: list[tuple[str, str, Suggestion, int]] = []  # the line before and after each acceptance, and its keys

    def look(buffer: Any) -> None:
        """Computes suggestions immediately: in the background, fast typing would overtake them."""
        text = buffer.document.text_before_cursor
        is_typed = not text.startswith("/") and not buffer.document.text_after_cursor
        shown[:] = session.suggest(text) if is_typed else []
        phrase[:] = session.phrase(text, shown[0]) if shown else []

    def take(buffer: Any, *suggestions: Suggestion) -> None:
        for number, suggestion in enumerate(suggestions):
            before, keys = buffer.text, 0 if number else 1  # one key takes them all
            buffer.delete_before_cursor(suggestion.replaced)
            buffer.insert_text(session.accept(suggestion, keys))
            taken.append((before, buffer.text, suggestion, keys))

    def begin(_: Any) -> None:
        taken.clear()  # Ctrl-Z takes nothing back in another line
        look(prompt.default_buffer)

    class Ghost(Processor):
        """Shows the rest of the first suggestion after the cursor, and the words that are likely to follow."""

        def apply_transformation(self, transformation: TransformationInput) -> Transformation:
            is_last = transformation.lineno == transformation.document.line_count - 1 and not get_app().is_done
            fragments = list(transformation.fragments)
            if not (phrase and is_last):
                return Transformation(fragments)
            arrow = " → " if phrase[0].replaced else ""  # it replaces what is typed
            text = arrow + " ".join(each.rest for each in phrase)
            return Transformation([*fragments, ("class:auto-suggestion", text)])

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
    def _take_phrase(event: Any) -> None:
        take(event.current_buffer, *list(phrase))

    @keys.add(
        "right", filter=Condition(lambda: bool(shown) and not get_app().current_buffer.document.text_after_cursor)
    )
    def _take_word(event: Any) -> None:
        take(event.current_buffer, *phrase[:1])

    for number in range(1, 10):

        @keys.add("escape", str(number))
        def _take_numbered(event: Any, number: int = number) -> None:
            take(event.current_buffer, *shown[number - 1 : number])

    @keys.add("c-z")
    def _undo(event: Any) -> None:
        buffer = event.current_buffer
        if not taken or taken[-1][1] != buffer.text:
            buffer.undo()
            return
        before, _, suggestion, keys = taken.pop()
        typed = len(suggestion.word) - len(suggestion.rest) if not suggestion.replaced else suggestion.replaced
        session.undo(suggestion, len(before) - typed, keys)
        buffer.document = Document(before)

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
    prompt.app.on_reset += begin  # at each line; `pre_run_callables` would be called for the first one only
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


def _set_corrections(session: TypingSession, text: str) -> str:
    if text not in ("on", "off"):
        return f"/corrections is {text}, but must be on or off"
    session.corrects = text == "on"
    return f"corrections are {text}"


def _set_layout(session: TypingSession, text: str) -> str:
    if text not in LAYOUTS:
        return f"/layout is {text}, but must be one of {', '.join(LAYOUTS)}"
    session.set_layout(text)
    return f"keyboard {text}"


def _language(session: TypingSession, name: str = "") -> str:
    languages = _languages(session)
    if not name:
        shown = ", ".join(languages) or "none"
        return (
            f"{session.model.path} is in use; others beside it: {shown}. /language NAME or /language FOLDER changes it"
        )
    try:
        session.use(OnDeviceModel(languages.get(name, Path(name).expanduser()), precision=session.model.precision))
    except ConfigError as error:
        return f"/language {name}: {str(error).removeprefix('--model is ')}"
    return f"{session.model.name}: {len(session.model.words):,} words; a new text"


def _languages(session: TypingSession) -> dict[str, Path]:
    """The exports beside the model in use: saved_models/next_word_es_litert is es, next_word_litert is en."""
    path = session.model.path
    folder = path.parent.parent if path in files.versions(path.parent).values() else path.parent
    names = {entry: entry.name.removeprefix("next_word").removesuffix("_litert") for entry in folder.glob("next_word*")}
    languages = {name.strip("_") or "en": entry for entry, name in names.items() if is_ondevice(entry)}
    return dict(sorted(languages.items()))


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
    session.forget()
    return "nothing is remembered any more, in any language"


def _save(session: TypingSession, path: str) -> str:
    if not len(session.memory) and not session.words.to_json():
        return "nothing was learnt yet; use /learn on and type some lines"
    try:
        save_memory(Path(path).expanduser(), session.words, session.memory)
    except (OSError, ConfigError) as error:
        return f"/save {path}: {error}; give another file"
    return f"{session.model.name}: {len(session.memory):,} words and {len(session.words):,} new ones saved to {path}"


def _quit() -> str:
    raise Quit
