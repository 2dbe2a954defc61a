"""What the access log tells about each request."""

import re

from harness import process
from harness.double import ENV, Double
from harness.wait import until

LINE = re.compile(
    r'^(?P<addr>\S+) \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" '
    r'(?P<status>\d+) (?P<bytes>\d+) (?P<seconds>[\d.]+) '
    r'model="(?P<model>[^"]*)" backend="(?P<backend>[^"]*)" '
    r'wait=(?P<wait>\S+) ttft=(?P<ttft>\S+) prompt=(?P<prompt>\S+) '
    r'completion=(?P<completion>\S+) tps=(?P<tps>\S+)$')


def lines(server, count):
    """The log's lines of inference requests, once there are so many."""
    def found():
        parsed = [LINE.match(line) for line in server.access_lines()
                  if "completions" in line or "embeddings" in line]
        assert all(parsed), server.access_lines()
        return parsed if len(parsed) >= count else None

    return until(found, 5, "the lines")


def test_a_request_that_had_to_load_its_model(serve):
    server = serve()
    model = server.add("Logged", answer="one two three four five",
                       slow_load=100)
    reply = server.chat(model).json()
    line = lines(server, 1)[0]
    assert line["model"] == model
    assert line["status"] == "200"
    assert "llamacpp" in line["backend"]
    assert float(line["wait"]) > 0
    assert float(line["ttft"]) >= 0
    assert int(line["prompt"]) == reply["usage"]["prompt_tokens"]
    assert int(line["completion"]) == reply["usage"]["completion_tokens"]
    assert float(line["tps"]) > 0


def test_a_request_for_a_ready_model_has_not_waited(serve):
    server = serve()
    model = server.add("Logged", answer="one two three four five")
    server.chat(model)
    server.chat(model)
    line = lines(server, 2)[1]
    assert line["wait"] in ("0.000", "-", "0")


def test_a_stream_is_counted_without_asking_for_usage(serve):
    server = serve()
    model = server.add("Logged", answer="one two three four five")
    c, reply = server.stream(model)
    events = list(c.events(reply))
    c.close()
    assert not any(b'"usage"' in e for _, e in events)
    line = lines(server, 1)[0]
    assert int(line["completion"]) == 6
    assert int(line["prompt"]) > 10
    assert float(line["tps"]) > 0
    assert float(line["ttft"]) <= float(line["seconds"])


def test_completions_and_embeddings_are_counted(serve):
    server = serve("--max-loaded-models", 2)
    model = server.add("Logged", answer="one two three four five")
    server.call("POST", "/v1/completions", {"model": model, "prompt": "abc"})
    vector = server.add("Vector", labels=["embedding"], embedding=384)
    server.call("POST", "/v1/embeddings", {"model": vector, "input": "abc"})
    text, embedding = lines(server, 2)
    assert int(text["completion"]) == 6
    assert embedding["model"] == vector
    assert int(embedding["prompt"]) > 0


def test_a_refused_request_names_the_model_it_wanted(serve):
    server = serve()
    server.chat("nope")
    line = lines(server, 1)[0]
    assert line["status"] == "404"
    assert line["model"] == "nope"
    assert line["completion"] == "-"


def test_a_name_cannot_forge_a_line(serve):
    server = serve()
    server.chat('a" b\n127.0.0.1 x')
    assert len(lines(server, 1)) == 1


def test_a_client_that_left_is_499(serve):
    server = serve(env=ENV)
    double = Double(server, "Cold", ready_when="/nonexistent")
    with double.open():
        until(lambda: double.calls("start"), 5, "a start")
    assert lines(server, 1)[0]["status"] == "499"


def test_a_system_nginx_logs_the_same(serve_system):
    server = serve_system()
    model = server.add("Logged", answer="one two three four five")
    server.chat(model)
    line = lines(server, 1)[0]
    assert line["model"] == model
    assert int(line["completion"]) == 6


def test_keys_are_never_logged(serve):
    server = serve()
    model = server.add("Logged", answer="one two three")
    server.call("POST", "/v1/chat/completions",
                {"model": model, "messages": [{"role": "user",
                                               "content": "x"}]},
                {"Authorization": "Bearer sk-secret"})
    key = [v for v in process.read(server.backend(), "environ").split(b"\0")
           if v.startswith(b"LLAMA_API_KEY=")][0].split(b"=")[1].decode()
    for path in server.log_files():
        text = path.read_text(errors="replace")
        assert "sk-secret" not in text
        assert key not in text


def test_a_large_log_is_put_aside_at_the_start(serve):
    server = serve(started=False)
    logs = server.cache_dir / "logs"
    logs.mkdir()
    with open(logs / "access.log", "wb") as log:
        log.truncate((16 << 20) + 1)
    server.start()
    assert (logs / "access.log.1").stat().st_size == (16 << 20) + 1
    assert (logs / "access.log").stat().st_size < 1 << 20
