"""The official OpenAI client against the whole server."""

import asyncio

import openai
import pytest

from harness.server import BUILD, ROOT

ANSWER = ("Sure, here is what I was told to say, with \"quotes\", a \\ and\n"
          "two lines, Grüße aus 東京 and an emoji 🍋 at the end.")


@pytest.fixture(scope="module")
def model(server):
    return server.add("Answer", answer=ANSWER)


def ask(model, **more):
    return {"model": model,
            "messages": [{"role": "user", "content": "Say it"}], **more}


def test_chat_returns_the_whole_answer(server, model):
    reply = server.client.chat.completions.create(**ask(model))
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 10


@pytest.mark.parametrize("temperature", [0, 0.7, 2])
def test_chat_at_any_temperature(server, model, temperature):
    reply = server.client.chat.completions.create(
        **ask(model, temperature=temperature))
    assert reply.choices[0].message.content == ANSWER


def test_stream_gives_the_answer_in_many_pieces(server, model):
    pieces = [chunk.choices[0].delta.content for chunk in
              server.client.chat.completions.create(**ask(model, stream=True))
              if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 10


def test_stream_tells_usage_when_asked(server, model):
    chunks = list(server.client.chat.completions.create(
        **ask(model, stream=True, stream_options={"include_usage": True})))
    assert chunks[-1].usage.completion_tokens > 10
    assert all(c.usage is None for c in chunks[:-1])


def test_async_client_streams(server, model):
    async def collect():
        async with openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{server.port}/api/v1",
                api_key="-", max_retries=0) as client:
            text = ""
            async for chunk in await client.chat.completions.create(
                    **ask(model, stream=True)):
                if chunk.choices:
                    text += chunk.choices[0].delta.content or ""
            return text

    assert asyncio.run(collect()) == ANSWER


def test_async_client_asks_many_at_once(server, model):
    async def collect():
        async with openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{server.port}/api/v1",
                api_key="-", max_retries=0) as client:
            return await asyncio.gather(*(
                client.chat.completions.create(**ask(model))
                for _ in range(16)))

    assert [r.choices[0].message.content for r in asyncio.run(collect())] \
        == [ANSWER] * 16


def test_completions(server, model):
    reply = server.client.completions.create(model=model, prompt="Once")
    assert reply.choices[0].text == ANSWER
    assert reply.usage.prompt_tokens > 0


def test_completions_streaming(server, model):
    chunks = list(server.client.completions.create(
        model=model, prompt="Once", stream=True))
    # old clients take choices[0] of every chunk
    assert all(len(c.choices) == 1 for c in chunks)
    assert "".join(c.choices[0].text for c in chunks) == ANSWER


def test_max_tokens_cuts_the_answer(server, model):
    reply = server.client.chat.completions.create(**ask(model, max_tokens=3))
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 3
    assert ANSWER.startswith(reply.choices[0].message.content)


def test_unknown_fields_reach_the_backend(server, model):
    reply = server.client.chat.completions.create(
        **ask(model), extra_body={"timings_per_token": True, "top_k": 1,
                                  "repeat_penalty": 1.0, "seed": 7})
    assert reply.choices[0].message.content == ANSWER


def test_embeddings(server):
    model = server.add("Letters", labels=["embedding"], embedding=384)
    reply = server.client.embeddings.create(model=model, input=[
        "cat", "act", "zzz"])
    a, b, c = (d.embedding for d in reply.data)
    assert len(a) == 384

    def dot(x, y):
        return sum(i * j for i, j in zip(x, y))

    # the model counts letters
    assert dot(a, b) > 0.99 > 0.5 > dot(a, c)


def test_embeddings_as_base64(server):
    model = server.add("Letters2", labels=["embedding"], embedding=384)
    reply = server.call("POST", "/v1/embeddings", {
        "model": model, "input": "cat", "encoding_format": "base64"})
    assert reply.status == 200
    assert isinstance(reply.json()["data"][0]["embedding"], str)


@pytest.mark.parametrize("prefix", ["/api/v0", "/api/v1", "/v0", "/v1"])
def test_every_prefix_serves_chat(server, model, prefix):
    reply = server.call("POST", f"{prefix}/chat/completions", ask(model))
    assert reply.status == 200
    assert reply.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("prefix", ["/api/v0", "/api/v1", "/v0", "/v1"])
def test_every_prefix_serves_models_and_health(server, model, prefix):
    names = [m["id"] for m in
             server.call("GET", f"{prefix}/models").json()["data"]]
    assert model in names
    assert server.call("GET", f"{prefix}/models/{model}").json()["id"] == model
    assert server.call("GET", f"{prefix}/health").json()["status"] == "ok"


def test_live(server):
    assert server.call("GET", "/live").status == 200


def test_client_lists_and_retrieves_models(server, model):
    assert model in [m.id for m in server.client.models.list()]
    assert server.client.models.retrieve(model).id == model


def test_client_raises_not_found_for_an_unknown_model(server):
    with pytest.raises(openai.NotFoundError) as e:
        server.client.chat.completions.create(**ask("No-Such-Model"))
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("No-Such-Model")


def test_demo_model_introduces_itself(server):
    reply = server.client.chat.completions.create(
        **ask("Lemonade-Demo-GGUF"))
    text = reply.choices[0].message.content
    assert text == (ROOT / "registry" / "demo.txt").read_text().rstrip("\n")
    assert "lemonade-cli pull" in text


def test_demo_model_is_in_the_list_of_models(server):
    assert "Lemonade-Demo-GGUF" in [m.id for m in server.client.models.list()]


def test_load_unload_and_health_agree(server, model):
    server.load(model)
    assert server.health()["model_loaded"] == model
    reply = server.call("POST", "/v1/unload", {"model_name": model})
    assert reply.status == 200
    assert server.health()["model_loaded"] != model


def test_demo_file_is_small():
    size = (BUILD / "share" / "models" / "Lemonade-Demo.gguf").stat().st_size
    assert size < 3_000_000
