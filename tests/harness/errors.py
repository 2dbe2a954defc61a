"""The one error body of the project."""

import json

def type_of(status, code):
    """What OpenAI's clients and llama-server call such an error."""
    if status == 404 and code.startswith("model_"):
        return "invalid_request_error"
    return {401: "authentication_error", 403: "permission_error",
            404: "not_found_error", 429: "rate_limit_error",
            501: "not_implemented_error", 503: "overloaded_error",
            505: "invalid_request_error"}.get(
                status, "server_error" if status >= 500
                else "invalid_request_error")


def check_body(body, status=None, code=None, param=None, message=None):
    """Is this the error body of design, with these values in it?"""
    assert set(body) == {"error", "status", "message", "detail"}, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, body
    assert body["status"] == "error"
    assert body["message"] == body["detail"] == error["message"]
    assert error["message"] and "\n" not in error["message"]
    assert isinstance(error["code"], str) and error["code"]
    if status is not None:
        assert error["type"] == type_of(status, error["code"]), body
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


def check_error_event(event, code=None):
    """Is the last event of a stream an error as clients expect it?"""
    assert event.startswith(b"data: "), event
    check_body(json.loads(event[6:]), code=code)
