"""What whoever serves says of answers holds where a request says nothing."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.unit.serving import inside
from tunesmith.models.chat import load_chat_model
from tunesmith.models.given import find_given
from tunesmith.serving.limits import LONGEST_ANSWER
from tunesmith.serving.service import choose_sampling
from tunesmith.serving.usual import Usual

ASKED = {"messages": [{"role": "user", "content": "what is it?"}]}


def test_a_request_that_says_nothing_is_answered_as_usual(tiny_model: Path) -> None:
    usual = Usual({"max_tokens": 5, "temperature": 0.0}, "Be short.")
    with (
        inside.service(tiny_model) as plain,
        inside.service(tiny_model, usual=usual) as bent,
        inside.asking(plain) as first,
        inside.asking(bent) as second,
    ):
        system = [{"role": "system", "content": "Be short."}]
        told = {"messages": [*system, *ASKED["messages"]], "max_tokens": 5, "temperature": 0}
        wanted = first.post("/v1/chat/completions", json=told).json()
        given = second.post("/v1/chat/completions", json=ASKED).json()
        assert given["usage"] == wanted["usage"]
        assert given["choices"][0]["message"] == wanted["choices"][0]["message"]
        longer = second.post("/v1/chat/completions", json={**ASKED, "max_tokens": 7}).json()
        assert longer["usage"]["completion_tokens"] == 7
        own = {**ASKED, "messages": [{"role": "system", "content": "x"}, *ASKED["messages"]]}
        said = second.post("/v1/chat/completions", json=own).json()["usage"]["prompt_tokens"]
        assert said == first.post("/v1/chat/completions", json=own).json()["usage"]["prompt_tokens"]


def test_the_usual_way_stands_between_the_model_and_the_request(tiny_model: Path) -> None:
    with inside.service(tiny_model) as service:
        speech = service.find(None).speech
        assert choose_sampling(speech, Usual(), {}).max_tokens == LONGEST_ANSWER
        usual = Usual({"temperature": 0.5, "top_k": 3})
        chosen = choose_sampling(speech, usual, {"top_k": 9, "temperature": None})
        assert (chosen.temperature, chosen.top_k) == (0.5, 9)


def test_a_file_of_theirs_says_how_its_model_answers(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "api.yaml"
    keys = {"model_name_or_path": str(tiny_model), "temperature": 0.1, "default_system": "Hello."}
    path.write_text(yaml.safe_dump({**keys, "infer_backend": "huggingface"}), "utf-8")
    given = find_given(str(path), ["max_new_tokens=9"], "serve")
    assert given.use is not None
    usual = Usual(given.use.sampling, given.use.system)
    assert usual.system == "Hello."
    with inside.service(load_chat_model(given.name).folder) as service:
        chosen = choose_sampling(service.find(None).speech, usual, {})
    assert (chosen.max_tokens, chosen.temperature, chosen.top_p) == (9, 0.1, 0.7)
