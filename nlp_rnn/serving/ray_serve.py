"""The server as a Ray Serve deployment: replicas on several machines behind one address. Needs the extra `ray`.

serve run nlp_rnn.serving.ray_serve:build models=/models replicas=4
"""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve


class Arguments(BaseModel):
    """The settings of a deployment."""

    model_config = ConfigDict(extra="forbid")

    models: str = Field("saved_models", description="folder of the exported models; each machine needs it")
    replicas: int = Field(1, ge=1, description="smallest number of replicas")
    max_replicas: int = Field(0, ge=0, description="with more, replicas are added under load; 0: never")
    cpus: float = Field(1, gt=0, description="processors of each replica")
    is_strict: bool = Field(False, description="as nlp-rnn serve --strict")
    token: str = Field("", description="that requests must carry; empty: none")


def build(arguments: Arguments) -> Any:
    """The application for `serve run` and `serve.run`. Each replica answers what `nlp-rnn serve` answers."""

    def make() -> Any:
        # In the replica, since TensorFlow's objects cannot travel.
        from nlp_rnn.serving.limits import NUM_THREADS

        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(NUM_THREADS))  # before TensorFlow is imported
        from nlp_rnn.serving.app import make_app
        from nlp_rnn.serving.engine import ServerSettings
        from nlp_rnn.serving.model_store import ModelStore
        from nlp_rnn.serving.served_model import load_served

        settings = ServerSettings(is_strict=arguments.is_strict, token=arguments.token)
        store = ModelStore(Path(arguments.models), load_served)
        store.update()  # before Ray sends requests to this replica
        return make_app(store, settings)

    number: dict[str, Any] = {"num_replicas": arguments.replicas}
    if arguments.max_replicas > arguments.replicas:
        number = {"autoscaling_config": {"min_replicas": arguments.replicas, "max_replicas": arguments.max_replicas}}

    @serve.deployment(name="nlp_rnn", ray_actor_options={"num_cpus": arguments.cpus}, **number)
    @serve.ingress(make)
    class Server:
        """One replica."""

    return Server.bind()  # type: ignore[attr-defined]
