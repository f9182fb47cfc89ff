"""The page for trying the models in a browser: one file, which asks nothing but this server."""

import base64
import hashlib
import re
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_PAGE = resources.files("nlp_rnn.serving").joinpath("playground.html").read_text(encoding="utf-8")


def _hashes(element: str) -> str:
    """The sources of a content security policy that allow the page's own scripts or styles, and no others."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def playground(_: Request) -> Response:
    """Answers with the page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
