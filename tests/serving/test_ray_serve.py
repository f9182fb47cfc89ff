"""The server on a local Ray cluster of two nodes' worth of processes."""

import json
import os
import urllib.request

import pytest

from tests.conftest import ROOT, free_port
from tests.serving.conftest import part_of

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def ask(url, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def test_replicas_on_two_nodes_answer_alike(cluster, trained, tmp_path):
    import ray
    from ray import serve

    from nlp_rnn.serving.ray_serve import Arguments, build

    ray.init(address=cluster.address)
    port = free_port()
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        folder = part_of(trained / "saved_models", tmp_path, "sentiment")
        serve.run(build(Arguments(models=str(folder), replicas=2, cpus=0.5)), name="nlp_rnn")
        url = f"http://127.0.0.1:{port}"
        body = {"instances": ["a good , lovely film"]}
        answers = [ask(f"{url}/v1/models/sentiment:predict", body)["predictions"][0] for _ in range(20)]
        assert {answer["label"] for answer in answers} == {"pos"}
        assert len({round(answer["probability"], 5) for answer in answers}) == 1
        (deployment,) = serve.status().applications["nlp_rnn"].deployments.values()
        assert {str(state): count for state, count in deployment.replica_states.items()} == {"RUNNING": 2}
        assert [model["name"] for model in ask(f"{url}/models")["models"]] == ["sentiment"]
    finally:
        serve.shutdown()
        ray.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
