"""Downloads models from a hub, "hf://owner/name" or "hf://owner/name@revision", once into the hub's own cache."""

import re
from pathlib import Path

from nlp_rnn import extras
from nlp_rnn.errors import ConfigError


def download(address: str) -> Path:
    """Downloads a model's files that are not in the cache yet.

    The environment variables of huggingface_hub apply: HF_ENDPOINT sets another server; HF_HUB_OFFLINE=1 uses the cache
    only.

    Args:
      address: "hf://owner/name" or "hf://owner/name@revision".

    Returns:
      the folder of the model, which holds a SavedModel or its versions.

    Raises:
      ConfigError: if the address is malformed, the extra `hub` is not installed, or the model cannot be downloaded.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise ConfigError(
            f"the model is {address}, but a hub address must be hf://owner/name or hf://owner/name@revision"
        )
    extras.require("hub", f"the model is {address}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(match[1], revision=match[2]))
    except LocalEntryNotFoundError:
        raise ConfigError(
            f"the model is {address}, but the hub does not respond and the model is not in the cache; "
            "connect to the network once"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the model is {address}, which the hub does not provide ({reason}); check owner, name and access token"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the model is {address}, which could not be downloaded ({type(error).__name__}); try again"
        ) from None
