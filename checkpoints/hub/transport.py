"""One request to the hub. What comes back is an answer that is known to be good, or an exception that says what it means.

Requests go through the session of ``huggingface_hub`` (its proxies and certificates, its token, its offline switch) but
not through its ``HfApi`` and ``hf_hub_download``. Those, in version 2.4, leave traces in the user's own ``HF_HOME`` (a
list of agents fetched from another host, the Xet cache), delete a partial file when a download fails, so that nothing
resumes after a killed run, and retry in their own way (see :mod:`checkpoints.hub.retry`). Files in Xet storage are read
over plain HTTP like all others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import UserError, first_line
from .retry import PassingError, requested_wait

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["RefusedError", "endpoint", "get", "no_hub", "offline", "shown"]

_TIMEOUT = 30  # seconds without a byte; more where HF_HUB_DOWNLOAD_TIMEOUT says so
_TRUE = {"1", "ON", "YES", "TRUE"}


class RefusedError(Exception):
    """An answer about one revision or file that another try will not change; the text says which."""


def endpoint() -> str:
    """Where the hub is: ``HF_ENDPOINT`` as it is now, else the library's default.

    Raises:
        UserError: when ``HF_ENDPOINT`` is no web address.
    """
    from huggingface_hub import constants

    # constants.ENDPOINT is what the variable was when the library was imported
    address = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise UserError(
            f"HF_ENDPOINT is {address!r}",
            expected="the address of a hub, as https://huggingface.co",
            remedy="correct HF_ENDPOINT, or unset it",
        )
    return address


def offline() -> bool:
    """Whether the user wants no requests: ``HF_HUB_OFFLINE``, now or when the library was imported."""
    from huggingface_hub import constants

    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in _TRUE or constants.HF_HUB_OFFLINE


def shown(address: str) -> str:
    """An address without the name and password that it may carry."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextmanager
def get(repo: str, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
    """The answer to a GET about a repository: status 200 or 206, its body not yet read.

    Raises:
        PassingError: when it is worth another try, also while the body is read.
        RefusedError: when the commit or file cannot be had.
        UserError: when nothing of this repository can be had.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HfHubHTTPError

    # httpx2.HTTPError; before version 2 the library was built on httpx
    transport: type[Exception] = HfHubHTTPError.__mro__[1]
    # without compression sizes are those of the file, and a range of it can be asked for
    sent = {"Accept-Encoding": "identity", "User-Agent": _user_agent(), **headers}
    if urlsplit(url)[:2] == urlsplit(endpoint())[:2]:  # the token is for the hub; redirects elsewhere drop it too
        sent |= _authorization()
    try:
        session, timeout = get_session(), max(_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"no connection can be set up: {error}",
            expected="proxies (HTTPS_PROXY, ALL_PROXY) that Python can use",
            remedy="correct HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or unset them",
        ) from None
    try:
        with session.stream("GET", url, headers=sent, timeout=timeout, follow_redirects=True) as response:
            _check(repo, response)
            yield response
    except transport as error:
        detail = str(error) or type(error).__name__
        host, reached = urlsplit(url).netloc, not type(error).__name__.startswith(("Connect", "Proxy", "Pool"))
        what = f"the connection to {host} broke" if reached else f"no connection to {host}"
        raise PassingError(f"{what} ({detail})", connection=not reached) from None


def no_hub(repo: str) -> UserError:
    """What to say when an answer cannot be understood."""
    return UserError(
        f"{shown(endpoint())} answers about {repo!r} with something that is not a hub's listing",
        expected="a hub (a login page of the network would look like this)",
        remedy="open that address in a browser; HF_ENDPOINT chooses another",
    )


def _check(repo: str, response: Response) -> None:
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    message = response.headers.get("X-Error-Message", "")
    if status in (200, 206):
        return
    if status in (408, 416, 429) or status >= 500:
        raise PassingError(f"HTTP {status}", wait=requested_wait(response.headers))
    if code == "GatedRepo" or (status == 403 and "gated" in message.lower()):
        why = "the hub has not granted your account access" if status == 403 else "the hub asks for a login"
        raise UserError(
            f"{repo!r} is gated: {why}",
            expected="an account that has accepted its terms",
            remedy=f"accept the terms at {shown(endpoint())}/{repo}, then log in with `hf auth login`",
        )
    if code == "RepoNotFound" or (status == 404 and not code and response.url.path.endswith("/refs")):
        raise UserError(
            f"there is no repository {repo!r} at {shown(endpoint())}, or it is private",
            expected="a public repository, or a login that may read it",
            remedy="correct its name; for a private one, log in with `hf auth login`",
        )
    if status in (401, 403) and not response.url.path.endswith("/refs"):  # one file or commit; the others may be fine
        raise RefusedError(f"HTTP {status}{f' ({message})' if message else ''}")
    if status in (401, 403):
        raise UserError(
            f"{repo!r} cannot be read: HTTP {status}{f' ({message})' if message else ''}",
            expected="a public repository, or a login that may read it",
            remedy="log in with `hf auth login`; where HF_TOKEN is set, it goes first",
        )
    gone = {"RevisionNotFound": "this commit is not there any more", "EntryNotFound": "there is no such file"}
    raise RefusedError(gone.get(code, f"HTTP {status}"))


def _authorization() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return {}
    try:
        token = get_token()
    except Exception as error:  # only where a login of its own was set up for continuous integration, and fails
        raise UserError(
            f"the login at the hub cannot be used: {first_line(error)}",
            remedy="log in with `hf auth login`",
            expected="a token in one line of plain characters",
        ) from error
    return {"Authorization": f"Bearer {token}"} if token else {}


def _user_agent() -> str:
    from huggingface_hub import __version__

    return f"circuit-dynamics; hf_hub/{__version__}; python/{sys.version.split()[0]}"
