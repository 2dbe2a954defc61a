"""The one error body of the project."""

import json

TYPES = {
    400: "invalid_request_error", 401: "authentication_error",
    403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "invalid_request_error",
    411: "invalid_request_error", 413: "invalid_request_error",
    414: "invalid_request_error", 415: "invalid_request_error",
    431: "invalid_request_error",
    500: "server_error", 501: "not_implemented_error", 502: "server_error",
    503: "server_error", 504: "server_error",
}


def check_body(body, status=None, code=None, param=None, message=None):
    """Is this the error body of design, with these values in it?"""
    assert set(body) == {"error", "status", "message", "detail"}, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, body
    assert body["status"] == "error"
    assert body["message"] == body["detail"] == error["message"]
    assert error["message"] and "\n" not in error["message"]
    assert isinstance(error["code"], str) and error["code"]
    if code is not None:
        assert error["code"] == code, body
    if param is not None:
        assert error["param"] == param, body
    if message is not None:
        assert error["message"] == message, body


def check_error(reply, status, code=None, param=None, message=None):
    """Is the reply this error, in JSON?"""
    assert reply.status == status, reply
    assert reply.header("content-type").split(";")[0] == "application/json", \
        reply
    check_body(reply.json(), status, code, param, message)


def check_error_event(event):
    """Is the last event of a stream an error as clients expect it?"""
    assert event.startswith(b"data: "), event
    check_body(json.loads(event[6:]))
