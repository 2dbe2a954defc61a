"""HTTP/1.1 over a plain socket: every byte sent and seen by the test."""

import json
import socket
import struct
import time


class Cut(Exception):
    """The peer closed the connection in the middle of an answer."""


class Reply:
    """A whole answer."""

    def __init__(self, status, headers, body=b""):
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:400]!r}"


class Connection:
    """One connection, to a port of this machine or to a Unix socket."""

    def __init__(self, where, timeout=30):
        if isinstance(where, int):
            self.sock = socket.create_connection(("127.0.0.1", where), timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(str(where))
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, path, body=None, headers=None):
        """Sends one request; a dict goes as JSON."""
        fields = {"Host": "localhost"}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        if body is not None:
            fields["Content-Type"] = "application/json"
            fields["Content-Length"] = str(len(body))
        fields.update(headers or {})
        head = f"{method} {path} HTTP/1.1\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in fields.items()
                        if v is not None)
        self.send(head.encode() + b"\r\n" + (body or b""))
        return self

    def fill(self):
        """Takes in what has arrived; waits for at least one byte."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise Cut(f"closed after {self.data[-200:]!r}")
        self.data += data

    def line(self):
        while b"\r\n" not in self.data:
            self.fill()
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def take(self, count):
        while len(self.data) < count:
            self.fill()
        data, self.data = self.data[:count], self.data[count:]
        return data

    def head(self):
        """Status and header fields of the next answer."""
        status = self.line().split(b" ", 2)
        assert status[0].startswith(b"HTTP/1."), status
        headers = []
        while line := self.line():
            key, value = line.split(b":", 1)
            headers.append((key.decode(), value.strip().decode("latin-1")))
        return Reply(int(status[1]), headers)

    def pieces(self, reply):
        """The body as it arrives, without the chunks' frames."""
        if reply.header("transfer-encoding") == "chunked":
            while size := int(self.line().split(b";")[0], 16):
                yield self.take(size)
                assert self.take(2) == b"\r\n"
            while self.line():
                pass
        elif (length := reply.header("content-length")) is not None:
            yield self.take(int(length))
        else:
            while True:
                if self.data:
                    data, self.data = self.data, b""
                    yield data
                data = self.sock.recv(1 << 18)
                if not data:
                    return
                yield data

    def reply(self, method="GET"):
        """The next answer as a whole."""
        reply = self.head()
        if method != "HEAD" and reply.status not in (204, 304):
            reply.body = b"".join(self.pieces(reply))
        return reply

    def events(self, reply):
        """Events of a stream as (seconds since the epoch, bytes)."""
        rest = b""
        for piece in self.pieces(reply):
            rest += piece
            while b"\n\n" in rest:
                event, rest = rest.split(b"\n\n", 1)
                yield time.monotonic(), event
        assert rest == b"", f"half an event at the end: {rest!r}"

    def closed(self, seconds=5):
        """Has the peer closed, within so many seconds?"""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def reset(self):
        """Closes with a reset, as a client that crashed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()


def call(where, method, path, body=None, headers=None, timeout=60):
    """One request on a connection of its own."""
    with Connection(where, timeout) as c:
        c.request(method, path, body, {"Connection": "close",
                                       **(headers or {})})
        return c.reply(method)


def data_of(event):
    """The JSON of an event, None for [DONE] and for comments."""
    if not event.startswith(b"data: {"):
        return None
    return json.loads(event[6:])
