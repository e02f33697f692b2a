"""What the client makes of a hub that is slow, broken, closed or malicious."""

from __future__ import annotations

import socket
from email.utils import formatdate
from pathlib import Path
from time import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from checkpoints import CheckpointError, UserError
from checkpoints.hub.client import HubClient, UnreachableError
from checkpoints.hub.files import HubFile
from tests.checkpoints.hub.conftest import BIG, REPO, model, series_of
from tests.loopback import Hub

# --- listing


def test_branches_and_tags_are_listed_and_a_branch_hides_a_tag(hub: Hub, client: HubClient) -> None:
    repo = hub.repo(REPO)
    branch, _ = repo.branch("step1", {"a": "branch"}), repo.tag("step1", {"a": "tag"})
    tag = repo.tag("step2", {"a": "2"})
    assert client.refs(REPO) == {"step1": branch, "step2": tag}


def test_a_tree_of_several_pages_is_listed_whole(hub: Hub, client: HubClient) -> None:
    files = {f"folder{i}/file{i}.json": str(i) for i in range(25)}
    commit = hub.repo(REPO).branch("main", files)
    hub.page = 10
    assert {f.name for f in client.tree(REPO, commit)} == set(files)
    assert len(hub.asked("/tree/")) == 5  # folders are entries too


def test_the_endpoint_is_read_when_it_is_used(hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.endpoint == hub.url
    with Hub() as other:
        other.repo(REPO).branch("main", {"a": "1"})
        monkeypatch.setenv("HF_ENDPOINT", other.url + "/")
        assert client.endpoint == other.url and set(client.refs(REPO)) == {"main"}
    monkeypatch.delenv("HF_ENDPOINT")
    assert client.endpoint == constants.ENDPOINT


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://huggingface.co", "http://", "http://host:port"])
def test_an_endpoint_that_is_no_address_is_named(
    client: HubClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(UserError, match="HF_ENDPOINT is"):
        client.refs(REPO)


# --- failures that pass


def test_two_refusals_with_retry_after_are_waited_out(hub: Hub, client: HubClient, slept: list[float]) -> None:
    series_of(hub, 1)
    hub.fail(REPO, None, 429, times=2, retry_after=7)
    assert set(client.refs(REPO)) == {"step1"}
    assert len(slept) == 2 and all(7 <= pause <= 8 for pause in slept)


def test_retry_after_may_be_a_date(hub: Hub, client: HubClient, slept: list[float]) -> None:
    series_of(hub, 1)
    hub.fail(REPO, None, 503, times=1, retry_after=formatdate(time() + 100, usegmt=True))
    client.refs(REPO)
    assert 95 <= slept[0] <= 101


def test_nobody_waits_longer_than_five_minutes(hub: Hub, client: HubClient, slept: list[float]) -> None:
    series_of(hub, 1)
    hub.fail(REPO, None, 429, times=1, retry_after=86400)
    hub.fail(REPO, None, 429, times=1, headers={"RateLimit": '"api";r=0;t=7000'})
    client.refs(REPO)
    assert slept == [300, 300]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_statuses_are_tried_again_for_listings_and_files(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path, slept: list[float], status: int
) -> None:
    commit, file = big
    hub.fail(REPO, "step1", status, times=2, what=("tree",))
    hub.fail(REPO, "step1", status, times=2, what=("file",))
    assert len(client.tree(REPO, commit)) == 2
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG and len(slept) == 4


def test_what_never_passes_is_given_up_with_a_reason(hub: Hub, client: HubClient, tmp_path: Path) -> None:
    commit = series_of(hub, 1)[1]
    hub.fail(REPO, "step1", 503)
    with pytest.raises(CheckpointError, match="cannot be listed: HTTP 503 after 5 tries"):
        client.tree(REPO, commit)
    with pytest.raises(
        CheckpointError, match=r"config.json of owner/model at .* cannot be downloaded: HTTP 503 after 5"
    ):
        client.download(REPO, commit, HubFile("config.json", 2), tmp_path / "config.json")
    assert len(hub.asked("/tree/")) == 5
    hub.fail(REPO, None, 500)
    with pytest.raises(
        UserError, match="does not list the revisions of 'owner/model': HTTP 500 after 5 tries"
    ) as caught:
        client.refs(REPO)
    assert not isinstance(caught.value, CheckpointError)


def test_nobody_there_is_a_failure_of_the_connection(hub: Hub, client: HubClient, slept: list[float]) -> None:
    hub.stop()
    with pytest.raises(UnreachableError, match=r"no connection to 127.0.0.1:\d+ \(.*after 5 tries") as caught:
        client.refs(REPO)
    assert caught.value.__cause__ is None and len(slept) == 4


def test_a_refused_revision_is_not_tried_again(hub: Hub, client: HubClient, tmp_path: Path, slept: list[float]) -> None:
    commit = series_of(hub, 1)[1]
    with pytest.raises(CheckpointError, match="this commit is not there any more"):
        client.tree(REPO, "0" * 40)
    with pytest.raises(CheckpointError, match="there is no such file"):
        client.download(REPO, commit, HubFile("nothing.bin", 2), tmp_path / "x")
    assert slept == []


# --- closed doors


def test_a_repository_that_is_not_there(hub: Hub, client: HubClient, slept: list[float]) -> None:
    with pytest.raises(UserError, match="there is no repository 'owner/nothing' at http://127") as caught:
        client.refs("owner/nothing")
    assert "hf auth login" in caught.value.remedy and slept == []


def test_a_private_repository_needs_the_token_and_only_the_hub_gets_it(
    hub: Hub, client: HubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"model.safetensors": BIG}
    commit = hub.repo("owner/secret", private=True).branch("main", files)
    hub.tokens["hf_good"] = set()
    with pytest.raises(UserError, match="or it is private"):
        client.refs("owner/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert client.refs("owner/secret") == {"main": commit}
    (file,) = client.tree("owner/secret", commit)
    client.download("owner/secret", commit, file, tmp_path / "w")
    assert hub.asked("/resolve/")[0].headers["authorization"] == "Bearer hf_good"
    assert "authorization" not in hub.asked("/lfs/")[0].headers
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with pytest.raises(UserError, match="or it is private"):
        client.refs("owner/secret")


def test_a_page_on_another_host_does_not_get_the_token(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.repo(REPO).branch("main", {f"{i}.json": "" for i in range(3)})
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.page, hub.url, ours = 2, hub.store, hub.url  # addresses of next pages are made of `url`
    assert client.endpoint == ours and len(client.tree(REPO, commit)) == 3
    first, second = hub.asked("/tree/")
    assert "authorization" in first.headers and "authorization" not in second.headers


@pytest.mark.parametrize(
    ("token", "said"), [("", "asks for a login"), ("hf_other", "has not granted your account access")]
)
def test_a_gated_repository_says_how_to_get_in(
    hub: Hub, client: HubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, said: str
) -> None:
    commit = hub.repo("owner/gated", gated=True).branch("main", {"model.safetensors": b"1"})
    hub.tokens = {"hf_other": set(), "hf_mine": {"owner/gated"}}
    (file,) = client.tree("owner/gated", commit)  # what there is can be listed by all
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=f"'owner/gated' is gated: .*{said}") as caught:
        client.download("owner/gated", commit, file, tmp_path / "w")
    assert not isinstance(caught.value, CheckpointError)
    assert f"{hub.url}/owner/gated" in caught.value.remedy and "hf auth login" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    client.download("owner/gated", commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == b"1"


def test_other_refusals_quote_the_hub(hub: Hub, client: HubClient) -> None:
    series_of(hub, 1)
    hub.fail(REPO, None, 403, headers={"X-Error-Message": "Access to this resource is disabled."})
    with pytest.raises(UserError, match=r"cannot be read: HTTP 403 \(Access to this resource is disabled"):
        client.refs(REPO)


def test_the_offline_switch_of_the_library_is_respected(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not client.offline
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert client.offline
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert not client.offline
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert client.offline


# --- what is not a hub


def serving(answer: bytes) -> tuple[socket.socket, str]:
    """A server that gives one answer to whoever comes."""
    import threading

    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>please log in</html>", "something that is not a hub's listing"),
        (b"[]", "something that is not a hub's listing"),
        (b'{"branches": [{"name": "main"}], "tags": []}', "something that is not a hub's listing"),
        (b'{"branches": [{"name": "main", "targetCommit": "../../x"}], "tags": []}', r"lists 'main' at '\.\./\.\./x'"),
        (None, "the connection to .* broke .* after 5 tries"),
    ],
)
def test_answers_that_are_no_listing_are_no_traceback(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch, body: bytes | None, said: str
) -> None:
    answer = (
        b""
        if body is None
        else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    )
    listening, url = serving(answer)
    monkeypatch.setenv("HF_ENDPOINT", url)
    try:
        with pytest.raises(UserError, match=said):
            client.refs(REPO)
    finally:
        huggingface_hub.close_session()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.mark.parametrize("name", ["../../evil.json", "a/../../evil.json", "/etc/evil.json", "..\\evil.json"])
def test_names_that_lead_out_of_the_folder_are_refused(hub: Hub, client: HubClient, name: str) -> None:
    commit = hub.repo(REPO).branch("step1", {**model(), name: "{}"})
    with pytest.raises(CheckpointError, match="are refused: one is called"):
        client.tree(REPO, commit)


# --- in parallel


def test_many_trees_are_listed_in_threads_and_counted(hub: Hub, client: HubClient) -> None:
    seen: list[tuple[int, int]] = []
    done: list[int] = []
    client.in_parallel(done.append, range(20), lambda *numbers: seen.append(numbers))
    assert sorted(done) == list(range(20)) and seen == [(i, 20) for i in range(1, 21)]


def test_the_first_mistake_ends_it_at_once_though_others_pause(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client = HubClient()  # one that sleeps
    commits = series_of(hub, *range(4))
    hub.fail(REPO, "step0", 429, retry_after=200)

    def work(step: int) -> None:
        if step == 3:
            raise UserError("stop", expected="no stop", remedy="none")
        client.tree(REPO, commits[step])

    started = time()
    with pytest.raises(UserError, match="stop"):
        client.in_parallel(work, range(4))
    assert time() - started < 5
    hub.heal()
    monkeypatch.setattr("checkpoints.hub.retry._pause", lambda failures, wait: 0.0)
    hub.fail(REPO, "step0", 429, times=2)
    assert len(client.tree(REPO, commits[0])) == 7  # and the client can be used again, pauses and all
