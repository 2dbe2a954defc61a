"""Models served by doubles/llama_server.py."""

import json
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "doubles" / "llama_server.py"

# For Server(env=ENV): this server starts the double instead of llama-server.
ENV = {"LEMONADE_LLAMACPP_CPU_BIN": PROGRAM}

SSE_HEAD = ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            "Transfer-Encoding: chunked\r\n\r\n")


class Double:
    """One model of a server whose llama-server is the double."""

    def __init__(self, server, name, **plan):
        self.server = server
        self.path = server.folder / f"{name}.gguf"
        self.path.write_bytes(server.models.make().read_bytes())
        self.plan(**plan)
        self.name = server.add(name, self.path)

    def plan(self, **plan):
        Path(f"{self.path}.json").write_text(json.dumps(plan))

    def calls(self, kind=""):
        path = Path(f"{self.path}.calls")
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(kind)]

    def file(self, name):
        """A path in the server's folder, for wait, ready_when, crash_once."""
        return self.server.folder / name

    def body(self, *steps, stream=True, **more):
        if steps:
            more["double"] = [[str(part) for part in step] for step in steps]
        return {"model": self.name, "stream": stream, **more}

    def open(self, *steps, stream=True, **more):
        """A connection on which the steps are being played."""
        c = self.server.connect()
        c.request("POST", "/v1/chat/completions",
                  self.body(*steps, stream=stream, **more))
        return c


def chunk(text):
    return f"{len(text):x}\r\n{text}\r\n"


def event(text):
    """A step that sends one event as one chunk."""
    return ("send", chunk(f"data: {text}\n\n"))


HEAD = ("send", SSE_HEAD)
END = ("send", chunk("data: [DONE]\n\n") + "0\r\n\r\n")
