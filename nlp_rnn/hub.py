"""Models of a hub: "hf://owner/name", optionally with @revision, downloaded once into the hub's own cache."""

import importlib.util
import re
from pathlib import Path

from nlp_rnn.errors import ConfigError


def download(address: str) -> Path:
    """The folder of a model, which holds a SavedModel or its versions; only new files are downloaded.

    The server is huggingface_hub's: HF_ENDPOINT names another one, HF_HUB_OFFLINE=1 uses what was downloaded before.

    Raises:
      ConfigError: if the address is malformed, the extra `hub` is not installed, or there is no such model.
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not found:
        raise ConfigError(
            f"the model is {address}, but an address of a hub is hf://owner/name or hf://owner/name@revision"
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(
            f"the model is {address}, which needs the package huggingface_hub; install it: pip install 'nlp-rnn[hub]'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(found[1], revision=found[2]))
    except LocalEntryNotFoundError:
        raise ConfigError(
            f"the model is {address}, but the hub does not answer and it was not downloaded before; go online once"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        told = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the model is {address}, which the hub does not give ({told}); check owner, name and access token"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the model is {address}, which could not be downloaded ({type(error).__name__}); try again"
        ) from None
