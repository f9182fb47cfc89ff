"""The example of a cluster: valid for Kubernetes, and what its pods run is what the suite understands."""

import json
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from nlp_rnn.cli import serve
from nlp_rnn.distribution.cluster import parse_cluster
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "kubernetes"
DOCUMENTS = list(yaml.safe_load_all((FOLDER / "training.yaml").read_text(encoding="utf-8")))
SERVING = list(yaml.safe_load_all((FOLDER / "serving.yaml").read_text(encoding="utf-8")))
VERSION = "1.31"


def test_the_documents_are_valid() -> None:
    for document in (*DOCUMENTS, *SERVING):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_document_that_is_not_valid_is_found() -> None:
    wrong = json.loads(json.dumps(DOCUMENTS[1]).replace('"parallelism"', '"paralelism"'))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_pod_finds_its_place_in_the_cluster() -> None:
    service, job = DOCUMENTS
    template = job["spec"]["template"]["spec"]
    container = template["containers"][0]
    assert template["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    count = int(next(each["value"] for each in container["env"] if each["name"] == "WORKERS"))
    assert count == job["spec"]["completions"] == job["spec"]["parallelism"]
    script = (
        container["args"][0]
        .replace("exec nlp-rnn", 'printf "%s" "$TF_CONFIG"; exit; exec nlp-rnn')
        .replace("$(python ", f"$({sys.executable} ")
    )
    assert "printf" in script
    environment = {"WORKERS": str(count), "JOB_COMPLETION_INDEX": "3", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*container["command"], script + 'printf %s "$TF_CONFIG"'],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = parse_cluster(done.stdout)
    assert found.index == 3
    assert (
        found.addresses[0]
        == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )
    assert len(found.addresses) == count


def test_the_servers_command_is_one_that_the_suite_understands() -> None:
    service, deployment = SERVING
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    program, command, *arguments = container["args"]
    assert (program, command) == ("nlp-rnn", "serve")
    options = serve._parser().parse_args(arguments)
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    assert ports == {"http": options.port, "grpc": options.grpc_port}
    assert [each["containerPort"] for each in container["ports"]] == [*ports.values()]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > options.shutdown_seconds
