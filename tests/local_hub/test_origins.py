import pytest

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send, port_of

JSON = '{"content": "---\\nlicense: mit\\n---\\n"}'


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1.evil.example:PORT"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://localhost:PORT"},  # the request is for 127.0.0.1
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of localhost
        {"Origin": "http://127.0.0.1:PORT", "Sec_Fetch_Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_is_refused(hub: LocalHub, send: Send, repo: str, headers: dict[str, str]) -> None:
    port = str(port_of(hub))
    sent = {name: value.replace("PORT", port) for name, value in headers.items()} | {"Host": f"127.0.0.1:{port}"}
    for token in (None, hub.token):
        for method, path, body in (
            ("GET", "/", None),
            ("HEAD", f"/{repo}/resolve/main/.gitattributes", None),
            ("POST", "/api/validate-yaml", JSON),
            ("POST", f"/api/models/{repo}/branch/x", "{}"),
            ("PUT", f"/api/models/{repo}/settings", "{}"),
            ("DELETE", f"/api/models/{repo}/branch/main", None),
            ("OPTIONS", f"/api/models/{repo}", None),
        ):
            assert send(method, path, body, token=token, **sent).status == 403, (method, path)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_hubs_own_pages_are_answered(hub: LocalHub, send: Send, repo: str, site: str) -> None:
    for host in (f"127.0.0.1:{port_of(hub)}", f"localhost:{port_of(hub)}"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": site}
        assert send("GET", f"/{repo}", token=None, **headers).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "evil.example#127.0.0.1", "127.0.0.1@evil.example", "[::1]"),
        *("localhost.", "127.0.0.1:x", "127.0.0.1:", "0.0.0.0", "2130706433", "127.0.0.1 evil", "127.0.0.1/x", ""),
        "[::ffff:127.0.0.1]",
    ],
)
def test_another_host_name_is_refused(send: Send, host: str) -> None:
    response = send("GET", "/api/models", token=None, Host=host)
    assert response.status == 400 and response.json["error"]


@pytest.mark.parametrize("media_type", ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x"])
def test_json_is_not_accepted_as_another_media_type(send: Send, repo: str, media_type: str) -> None:
    for path in (
        "/api/validate-yaml",
        "/api/repos/create",
        f"/api/models/{repo}/preupload/main",
        f"/api/models/{repo}/commit/main",
    ):
        assert send("POST", path, JSON, Content_Type=media_type).status == 415, path
