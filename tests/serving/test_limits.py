"""What one request may cost, and what the server says of itself."""

import types

import numpy as np
import pytest

from nlp_rnn.serving.limits import Limits, check_inputs, check_outputs
from nlp_rnn.serving.metrics import Metrics
from nlp_rnn.serving.model_store import ModelStore
from nlp_rnn.serving.request_errors import RequestError


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_ratio", np.float32([1, 1e6]), "max_ratio is 1000000.0, but this server allows at most 10"),
        ("min_ratio", np.float32([11]), "min_ratio is 11.0, but this server allows at most 10"),
        ("prefix", np.array([b"a" * 11], object),
         "prefix has a text of 11 bytes, but this server allows at most 10 bytes per prefix"),
    ],
)  # fmt: skip
def test_settings_that_make_translations_long_are_too_large(name, value, message):
    with pytest.raises(RequestError) as caught:
        check_inputs({name: value}, Limits(max_generated=10))
    assert (caught.value.status, caught.value.message) == (413, message)


def test_a_large_answer_is_not_sent():
    outputs = {"activations": np.zeros([1, 50, 3]), "tokens": np.zeros([1, 50])}
    check_outputs(outputs, Limits(max_answer_values=200))
    with pytest.raises(RequestError, match="the answer has 200 values, but this server allows at most 199 per answer"):
        check_outputs(outputs, Limits(max_answer_values=199))


def test_large_figures_keep_all_digits():
    metrics = Metrics()
    for _ in range(3):
        metrics.add_request("m", "predict", 200, 0.25)
    metrics._requests = dict.fromkeys(metrics._requests, 1234567.0)
    text = metrics.text({}, 1, [])
    assert 'nlp_rnn_requests_total{model="m",method="predict",code="200"} 1234567\n' in text
    assert 'nlp_rnn_request_seconds_sum{model="m",method="predict"} 0.75\n' in text


class Loaded(types.SimpleNamespace):
    """A loaded version."""

    def release(self):
        pass


def test_a_version_that_is_loaded_again_while_it_answers_stays_available(tmp_path):
    store = ModelStore(tmp_path, lambda name, version, _: Loaded(name=name, version=version, users=0))
    for version in (2, 3):
        folder = tmp_path / "m" / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        store.update()
        if version == 2:
            first = store.find("m")
            first.users = 1  # it streams a text
    (tmp_path / "m" / "3" / "saved_model.pb").unlink()
    (tmp_path / "m" / "3").rmdir()
    store.update()
    first.users = 0
    store.update()
    assert store.find("m") is not first
    assert store.states("m")[2].state == "AVAILABLE"


def test_a_request_that_has_found_a_version_can_use_it_after_the_exchange(tmp_path):
    released = []
    store = ModelStore(
        tmp_path,
        lambda name, version, _: types.SimpleNamespace(
            name=name, version=version, users=0, release=lambda: released.append(version)
        ),
    )
    for version in (1, 2):
        folder = tmp_path / "m" / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        store.update()
    assert (store.find("m").version, store.states("m")[1].state, released) == (2, "UNLOADING", [])
    store.update()
    assert (store.states("m")[1].state, released) == ("END", [1])


def test_until_they_are_loaded_the_models_are_not_listed(tmp_path):
    store = ModelStore(tmp_path, lambda *_: None)
    with pytest.raises(RequestError, match="models are still being loaded"):
        store.check_complete()
    store.update()
    store.check_complete()
