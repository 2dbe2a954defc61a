"""The model is found in any body, and the body arrives as it was sent."""

import hashlib
import json

import pytest

from harness.double import ENV, Double
from harness.server import Server


@pytest.fixture(scope="module")
def server(models):
    server = Server(models, env=ENV)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="module")
def model(server):
    return Double(server, "Echo").name


def post(server, body, **headers):
    """Sends bytes; the double tells what it got."""
    reply = server.call("POST", "/v1/chat/completions", body,
                        {k.replace("_", "-"): v for k, v in headers.items()})
    assert reply.status == 200, reply
    seen = reply.json()
    assert seen["length"] == len(body)
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()
    return seen


BODIES = {
    "model first": '{"model": "%s", "messages": []}',
    "model last": '{"messages": [], "stream": false, "model": "%s"}',
    "no blanks": '{"messages":[],"model":"%s"}',
    "many blanks": ' \n\t{ \r\n "model" \t : \n "%s" , "a" : 1 } \n',
    "another model in a message":
        '{"messages":[{"model":"no","content":"\\"model\\":\\"no\\""}],'
        '"model":"%s"}',
    "another model in an object": '{"x":{"model":"no"},"model":"%s"}',
    "another model behind": '{"model":"%s","x":{"y":[{"model":"no"}]}}',
    "the last of two counts": '{"model":"no","model":"%s"}',
    "the last of three counts":
        '{"model":"no","model":{"a":1},"model":"%s"}',
    "key with an escape": '{"\\u006dode\\u006C":"%s"}',
    "braces in strings": '{"a":"}{][","b":"\\\\","model":"%s"}',
    "quote at a string's end": '{"a":"\\\\\\"","model":"%s"}',
    "deep nesting": '{"a":' + "[" * 200 + "]" * 200 + ',"model":"%s"}',
    "all kinds of values":
        '{"a":null,"b":true,"c":-1.5e+3,"d":[],"e":{},"model":"%s"}',
    "keys that are nearly it":
        '{"models":"no","mode":"no","Model":"no"," model":"no","model":"%s"}',
    "text after it": '{"model":"%s","z":"' + "x" * 5000 + '"}',
    "UTF-8 before it": '{"ключ":"значение 🍋","model":"%s"}',
    "a long key": '{"' + "k" * 3000 + '":1,"model":"%s"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_found_with(server, model, name):
    post(server, (BODIES[name] % model).encode())


def test_found_when_the_name_is_written_with_escapes(server, model):
    name = "".join(f"\\u{ord(c):04x}" for c in model)
    post(server, ('{"model":"%s"}' % name).encode())


def test_found_when_each_byte_comes_alone(server, model):
    body = json.dumps({"messages": [{"role": "user", "content": "é\"}"}],
                       "model": model}).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    with server.connect() as c:
        for byte in head + body:
            c.send(bytes([byte]))
        assert c.reply().json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_found_in_a_chunked_body(server, model):
    body = json.dumps({"messages": [], "model": model}).encode()
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions", None,
                  {"Transfer-Encoding": "chunked"})
        for i in range(0, len(body), 7):
            part = body[i:i + 7]
            c.send(b"%x\r\n%s\r\n" % (len(part), part))
        c.send(b"0\r\n\r\n")
        seen = c.reply().json()
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("megabytes", [1, 20, 60])
def test_found_behind_a_big_image(server, model, megabytes):
    image = "data:image/png;base64," + "QUJD" * (megabytes << 18)
    body = json.dumps({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": image}}]}],
        "model": model}).encode()
    post(server, body)


def test_found_in_64_megabytes_with_many_escapes(server, model):
    text = "\\\"\\\\\\n\\u00e9" * (3 << 20)
    body = ('{"messages":[{"content":"%s"}],"model":"%s"}'
            % (text + "x" * ((64 << 20) - len(text) - 100), model)).encode()
    assert 63 << 20 < len(body) <= 64 << 20
    post(server, body)


def test_other_requests_are_served_while_a_big_body_is_scanned(server, model):
    body = json.dumps({"x": "\\\"" * (10 << 20), "model": model}).encode()
    with server.connect() as big, server.connect() as small:
        big.request("POST", "/v1/chat/completions", body)
        small.request("GET", "/live")
        assert small.reply().status == 200
        assert big.reply().status == 200


def test_our_key_replaces_the_clients(server, model):
    body = json.dumps({"model": model}).encode()
    seen = post(server, body, Authorization="Bearer of-the-client")
    assert "of-the-client" not in json.dumps(seen)


def test_the_name_is_not_case_folded(server, model):
    reply = server.call("POST", "/v1/chat/completions",
                        {"model": model.upper()})
    assert reply.status == 404
