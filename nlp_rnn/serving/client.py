"""Calls a server's REST API with the standard library, without TensorFlow; `nlp_rnn.load` uses it."""

import base64
import contextlib
import http.client
import json
import os
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from nlp_rnn.config.tables import TASKS
from nlp_rnn.errors import ConfigError

_TIMEOUT_SECONDS = 120
_LONGEST_EVENT = 1_000_000


class Connection:
    """A model on a server.

    Args:
      url: http://HOST:PORT/NAME, or https://... The token in the environment variable NLP_RNN_TOKEN is sent along.
      task: that the model must have; None allows any of this package.

    Attributes:
      url, task, labels, has_label_sets: of the model.

    Raises:
      ConfigError: if the URL is not of this form, the server does not answer, or it does not serve such a model.
    """

    def __init__(self, url: str, task: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or port == 0 or parts.scheme not in ("http", "https") or not parts.path.strip("/"):
            raise ConfigError(
                f"the model is {url}, but must be http://HOST:PORT/NAME, such as http://localhost:8501/sentiment"
            )
        path, _, name = parts.path.rstrip("/").rpartition("/")
        self.url, self._name = url, unquote(name)
        self._is_secure, self._host, self._port = parts.scheme == "https", host, port
        self._path = quote(path, safe="/%")
        self._token = os.environ.get("NLP_RNN_TOKEN", "").strip()
        facts = self._facts()
        self.task, self.labels, self.has_label_sets = facts["task"], facts["labels"], facts["has_label_sets"]
        if self.task not in TASKS:
            raise ConfigError(f"{url}: is no model of this package's tasks; call its signatures over HTTP")
        if task is not None and self.task != task:
            raise ConfigError(f"{url}: is a model of {self.task}, but {task} is wanted; give another URL")

    def _facts(self) -> dict[str, Any]:
        """Name, version, task, labels and signatures of the model."""
        answer = self._json("GET", "/models")
        models = answer.get("models") if isinstance(answer, dict) else None
        known = {"name", "task", "labels", "has_label_sets"}
        if not isinstance(models, list) or not all(isinstance(each, dict) and known <= each.keys() for each in models):
            raise ConfigError(f"{self.url}: is not a server of nlp-rnn serve")
        facts = next((model for model in models if model["name"] == self._name), None)
        if facts is None:
            there = ", ".join(model["name"] for model in models) or "none"
            raise ConfigError(f"{self.url}: the server has no model {self._name!r}; models there: {there}")
        return facts

    def answer(self, function: str, texts: list[bytes], **settings: Any) -> dict[str, np.ndarray]:
        """The outputs of a function as arrays, with the same settings for all texts."""
        columns = {name: [value] * len(texts) for name, value in settings.items()}
        return self.predict("serving_default" if function == "classify" else function, {"text": texts, **columns})

    def generate(self, prompts: list[bytes], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Prompt, text and log_probability of each prompt."""
        columns = {name: [value] * len(prompts) for name, value in settings.items()}
        answer = self.predict("generate", {"prompt": prompts, **columns})
        for prompt, text, score in zip(prompts, answer["text"], answer["log_probability"], strict=True):
            yield {
                "prompt": prompt.decode("utf-8", "replace"),
                "text": text.decode("utf-8"),
                "log_probability": float(score),
            }

    def translate(self, texts: list[bytes], settings: dict[str, Any], n_best: int) -> dict[str, np.ndarray]:
        """The outputs of `translate` as arrays."""
        return self.answer("translate", texts, **{**settings, "beam_size": max(settings["beam_size"], n_best)})

    def predict(self, signature: str, columns: dict[str, list[Any]]) -> dict[str, np.ndarray]:
        """Calls a signature of several outputs.

        Args:
          columns: name of an input -> its value for each row; texts are bytes.

        Returns:
          name of an output -> array; texts are bytes in arrays of dtype object.

        Raises:
          ConfigError: with the server's message, if it does not answer the request.
        """
        inputs = {name: [_to_json(value) for value in values] for name, values in columns.items()}
        body = {"signature_name": signature, "inputs": inputs}
        outputs = self._json("POST", f"/v1/models/{quote(self._name, safe='')}:predict", body)["outputs"]
        return {name: _array(values) for name, values in outputs.items()}

    def stream(self, prompt: bytes, settings: dict[str, Any]) -> Iterator[str]:
        """Yields a generated text piece by piece.

        Raises:
          ConfigError: with the server's message, if it does not answer the request.
        """
        path = f"/v1/models/{quote(self._name, safe='')}:stream"
        connection, answer = self._send("POST", path, {"prompt": _to_json(prompt), **settings})
        with contextlib.closing(connection):
            for kind, data in self._events(answer):
                if kind == "end":
                    return
                if kind == "error":
                    raise ConfigError(f"{self.url}: {data['error']}")
                yield data["text"]
        raise ConfigError(f"{self.url}: the server ended the text early; try again")

    def _events(self, answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
        """Yields (kind, data) of each whole server-sent event."""
        kind: str = "message"
        data: Any = None
        try:
            while line := answer.readline(_LONGEST_EVENT).decode("utf-8"):
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data = json.loads(value)
                elif data is not None:  # an empty line ends the event
                    yield kind, data
                    kind, data = "message", None
        except (OSError, http.client.HTTPException, ValueError):
            return  # cut off, or not what our server sends

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        connection, answer = self._send(method, path, body)
        with contextlib.closing(connection):
            try:
                return json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                raise ConfigError(f"{self.url}: the server's answer is not complete JSON") from None

    def _send(self, method: str, path: str, body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Sends a request.

        Returns:
          (the connection, to close; the answer, whose status is 200).
        """
        connection = self._connect()
        headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}".encode()
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, self._path + path, content, headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return connection, answer
            told = answer.read()
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a name such as a..b
            connection.close()
            reason = str(error) or type(error).__name__
            raise ConfigError(
                f"{self.url}: the server does not answer ({reason}); is nlp-rnn serve running there?"
            ) from None
        connection.close()
        try:
            message = json.loads(told)["error"]
        except (ValueError, LookupError, TypeError):
            message = answer.reason
        raise ConfigError(f"{self.url}: {message} (status {answer.status})")

    def _connect(self) -> http.client.HTTPConnection:
        if self._is_secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)


def _to_json(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _array(values: Any) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind != "U":
        return array
    texts = np.empty(array.size, object)
    texts[:] = [text.encode("utf-8") for text in np.array(values, object).ravel()]
    return texts.reshape(array.shape)
